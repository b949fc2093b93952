package vip

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgporter/pgporter/internal/access/vip/owner"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// stage is a machine whose interfaces a test looks at.
type stage struct {
	mu    sync.Mutex
	did   []string
	bound map[string]bool
}

func (g *stage) note(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.did = append(g.did, fmt.Sprintf(format, args...))
}

// done gives what was done since it was asked last.
func (g *stage) done() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	did := g.did
	g.did = nil
	return did
}

// fakeLink is an interface on a stage.
type fakeLink struct {
	*stage
	want owner.Want
	said chan owner.MAC
}

func (l fakeLink) look() owner.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := owner.Link{Name: "eth0", Up: true}
	if l.bound[l.want.Address.String()] {
		seen.Bound = owner.Leased
	}
	return seen
}

func (l fakeLink) set(bound bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bound[l.want.Address.String()] = bound
}

func (l fakeLink) bind(seconds int) error {
	l.note("%s bound for %d s", l.want.Address, seconds)
	l.set(true)
	return nil
}

func (l fakeLink) unbind() error {
	l.note("%s released", l.want.Address)
	l.set(false)
	return nil
}

func (l fakeLink) announce() error          { return nil }
func (l fakeLink) probe() error             { return nil }
func (l fakeLink) claims() <-chan owner.MAC { return l.said }
func (l fakeLink) close()                   { l.note("%s left alone", l.want.Address) }

func testAddress(prefix string, board *view.Board) Address {
	return Address{Board: board, Want: owner.Want{Cluster: "pg-test", TTL: 20 * time.Second, Keyed: true, VirtualIP: model.VirtualIP{
		Address: netip.MustParsePrefix(prefix), Member: "pg-test-1", Host: "10.10.10.11", OnLoss: model.GraceOnLoss}}}
}

// TestKeep: a configuration that leaves an address as it is doesn't touch it; one that has it no more, or elsewhere, has it
// released first; a stop releases it, and a hand-over leaves it.
func TestKeep(t *testing.T) {
	for _, handOver := range []bool{false, true} {
		t.Run(fmt.Sprintf("hand over %v", handOver), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &stage{bound: map[string]bool{}}
				k := New(Config{Logger: slog.New(slog.DiscardHandler)})
				k.open = func(w owner.Want) link { return fakeLink{g, w, make(chan owner.MAC)} }
				v := &view.View{Key: view.Key{Watched: true, Holder: "pg-test-1", Confirmed: time.Now().Add(time.Hour)}}
				v.Members = []view.Member{{Member: model.Member{Name: "pg-test-1"}}}
				board := view.NewBoard(v)
				ctx, stop := context.WithCancel(t.Context())
				var joined sync.WaitGroup
				joined.Go(func() {
					if err := k.Run(ctx); err != nil {
						t.Error(err)
					}
				})
				did := func(want ...string) {
					t.Helper()
					synctest.Wait()
					if got := g.done(); !slices.Equal(got, want) {
						t.Errorf("did %q, want %q", got, want)
					}
				}
				k.Keep([]Address{testAddress("10.10.10.3/24", board)})
				did("10.10.10.3/24 bound for 3618 s")
				if s := k.Status()["pg-test"]; !s.Holds || s.Interface != "eth0" {
					t.Errorf("status %+v", s)
				}
				again := testAddress("10.10.10.3/24", board)
				again.OnLoss = model.KeepOnLoss
				k.Keep([]Address{again})
				did()
				k.Keep([]Address{testAddress("10.10.10.4/24", board)})
				did("10.10.10.3/24 released", "10.10.10.3/24 left alone", "10.10.10.4/24 bound for 3618 s")
				k.Keep(nil)
				did("10.10.10.4/24 released", "10.10.10.4/24 left alone")
				if s := k.Status(); len(s) > 0 {
					t.Errorf("status %+v", s)
				}
				k.Keep([]Address{testAddress("10.10.10.3/24", board)})
				did("10.10.10.3/24 bound for 3618 s")
				if handOver {
					k.HandOver()
				}
				stop()
				joined.Wait()
				if handOver {
					did("10.10.10.3/24 left alone")
				} else {
					did("10.10.10.3/24 released", "10.10.10.3/24 left alone")
				}
			})
		})
	}
}
