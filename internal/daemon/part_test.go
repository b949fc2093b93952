package daemon

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/engine"
)

// follower is a Part that notes what it is given, and refuses a configuration with more services than it can follow.
type follower struct {
	most  int
	mu    sync.Mutex
	given []int
	ran   bool
}

func (f *follower) Prepare(_ context.Context, o engine.Offer) (Change, error) {
	services := len(o.Clusters[0].Definitions)
	if services > f.most {
		return Change{}, errors.New("the follower can't follow")
	}
	return Change{Commit: func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.given = append(f.given, services)
	}}, nil
}

func (f *follower) Run(ctx context.Context) error {
	<-ctx.Done()
	f.ran = true
	return nil
}

func TestPartsFollowWhatIsTaken(t *testing.T) {
	f := newFixture(t, address(71))
	part, other := &follower{most: 2}, &follower{most: 9}
	r := start(t, f, address(72), f.inventory("primary:5433"), false, func(c *Config) { c.Parts = []Part{other, part} })
	r.write(f.inventory("primary:5433", "more:5440", "third:5441"))
	r.reload <- syscall.SIGHUP
	r.until("refused", func(s *api.Status) bool { return s.Config.Refused == "the follower can't follow" })
	r.write(f.inventory("primary:5433", "more:99999"))
	r.reload <- syscall.SIGHUP
	r.until("refused", func(s *api.Status) bool { return s.Config.Refused != "the follower can't follow" })
	r.write(f.inventory("primary:5433", "more:5440"))
	r.reload <- syscall.SIGHUP
	r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 2 })
	r.stop()
	if err := <-r.ended; err != nil {
		t.Fatal(err)
	}
	for _, p := range []*follower{part, other} {
		if len(p.given) != 2 || p.given[0] != 1 || p.given[1] != 2 {
			t.Errorf("given configurations with %v services, want [1 2]", p.given)
		}
		if !p.ran {
			t.Error("the stop came before the part had ended")
		}
	}
}
