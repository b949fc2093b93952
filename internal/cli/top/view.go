package top

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/cli/nodes"
)

// Colours are never the only sign: each state has its word, and the chosen row its mark.
var (
	bold   = lipgloss.NewStyle().Bold(true)
	faint  = lipgloss.NewStyle().Faint(true)
	good   = lipgloss.NewStyle().Foreground(lipgloss.Green)
	bad    = lipgloss.NewStyle().Foreground(lipgloss.Red)
	warned = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	marked = lipgloss.NewStyle().Reverse(true)
)

// View draws it.
func (m *model) View() tea.View {
	v := tea.NewView(m.draw())
	v.AltScreen = true
	v.WindowTitle = "pgporter top"
	return v
}

// least is the smallest terminal that there is room in.
const leastWidth, leastHeight = 40, 12

func (m *model) draw() string {
	if m.width < leastWidth || m.height < leastHeight {
		return fmt.Sprintf("at least %dx%d,\nthis is %dx%d", leastWidth, leastHeight, m.width, m.height)
	}
	if m.help {
		return m.fit(helpLines, m.height)
	}
	top := append([]string{m.header()}, m.lost()...)
	bottom := m.bottom()
	room := m.height - len(top) - len(bottom) - 1
	return m.fit(append(append(top, m.table(room)...), bottom...), m.height)
}

// fit cuts lines to the terminal's size.
func (m *model) fit(lines []string, height int) string {
	lines = lines[:min(len(lines), height)]
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, m.width, "")
	}
	return strings.Join(lines, "\n")
}

// header has what is to be seen from afar.
func (m *model) header() string {
	sessions, queued, rate := 0, 0, 0
	for _, c := range m.overview().Clusters {
		for _, s := range c.Services {
			sessions, queued, rate = sessions+s.Sessions, queued+s.Queued, rate+s.Rate
		}
	}
	var in, out float64
	answer := 0
	for _, n := range m.nodes {
		in, out = in+n.in, out+n.out
		if n.status != nil && n.lost == nil {
			answer++
		}
	}
	who := m.cfg.Targets[0].Name
	if len(m.nodes) > 1 {
		who = fmt.Sprintf("%d of %d nodes", answer, len(m.nodes))
	}
	waiting := fmt.Sprintf("%d waiting", queued)
	if queued > 0 {
		waiting = bad.Render(waiting)
	}
	return fmt.Sprintf("%s %s  %s, %d/s  %s  %s/s in, %s/s out", bold.Render(who), m.now.Local().Format("15:04:05"), command.Plural(sessions, "session"), rate, waiting, command.Bytes(in), command.Bytes(out))
}

// lost tells which nodes don't answer.
func (m *model) lost() []string {
	var lines []string
	silent, heard := 0, false
	for i, n := range m.nodes {
		switch {
		case n.lost != nil:
			silent++
			lines = append(lines, bad.Render(fmt.Sprintf("%s: lost for %s: %s", m.cfg.Targets[i].Name, command.Age(m.now.Sub(n.since)), oneLine(n.lost.Error()))))
		case n.status == nil:
			lines = append(lines, faint.Render(m.cfg.Targets[i].Name+": no answer yet"))
		}
		heard = heard || n.status != nil
	}
	if silent == len(m.nodes) && heard {
		lines = append(lines, bad.Render("this is what was known before that"))
	}
	const most = 4
	if extra := len(lines) - most; extra > 0 {
		lines = append(lines[:most-1], fmt.Sprintf("and %d more", extra+1))
	}
	return lines
}

// Widths of the table's columns; the last has what is left.
const stateWidth, sessionsWidth, rateWidth, waitWidth, lagWidth = 11, 6, 6, 5, 7

// table draws as many rows as there is room for, the chosen one among them, below a heading.
func (m *model) table(room int) []string {
	name := len("SERVER")
	for _, r := range m.rows {
		name = max(name, len(r.name())+3)
	}
	name = min(name, m.width*2/5)
	line := func(mark, what, state, sessions, rate, wait, lag, why string) string {
		return fmt.Sprintf("%s%-*s %-*s%*s%*s%*s%*s  %s", mark, name, ansi.Truncate(what, name, "~"), stateWidth, state, sessionsWidth, sessions, rateWidth, rate, waitWidth, wait, lagWidth, lag, why)
	}
	lines := []string{faint.Render(line(" ", "SERVER", "STATE", "SESS", "RATE", "WAIT", "LAG", "WHY"))}
	if len(m.rows) == 0 {
		lines = append(lines, " nothing is known yet")
	}
	at := m.index()
	m.first = min(max(m.first, at-room+1), max(at, 0), max(len(m.rows)-room, 0))
	for i := m.first; i < min(len(m.rows), m.first+room); i++ {
		r, mark := m.rows[i], " "
		if i == at {
			mark = ">"
		}
		var text string
		style := lipgloss.NewStyle()
		switch r.kind {
		case clusterRow:
			text = m.clusterLine(mark, r)
			style = bold
			if r.cluster.Contested != "" {
				style = bad
			}
		case serviceRow:
			s := r.service
			text = line(mark, " "+s.Name, s.State(), count(s.Sessions), count(s.Rate), count(s.Queued), "", "")
			style = serviceStyle(s)
		case serverRow:
			s := r.server
			text = line(mark, "   "+s.Member, s.State(), count(s.Sessions), count(s.Rate), count(s.Queued), lag(s.Lag), s.Reason)
			style = serverStyle(r.service, s)
		}
		if i == at {
			style = style.Inherit(marked)
			text += strings.Repeat(" ", max(0, m.width-ansi.StringWidth(text)))
		}
		lines = append(lines, style.Render(ansi.Truncate(text, m.width, "~")))
	}
	for len(lines) < room+1 {
		lines = append(lines, "")
	}
	return lines
}

func (r row) name() string {
	switch r.kind {
	case serviceRow:
		return r.service.Name
	case serverRow:
		return "  " + r.server.Member
	}
	return ""
}

func (m *model) clusterLine(mark string, r row) string {
	c := r.cluster
	text := mark + c.Name
	if c.Name == "" {
		text = mark + "services of no cluster"
	}
	if m.folded[r.key] {
		text += fmt.Sprintf(" (%d services)", len(c.Services))
	}
	switch {
	case c.Contested != "":
		text += ": " + c.Contested
	case c.Leader != "":
		text += ": " + c.Leader + " leads"
	}
	if c.Held != "" {
		text += "; " + c.Held
	}
	return text
}

func serviceStyle(s nodes.Service) lipgloss.Style {
	switch {
	case s.Up == 0:
		return bad
	case s.Up < s.Nodes || s.Queued > 0:
		return warned
	}
	return lipgloss.NewStyle()
}

func serverStyle(s nodes.Service, r nodes.Server) lipgloss.Style {
	switch {
	case r.Ordered > 0 && r.Order.State != api.Ready && r.Order.State != "":
		return warned
	case r.Serving == r.Nodes:
		return good
	case r.Serving > 0:
		return warned
	case r.Up > 0 || s.Up > 0 && strings.HasSuffix(r.Reason, " running"):
		return lipgloss.NewStyle()
	}
	return bad
}

// bottom has what the chosen row says in full, events and keys, or a dialog.
func (m *model) bottom() []string {
	if m.dialog != nil {
		return m.ask()
	}
	lines := []string{faint.Render(m.detail())}
	shown := max(2, m.height/7)
	lines = append(lines, rule("events", m.width))
	from := max(0, len(m.events)-shown)
	for _, e := range m.events[from:] {
		text := e.Text
		if e.By != "" {
			text += " (by " + e.By + ")"
		}
		switch {
		case len(m.nodes) > 1 && e.times > 1:
			text += fmt.Sprintf(" [%d nodes]", e.times)
		case len(m.nodes) > 1:
			text += " [" + e.node + "]"
		}
		lines = append(lines, e.At.Local().Format("15:04:05")+" "+subject(e.Event)+text)
	}
	for range shown - (len(m.events) - from) {
		lines = append(lines, "")
	}
	last := "d drain  m maint  r ready  w weight  k kill sessions  ? help  q quit"
	if m.note != "" {
		last = m.note
	}
	return append(lines, bold.Render(last))
}

// subject is what an event is about, where its text doesn't say so.
func subject(e api.Event) string {
	var words []string
	for _, word := range []string{e.Service, e.Member} {
		if word != "" && !strings.Contains(e.Text, word) {
			words = append(words, word)
		}
	}
	if len(words) == 0 && e.Cluster != "" && !strings.Contains(e.Text, e.Cluster) {
		words = append(words, e.Cluster)
	}
	if len(words) == 0 {
		return ""
	}
	return strings.Join(words, " ") + ": "
}

// detail is what there is no room for in the chosen row.
func (m *model) detail() string {
	r := m.current()
	switch {
	case r == nil:
		return ""
	case r.kind == serviceRow:
		return fmt.Sprintf("%s: %s on %s, %d servers", r.service.Name, r.service.State(), command.Plural(r.service.Nodes, "node"), len(r.service.Servers))
	case r.kind == clusterRow:
		return command.Plural(len(r.cluster.Services), "service")
	}
	s := r.server
	text := s.Member + ": "
	if s.Order != nil {
		text += orderWords(*s.Order)
		if s.Ordered < s.Nodes {
			text += fmt.Sprintf(", on %d of %d nodes", s.Ordered, s.Nodes)
		}
		text += "; "
	}
	text += s.Reason
	if !s.Since.IsZero() {
		text += ", for " + command.Age(s.Now.Sub(s.Since))
	}
	text += fmt.Sprintf(", weight %d", s.Weight)
	if s.Backup {
		text += ", backup"
	}
	return text
}

// orderWords is an operator's order in words.
func orderWords(o api.Ordered) string {
	var words []string
	if o.State != "" && o.State != api.Ready {
		words = append(words, string(o.State))
	}
	if o.Weight != nil {
		words = append(words, fmt.Sprintf("weight %d", *o.Weight))
	}
	text := strings.Join(words, ", ")
	if text == "" {
		text = string(api.Ready)
	}
	return text + " by " + o.By
}

// ask draws a dialog.
func (m *model) ask() []string {
	d := m.dialog
	lines := []string{rule(d.title(), m.width)}
	var wrapped []string
	for _, line := range d.lines {
		wrapped = append(wrapped, strings.Split(ansi.Wrap(line, m.width, ""), "\n")...)
	}
	most := m.height / 2
	if extra := len(wrapped) - most; extra > 0 {
		wrapped = append(wrapped[:most-1], fmt.Sprintf("and %d lines more", extra+1))
	}
	lines = append(lines, wrapped...)
	var keys string
	switch d.stage {
	case trying:
		keys = "asking what would become of it ...  esc gives up"
	case weighing:
		keys = "weight (0 to 256, d for the declared one): " + d.input + "_   enter, or esc"
	case confirming:
		keys = "y do it  n don't"
		switch {
		case d.row.kind == serverRow && d.wide:
			keys += "  a only behind " + d.row.service.Name
		case d.row.kind == serverRow:
			keys += "  a behind all services of " + d.row.server.Member
		}
	case doing:
		keys = "doing it ..."
	case failed:
		keys = bad.Render("it failed; any key goes on")
	}
	return append(lines, bold.Render(keys))
}

var helpLines = []string{
	"pgporter top: what each key does",
	"",
	"  up, down     choose a service or a server    tab  the next service",
	"  page up/down, home, end                      enter, left, right  fold",
	"",
	"  d  drain: no new clients, sessions go on",
	"  m  maintenance: no clients; sessions end where the options say so",
	"  r  ready: takes clients again once its checks say that it can",
	"  w  weight: another share of the clients",
	"  k  kill: end the sessions of a server or a service",
	"",
	"Each shows first what would become of it, on every node, and asks.",
	"",
	"  SESS  open sessions        RATE  new ones in the last second",
	"  WAIT  clients that wait    LAG   bytes of WAL behind the leader",
	"",
	"  q  quit                    any key goes back",
}

// rule is a line with a word in it.
func rule(word string, width int) string {
	text := "-- " + word + " "
	return faint.Render(text + strings.Repeat("-", max(0, width-ansi.StringWidth(text))))
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }

// count prints how many in at most five characters.
func count(n int) string {
	switch {
	case n < 100_000:
		return fmt.Sprint(n)
	case n < 10_000_000:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprintf("%dM", n/1_000_000)
}

// lag prints bytes behind.
func lag(n *int64) string {
	if n == nil {
		return "-"
	}
	return strings.ReplaceAll(command.Bytes(float64(*n)), " ", "")
}
