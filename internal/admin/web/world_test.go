package web

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// fakeWorld is a daemon with clusters of three members, under a load that grows with the time.
type fakeWorld struct {
	mu       sync.Mutex
	began    time.Time
	clusters int
	// primary is the number of the primary of the first cluster, down the members of it that are down, orders what was ordered.
	primary int
	down    map[int]string
	orders  map[string]api.Ordered
	weights map[string]int
	events  []api.Event
	changed chan struct{}
	page    api.Page
	given   []api.Order
	asked   int
	// silent has nothing change by the time.
	silent bool
	refuse error
}

func newWorld(clusters int) *fakeWorld {
	return &fakeWorld{began: time.Now().Add(-49 * time.Hour), clusters: clusters, primary: 1, down: map[int]string{}, orders: map[string]api.Ordered{}, weights: map[string]int{}, changed: make(chan struct{}),
		page: api.Page{Listen: "10.10.10.11:9101", Metrics: "/metrics", Node: "pg-test-1", Actions: true}}
}

func (w *fakeWorld) Events(after uint64) []api.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	i := slices.IndexFunc(w.events, func(e api.Event) bool { return e.ID > after })
	if i < 0 {
		return nil
	}
	return slices.Clone(w.events[i:])
}

func (w *fakeWorld) EventsChanged() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// happen notes an event. w.mu is held.
func (w *fakeWorld) happen(kind api.EventKind, member, service, by, format string, args ...any) {
	w.events = append(w.events, api.Event{ID: uint64(len(w.events) + 1), At: time.Now(), Kind: kind, Cluster: "pg-test", Member: member, Service: service, By: by, Text: fmt.Sprintf(format, args...)})
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *fakeWorld) switchTo(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.happen(api.EventRole, fmt.Sprintf("pg-test-%d", w.primary), "", "", "pg-test-%d is replica now", w.primary)
	w.primary = n
	w.happen(api.EventRole, fmt.Sprintf("pg-test-%d", n), "", "", "pg-test-%d is primary now", n)
}

func (w *fakeWorld) fail(n int, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if why == "" {
		delete(w.down, n)
		w.happen(api.EventServer, fmt.Sprintf("pg-test-%d", n), "", "", "pg-test-%d is up: 200 replica running", n)
		return
	}
	w.down[n] = why
	w.happen(api.EventServer, fmt.Sprintf("pg-test-%d", n), "", "", "pg-test-%d is down: %s", n, why)
}

func (w *fakeWorld) order(_ context.Context, o api.Order) ([]api.OrderResult, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.given = append(w.given, o)
	if w.refuse != nil {
		return nil, w.refuse
	}
	var results []api.OrderResult
	for _, s := range w.status().Clusters[0].Services {
		for _, v := range s.Servers {
			if o.Service != "" && o.Service != s.FullName || o.Member != "" && o.Member != v.Member {
				continue
			}
			key := s.FullName + "/" + v.Member
			next := api.Ordered{State: o.State, By: o.By, Since: time.Now(), Weight: o.Weight}
			effect := map[api.ServerState]string{api.Drain: fmt.Sprintf("takes no new clients, its %d sessions go on", v.Sessions), api.Maintenance: "takes no clients, and loses those it has", api.Ready: "takes clients again", "": "takes another share of clients"}[o.State]
			if o.State == "" {
				next.State = api.Ready
			}
			results = append(results, api.OrderResult{Cluster: "pg-test", Service: s.FullName, Member: v.Member, Effect: effect, Changed: true, Now: next, Sessions: v.Sessions})
			if o.DryRun {
				continue
			}
			if w.orders[key] = next; o.State == api.Ready && o.Weight == nil {
				delete(w.orders, key)
			}
		}
	}
	if !o.DryRun {
		w.happen(api.EventOrder, o.Member, o.Service, o.By, "%s is ordered %s", o.Member, o.State)
	}
	return results, nil
}

func (w *fakeWorld) Status() api.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	return w.status()
}

func (w *fakeWorld) status() api.Status {
	now := time.Now()
	page := w.page
	s := api.Status{Version: "1.0.0", Node: "10.10.10.11", PID: 4711, Started: w.began, Now: now, Engine: api.EngineNative, Page: &page,
		Config:  api.Config{Source: "/etc/pgporter/plan.json", Loaded: w.began, Generation: 3, Control: "10.10.10.11:8433"},
		Names:   &api.Names{Listen: "10.10.10.11:53", Names: 9},
		Process: api.Process{Connections: 57, ConnectionLimit: 8250, Files: 20000, OpenFiles: 311, MemoryBytes: 61 << 20, Threads: 2, Listeners: 4}}
	for i := range w.clusters {
		s.Clusters = append(s.Clusters, w.cluster(i, now))
	}
	return s
}

func (w *fakeWorld) cluster(i int, now time.Time) api.Cluster {
	name := "pg-test"
	if i > 0 {
		name = fmt.Sprintf("pg-%03d", i)
	}
	seconds := now.Sub(w.began).Seconds()
	if w.silent {
		seconds = 1000
	}
	primary := 1
	if i == 0 {
		primary = w.primary
	}
	c := api.Cluster{Name: name, LeaderKey: &api.LeaderKey{Holder: fmt.Sprintf("%s-%d", name, primary)}}
	member := func(n int) string { return fmt.Sprintf("%s-%d", name, n) }
	role := func(n int) string {
		if n == primary {
			return "primary"
		}
		return "replica"
	}
	for n := 1; n <= 3; n++ {
		m := api.Member{Name: member(n), Host: fmt.Sprintf("10.10.10.%d", 10+n), Role: role(n), Declared: map[bool]string{true: "primary", false: "replica"}[n == 1], State: "running", Timeline: 7, Answer: "200 " + role(n) + " running"}
		answered := now.Add(-time.Second)
		m.Answered = &answered
		if why := w.down[n]; i == 0 && why != "" {
			m.Answer, m.State = why, ""
		} else if n != primary {
			lag := int64(n) * 8192
			m.Lag = &lag
		}
		c.Members = append(c.Members, m)
	}
	for k, kind := range []string{"primary", "replica", "default", "offline"} {
		full := name + "-" + kind
		svc := api.Service{Name: kind, FullName: full, Listen: fmt.Sprintf("10.10.10.11:%d", []int{5433, 5434, 5436, 5438}[k]), Check: map[bool]string{true: "/primary", false: "/replica"}[k%2 == 0], Balance: "roundrobin", Limit: 5000, Since: w.began}
		regular := false
		for n := 1; n <= 3; n++ {
			leader := k%2 == 0
			v := api.Server{Member: member(n), Address: fmt.Sprintf("10.10.10.%d:%d", 10+n, map[bool]int{true: 6432, false: 5432}[k < 2]), Role: role(n), State: "running", Weight: 100, DeclaredWeight: 100, Limit: 3000, Since: w.began.Add(time.Duration(n) * time.Hour)}
			fits := leader == (n == primary)
			if kind == "offline" && n != 3 {
				continue
			}
			v.Backup = kind == "replica" && n == 1
			v.Up = fits || v.Backup
			v.Reason = map[bool]string{true: "200 ", false: "503 "}[v.Up] + role(n) + " running"
			if why := w.down[n]; i == 0 && why != "" {
				v.Up, v.Reason, v.Since = false, why, now.Add(-12*time.Second)
			}
			if o, is := w.orders[full+"/"+v.Member]; is {
				v.Order = &o
				if o.Weight != nil {
					v.Weight = *o.Weight
				}
			}
			v.Serving = v.Up && !v.Backup && (v.Order == nil || v.Order.State == api.Ready)
			if v.Serving {
				regular = true
			}
			svc.Servers = append(svc.Servers, v)
		}
		for n := range svc.Servers {
			v := &svc.Servers[n]
			if v.Backup && v.Up && !regular && (v.Order == nil || v.Order.State == api.Ready) {
				v.Serving = true
			}
			if v.Serving || v.Order != nil {
				wave := 1 + float64((int(seconds)/7+n+k)%5)
				v.Sessions = int(wave * float64(6-k))
				v.SessionsMax, v.Total = 64, uint64(seconds*float64(4-k))
				v.ToServer, v.ToClient = int64(seconds*4000*float64(5-k)), int64(seconds*90000*float64(4-k))
				v.SessionRateMax = 40
				v.Connecting = api.Histogram{Bounds: []float64{0.001}, Counts: []uint64{v.Total, 0}, Sum: float64(v.Total) * 0.0004 * float64(k+1)}
			}
			svc.Up = svc.Up || v.Serving
			svc.Sessions += v.Sessions
			svc.Total += v.Total
			svc.ToServer += v.ToServer
			svc.ToClient += v.ToClient
			svc.Connecting.Sum += v.Connecting.Sum
		}
		svc.Connecting.Counts = []uint64{svc.Total}
		svc.SessionsMax, svc.SessionRateMax, svc.Clients = 90, 55, svc.Sessions
		if !svc.Up {
			since := now.Add(-1700 * time.Millisecond)
			svc.Queued, svc.Waiting = 7, &since
		}
		c.Services = append(c.Services, svc)
	}
	return c
}
