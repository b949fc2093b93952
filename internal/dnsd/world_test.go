package dnsd

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/plan"
	"github.com/pgporter/pgporter/internal/resolve"
	"github.com/pgporter/pgporter/internal/service"
	"github.com/pgporter/pgporter/internal/state"
)

// member is one of a cluster under test: its host, what it was declared to be, what it is, and whether it takes clients.
type member struct {
	host     string
	declared service.Role
	live     service.Role
	up       bool
}

// declared makes a cluster with the four default services of members.
func declared(name string, members ...member) service.Cluster {
	c := service.Cluster{Name: name, TTL: 30, Definitions: plan.DefaultServices()}
	for i := range c.Definitions {
		d := &c.Definitions[i]
		d.FullName = name + "-" + d.Name
		if d.Dest.Kind == "" {
			d.Dest = service.Dest{Kind: service.ToPgBouncer}
		}
	}
	for i, m := range members {
		c.Members = append(c.Members, service.Member{Name: fmt.Sprintf("%s-%d", name, i+1), Host: m.host, Role: m.declared, Weight: 100,
			PostgresPort: 5432, PgBouncerPort: 6432, PatroniPort: 8008, Vars: map[string]any{"pg_role": string(m.declared)}})
	}
	return c
}

// seen is a View of a cluster: the leader's services are up on the primary, the others on replicas, and on the primary too where
// its check lets it.
func seen(t *testing.T, c service.Cluster, members ...member) *state.View {
	t.Helper()
	live := map[string]service.Role{}
	v := &state.View{Cluster: c.Name, At: time.Now()}
	for i, m := range members {
		live[c.Members[i].Name] = m.live
		v.Members = append(v.Members, state.Member{Member: c.Members[i], Live: m.live, Answer: "200 " + string(m.live) + " running"})
	}
	set, err := resolve.Set(c, live)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range set.Services {
		one := state.Service{Service: s}
		for _, server := range s.Servers {
			i := 0
			for c.Members[i].Name != server.Member {
				i++
			}
			isPrimary := members[i].live == service.Primary
			passes := isPrimary
			switch s.Check {
			case "/read-only":
				passes = true
			case "/replica":
				passes = !isPrimary
			}
			one.Health = append(one.Health, state.Health{Up: members[i].up && passes})
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
func start(t *testing.T, cfg Config, o Offer) *running {
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
