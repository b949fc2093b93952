package top

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/cli/nodes"
)

// model is what is shown.
type model struct {
	ctx   context.Context
	cfg   Config
	nodes []seen
	now   time.Time
	// width and height are the terminal's.
	width, height int
	// rows are what the table has, chosen is the key of the one that keys are about, first the topmost that is shown.
	rows   []row
	chosen string
	first  int
	folded map[string]bool
	// events are the latest, the newest last.
	events []happened
	dialog *dialog
	// dialogs counts them, so that an answer to one that was closed is known.
	dialogs int
	help    bool
	// note is what was done last.
	note string
}

// seen is what is known of a node.
type seen struct {
	// looking says that a question is under way.
	looking bool
	status  *api.Status
	// at is when it answered last; lost is why it doesn't, since since.
	at, since time.Time
	lost      error
	pid       int
	// last is the last event that it told.
	last uint64
	// in and out are bytes a second, to servers and to clients.
	in, out           float64
	totalIn, totalOut int64
}

// happened is an event as it is shown: on how many nodes.
type happened struct {
	api.Event
	node  string
	times int
}

// keptEvents is how many events are kept.
const keptEvents = 200

// kind of a row.
type kind int

const (
	clusterRow kind = iota
	serviceRow
	serverRow
)

// row is a line of the table.
type row struct {
	kind    kind
	key     string
	cluster nodes.Cluster
	service nodes.Service
	server  nodes.Server
}

func newModel(ctx context.Context, cfg Config) *model {
	return &model{ctx: ctx, cfg: cfg, nodes: make([]seen, len(cfg.Targets)), folded: map[string]bool{}, width: 80, height: 24}
}

// Init asks all nodes at once.
func (m *model) Init() tea.Cmd { return func() tea.Msg { return tickMsg(time.Now()) } }

// Update takes what happened.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tickMsg:
		m.now = time.Time(msg)
		cmds := []tea.Cmd{m.tick()}
		for i := range m.nodes {
			if !m.nodes[i].looking {
				m.nodes[i].looking = true
				cmds = append(cmds, m.look(i))
			}
		}
		return m, tea.Batch(cmds...)
	case lookedMsg:
		m.looked(msg)
	case answeredMsg:
		m.answered(msg)
	case tea.KeyPressMsg:
		return m.key(msg.String(), msg.Text)
	}
	return m, nil
}

// looked takes what a node said.
func (m *model) looked(msg lookedMsg) {
	n := &m.nodes[msg.node]
	n.looking = false
	if m.now.Before(msg.at) {
		m.now = msg.at
	}
	if msg.err != nil {
		if n.lost == nil {
			n.since = cmp.Or(n.at, msg.at)
		}
		n.lost, n.in, n.out = msg.err, 0, 0
		m.sum()
		return
	}
	var in, out int64
	for _, c := range msg.status.Clusters {
		for _, s := range c.Services {
			in, out = in+s.ToServer, out+s.ToClient
		}
	}
	for _, s := range msg.status.TCPServices {
		in, out = in+s.ToServer, out+s.ToClient
	}
	if passed := msg.at.Sub(n.at).Seconds(); n.status != nil && passed > 0 {
		n.in, n.out = float64(max(0, in-n.totalIn))/passed, float64(max(0, out-n.totalOut))/passed
	}
	if msg.status.PID != n.pid {
		n.last = 0
	}
	n.status, n.at, n.lost, n.pid, n.totalIn, n.totalOut = msg.status, msg.at, nil, msg.status.PID, in, out
	for _, e := range msg.events {
		n.last = max(n.last, e.ID)
		m.happen(e, m.cfg.Targets[msg.node].Name)
	}
	m.sum()
}

// alike is how far apart the same event may be on two nodes.
const alike = 10 * time.Second

// happen takes an event. Nodes see the same things happen: each is shown once, with how many have seen it.
func (m *model) happen(e api.Event, node string) {
	if m.cfg.Cluster != "" && e.Cluster != "" && e.Cluster != m.cfg.Cluster {
		return
	}
	for i := len(m.events) - 1; i >= 0; i-- {
		o := &m.events[i]
		if o.Kind == e.Kind && o.Text == e.Text && o.Service == e.Service && o.Member == e.Member && o.At.Sub(e.At).Abs() < alike {
			if o.node != node {
				o.times++
			}
			return
		}
	}
	m.events = append(m.events, happened{e, node, 1})
	slices.SortStableFunc(m.events, func(a, b happened) int { return a.At.Compare(b.At) })
	if extra := len(m.events) - keptEvents; extra > 0 {
		m.events = slices.Delete(m.events, 0, extra)
	}
}

// overview sums up the nodes that answer, or, where none does, what they said last.
func (m *model) overview() nodes.Overview {
	var all, last []*api.Status
	for _, n := range m.nodes {
		switch {
		case n.status == nil:
		case n.lost == nil:
			all = append(all, n.status)
			last = append(last, n.status)
		default:
			last = append(last, n.status)
		}
	}
	if len(all) == 0 {
		all = last
	}
	return nodes.Sum(all, m.cfg.Cluster)
}

// sum makes the rows anew, and keeps the one that is chosen.
func (m *model) sum() {
	at := max(0, m.index())
	m.rows = m.rows[:0]
	for _, c := range m.overview().Clusters {
		key := "c\x00" + c.Name
		m.rows = append(m.rows, row{kind: clusterRow, key: key, cluster: c})
		if m.folded[key] {
			continue
		}
		for _, s := range c.Services {
			key := "s\x00" + s.Name
			m.rows = append(m.rows, row{kind: serviceRow, key: key, cluster: c, service: s})
			if m.folded[key] {
				continue
			}
			for _, r := range s.Servers {
				m.rows = append(m.rows, row{kind: serverRow, key: "m\x00" + s.Name + "\x00" + r.Member, cluster: c, service: s, server: r})
			}
		}
	}
	if m.index() < 0 && len(m.rows) > 0 {
		m.chosen = m.rows[min(at, len(m.rows)-1)].key
	}
}

// index is where the chosen row is; -1 if it isn't there.
func (m *model) index() int {
	return slices.IndexFunc(m.rows, func(r row) bool { return r.key == m.chosen })
}

func (m *model) current() *row {
	if i := m.index(); i >= 0 {
		return &m.rows[i]
	}
	return nil
}

// move chooses another row.
func (m *model) move(by int) {
	if len(m.rows) > 0 {
		m.chosen = m.rows[min(max(m.index()+by, 0), len(m.rows)-1)].key
	}
}

// key does what a key is for.
func (m *model) key(key, text string) (tea.Model, tea.Cmd) {
	if key == "ctrl+c" {
		return m, tea.Quit
	}
	if m.dialog != nil {
		return m, m.answer(key, text)
	}
	if m.help {
		m.help = false
		return m, nil
	}
	m.note = ""
	switch key {
	case "q", "esc":
		return m, tea.Quit
	case "?", "h", "f1":
		m.help = true
	case "up", "p":
		m.move(-1)
	case "down", "n":
		m.move(1)
	case "pgup", "ctrl+b":
		m.move(-m.height / 2)
	case "pgdown", "ctrl+f":
		m.move(m.height / 2)
	case "home", "g":
		m.move(-len(m.rows))
	case "end", "G":
		m.move(len(m.rows))
	case "tab":
		m.jump()
	case "enter", "space", "left", "right":
		m.fold(key)
	case "d":
		return m, m.open(api.Order{State: api.Drain})
	case "m":
		return m, m.open(api.Order{State: api.Maintenance})
	case "r":
		return m, m.open(api.Order{State: api.Ready})
	case "w":
		if r := m.current(); r != nil && r.kind == serverRow {
			return m, m.begin(&dialog{row: *r, stage: weighing})
		}
		m.note = "a weight is one server's: choose one"
	case "k":
		if r := m.current(); r != nil && r.kind != clusterRow {
			return m, m.begin(&dialog{row: *r, kill: true})
		}
		m.note = "sessions of a server or a service are ended: choose one"
	}
	return m, nil
}

// jump goes on to the next service.
func (m *model) jump() {
	at := m.index()
	for i := range m.rows {
		next := (at + 1 + i) % len(m.rows)
		if m.rows[next].kind == serviceRow {
			m.chosen = m.rows[next].key
			return
		}
	}
}

// fold hides what is below a cluster or a service, or shows it.
func (m *model) fold(key string) {
	r := m.current()
	if r == nil {
		return
	}
	of := r.key
	if r.kind == serverRow {
		if key != "left" {
			return
		}
		of = "s\x00" + r.service.Name
	}
	m.folded[of] = key == "left" || key != "right" && !m.folded[of]
	m.chosen = of
	m.sum()
}

// stage of a dialog.
type stage int

const (
	trying stage = iota
	// weighing is asking for a weight.
	weighing
	confirming
	doing
	// failed shows why it can't be done.
	failed
)

// dialog asks whether something is meant, with what would become of it.
type dialog struct {
	number int
	row    row
	order  api.Order
	// kill ends sessions; else order is given.
	kill bool
	// wide is for all services of a member.
	wide  bool
	stage stage
	input string
	lines []string
}

// open begins a dialog about an order.
func (m *model) open(o api.Order) tea.Cmd {
	r := m.current()
	if r == nil || r.kind == clusterRow {
		m.note = "orders are about servers, or all servers of a service: choose one"
		return nil
	}
	return m.begin(&dialog{row: *r, order: o})
}

func (m *model) begin(d *dialog) tea.Cmd {
	m.dialogs++
	d.number = m.dialogs
	m.dialog = d
	if d.stage == weighing {
		return nil
	}
	return m.send(d, true)
}

// title says what a dialog is about.
func (d *dialog) title() string {
	what := map[api.ServerState]string{api.Drain: "drain", api.Maintenance: "maintenance of", api.Ready: "ready"}[d.order.State]
	switch {
	case d.kill:
		what = "end the sessions of"
	case d.order.DeclaredWeight:
		what = "declared weight of"
	case d.order.Weight != nil:
		what = fmt.Sprintf("weight %d of", *d.order.Weight)
	case d.stage == weighing:
		what = "weight of"
	}
	return what + " " + d.subject()
}

func (d *dialog) subject() string {
	switch {
	case d.row.kind == serviceRow:
		return "all servers of " + d.row.service.Name
	case d.wide:
		return d.row.server.Member + " behind all its services"
	}
	return d.row.server.Member + " behind " + d.row.service.Name
}

// do is what a dialog is about, for one node.
func (d *dialog) do(dryRun bool) func(context.Context, Node) ([]string, error) {
	service, member := d.row.service.Name, d.row.server.Member
	if d.wide {
		service = ""
	}
	if d.kill {
		e := api.EndSessions{Filter: api.SessionFilter{Cluster: d.row.cluster.Name, Service: service, Member: member}, DryRun: dryRun}
		return func(ctx context.Context, n Node) ([]string, error) {
			ended, err := n.EndSessions(ctx, e)
			if err != nil {
				return nil, err
			}
			will := "ended"
			if dryRun {
				will = "would be ended, their transactions lost"
			}
			return []string{fmt.Sprintf("%s %s", command.Plural(ended.Ended, "session"), will)}, nil
		}
	}
	o := d.order
	o.Cluster, o.Service, o.Member, o.DryRun = d.row.cluster.Name, service, member, dryRun
	return func(ctx context.Context, n Node) ([]string, error) {
		results, err := n.Order(ctx, o)
		if err != nil {
			return nil, err
		}
		var lines []string
		for _, r := range results {
			lines = append(lines, fmt.Sprintf("%s behind %s: %s", r.Member, r.Service, r.Effect))
		}
		return lines, nil
	}
}

// answered takes what nodes said to an order or its dry run.
func (m *model) answered(msg answeredMsg) {
	d := m.dialog
	if d == nil || d.number != msg.dialog {
		return
	}
	d.lines = nil
	wrong := 0
	for _, a := range msg.answers {
		prefix := ""
		if len(msg.answers) > 1 {
			prefix = a.node + ": "
		}
		if a.err != nil {
			wrong++
			d.lines = append(d.lines, prefix+a.err.Error())
		}
		for _, line := range a.lines {
			d.lines = append(d.lines, prefix+line)
		}
	}
	switch {
	case wrong == len(msg.answers), !msg.dryRun && wrong > 0:
		d.stage = failed
	case msg.dryRun:
		d.stage = confirming
	default:
		m.note = "done: " + d.title()
		m.dialog = nil
	}
}

// answer is a key while there is a dialog.
func (m *model) answer(key, text string) tea.Cmd {
	d := m.dialog
	if key == "esc" && d.stage != doing {
		m.dialog = nil
		m.note = "nothing was done"
		return nil
	}
	switch d.stage {
	case weighing:
		return m.weigh(key, text)
	case confirming:
		switch key {
		case "y":
			d.stage, d.lines = doing, nil
			return m.send(d, false)
		case "a":
			if d.row.kind == serverRow {
				again := *d
				again.wide, again.stage, again.lines = !d.wide, trying, nil
				return m.begin(&again)
			}
		case "n", "q":
			m.dialog = nil
			m.note = "nothing was done"
		}
	case failed:
		m.dialog = nil
	}
	return nil
}

// weigh takes a key of a weight that is typed.
func (m *model) weigh(key, text string) tea.Cmd {
	d := m.dialog
	switch {
	case key == "backspace" && d.input != "":
		d.input = d.input[:len(d.input)-1]
	case key == "enter":
		if strings.HasPrefix("declared", d.input) && d.input != "" {
			d.order.DeclaredWeight = true
		} else {
			weight, err := strconv.Atoi(d.input)
			if err != nil || weight < 0 || weight > 256 {
				d.lines = []string{"a weight is 0 to 256, or d for the declared one"}
				return nil
			}
			d.order.Weight = &weight
		}
		d.stage, d.lines = trying, nil
		return m.send(d, true)
	case len(text) == 1 && len(d.input) < 8 && (text[0] >= '0' && text[0] <= '9' || text[0] >= 'a' && text[0] <= 'z'):
		d.input += text
	}
	return nil
}
