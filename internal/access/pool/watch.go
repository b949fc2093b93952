package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/access/pool/duty"
	"github.com/pgporter/pgporter/internal/beat"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

const (
	// pace is from one look to the next while something is waited for.
	pace = 50 * time.Millisecond
	// leastGap and mostGap are how long a PgBouncer that doesn't answer is left alone.
	leastGap, mostGap = time.Second, 10 * time.Second
	// busyGap is how often it is asked who is waited for: where there are many clients that is much.
	busyGap = time.Second
	// mostBusy is how many lines say that.
	mostBusy = 20
	// pausedAlready is how PgBouncer refuses to pause a database while it is paused as a whole.
	pausedAlready = "already suspended/paused"
)

// watch is a PgBouncer that is watched over. Its goroutine has it, but for status.
type watch struct {
	keeper  *Keeper
	cfg     *Config
	address Address
	log     *slog.Logger
	marks   marks

	// console is where it is asked, side where it is told to pause during a look; nil while there is none.
	console, side *console
	// anew says that it wasn't asked since the connection was made.
	anew bool
	// next is when it is to be asked again, and unanswered that it isn't to be asked earlier: it was left alone for gap.
	next       time.Time
	gap        time.Duration
	unanswered bool
	// marked is what marks has.
	marked    []string
	databases map[string]*database
	// busy are the lines of Busy by databases, as of asked.
	busy  map[string][]string
	asked time.Time
	// refused is what couldn't be done though it answered.
	refused string

	mu     sync.Mutex
	status Status
}

// database is what is known of a database.
type database struct {
	duty.Database
	place duty.Place
	state duty.State
	// others says that PgBouncer is paused as a whole, which somebody else did.
	others bool
}

// does says what the database does.
func (d *database) does() State {
	switch {
	case !d.Paused && !d.others:
		return Running
	case d.Servers > 0:
		return Pausing
	}
	return Paused
}

// run watches until ctx ends.
func (w *watch) run(ctx context.Context) {
	names, err := w.marks.read()
	if err != nil {
		w.log.Error("what a pgporter before this one has paused isn't let go", "error", err)
	}
	for _, name := range names {
		w.databases[name] = &database{Database: duty.Database{Name: name, Paused: true}, state: duty.State{Ours: true}}
	}
	w.marked = names
	defer w.end(ctx)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		o, followed := w.keeper.offered()
		replaced, stop := w.watchBoards(o)
		w.round(ctx, o)
		timer.Reset(time.Until(w.next))
		select {
		case <-ctx.Done():
		case <-followed:
		case <-replaced:
		case <-timer.C:
		}
		stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// watchBoards gives a channel that is closed once the View was replaced of a cluster that a database leads to. stop ends the waiting for that.
func (w *watch) watchBoards(o Offer) (replaced <-chan struct{}, stop func()) {
	one, stopped := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var waiting sync.WaitGroup
	clusters := map[string]bool{}
	for _, d := range w.databases {
		clusters[d.place.Cluster] = true
	}
	for name := range clusters {
		board := o.Boards[name]
		if board == nil {
			continue
		}
		_, gone := board.Watch()
		waiting.Go(func() {
			select {
			case <-gone:
				once.Do(func() { close(one) })
			case <-stopped:
			}
		})
	}
	return one, func() {
		close(stopped)
		waiting.Wait()
	}
}

// round looks at the PgBouncer if it is time for that, or if something may be due by what was seen last, and does what is.
func (w *watch) round(ctx context.Context, o Offer) {
	now := time.Now()
	if w.unanswered && now.Before(w.next) || !w.waits(o, now) && now.Before(w.next) {
		return
	}
	err := w.look(ctx, o)
	if w.side != nil {
		w.side.close()
		w.side = nil
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		w.fail(err)
		return
	}
	w.gap, w.unanswered = 0, false
	w.next = beat.Next(beat.Gap)
	if w.anyWaits() {
		w.next = time.Now().Add(pace)
	}
}

// waits tells whether the PgBouncer is to be looked at now though it isn't time, by the newest Views and by what was seen of it last.
func (w *watch) waits(o Offer, now time.Time) bool {
	due := false
	for _, d := range w.databases {
		waited := d.state.Waits()
		next, command := duty.Step(d.state, w.sight(d, o, now))
		if command == duty.None {
			d.state = next
		}
		due = due || command != duty.None || next.Waits() && !waited
	}
	return due
}

func (w *watch) anyWaits() bool {
	for _, d := range w.databases {
		if d.state.Waits() {
			return true
		}
	}
	return false
}

// sight is what a step of a database goes by.
func (w *watch) sight(d *database, o Offer, now time.Time) duty.Sight {
	seen := duty.Sight{Place: d.place, Database: d.Database, Now: now}
	if board := o.Boards[d.place.Cluster]; board != nil {
		seen.View = board.View()
	}
	if d.state.Ours && d.place.Member != "" && w.cfg.Sessions != nil {
		seen.Sessions = w.cfg.Sessions(d.place.Cluster, d.place.Member)
	}
	return seen
}

// fail notes that the PgBouncer doesn't answer, or not as one does.
func (w *watch) fail(err error) {
	w.closeConsole()
	w.gap = min(max(2*w.gap, leastGap), mostGap)
	if w.anyWaits() {
		w.gap = leastGap
	}
	w.unanswered, w.next = true, time.Now().Add(w.gap)
	w.show(Status{Address: w.address, Problem: err.Error()})
}

// show publishes a status, and logs a problem that is another than before.
func (w *watch) show(s Status) {
	w.mu.Lock()
	before := w.status.Problem
	w.status = s
	w.mu.Unlock()
	switch {
	case s.Problem == before:
	case s.Problem == "":
		w.log.Info("the PgBouncer is watched over", "databases", len(s.Databases))
	default:
		w.log.Warn("the PgBouncer isn't as it should be, it is asked again and again", "problem", s.Problem)
	}
}

func (w *watch) closeConsole() {
	if w.console != nil {
		w.console.close()
		w.console = nil
	}
}

// connect logs in at the console, unless that is done.
func (w *watch) connect(ctx context.Context) error {
	if w.console != nil {
		return nil
	}
	c, err := open(ctx, w.cfg, w.address)
	if err != nil {
		return err
	}
	w.console, w.anew, w.refused = c, true, ""
	if w.cfg.User == "" {
		return nil
	}
	// Better to be told now than by the first switchover.
	settings, err := c.do("SHOW CONFIG")
	if err != nil {
		return err
	}
	for _, s := range settings {
		if s["key"] == "admin_users" && !slices.ContainsFunc(strings.Split(s["value"], ","), func(u string) bool { return strings.TrimSpace(u) == w.cfg.User }) {
			w.refused = fmt.Sprintf("%s isn't one of its admin_users: nothing can be paused", w.cfg.User)
		}
	}
	return nil
}

// look asks the PgBouncer and does what is due. An error is the end of the connection.
func (w *watch) look(ctx context.Context, o Offer) error {
	if err := w.connect(ctx); err != nil {
		return err
	}
	if err := w.read(o); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(w.databases)) {
		d := w.databases[name]
		if d.place == (duty.Place{}) && !d.state.Ours {
			continue
		}
		seen := w.sight(d, o, time.Now())
		seen.Anew = w.anew
		next, command := duty.Step(d.state, seen)
		if err := w.do(ctx, d, next, command); err != nil {
			return err
		}
	}
	w.anew = false
	w.mark("")
	if err := w.readBusy(); err != nil {
		return err
	}
	w.show(w.shown())
	return nil
}

// read reads what the databases are and do.
func (w *watch) read(o Offer) error {
	rows, err := w.console.do("SHOW DATABASES")
	if err != nil {
		return err
	}
	pools, err := w.console.do("SHOW POOLS")
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, row := range rows {
		port, err := strconv.Atoi(row["port"])
		paused, known := row["paused"]
		if err != nil || !known {
			return errors.New("it doesn't say where its databases lead, or whether they are paused: pgporter needs PgBouncer 1.10 or newer")
		}
		name := row["name"]
		there[name] = true
		d := w.databases[name]
		if d == nil {
			d = &database{}
			w.databases[name] = d
		}
		d.Database = duty.Database{Name: name, Host: row["host"], Port: port, Paused: paused != "0"}
		d.place = o.Place(d.Database)
	}
	maps.DeleteFunc(w.databases, func(name string, _ *database) bool { return !there[name] })
	for _, row := range pools {
		d := w.databases[row["database"]]
		if d == nil {
			continue
		}
		count := func(column string) int {
			n, _ := strconv.Atoi(row[column]) // 0 where the version has no such column
			return n
		}
		active, logins := count("sv_active"), count("sv_login")
		d.Active += active
		d.Logins += logins
		d.Servers += active + logins + count("sv_idle") + count("sv_used") + count("sv_tested")
		d.Waiting += count("cl_waiting")
	}
	return nil
}

// do does what is due for a database, whose next State is that of after. An error is the end of the connection.
func (w *watch) do(ctx context.Context, d *database, next duty.State, command duty.Command) error {
	var err error
	switch command {
	case duty.None:
		if !next.Waits() {
			d.others = false
		}
	case duty.Pause:
		if err = w.mark(d.Name); err != nil {
			err = refusal{"it isn't paused, since that can't be noted: " + err.Error()}
			break
		}
		if err = w.pause(ctx, d); err != nil && !refuses(err) {
			// It may have been heard.
			d.state = next
		}
	default:
		_, err = w.console.do(string(command) + " " + quoted(d.Name))
	}
	log := w.log.With("database", d.Name, "cluster", d.place.Cluster)
	switch {
	case refuses(err) && command == duty.Pause && strings.Contains(err.Error(), pausedAlready):
		d.others = true
		d.state = d.state.Refused(time.Now())
	case refuses(err) && command == duty.Resume && !strings.Contains(err.Error(), "admin access"):
		// It isn't paused any more, or isn't there.
		d.state = next
	case refuses(err):
		d.state = d.state.Refused(time.Now())
		w.refused = fmt.Sprintf("%s %s: %v", command, d.Name, err)
	case err != nil:
		return err
	case command == duty.None:
		d.state = next
	default:
		d.state, d.Paused, d.others = next, d.Paused && command != duty.Resume || command == duty.Pause, false
		w.refused = ""
		log.Info("PgBouncer was told: " + string(command))
	}
	return nil
}

// refuses tells whether an error is PgBouncer's own no, after which the connection goes on.
func refuses(err error) bool {
	var no refusal
	return errors.As(err, &no)
}

// pause has a database pause, and doesn't wait for the transactions that are under way: PgBouncer answers only once they are over.
func (w *watch) pause(ctx context.Context, d *database) error {
	if w.side == nil {
		var err error
		if w.side, err = open(ctx, w.cfg, w.address); err != nil {
			return err
		}
	}
	side := w.side
	if err := side.send(string(duty.Pause) + " " + quoted(d.Name)); err != nil {
		return whyNot(ctx, err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := side.answer()
		answered <- err
	}()
	for {
		rows, err := w.console.do("SHOW DATABASES")
		paused := slices.ContainsFunc(rows, func(row map[string]string) bool { return row["name"] == d.Name && row["paused"] != "0" })
		select {
		case answer := <-answered:
			return errors.Join(answer, err)
		default:
		}
		if err != nil || paused {
			// The pause goes on without who ordered it.
			side.close()
			<-answered
			w.side = nil
			return err
		}
		select {
		case answer := <-answered:
			return answer
		case <-time.After(pace / 10):
		}
	}
}

// mark has the marks say what is paused by us, and also a database that is going to be.
func (w *watch) mark(also string) error {
	var names []string
	for name, d := range w.databases {
		if d.state.Ours || name == also {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if slices.Equal(names, w.marked) {
		return nil
	}
	if err := w.marks.write(names); err != nil {
		w.log.Error("what is paused can't be noted", "databases", names, "error", err)
		return err
	}
	w.marked = names
	return nil
}

// readBusy asks who is waited for.
func (w *watch) readBusy() error {
	pausing := false
	for _, d := range w.databases {
		pausing = pausing || d.does() == Pausing && d.place != (duty.Place{})
	}
	if !pausing {
		w.busy, w.asked = nil, time.Time{}
		return nil
	}
	now := time.Now()
	if now.Before(w.asked.Add(busyGap)) {
		return nil
	}
	servers, err := w.console.do("SHOW SERVERS")
	if err != nil {
		return err
	}
	clients, err := w.console.do("SHOW CLIENTS")
	if err != nil {
		return err
	}
	w.busy, w.asked = busyLines(servers, clients, now), now
	return nil
}

// busyLines are the lines of Busy by databases: who has a server connection, the longest first.
func busyLines(servers, clients []map[string]string, now time.Time) map[string][]string {
	byPointer := make(map[string]map[string]string, len(clients))
	for _, c := range clients {
		byPointer[c["ptr"]] = c
	}
	type line struct {
		since time.Time
		text  string
	}
	found := map[string][]line{}
	for _, s := range servers {
		c := byPointer[s["link"]]
		if s["state"] != "active" || s["link"] == "" || c == nil {
			continue
		}
		client := c["addr"]
		if port := c["port"]; !strings.HasPrefix(client, "unix") {
			client = net.JoinHostPort(client, port)
		}
		l := line{text: fmt.Sprintf("%s from %s", c["user"], client)}
		if l.since = poolTime(s["request_time"]); !l.since.IsZero() {
			l.text += fmt.Sprintf(", its last statement %s ago", max(now.Sub(l.since), 0).Truncate(time.Second))
		}
		if name := c["application_name"]; name != "" {
			l.text += ", application " + name
		}
		found[s["database"]] = append(found[s["database"]], l)
	}
	all := map[string][]string{}
	for name, lines := range found {
		slices.SortFunc(lines, func(a, b line) int { return cmp.Or(a.since.Compare(b.since), strings.Compare(a.text, b.text)) })
		for _, l := range lines[:min(len(lines), mostBusy)] {
			all[name] = append(all[name], safetext.Line(l.text))
		}
	}
	return all
}

// poolTime reads a time of PgBouncer's, whose zone is said by an abbreviation: that has to be UTC's or this machine's. Zero otherwise.
func poolTime(text string) time.Time {
	at, err := time.ParseInLocation("2006-01-02 15:04:05 MST", text, time.Local)
	if err != nil {
		return time.Time{}
	}
	zone, _ := at.Zone()
	if local, _ := at.In(time.Local).Zone(); zone != "UTC" && zone != local {
		return time.Time{}
	}
	return at
}

// shown is what was seen.
func (w *watch) shown() Status {
	s := Status{Address: w.address, Problem: w.refused}
	for _, name := range slices.Sorted(maps.Keys(w.databases)) {
		d := w.databases[name]
		if d.place == (duty.Place{}) {
			continue
		}
		one := Database{Name: safetext.Line(name), Place: d.place, State: d.does(), Active: d.Active, Waiting: d.Waiting}
		if one.State == Pausing {
			one.Busy = w.busy[name]
		}
		s.Databases = append(s.Databases, one)
	}
	return s
}

// end lets everybody go that waits because of us, unless a successor goes on with that.
func (w *watch) end(ctx context.Context) {
	defer w.closeConsole()
	if w.keeper.handedOver.Load() {
		return
	}
	ctx = context.WithoutCancel(ctx)
	for _, name := range slices.Sorted(maps.Keys(w.databases)) {
		d := w.databases[name]
		if !d.state.Ours {
			continue
		}
		err := w.connect(ctx)
		if err == nil {
			_, err = w.console.do(string(duty.Resume) + " " + quoted(name))
		}
		if err != nil && !refuses(err) {
			w.log.Error("PgBouncer can't be told to let clients go: the next pgporter does that, or RESUME at its console", "error", err)
			return
		}
		w.log.Info("PgBouncer was told: RESUME", "database", name, "why", "pgporter stops")
		d.state.Ours = false
	}
	_ = w.mark("")
}
