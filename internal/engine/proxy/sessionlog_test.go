package proxy

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// told is a session log.
type told struct {
	unwanted bool
	mu       sync.Mutex
	lines    []string
	began    map[uint64]engine.Session
}

func (o *told) Wants(uint64) bool { return !o.unwanted }

func (o *told) Began(s engine.Session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.began == nil {
		o.began = map[uint64]engine.Session{}
	}
	o.began[s.ID] = s
	o.lines = append(o.lines, fmt.Sprintf("start %d %s %s", s.ID, s.Service, s.Member))
}

func (o *told) Ended(s engine.Session, at time.Time, why engine.EndReason, cause error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if first, began := o.began[s.ID]; began {
		first.ToServer, first.ToClient = s.ToServer, s.ToClient
		if first != s || at.Before(s.Began) {
			o.lines = append(o.lines, fmt.Sprintf("ends as another: %+v, was %+v", s, first))
		}
	}
	o.lines = append(o.lines, fmt.Sprintf("end %d %s %v, %d and %d bytes", s.ID, why, cause, s.ToServer, s.ToClient))
}

// first is what it was told of a session's beginning.
func (o *told) first(id uint64) engine.Session {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.began[id]
}

func (o *told) all() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.lines...)
}

func TestSessionLogIsTold(t *testing.T) {
	for name, cfg := range map[string]Config{"with hold": {Hold: patience}, "without": {}} {
		t.Run(name, func(t *testing.T) {
			a := startBackend(t, "a", "127.0.42.1")
			def := definition(t, "primary", "127.0.43.85")
			log := &told{}
			cfg.SessionLog = log
			r := run(t, cfg, Endpoint{"pg-test", def, view.NewBoard(viewOf(serviceOf(def, up(a)))), 0})
			one, _ := reach(t, addressOf(def))
			echoes(t, one)
			must(t, one.CloseWrite())
			over(t, one)
			eventually(t, "the first is over", func() bool { return len(log.all()) == 2 })
			two, _ := reach(t, addressOf(def))
			if first := log.first(1); first.Client.String() != one.LocalAddr().String() || first.Listen.String() != addressOf(def) || first.Server.String() != a.Addr().String() || !first.Local.IsValid() {
				t.Errorf("told of %+v", first)
			}
			if _, err := r.EndSessions(engine.SessionFilter{}, "root", false); err != nil {
				t.Fatal(err)
			}
			over(t, two)
			eventually(t, "the second is over", func() bool { return len(log.all()) == 4 })
			want := []string{"start 1 pg-test-primary a", fmt.Sprintf("end 1 client <nil>, %d and 6 bytes", sayHello+4), "start 2 pg-test-primary a",
				fmt.Sprintf("end 2 killed a: by order of root, %d and 2 bytes", sayHello)}
			for i, line := range log.all() {
				if line != want[i] {
					t.Errorf("told %q, want %q", line, want[i])
				}
			}
		})
	}
}
