package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// How far what a shadow reports may be from what the test saw by itself: of HAProxy, which both of them look at; of the leader key, which
// the test sees through a Patroni; and of pgporter, where the test looks at another one, with checks of its own times.
const (
	nearHAProxy  = 2 * time.Second
	nearKey      = 3 * time.Second
	nearPgporter = 4 * time.Second
)

// besides is a shadow beside a real HAProxy and a pgporter that serves, with what the test sees of all of them by itself.
type besides struct {
	*cluster
	balancer *balancer
	shadow   *porter
	// haproxy and served are the servers that the two lead clients to, keys who led by whose Patroni.
	haproxy, served, keys *turns
}

// beside starts a HAProxy and its shadow on an address; what serves is the pgporter of the first member.
func (c *cluster) beside(t *testing.T, address string) *besides {
	t.Helper()
	b := &besides{cluster: c}
	b.balancer = startBalancer(t, c.Inventory(), c.member(1), address)
	b.shadow = startPorter(t, address, "--shadow", "--haproxy-socket", b.balancer.socket, "--inventory", c.Inventory(), "--node", c.member(1), "--etcd", c.Etcd())
	eventually(t, afterFailover, func(ctx context.Context) error {
		s, err := b.shadow.status(ctx)
		if err != nil {
			return err
		}
		switch h := s.Shadow; {
		case h == nil || h.Answered == nil || h.Silent != "":
			return fmt.Errorf("HAProxy isn't compared: %+v", h)
		case len(h.Standing) > 0:
			return fmt.Errorf("they disagree from the beginning: %s", h.Standing[0].Text)
		case len(h.Events) > 0 && h.Events[len(h.Events)-1].Ended == nil:
			return fmt.Errorf("an event goes on: %s", h.Events[len(h.Events)-1].What)
		}
		return nil
	})
	b.haproxy = watchTurns(t, 50*time.Millisecond, func(ctx context.Context) (map[serverOf]bool, error) {
		servers, err := b.balancer.servers(ctx)
		takes := map[serverOf]bool{}
		for of, s := range servers {
			if strings.HasPrefix(of.service, "pg-test-") {
				takes[of] = s.takes
			}
		}
		return takes, err
	})
	serving := api.Client{Address: c.member(1) + ":" + api.DefaultPort}
	b.served = watchTurns(t, 100*time.Millisecond, func(ctx context.Context) (map[serverOf]bool, error) {
		s, err := serving.Status(ctx)
		if err != nil {
			return nil, err
		}
		takes := map[serverOf]bool{}
		for _, service := range s.Clusters[0].Services {
			for _, server := range service.Servers {
				takes[serverOf{service.FullName, server.Member}] = server.Serving
			}
		}
		return takes, nil
	})
	b.keys = watchTurns(t, 100*time.Millisecond, func(ctx context.Context) (map[serverOf]bool, error) {
		leads := map[serverOf]bool{}
		for seq := 1; seq <= 3; seq++ {
			leads[serverOf{"", "pg-test-" + strconv.Itoa(seq)}] = false
		}
		leader, err := c.keyHolder(ctx)
		if err == nil {
			leads[serverOf{"", leader}] = true
		}
		return leads, err
	})
	return b
}

// keyHolder is who holds the leader key by the word of a Patroni, which reads it for each such question.
func (c *cluster) keyHolder(ctx context.Context) (string, error) {
	var last error
	for seq := 3; seq >= 1; seq-- {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.member(seq)+":8008/cluster", nil)
		if err != nil {
			return "", err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			last = err
			continue
		}
		var said struct{ Members []struct{ Name, Role string } }
		err = json.NewDecoder(response.Body).Decode(&said)
		response.Body.Close()
		for _, m := range said.Members {
			if m.Role == "leader" {
				return m.Name, nil
			}
		}
		last = fmt.Errorf("nobody leads: %w", err)
	}
	return "", last
}

// event waits until an event that began after a moment and changed the leader is over.
func (b *besides) event(t *testing.T, after time.Time) api.ShadowEvent {
	t.Helper()
	var found api.ShadowEvent
	eventually(t, afterFailover, func(ctx context.Context) error {
		s, err := b.shadow.status(ctx)
		if err != nil {
			return err
		}
		for _, e := range s.Shadow.Events {
			if e.Began.After(after) && e.Ended != nil && e.From != e.To {
				found = e
				return nil
			}
		}
		return fmt.Errorf("no such event is over in %+v", s.Shadow.Events)
	})
	return found
}

// right holds an event's report against what the test saw, line by line: each line has happened, and what has happened has its line.
func (b *besides) right(t *testing.T, e api.ShadowEvent, from, to string) {
	t.Helper()
	if e.From != from || e.To != to || e.Cluster != "pg-test" || e.What != "the leader changed from "+from+" to "+to {
		t.Errorf("the event is %s: %s, from %q to %q", e.Cluster, e.What, e.From, e.To)
	}
	began := e.Began.Add(-nearPgporter)
	sources := map[string]struct {
		turns []turning
		near  time.Duration
	}{
		"haproxy":    {b.haproxy.since(began), nearHAProxy},
		"pgporter":   {b.served.since(began), nearPgporter},
		"leader key": {b.keys.since(began), nearKey},
	}
	near := func(a, b time.Time, within time.Duration) bool { return a.Sub(b).Abs() <= within }
	for _, step := range e.Steps {
		source := sources[step.Of]
		of := serverOf{step.Service, step.Server}
		takes := step.Did == "leads new clients to it" || step.Of == "leader key"
		if !slices.ContainsFunc(source.turns, func(t turning) bool {
			// Sessions end with a server that gets no new clients any more, at the same time or later.
			if step.Did == "ends its sessions" {
				return t.serverOf == of && !t.takes && (near(t.at, step.At, source.near) || t.at.Before(step.At))
			}
			return t.serverOf == of && t.takes == takes && near(t.at, step.At, source.near)
		}) {
			t.Errorf("it wasn't so: %+5.1fs %s %s: %s (%s)", step.After, step.Of, of, step.Did, step.Why)
		}
	}
	// What HAProxy was seen to do, it has a line for. Of the other pgporter only where it ended up is the same for certain.
	for _, turn := range sources["haproxy"].turns {
		if turn.at.After(e.Ended.Add(nearHAProxy)) {
			continue
		}
		if !slices.ContainsFunc(e.Steps, func(s api.ShadowStep) bool {
			return s.Of == "haproxy" && serverOf{s.Service, s.Server} == turn.serverOf && (s.Did == "leads new clients to it") == turn.takes && near(turn.at, s.At, nearHAProxy)
		}) {
			t.Errorf("no line says that HAProxy led new clients to %s: %t, %+.1fs", turn.serverOf, turn.takes, turn.at.Sub(e.Began).Seconds())
		}
	}
	for _, of := range []string{"pg-test-primary", "pg-test-default"} {
		for side, takes := range map[string]map[string]bool{"pgporter": {from: false, to: true}, "haproxy": {from: false, to: true}} {
			for server, want := range takes {
				got, said := false, false
				for _, s := range e.Steps {
					if s.Of == side && s.Service == of && s.Server == server && s.Did != "ends its sessions" {
						got, said = s.Did == "leads new clients to it", true
					}
				}
				if !said || got != want {
					t.Errorf("by the report %s leads clients of %s to %s in the end: %t", side, of, server, got)
				}
			}
		}
	}
	// Disagreements are what the lines come to. The leader key says who was right where it says anything.
	for _, d := range e.Disagreements {
		leads := d.Service == "pg-test-primary" || d.Service == "pg-test-default"
		theirs := d.Kind == "haproxy_leads" || d.Kind == "haproxy_keeps"
		want := "unknown"
		switch {
		case leads && theirs == (d.Server == to):
			want = "haproxy"
		case leads:
			want = "pgporter"
		case d.Kind == "haproxy_leads" && d.Failed > 0:
			want = "pgporter"
		}
		if want == "haproxy" && d.Failed > 0 {
			want = "pgporter"
		}
		if d.Right != want || d.Because == "" {
			t.Errorf("%s: %s, because %s; want %s", d.Text, d.Right, d.Because, want)
		}
		if d.Kind != "haproxy_leads" && d.Kind != "pgporter_leads" || d.Until == nil {
			continue
		}
		// At its beginning and at its end the lines say the same of the two sides, and in between they don't.
		if open, shut := said(e, d, d.Since), said(e, d, *d.Until); open["haproxy"] == open["pgporter"] || shut["haproxy"] != shut["pgporter"] {
			t.Errorf("%s: by the lines HAProxy %t, pgporter %t at its beginning, %t and %t at its end", d.Text, open["haproxy"], open["pgporter"], shut["haproxy"], shut["pgporter"])
		}
	}
	b.show(t, e)
}

// said is whether the lines up to a moment have each side lead clients to a disagreement's server. Before the first line it is the
// opposite of what that says.
func said(e api.ShadowEvent, d api.Disagreement, until time.Time) map[string]bool {
	leads := map[string]bool{}
	for _, side := range []string{"haproxy", "pgporter"} {
		first := true
		for _, s := range e.Steps {
			if s.Of != side || s.Service != d.Service || s.Server != d.Server || s.Did == "ends its sessions" {
				continue
			}
			now := s.Did == "leads new clients to it"
			if s.At.After(until) {
				if first {
					leads[side] = !now
				}
				break
			}
			leads[side], first = now, false
		}
	}
	return leads
}

// show logs the report as people see it, and asserts that it has what the JSON has.
func (b *besides) show(t *testing.T, e api.ShadowEvent) {
	t.Helper()
	out, err := exec.Command(binary, "status", "--admin", b.shadow.admin).CombinedOutput()
	if err != nil {
		t.Fatalf("status: %v\n%s", err, out)
	}
	for _, want := range append([]string{"is a shadow for", "shadow of HAProxy (" + b.balancer.socket + ")", "(shadow)", e.What}, texts(e)...) {
		if !strings.Contains(string(out), want) {
			t.Errorf("the status has no %q", want)
		}
	}
	t.Logf("\n%s", out)
}

func texts(e api.ShadowEvent) []string {
	var all []string
	for _, d := range e.Disagreements {
		all = append(all, d.Text)
	}
	return all
}

// shadow is a switchover beside a HAProxy: the report says what happened, and the shadow did nothing.
func (s shared) shadow(t *testing.T) {
	b := s.beside(t, s.prefix+".33")
	at := b.balancer.address
	kept := s.hold(at, direct).watch(t)
	before := time.Now()
	if _, err := s.Switchover(t.Context(), "pg-test-2"); err != nil {
		t.Fatal(err)
	}
	e := b.event(t, before)
	b.right(t, e, "pg-test-1", "pg-test-2")
	kept.hasEnded(t, sessionsEnd)
	if n := listening(t, b.shadow.cmd.Process.Pid); n != 1 {
		t.Errorf("the shadow has %d listening sockets, not that of its admin address alone", n)
	}
	// Who is asked whether a service is to be had here isn't told so.
	response, err := http.Get("http://" + b.shadow.admin + "/services/pg-test-primary")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the shadow says %s of a service", response.Status)
	}
}

// listening counts the listening TCP sockets of a process.
func listening(t *testing.T, pid int) int {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", pid)
	inodes := map[string]bool{}
	for _, file := range []string{"net/tcp", "net/tcp6"} {
		text, err := os.ReadFile(proc + file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 9 && fields[3] == "0A" {
				inodes["socket:["+fields[9]+"]"] = true
			}
		}
	}
	open, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range open {
		if to, _ := os.Readlink(proc + "fd/" + fd.Name()); inodes[to] {
			n++
		}
	}
	return n
}
