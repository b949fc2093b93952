package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/lab/load"
	"github.com/pgporter/pgporter/lab/sandbox"
)

func sandboxLoad(dir *string) *cobra.Command {
	var via string
	c := &cobra.Command{
		Use:   "load [SERVICE]",
		Short: "Write through a service and watch what clients see of a failover",
		Long: `Connects, writes a row and leaves, 50 times a second, and shows how many writes there are, who takes them, how many
connects and writes failed, and how long the last gap between two writes was. It goes on until Ctrl-C.

SERVICE is primary (through PgBouncer; the default) or default (straight to PostgreSQL). On a terminal keys switch over,
kill, bring back and upgrade; pgporter-lab switchover, kill and start do the same from anywhere.`,
		Example: `  pgporter-lab load
  pgporter-lab load default --via 2`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := sandbox.Open(*dir)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			target := "primary"
			if len(args) > 0 {
				target = args[0]
			}
			l, err := newShow(c, s, target, via)
			if err != nil {
				return err
			}
			return l.run(ctx, "Ctrl-C ends it; the sandbox stays")
		},
	}
	c.Flags().StringVar(&via, "via", "", "`MEMBER` whose pgporter to go through: name, number or address (default: the first)")
	return c
}

// How the load is made.
const (
	loadEvery = 20 * time.Millisecond
	// pooledClients are at work through the door, where there is one, each every pooledEvery.
	pooledClients = 10
	pooledEvery   = 200 * time.Millisecond
	loadTimeout   = 30 * time.Second
	// loadTable has some rows at most, however long the load goes on.
	loadTable = `create table if not exists pgporter_load (id int primary key, at timestamptz);
grant select, insert, update on pgporter_load to public`
	loadWrite = `insert into pgporter_load values (floor(random() * 100), now()) on conflict (id) do update set at = now()
returning host(inet_server_addr())`
	pooledWrite = `insert into pgporter_load values (100 + $1::int * 5 + $2::int % 5, now()) on conflict (id) do update set at = now()
returning host(inet_server_addr())`
)

// show is a load and what is shown of it.
type show struct {
	box    *sandbox.Sandbox
	access sandbox.Access
	// door is where pooled clients go; nil if there is none.
	door   *sandbox.Access
	names  map[string]string
	screen *screen
	keys   bool
}

// newShow prepares a load on a service that writes. Where it is shown is standard error, as with all progress.
func newShow(c *cobra.Command, s *sandbox.Sandbox, target, via string) (*show, error) {
	access, err := s.Access(target, via)
	if err != nil {
		return nil, command.Input(err)
	}
	if main := s.Declared()[0].Cluster; access.Name != main+"-primary" && access.Name != main+"-default" {
		return nil, command.Input(fmt.Errorf("%s isn't a service that writes: primary or default", access.Name))
	}
	w := c.ErrOrStderr()
	live, _ := command.Terminal(w)
	l := &show{box: s, access: access, names: map[string]string{}, screen: newScreen(w, live), keys: live && foreground(c.InOrStdin())}
	for _, m := range s.Declared() {
		l.names[m.Address] = m.Name
	}
	for _, door := range s.Doors("default") {
		if door.Node == access.Node {
			l.door = &door
		}
	}
	return l, nil
}

// run writes and shows until ctx ends. What it started has ended when it returns.
func (l *show) run(ctx context.Context, goodbye string) error {
	if err := l.prepare(ctx); err != nil {
		return fmt.Errorf("preparing the load: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	l.box.SetProgress(l.screen)
	var recorder load.Recorder
	prober := load.Prober{URL: l.access.URL() + "?sslmode=disable", SQL: loadWrite, Every: loadEvery, Connect: loadTimeout, Write: loadTimeout, Observe: recorder.Add}
	running.Go(func() { prober.Run(ctx) }) //nolint:errcheck // the URL is the sandbox's
	fmt.Fprintf(l.screen, "\nWriting through %s at %s:%d, a connect for each row, %d a second.\n", l.access.Name, l.access.Host, l.access.Port, time.Second/loadEvery)
	m := newMeter(l.names, time.Now())
	meters := []*meter{m}
	see := func(now time.Time) []string { return m.see(now, recorder.Take()) }
	if l.door != nil {
		var pooledRecorder load.Recorder
		pooled := load.Pooled{URL: l.door.URL() + "?sslmode=disable", SQL: pooledWrite, Clients: pooledClients, Every: pooledEvery, Limit: loadTimeout,
			Observe: func(t load.Transaction) { pooledRecorder.Add(t.Probe()) }}
		running.Go(func() {
			if err := pooled.Run(ctx, nil); err != nil && ctx.Err() == nil {
				fmt.Fprintln(l.screen, err)
			}
		})
		fmt.Fprintf(l.screen, "Beside it %d pooled clients write through %s at %s:%d, a transaction for each row, %d a second.\n", pooledClients, l.door.Name, l.door.Host, l.door.Port,
			pooledClients*time.Second/pooledEvery)
		p := newMeter(l.names, time.Now())
		p.pooled = true
		meters = append(meters, p)
		see = func(now time.Time) []string {
			p.lost = pooled.Closed()
			return append(m.see(now, recorder.Take()), p.see(now, pooledRecorder.Take())...)
		}
	}
	if l.keys {
		fmt.Fprint(l.screen, l.keysHelp())
		running.Go(func() { l.listen(ctx) })
	}
	fmt.Fprintf(l.screen, "%s.\n\n", goodbye)
	defer l.screen.clear()

	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-look.C:
			for _, event := range see(now) {
				fmt.Fprintf(l.screen, "%s  %s\n", now.Format(time.TimeOnly), event)
			}
			var lines []string
			for _, m := range meters {
				lines = append(lines, m.line(now))
			}
			l.screen.show(now, lines...)
		}
	}
}

// prepare makes the table, through the service that administrators use.
func (l *show) prepare(ctx context.Context) error {
	admin, err := l.box.Access("default", l.access.Node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, admin.URL()+"?sslmode=disable")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, loadTable)
	return err
}

// keysHelp is what keys there are.
func (l *show) keysHelp() string {
	drained := ""
	if l.door != nil {
		drained = "  d  the same drained (pgporter switchover): pooled clients are paused between two transactions, and nothing fails\n"
	}
	return "\n  s  switch over to another member, as patronictl does\n" + drained + otherKeys
}

const otherKeys = `  p  kill -9 the primary's PostgreSQL: its Patroni starts it again
  k  kill -9 the primary's Patroni and PostgreSQL: the others elect a new primary once its leader key has expired
  b  bring back what was killed
  u  upgrade the pgporter that is written through: a new process takes over, and nothing is to be seen of it
`

// listen does what keys say, one thing at a time, until ctx ends.
func (l *show) listen(ctx context.Context) {
	var doing sync.WaitGroup
	defer doing.Wait()
	var doingNow atomic.Pointer[string]
	err := readKeys(ctx, func(key byte) {
		what, do := l.order(key)
		if do == nil {
			return
		}
		if now := doingNow.Load(); now != nil {
			fmt.Fprintf(l.screen, "first things first: the %s isn't done yet\n", *now)
			return
		}
		doingNow.Store(&what)
		doing.Go(func() {
			defer doingNow.Store(nil)
			l.box.SetProgress(l.screen) // its clock begins anew
			if err := do(ctx); err != nil && ctx.Err() == nil {
				fmt.Fprintf(l.screen, "%s: %v\n", what, err)
			}
		})
	})
	if err != nil {
		fmt.Fprintf(l.screen, "no keys: %v\n", err)
	}
}

// order gives what a key means.
func (l *show) order(key byte) (string, func(context.Context) error) {
	switch key {
	case 's':
		return "switchover", func(ctx context.Context) error {
			_, err := l.box.Switchover(ctx, "")
			return err
		}
	case 'd':
		if l.door == nil {
			return "", nil
		}
		return "switchover", func(ctx context.Context) error {
			return l.box.Steer(ctx, syscall.SIGTERM, l.screen, l.screen, "switchover", l.box.Declared()[0].Cluster)
		}
	case 'p':
		return "kill", func(ctx context.Context) error { return l.kill(ctx, "/postgres") }
	case 'k':
		return "kill", func(ctx context.Context) error { return l.kill(ctx, "/patroni", "/postgres") }
	case 'b':
		return "return", l.bringBack
	case 'u':
		return "upgrade", l.upgrade
	}
	return "", nil
}

// upgrade has a new process take over from the pgporter that is written through.
func (l *show) upgrade(ctx context.Context) error {
	var problem strings.Builder
	c := exec.CommandContext(ctx, l.box.Config().Binary, "upgrade", "--admin", l.access.Host)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the load
	c.Stdout, c.Stderr = l.screen, &problem
	if err := c.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(problem.String()))
	}
	return nil
}

func (l *show) kill(ctx context.Context, parts ...string) error {
	leader, err := l.box.Leader(ctx)
	if err != nil {
		return err
	}
	for i := range parts {
		parts[i] = leader.Name + parts[i]
	}
	return l.box.Kill(ctx, syscall.SIGKILL, parts...)
}

// bringBack starts what has ended. PostgreSQL comes with its Patroni.
func (l *show) bringBack(ctx context.Context) error {
	status, err := l.box.Status(ctx)
	if err != nil {
		return err
	}
	var ended []string
	for _, p := range status.Processes {
		if p.State != "running" && !strings.HasSuffix(p.What, "/postgres") {
			ended = append(ended, p.What)
		}
	}
	if len(ended) == 0 {
		return errors.New("nothing is missing")
	}
	fmt.Fprintf(l.screen, "bringing back %s\n", strings.Join(ended, ", "))
	return l.box.Start(ctx, ended...)
}

// screen shows lines and, on a terminal, last ones that are renewed in place. It may be written to from anywhere.
type screen struct {
	mu sync.Mutex
	w  io.Writer
	// live is a terminal.
	live bool
	// last are the lines that are renewed.
	last []string
	// printed is when those were written last, where they can't be renewed.
	printed time.Time
}

// Intervals between two looks, and between two lines where none can be renewed.
const (
	lookEvery  = 200 * time.Millisecond
	printEvery = 10 * time.Second
)

const (
	eraseLine = "\r\x1b[K"
	lineUp    = "\x1b[A"
)

func newScreen(w io.Writer, live bool) *screen { return &screen{w: w, live: live} }

// Write puts whole lines above the last ones.
func (s *screen) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	n, err := s.w.Write(text)
	fmt.Fprint(s.w, strings.Join(s.last, "\n"))
	return n, err
}

// erase takes the last lines away, with the cursor where the first of them began.
func (s *screen) erase() {
	if len(s.last) > 0 {
		fmt.Fprint(s.w, eraseLine+strings.Repeat(lineUp+eraseLine, len(s.last)-1))
	}
}

// show renews the last lines.
func (s *screen) show(now time.Time, lines ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.live:
		s.erase()
		// A line that is broken in two can't be renewed.
		for i, line := range lines {
			if width := columns(s.w); width > 1 && len(line) >= width {
				lines[i] = line[:width-1]
			}
		}
		s.last = lines
		fmt.Fprint(s.w, strings.Join(lines, "\n"))
	case now.Sub(s.printed) >= printEvery:
		s.printed = now
		fmt.Fprintln(s.w, strings.Join(lines, "\n"))
	}
}

// clear ends the renewing: the last lines stay, and others go below them.
func (s *screen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.last) > 0 {
		fmt.Fprintln(s.w)
	}
	s.last = nil
}

// columns is a terminal's width, 0 if it isn't known.
func columns(w io.Writer) int {
	file, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return width
}
