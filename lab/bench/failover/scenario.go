package failover

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox"
	"github.com/pgporter/pgporter/lab/sandbox/restproxy"
)

// stage is a cluster, and who works on it.
type stage int

// The stages.
const (
	// probers connect anew for each write, through every target.
	probers stage = iota
	// proxies are before the Patronis' REST APIs; the rest is as with probers.
	proxies
	// applications have pools that keep their connections. Each node has a PgBouncer as its door.
	applications
)

// scenario is one case in which the primary changes or goes.
type scenario struct {
	name, title string
	// runs is how often it takes to say anything.
	runs int
	// planned is a switchover: somebody asked for it.
	planned bool
	// lasts is how long a fault lasts under which the primary stays the primary: what is seen of it is the services' own doing. Zero
	// where another one, or the same one anew, has to take writes.
	lasts time.Duration
	// on is the stage that it needs.
	on stage
	// configure is what of Patroni's configuration is changed meanwhile.
	configure map[string]any
	// fault does it to the leader; resume, once there is another, goes on with what was only halted; repair brings back
	// what was killed.
	fault, resume, repair func(ctx context.Context, a *arena, leader sandbox.Member) error
}

func kill(parts ...string) func(context.Context, *arena, sandbox.Member) error {
	return func(ctx context.Context, a *arena, leader sandbox.Member) error {
		return a.box.Kill(ctx, syscall.SIGKILL, of(leader, parts)...)
	}
}

func startPatroni(ctx context.Context, a *arena, leader sandbox.Member) error {
	return a.box.Start(ctx, leader.Name+"/patroni")
}

func of(m sandbox.Member, parts []string) []string {
	var names []string
	for _, p := range parts {
		names = append(names, m.Name+"/"+p)
	}
	return names
}

var scenarios = []scenario{
	{name: "switchover", title: "Planned switchovers", runs: 10, planned: true, fault: switchover},
	{name: "kill-patroni", title: "kill -9 of the primary's Patroni", runs: 3, fault: kill("patroni"), repair: startPatroni},
	{name: "kill-both", title: "kill -9 of the primary's Patroni and PostgreSQL", runs: 3, fault: kill("patroni", "postgres"), repair: startPatroni},
	{
		name: "pause", title: "A pause (SIGSTOP) of the primary's Patroni and PostgreSQL", runs: 3,
		fault: halt, resume: goOn,
	},
	{
		name: "kill-postgres-0", title: "kill -9 of the primary's PostgreSQL, primary_start_timeout 0", runs: 3,
		configure: map[string]any{"primary_start_timeout": 0}, fault: kill("postgres"),
	},
	{name: "kill-postgres", title: "kill -9 of the primary's PostgreSQL, primary_start_timeout by default", runs: 3, fault: kill("postgres")},
	{name: "drained", title: "Applications, pgporter switchover", runs: 10, planned: true, on: applications, fault: drained},
	{name: "planned", title: "Applications, a switchover by patronictl", runs: 10, planned: true, on: applications, fault: switchover},
	{
		name: "hang-api", title: "The REST API of the primary's Patroni hangs for 30 s, and nothing else", runs: 3, lasts: 30 * time.Second, on: proxies,
		fault: api(restproxy.Hang), repair: api(restproxy.Pass),
	},
}

// next is who leads after a switchover.
func next(a *arena, leader sandbox.Member) string {
	members := a.box.Declared()
	return members[leader.Seq%len(members)].Name
}

// switchover asks Patroni's REST API, as patronictl does.
func switchover(ctx context.Context, a *arena, leader sandbox.Member) error {
	_, err := a.box.Switchover(ctx, next(a, leader))
	return err
}

// drained has pgporter make the switchover.
func drained(ctx context.Context, a *arena, leader sandbox.Member) error {
	return a.box.Steer(ctx, syscall.SIGTERM, a.config.Progress, a.config.Progress, "switchover", leader.Cluster, "--to", next(a, leader))
}

func api(fault restproxy.Fault) func(context.Context, *arena, sandbox.Member) error {
	return func(ctx context.Context, a *arena, leader sandbox.Member) error {
		return a.box.API(ctx, leader.Name, restproxy.Order{Fault: fault})
	}
}

// halt stops a member's Patroni, and its PostgreSQL with all the sessions that it has: as a machine that hangs.
func halt(ctx context.Context, a *arena, leader sandbox.Member) error {
	if err := a.box.Kill(ctx, syscall.SIGSTOP, leader.Name+"/patroni", leader.Name+"/postgres"); err != nil {
		return err
	}
	return signalSessions(ctx, a.box, leader, syscall.SIGSTOP)
}

func goOn(ctx context.Context, a *arena, leader sandbox.Member) error {
	if err := signalSessions(ctx, a.box, leader, syscall.SIGCONT); err != nil {
		return err
	}
	return a.box.Kill(ctx, syscall.SIGCONT, leader.Name+"/postgres", leader.Name+"/patroni")
}

// signalSessions signals the children of a halted member's PostgreSQL: while it is halted none comes, and an id whose
// process has ended is kept until the parent has asked after it.
func signalSessions(ctx context.Context, box *sandbox.Sandbox, m sandbox.Member, sig syscall.Signal) error {
	var parent string
	// A busy machine takes its time to halt it.
	if err := await(ctx, untilHalted, func() error {
		status, err := box.Status(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(status.Processes, func(p sandbox.ProcessStatus) bool { return p.What == m.Name+"/postgres" })
		if i < 0 || status.Processes[i].State != "stopped" {
			return fmt.Errorf("the PostgreSQL of %s isn't halted", m.Name)
		}
		parent = strconv.Itoa(status.Processes[i].PID)
		return nil
	}); err != nil {
		return err
	}
	children, err := os.ReadFile(filepath.Join("/proc", parent, "task", parent, "children"))
	if err != nil {
		return err
	}
	for _, child := range strings.Fields(string(children)) {
		pid, err := strconv.Atoi(child)
		if err != nil {
			return fmt.Errorf("children of process %s: %w", parent, err)
		}
		if err := syscall.Kill(pid, sig); err != nil {
			return fmt.Errorf("PostgreSQL of %s: process %d: %w", m.Name, pid, err)
		}
	}
	return nil
}

// Bounds of what is waited for in a run.
const (
	// untilHalted bounds the time until a signal to halt has been obeyed.
	untilHalted = 5 * time.Second
	// untilSteady bounds the time until everybody writes undisturbed again: HAProxy's slowest server comes up 15 s after it
	// is there, a member that was cloned anew takes longer than that.
	untilSteady = 90 * time.Second
	// untilTaken bounds the time until a server takes writes: the leader key's time to live, and an election.
	untilTaken = 60 * time.Second
	// untilThrough bounds the time until all services connect to it.
	untilThrough = 30 * time.Second
	// afterwards is watched, so that what comes late isn't missed.
	afterwards = 2 * time.Second
)
