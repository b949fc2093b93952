package chaos

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox"
)

func watcher() *roleWatcher {
	f := &field{}
	f.roles = newRoleWatcher(f)
	return f.roles
}

func TestPromotionsAreSeen(t *testing.T) {
	r := watcher()
	r.said("a", false, sec(0)) // it was the primary from the beginning
	r.said("b", true, sec(0))
	r.said("b", true, sec(1))
	r.said("b", false, sec(2))
	r.said("b", false, sec(3))
	if len(r.promotions) != 1 || r.promotions[0] != (promotion{"b", sec(2), sec(1)}) {
		t.Errorf("promotions: %+v", r.promotions)
	}
}

// TestReadsOnAPrimary: an answer of a primary through the offline service is wrong unless the member was promoted just now.
func TestReadsOnAPrimary(t *testing.T) {
	offline := sandbox.Access{Port: offlinePort, Node: "n", Host: "127.0.0.1"}
	for name, test := range map[string]struct {
		to     sandbox.Access
		member string
		at     float64
		wrong  bool
	}{
		"just promoted":             {offline, "b", 4, false},
		"the watcher sees it later": {offline, "b", 1.5, false},
		"promoted long ago":         {offline, "b", 12, true},
		"a primary all along":       {offline, "a", 4, true},
		"a service that allows it":  {sandbox.Access{Port: 5434}, "a", 4, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := watcher()
			r.said("a", false, sec(0))
			r.said("b", true, sec(1))
			if test.at > 2 {
				r.said("b", false, sec(2))
			}
			r.answered(test.to, test.member, false, sec(test.at))
			r.said("b", false, sec(2))
			if wrong := r.judge(); (len(wrong) > 0) != test.wrong {
				t.Errorf("complaints: %q", wrong)
			}
		})
	}
}

// TestIdleSessionOnAPromotedMember: one that ends counts, one that stays is complained about once.
func TestIdleSessionOnAPromotedMember(t *testing.T) {
	for name, stays := range map[string]bool{"it ends": false, "it stays": true} {
		t.Run(name, func(t *testing.T) {
			r := watcher()
			mine, theirs := net.Pipe()
			defer mine.Close()
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			opened := time.Now().Add(-time.Minute)
			r.said("b", true, time.Now().Add(-30*time.Second))
			promoted := time.Now()
			if stays {
				promoted = promoted.Add(-20 * time.Second)
			} else {
				theirs.Close()
			}
			r.said("b", false, promoted)
			if stays {
				// It goes on until it has been found wrong.
				var waiting sync.WaitGroup
				defer waiting.Wait()
				waiting.Go(func() {
					defer theirs.Close()
					again := time.NewTicker(10 * time.Millisecond)
					defer again.Stop()
					for range again.C {
						r.mu.Lock()
						found := len(r.wrong) > 0
						r.mu.Unlock()
						if found || ctx.Err() != nil {
							return
						}
					}
				})
			}
			r.sit(ctx, idle{sandbox.Access{Port: offlinePort, Node: "n", Host: "127.0.0.1"}, "b", opened, mine})
			if stays && (len(r.wrong) != 1 || !strings.Contains(r.wrong[0], "is still on b")) {
				t.Errorf("complaints: %q", r.wrong)
			}
			if !stays && (len(r.wrong) != 0 || len(r.ended) != 1) {
				t.Errorf("complaints: %q, ended %v", r.wrong, r.ended)
			}
		})
	}
}
