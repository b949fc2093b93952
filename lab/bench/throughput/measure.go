package throughput

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"time"
)

// section is a table of the document.
type section struct {
	name, title string
	// measures are its rows' groups.
	measures func(Config) []measure
	// least is after how many rounds it is written; most is how many are done at most, 0 for all that there are.
	least, most int
	// lasts is how long a run takes of those of the configuration; nil if its runs take what they take.
	lasts func(time.Duration) time.Duration
	// apart says that it brings everything that it needs, and nothing of the stage; and that it counts what goes by a clock, which a machine
	// that was held up has no less of.
	apart bool
	// direct is what it calls what is measured without a proxy, if that is no way to a server.
	direct string
}

// often says how often it was measured, and for how long.
func (s section) often(rounds int, run time.Duration) string {
	if s.lasts == nil {
		return plural(rounds, "round")
	}
	return fmt.Sprintf("%s, %s a run", plural(rounds, "round"), s.lasts(run))
}

const selectSection = "select"

var sections = []section{
	{name: selectSection, title: "Prepared pgbench -S", measures: selects, least: leastRounds, lasts: whole},
	{name: "connect", title: "Connections", measures: connects, least: leastRounds, lasts: whole},
	{name: "bulk", title: "Bulk", measures: bulks, least: leastRounds, lasts: half},
	{name: "idle", title: "Idle sessions", measures: idles, least: idleRounds, most: idleRounds},
	{name: "checks", title: "Checks", measures: checks, least: checkRounds, most: checkRounds, apart: true},
	{name: "checkcost", title: "What checks cost Patroni and PostgreSQL", measures: checkCosts, least: checkRounds, most: checkRounds, apart: true, direct: "nobody asks"},
}

// idleRounds is enough for what hardly varies.
const idleRounds = 3

func whole(run time.Duration) time.Duration { return run }

func half(run time.Duration) time.Duration { return run / 2 }

// measure is one thing that is done by each route.
type measure struct {
	name       string
	quantities []quantity
	// indirect says that it can be done through a proxy only.
	indirect bool
	// run does it and gives the quantities' values.
	run func(context.Context, *stage, route) ([]float64, error)
}

// quantity is one of the figures of a measure.
type quantity struct {
	name string
	// digits are those behind the point.
	digits int
	// goal is for the ratio of pgporter's to HAProxy's.
	goal goal
	// own is a goal for pgporter's value itself.
	own goal
	// indirect says that there is none without a proxy.
	indirect bool
	// over says that a proxy's value is without what is measured where there is none.
	over bool
}

// goal is a bound of a ratio: the zero value is none.
type goal struct {
	bound float64
	most  bool
}

func atLeast(bound float64) goal { return goal{bound: bound} }

func atMost(bound float64) goal { return goal{bound: bound, most: true} }

// met says whether a ratio, as it is printed, keeps to the goal.
func (g goal) met(ratio float64) bool {
	ratio = math.Round(ratio*1000) / 1000
	if g.most {
		return ratio <= g.bound
	}
	return ratio >= g.bound
}

// How many there are at a time.
const (
	reconnecting = 8
	connecting   = 16
	idleSessions = 5000
	// mostClients is below PostgreSQL's max_connections.
	mostClients = 190
)

var (
	documentedClients = []int{1, 8, 32, 128}
	documentedStreams = []int{1, 4}
)

// port is where a route's clients connect for a service.
func port(w route, service int) int {
	if w == direct && service == defaultPort {
		return postgresPort
	}
	return service
}

func selects(c Config) []measure {
	var all []measure
	clients := c.Clients
	if len(clients) == 0 {
		clients = documentedClients
	}
	for _, n := range clients {
		all = append(all, measure{
			name: plural(n, "client"),
			quantities: []quantity{
				{name: "transactions/s", goal: atLeast(1)},
				{name: "average latency, ms", digits: 3},
				{name: "p99 latency, ms", digits: 3},
				{name: "CPU a transaction, µs", digits: 1, goal: atMost(0.95), indirect: true},
			},
			run: func(ctx context.Context, s *stage, w route) ([]float64, error) {
				var t transactions
				readings, err := s.metered(ctx, w, func() (err error) {
					t, err = s.pgbench(ctx, w, pgbench{clients: n, lasts: s.config.Run})
					return err
				})
				if err != nil {
					return nil, err
				}
				cpu, err := spentEach(readings, t.all)
				return []float64{t.perSecond, t.average, t.p99, cpu}, err
			},
		})
	}
	return all
}

// pgbench runs one against the service default.
func (s *stage) pgbench(ctx context.Context, w route, p pgbench) (transactions, error) {
	p.address, p.port = s.addresses[w], strconv.Itoa(port(w, defaultPort))
	return p.run(ctx, s.dir)
}

func connects(Config) []measure {
	quantities := []quantity{{name: "connections/s", goal: atLeast(1)}, {name: "CPU a connection, µs", digits: 1, indirect: true}}
	return []measure{
		{
			name: fmt.Sprintf("PostgreSQL (`pgbench -C`, %d at a time)", reconnecting), quantities: quantities,
			run: func(ctx context.Context, s *stage, w route) ([]float64, error) {
				var t transactions
				cpu, err := s.spent(w, func() (err error) {
					t, err = s.pgbench(ctx, w, pgbench{clients: reconnecting, lasts: s.config.Run, reconnect: true})
					return err
				})
				return []float64{t.perSecond, each(cpu, t.count)}, err
			},
		},
		{
			name: fmt.Sprintf("trivial server, %d at a time", connecting), quantities: quantities,
			run: func(ctx context.Context, s *stage, w route) ([]float64, error) {
				l := Load{Kind: "connect", Address: s.trivial(w), Streams: connecting, Lasts: s.config.Run}
				var done Work
				cpu, err := s.spent(w, func() (err error) {
					done, err = s.load(ctx, l)
					return err
				})
				return []float64{float64(done.Sessions) / done.Took.Seconds(), each(cpu, done.Sessions)}, err
			},
		},
	}
}

func (s *stage) trivial(w route) string {
	return net.JoinHostPort(s.addresses[w], strconv.Itoa(trivialPort))
}

func bulks(Config) []measure {
	var all []measure
	for _, kind := range []string{"out", "in"} {
		for _, streams := range documentedStreams {
			all = append(all, measure{
				name:       kind + ", " + plural(streams, "stream"),
				quantities: []quantity{{name: "MB/s", goal: atLeast(1)}, {name: "CPU a GB, ms", indirect: true}},
				run: func(ctx context.Context, s *stage, w route) ([]float64, error) {
					l := Load{Kind: kind, Address: s.trivial(w), Streams: streams, Lasts: half(s.config.Run)}
					var done Work
					cpu, err := s.spent(w, func() (err error) {
						done, err = s.load(ctx, l)
						return err
					})
					return []float64{float64(done.Bytes) / 1e6 / done.Took.Seconds(), cpu.Seconds() * 1e3 / (float64(done.Bytes) / 1e9)}, err
				},
			})
		}
	}
	return all
}

func idles(Config) []measure {
	return []measure{{
		name: thousands(strconv.Itoa(idleSessions)) + " sessions", indirect: true,
		quantities: []quantity{
			{name: "memory before, MB", digits: 1},
			{name: "memory with them, MB", digits: 1},
			{name: "memory a session, bytes", goal: atMost(0.5)},
		},
		run: idle,
	}}
}

// idle opens sessions through a proxy that has just been started: one that has worked before may have room for them.
func idle(ctx context.Context, s *stage, w route) (values []float64, err error) {
	address := fmt.Sprintf("%s.%d", s.config.Prefix, 30+int(w))
	p, err := s.proxy(ctx, w, address)
	if err != nil {
		return nil, err
	}
	defer p.Stop()
	before, err := settled(ctx, p.PID())
	if err != nil {
		return nil, err
	}
	c, err := s.startClient(ctx, Load{Kind: "idle", Address: net.JoinHostPort(address, strconv.Itoa(trivialPort)), Streams: idleSessions, Lasts: 0})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.ends()) }()
	if _, err := c.reports(); err != nil {
		return nil, fmt.Errorf("opening %d sessions: %w", idleSessions, err)
	}
	with, err := settled(ctx, p.PID())
	return []float64{float64(before) / 1e6, float64(with) / 1e6, float64(with-before) / idleSessions}, err
}

// When a process's memory counts as settled: when it hasn't changed by more than one percent for two seconds.
const (
	settledEvery  = 200 * time.Millisecond
	settledLooks  = 10
	settledWithin = 30 * time.Second
)

// settled waits until a process's memory is settled, and gives it in bytes.
func settled(ctx context.Context, pid int) (int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, settledWithin, fmt.Errorf("memory of process %d hasn't settled within %s", pid, settledWithin))
	defer cancel()
	again := time.NewTicker(settledEvery)
	defer again.Stop()
	var looks []int64
	for {
		now, err := resident(pid)
		if err != nil {
			return 0, err
		}
		if looks = append(looks, now); steady(looks) {
			return now, nil
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-again.C:
		}
	}
}

// steady says whether the last looks differ by at most one percent.
func steady(looks []int64) bool {
	if len(looks) <= settledLooks {
		return false
	}
	last := looks[len(looks)-settledLooks-1:]
	least, most := last[0], last[0]
	for _, l := range last {
		least, most = min(least, l), max(most, l)
	}
	return most-least <= most/100
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
