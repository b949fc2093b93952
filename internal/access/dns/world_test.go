package dns

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/config/resolve"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// member is one of a cluster under test: its host, what it was declared to be, what it is, and whether it takes clients.
type member struct {
	host     string
	declared model.Role
	live     model.Role
	up       bool
}

// declared makes a cluster with the four default services of members.
func declared(name string, members ...member) model.Cluster {
	c := model.Cluster{Name: name, TTL: 30, Definitions: plan.DefaultServices()}
	for i := range c.Definitions {
		d := &c.Definitions[i]
		d.FullName = name + "-" + d.Name
		if d.Dest.Kind == "" {
			d.Dest = model.Dest{Kind: model.ToPgBouncer}
		}
	}
	for i, m := range members {
		c.Members = append(c.Members, model.Member{Name: fmt.Sprintf("%s-%d", name, i+1), Host: m.host, Role: m.declared, Weight: 100,
			PostgresPort: 5432, PgBouncerPort: 6432, PatroniPort: 8008, Vars: map[string]any{"pg_role": string(m.declared)}})
	}
	return c
}

// seen is a View of a cluster: the leader's services are up on the primary, the others on replicas, and on the primary too where
// its check lets it.
func seen(t *testing.T, c model.Cluster, members ...member) *view.View {
	t.Helper()
	live := map[string]model.Role{}
	v := &view.View{Cluster: c.Name, At: time.Now()}
	for i, m := range members {
		live[c.Members[i].Name] = m.live
		v.Members = append(v.Members, view.Member{Member: c.Members[i], Live: m.live, Answer: "200 " + string(m.live) + " running"})
	}
	set, err := resolve.Set(c, live)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range set.Services {
		one := view.Service{Service: s}
		for _, server := range s.Servers {
			i := 0
			for c.Members[i].Name != server.Member {
				i++
			}
			isPrimary := members[i].live == model.Primary
			passes := isPrimary
			switch s.Check {
			case "/read-only":
				passes = true
			case "/replica":
				passes = !isPrimary
			}
			one.Health = append(one.Health, view.Health{Up: members[i].up && passes})
		}
		v.Services = append(v.Services, one)
	}
	return v
}

// running is a Server under test.
type running struct {
	*Server
	log  *log
	stop func() error
}

type log struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a Server until the test ends.
func start(t *testing.T, cfg Config, o engine.Offer) *running {
	t.Helper()
	r := &running{log: &log{}}
	cfg.Logger = slog.New(slog.NewTextHandler(r.log, nil))
	var err error
	if r.Server, err = New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	commit, err := r.Prepare(o)
	if err != nil {
		r.Close()
		t.Fatal(err)
	}
	commit()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	return r
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !holds() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not %s after a minute", what)
		}
	}
}
