package top

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/pgporter/pgporter/internal/admin/api"
)

var update = flag.Bool("update", false, "write the frames of testdata")

var start = time.Date(2026, 5, 1, 14, 5, 0, 0, time.Local)

// fake is a node that says what it is told to.
type fake struct {
	status *api.Status
	err    error
	orders []api.Order
	ended  []api.EndSessions
}

func (f *fake) Status(context.Context) (*api.Status, error) { return f.status, f.err }

func (f *fake) Events(context.Context, uint64) ([]api.Event, error) { return nil, f.err }

func (f *fake) Order(_ context.Context, o api.Order) ([]api.OrderResult, error) {
	f.orders = append(f.orders, o)
	if f.err != nil {
		return nil, f.err
	}
	service := o.Service
	if service == "" {
		service = "pg-test-replica"
	}
	return []api.OrderResult{{Service: service, Member: "pg-test-2", Effect: "takes no new clients; its 12 sessions go on; pg-test-3 takes them"}}, nil
}

func (f *fake) EndSessions(_ context.Context, e api.EndSessions) (api.SessionsEnded, error) {
	f.ended = append(f.ended, e)
	return api.SessionsEnded{Ended: 12}, f.err
}

// status is a node's of a cluster with four services and three members, at seconds after the start.
func status(seconds, sessions int) *api.Status {
	now := start.Add(time.Duration(seconds) * time.Second)
	lag := int64(0)
	far := int64(16 << 20)
	s := &api.Status{Version: "1", PID: 4711, Now: now, Clusters: []api.Cluster{{Name: "pg-test", LeaderKey: &api.LeaderKey{Holder: "pg-test-1"},
		Members: []api.Member{{Name: "pg-test-1"}, {Name: "pg-test-2", Lag: &lag}, {Name: "pg-test-3", Lag: &far}}}}}
	c := &s.Clusters[0]
	for i, name := range []string{"primary", "replica", "default", "offline"} {
		service := api.Service{FullName: "pg-test-" + name, Up: true, Sessions: sessions * (4 - i)}
		service.SessionRate, service.ToServer, service.ToClient = 7-i, int64(seconds)*1000, int64(seconds)*1_000_000
		for n := 1; n <= 3; n++ {
			leader, read := n == 1, name == "replica"
			up := leader != read && (name != "offline" || n == 3)
			r := api.Server{Member: fmt.Sprintf("pg-test-%d", n), Role: "replica", Weight: 100, Up: up, Serving: up, Reason: "503 replica running", Since: start.Add(-90 * time.Minute)}
			if leader {
				r.Role, r.Reason = "primary", "200 primary running"
			}
			if up {
				r.Reason = strings.Replace(r.Reason, "503", "200", 1)
				r.Sessions = sessions
			}
			service.Servers = append(service.Servers, r)
		}
		c.Services = append(c.Services, service)
	}
	return s
}

// screen drives a model as the library does: commands are run at once, but for ticks.
type screen struct {
	t     *testing.T
	m     *model
	fakes []*fake
	at    int
}

func newScreen(t *testing.T, names ...string) *screen {
	t.Helper()
	s := &screen{t: t}
	cfg := Config{Interval: time.Second}
	for _, name := range names {
		f := &fake{}
		s.fakes = append(s.fakes, f)
		cfg.Targets = append(cfg.Targets, Target{name, f})
	}
	s.m = newModel(t.Context(), cfg)
	s.m.now = start
	return s
}

// hear has a node answer a look.
func (s *screen) hear(node int, status *api.Status, err error, events ...api.Event) {
	s.m.nodes[node].looking = true
	s.m.Update(lookedMsg{node, s.time(), status, events, err})
}

func (s *screen) time() time.Time { return start.Add(time.Duration(s.at) * time.Second) }

// tick lets a second pass.
func (s *screen) tick() {
	s.at++
	s.m.Update(tickMsg(s.time()))
}

// press presses keys, and has what they set off be answered.
func (s *screen) press(keys ...string) {
	special := map[string]rune{"down": tea.KeyDown, "up": tea.KeyUp, "enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "backspace": tea.KeyBackspace, "left": tea.KeyLeft, "end": tea.KeyEnd}
	for _, key := range keys {
		msg := tea.KeyPressMsg{Text: key, Code: []rune(key)[0]}
		if code, is := special[key]; is {
			msg = tea.KeyPressMsg{Code: code}
		}
		if _, cmd := s.m.Update(msg); cmd != nil {
			s.m.Update(cmd())
		}
	}
}

// frame compares what is shown with a file of testdata.
func (s *screen) frame(name string) {
	s.t.Helper()
	var lines []string
	for _, line := range strings.Split(ansi.Strip(s.m.View().Content), "\n") {
		if width := ansi.StringWidth(line); width > s.m.width {
			s.t.Errorf("%s: a line is %d wide: %q", name, width, line)
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	if len(lines) > s.m.height {
		s.t.Errorf("%s: %d lines", name, len(lines))
	}
	got := strings.Join(lines, "\n") + "\n"
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if got != string(want) {
		s.t.Errorf("%s:\n%s\nwant (-update writes it):\n%s", name, got, want)
	}
}

func TestOneNode(t *testing.T) {
	s := newScreen(t, "10.10.10.11")
	s.frame("before")
	s.hear(0, status(0, 12), nil, api.Event{ID: 1, At: start.Add(-time.Minute), Kind: api.EventLeader, Cluster: "pg-test", Text: "the leader key is pg-test-1's"})
	s.tick()
	drained := status(1, 12)
	drained.Clusters[0].Services[1].Servers[1].Order = &api.Ordered{State: api.Drain, By: "token at 10.10.10.1", Since: start}
	drained.Clusters[0].Services[1].Servers[1].Serving = false
	drained.Clusters[0].Services[3].Up, drained.Clusters[0].Services[3].Queued = false, 3
	s.hear(0, drained, nil, api.Event{ID: 2, At: start, Kind: api.EventOrder, Service: "pg-test-replica", Member: "pg-test-2", Text: "takes no new clients", By: "token at 10.10.10.1"})
	s.frame("one")

	// Keys choose, fold and unfold.
	s.press("tab", "tab", "down", "down")
	s.frame("chosen")
	s.press("left", "tab", "enter")
	s.frame("folded")
	s.press("?")
	s.frame("help")
	s.press("x")

	// The connection is lost, and comes back.
	s.tick()
	s.hear(0, nil, errors.New("no pgporter answers at 10.10.10.11:8432: connection refused"))
	for range 4 {
		s.tick()
	}
	s.hear(0, nil, errors.New("no pgporter answers at 10.10.10.11:8432: connection refused"))
	s.frame("lost")
	s.tick()
	s.hear(0, status(s.at, 12), nil)
	s.frame("back")

	s.m.Update(tea.WindowSizeMsg{Width: 40, Height: 12})
	s.press("end")
	s.frame("small")
	s.m.Update(tea.WindowSizeMsg{Width: 30, Height: 5})
	s.frame("too-small")
}

func TestOrders(t *testing.T) {
	s := newScreen(t, "10.10.10.11", "10.10.10.12")
	for i := range s.fakes {
		s.hear(i, status(0, 12), nil)
	}
	// Orders are about servers.
	s.press("d")
	if s.m.dialog != nil || len(s.fakes[0].orders) != 0 {
		t.Error("a whole cluster is drained")
	}
	s.press("tab", "tab", "down", "down", "d")
	s.frame("drain")
	if got := s.fakes[1].orders; len(got) != 1 || !got[0].DryRun || got[0].State != api.Drain || got[0].Member != "pg-test-2" || got[0].Service != "pg-test-replica" {
		t.Errorf("tried: %+v", got)
	}
	// What wasn't confirmed isn't done.
	s.press("x", "enter", "n")
	if len(s.fakes[0].orders) != 1 || s.m.dialog != nil {
		t.Errorf("not confirmed: %+v", s.fakes[0].orders)
	}
	s.press("d", "a")
	s.frame("drain-wide")
	s.press("y")
	if got := s.fakes[0].orders; len(got) != 4 || got[3].DryRun || got[3].Service != "" || got[3].Member != "pg-test-2" {
		t.Errorf("ordered: %+v", got)
	}
	s.frame("drained")
	// A weight is typed.
	s.press("w", "9", "9", "9", "enter")
	s.frame("weight-wrong")
	s.press("backspace", "backspace", "backspace", "2", "5", "enter", "y")
	if got := s.fakes[0].orders; *got[len(got)-1].Weight != 25 || got[len(got)-1].DryRun {
		t.Errorf("weight: %+v", got[len(got)-1])
	}
	s.press("w", "d", "enter", "y")
	if got := s.fakes[0].orders; !got[len(got)-1].DeclaredWeight {
		t.Errorf("declared weight: %+v", got[len(got)-1])
	}
	// Sessions are counted before they are ended.
	s.press("k")
	s.frame("kill")
	s.press("y")
	if got := s.fakes[1].ended; len(got) != 2 || !got[0].DryRun || got[1].DryRun || got[1].All || got[1].Filter != (api.SessionFilter{Cluster: "pg-test", Service: "pg-test-replica", Member: "pg-test-2"}) {
		t.Errorf("ended: %+v", got)
	}
	// A node that fails is named; where all do nothing is confirmed.
	s.fakes[1].err = errors.New("it isn't known whether the order was taken")
	s.press("r", "y")
	s.frame("failed")
	s.press("x")
	s.fakes[0].err = s.fakes[1].err
	before := len(s.fakes[0].orders)
	s.press("m", "y")
	if len(s.fakes[0].orders) != before+1 {
		t.Errorf("ordered though no node could say what would become of it: %+v", s.fakes[0].orders[before:])
	}
}

// Nodes are summed up, and what they see alike is told once.
func TestSeveralNodes(t *testing.T) {
	s := newScreen(t, "10.10.10.11", "10.10.10.12", "10.10.10.13")
	down := api.Event{ID: 9, At: start, Kind: api.EventServer, Service: "pg-test-replica", Member: "pg-test-3", Text: "is down: timeout"}
	s.hear(0, status(0, 12), nil, down)
	other := status(0, 30)
	other.Clusters[0].Services[1].Servers[2].Up, other.Clusters[0].Services[1].Servers[2].Serving, other.Clusters[0].Services[1].Servers[2].Reason = false, false, "timeout"
	down.At = down.At.Add(time.Second)
	s.hear(1, other, nil, down, api.Event{ID: 10, At: start.Add(2 * time.Second), Kind: api.EventConfig, Text: "configuration 2 was taken"})
	s.hear(2, nil, errors.New("no answer from 10.10.10.13:8433 in time"))
	s.tick()
	s.press("tab", "tab", "down", "down", "down")
	s.frame("several")
	if len(s.m.events) != 2 || s.m.events[0].times != 2 {
		t.Errorf("events: %+v", s.m.events)
	}
}

// A slow node is asked once at a time, and another process's events from the first on.
func TestOneQuestionAtATime(t *testing.T) {
	s := newScreen(t, "10.10.10.11")
	if _, cmd := s.m.Update(tickMsg(s.time())); cmd == nil || !s.m.nodes[0].looking {
		t.Fatal("it isn't asked")
	}
	for range 5 {
		s.at++
		_, cmd := s.m.Update(tickMsg(s.time()))
		// The next tick alone: a batch of one is the command itself.
		if _, batch := cmd().(tea.BatchMsg); batch {
			t.Fatal("it is asked though it hasn't answered")
		}
	}
	s.hear(0, status(1, 1), nil, api.Event{ID: 70, At: start, Text: "one"})
	if s.m.nodes[0].last != 70 {
		t.Errorf("the last event is %d", s.m.nodes[0].last)
	}
	successor := status(2, 1)
	successor.PID = 4712
	s.hear(0, successor, nil, api.Event{ID: 3, At: start.Add(time.Hour), Text: "two"})
	if s.m.nodes[0].last != 3 || len(s.m.events) != 2 {
		t.Errorf("after an upgrade the last event is %d of %+v", s.m.nodes[0].last, s.m.events)
	}
}
