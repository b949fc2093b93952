package daemon

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
	"github.com/pgporter/pgporter/internal/engine/shadow"
	"github.com/pgporter/pgporter/internal/monitor/etcd"
)

// hello is a startup packet: the server that echoes takes it for an answer.
const hello = "\x00\x00\x00\x08\x00\x03\x00\x00"

// renew has a hold stand until the test ends it, however long that takes.
func renew(t *testing.T, d *Daemon, o api.HoldOrder) (end func()) {
	t.Helper()
	o.ForSeconds = 10
	if _, err := d.Hold(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var joined sync.WaitGroup
	joined.Go(func() {
		again := time.NewTicker(time.Second)
		defer again.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-again.C:
				_, _ = d.Hold(ctx, o)
			}
		}
	})
	return func() {
		cancel()
		joined.Wait()
	}
}

// TestHold: a new client of the leader waits until it is let go, whatever else happens meanwhile, and the service counts as well as before.
func TestHold(t *testing.T) {
	p := newCouple(t, 101)
	r, d := startCouple(t, p, address(103), func(c *Config) { c.Hold = time.Minute })
	session := r.dial("5433")
	echo(t, session, hello)
	one := api.HoldOrder{Cluster: "pg-test", ID: "one", From: "pg-test-1", To: "pg-test-2", By: "root (uid 0)"}
	end := renew(t, d, one)
	waiting := r.dial("5433")
	if _, err := waiting.Write([]byte(hello)); err != nil {
		t.Fatal(err)
	}
	r.until("a client waits", func(s *api.Status) bool { return s.Clusters[0].Hold != nil && s.Clusters[0].Hold.Waiting == 1 })
	echo(t, session, "goes on\n")

	// An order at the same time, and a reload.
	if _, err := d.Order(t.Context(), api.Order{Member: "pg-test-1", Service: "pg-test-primary", State: api.Drain, By: "root (uid 0)"}); err != nil {
		t.Fatal(err)
	}
	if err := d.read(t.Context(), "SIGHUP"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Order(t.Context(), api.Order{Member: "pg-test-1", Service: "pg-test-primary", State: api.Ready, By: "root (uid 0)"}); err != nil {
		t.Fatal(err)
	}
	s := r.status()
	h := s.Clusters[0].Hold
	if h == nil || h.ID != "one" || h.From != "pg-test-1" || h.To != "pg-test-2" || h.By != "root (uid 0)" || h.Waiting != 1 || !h.Until.After(h.Since) {
		t.Errorf("the hold is %+v", h)
	}
	if primary := s.Clusters[0].Services[0]; !primary.Up || !primary.Servers[0].Serving || primary.Queued != 1 {
		t.Errorf("the service is %+v", primary)
	}
	if _, err := d.Hold(t.Context(), api.HoldOrder{Cluster: "pg-test", ID: "two", ForSeconds: 1, By: "x"}); err == nil || !strings.Contains(err.Error(), "held for a switchover to pg-test-2 by root (uid 0)") {
		t.Errorf("another one beside it: %v", err)
	}
	end()
	if held, err := d.Hold(t.Context(), api.HoldOrder{Cluster: "pg-test", ID: "one"}); err != nil || held.Hold != nil {
		t.Errorf("released: %+v, %v", held, err)
	}
	reply := make([]byte, len(hello))
	if _, err := waiting.Read(reply); err != nil || string(reply) != hello {
		t.Errorf("who waited reads %q, %v", reply, err)
	}
	if _, err := d.Hold(t.Context(), api.HoldOrder{Cluster: "pg-test", ID: "one", ForSeconds: 1}); !errors.Is(err, errHoldOver) {
		t.Errorf("it begins again: %v", err)
	}

	// One that nobody renews ends, and one whose cluster goes goes with it.
	if _, err := d.Hold(t.Context(), api.HoldOrder{Cluster: "pg-test", ID: "three", ForSeconds: 0.05}); err != nil {
		t.Fatal(err)
	}
	awaitEvent(t, d, "hold: the hold wasn't renewed: clients are let go, who leads takes them (somebody who wasn't named)")
	for _, want := range []string{"hold: new clients of its leader wait (root (uid 0))", "hold: clients are let go, who leads takes them ("} {
		awaitEvent(t, d, want)
	}
	if r.status().Clusters[0].Hold != nil {
		t.Error("there is a hold")
	}
	// Whoever renews it too late begins it again, and not for longer than if it had been there all the time.
	d.ordering.Lock()
	last := d.lastHolds["pg-test"]
	d.ordering.Unlock()
	if held, err := d.Hold(t.Context(), api.HoldOrder{Cluster: "pg-test", ID: "three", ForSeconds: 10}); err != nil || held.Hold == nil || !held.Hold.Since.Equal(last.since) {
		t.Errorf("%+v, %v: it began at %v", held.Hold, err, last.since)
	}
}

// TestSilentHold: a hold that nobody renews doesn't last for its whole lease once another member leads.
func TestSilentHold(t *testing.T) {
	p := newCouple(t, 231)
	r, d := startCouple(t, p, address(233))
	echo(t, r.dial("5433"), hello)
	r.dial("5434")
	held, err := d.Hold(t.Context(), api.HoldOrder{Cluster: "pg-test", ID: "one", From: "pg-test-2", To: "pg-test-1", ForSeconds: 10, By: "root"})
	if err != nil || held.Hold == nil {
		t.Fatalf("%+v, %v", held, err)
	}
	if s := held.Sessions; s == nil || s.Count != 1 || s.NewestSeconds <= 0 || s.NewestSeconds > 60 {
		t.Errorf("one session is with the leader, and it says %+v", s)
	}
	r.until("clients are let go", func(s *api.Status) bool { return s.Clusters[0].Hold == nil })
	if late := time.Since(held.Hold.Until); late > 0 {
		t.Errorf("it lasted for the whole lease, and %s more", late)
	}
	if since := time.Since(held.Hold.Since); since < holdSilent {
		t.Errorf("it lasted for %s: who renews it each second has no time to", since)
	}
}

// TestHoldRefused: what can't be held is refused by name.
func TestHoldRefused(t *testing.T) {
	d := &Daemon{order: []string{"pg-test"}, lastHolds: map[string]lastHold{}}
	for _, test := range []struct {
		order api.HoldOrder
		want  string
	}{
		{api.HoldOrder{ID: "one", ForSeconds: 1}, "the order names no cluster"},
		{api.HoldOrder{Cluster: "pg-tset", ID: "one", ForSeconds: 1}, "pg-tset"},
		{api.HoldOrder{Cluster: "pg-test", ForSeconds: 1}, "no id"},
		{api.HoldOrder{Cluster: "pg-test", ID: "one", ForSeconds: 11}, "a hold for 11 seconds: 10 at most"},
		{api.HoldOrder{Cluster: "pg-test", ID: "one", ForSeconds: -1}, "a hold for -1 seconds"},
		{api.HoldOrder{Cluster: "pg-test", ID: "failover-key 7", ForSeconds: 1}, "that of a hold by Patroni's failover key"},
	} {
		if _, err := d.Hold(t.Context(), test.order); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.order, err, test.want)
		}
	}
	for what, d := range map[string]*Daemon{"HAProxy": {cfg: Config{HAProxy: &haproxy.Config{}}}, "a shadow": {cfg: Config{Shadow: shadow.Socket("nowhere")}}} {
		if _, err := d.Hold(t.Context(), api.HoldOrder{Cluster: "pg-test", ID: "one", ForSeconds: 1}); !errors.Is(err, errCannotHold) {
			t.Errorf("beside %s: %v", what, err)
		}
	}
}

// TestHoldByEtcd: an order in etcd is carried out as long as its key is told of, and begun once.
func TestHoldByEtcd(t *testing.T) {
	p := newCouple(t, 105)
	r, d := startCouple(t, p, address(107), func(c *Config) { c.Hold = time.Minute })
	o := &obedient{daemon: d, cluster: "pg-test"}
	tell := func(value string) { o.take(t.Context(), etcd.Order{Value: []byte(value)}) }
	held := func(want string) {
		t.Helper()
		got := ""
		if h := r.status().Clusters[0].Hold; h != nil {
			got = h.ID + " by " + h.By
		}
		if got != want {
			t.Errorf("held: %q, want %q", got, want)
		}
	}
	tell("")
	held("")
	for value, why := range map[string]string{
		"{": "it is no order", `{"cluster":"pg-other","id":"one","for_seconds":5}`: `it is for cluster \"pg-other\"`, `{"cluster":"pg-test","id":"one"}`: "it is for 0 seconds",
		`{"cluster":"pg-test","id":"one","for_seconds":60}`: "a hold for 60 seconds", `{"id":"` + strings.Repeat("x", mostOrder) + `"}`: "room enough",
	} {
		tell(value)
		tell(value)
		held("")
		if n := strings.Count(r.log.String(), why); n != 1 {
			t.Errorf("%s: it is logged %d times that %s", value, n, why)
		}
	}
	const one = `{"cluster":"pg-test","id":"one","from":"pg-test-1","for_seconds":10,"by":"root at pg-meta-1","new":1}`
	tell(one)
	held("one by root at pg-meta-1 by way of etcd")
	tell(one)
	tell(`{"cluster":"pg-test","id":"two","for_seconds":10}`)
	held("two by etcd")
	tell("")
	held("")
	// Somebody else released it, whose key is there for a moment longer.
	tell(`{"cluster":"pg-test","id":"three","for_seconds":10}`)
	if _, err := d.Hold(t.Context(), api.HoldOrder{Cluster: "pg-test", ID: "three"}); err != nil {
		t.Fatal(err)
	}
	tell(`{"cluster":"pg-test","id":"three","for_seconds":10}`)
	held("")
	o.take(t.Context(), etcd.Order{Problem: "etcd's account may not read it"})
	o.take(t.Context(), etcd.Order{Problem: "etcd's account may not read it"})
	if n := strings.Count(r.log.String(), "may not read it"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.unordered["pg-test"] != "etcd's account may not read it" {
		t.Errorf("%q", d.unordered)
	}
}

// TestUpgradeKeepsHold has another process take over during a hold.
func TestUpgradeKeepsHold(t *testing.T) {
	p := newCouple(t, 109)
	upgrade := make(chan os.Signal, 1)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, d := startCouple(t, p, address(111), func(c *Config) {
		c.Hold, c.Upgrade, c.Program = 5*time.Second, upgrade, Program{Path: program, Arguments: []string{"-test.run=^$"}}
	})
	defer renew(t, d, api.HoldOrder{Cluster: "pg-test", ID: "one", From: "pg-test-1", To: "pg-test-2", By: "root (uid 0)"})()
	since := r.status().Clusters[0].Hold.Since
	s := p.handOver(t, r, upgrade)
	switch h := s.Clusters[0].Hold; {
	case s.Version != "next":
		t.Errorf("version %s", s.Version)
	case h == nil && s.Now.Sub(since) >= holdLease:
		t.Logf("the upgrade took longer than a hold lasts: %v", s.Now.Sub(since))
	case h == nil || h.ID != "one" || h.From != "pg-test-1" || h.To != "pg-test-2" || h.By != "root (uid 0)" || !h.Since.Equal(since) || !h.Until.After(since):
		t.Errorf("the hold is %+v", h)
	}
	r.until("it ends by itself", func(s *api.Status) bool { return s.Clusters[0].Hold == nil })
}
