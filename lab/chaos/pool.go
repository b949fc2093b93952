package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// poolsSeen is how often it is looked whether PgBouncers live.
const poolsSeen = 250 * time.Millisecond

// isPool says whether a process is a PgBouncer.
func isPool(what string) bool {
	return strings.HasSuffix(what, "/pgbouncer") || strings.HasSuffix(what, "/door")
}

// keepPools starts PgBouncers that end by themselves, as their unit would, and notes it: their sessions end with them, and nobody else is to
// blame. That of Debian 12 (1.18.0) ends now and then when a client cancels (github.com/pgbouncer/pgbouncer, issues 801 and 822).
func (f *field) keepPools(ctx context.Context) error {
	alive := map[string]time.Time{}
	for rest(ctx, poolsSeen) {
		ended, err := f.poolsEnded(ctx, alive)
		for _, what := range ended {
			// Where a fault has it in hand, or had until now, it ended by that.
			if err == nil && f.claim([]string{what}) {
				err = f.keepPool(ctx, what, alive)
				f.release([]string{what})
			}
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("PgBouncers that end by themselves: %w", err)
		}
	}
	return nil
}

// poolsEnded gives the PgBouncers that aren't there, and notes when the others were seen.
func (f *field) poolsEnded(ctx context.Context, alive map[string]time.Time) (ended []string, err error) {
	status, err := f.Status(ctx)
	for _, p := range status.Processes {
		switch {
		case !isPool(p.What):
		case p.State == "ended":
			ended = append(ended, p.What)
		default:
			alive[p.What] = time.Now()
		}
	}
	return ended, err
}

// keepPool starts one that isn't there though nobody has it in hand.
func (f *field) keepPool(ctx context.Context, what string, alive map[string]time.Time) error {
	ended, err := f.poolsEnded(ctx, alive)
	if err != nil || !slices.Contains(ended, what) {
		return err
	}
	if err := f.Begin(ctx, what); err != nil {
		return err
	}
	f.say("%s ended by itself: started again", what)
	f.mu.Lock()
	defer f.mu.Unlock()
	member, _, _ := strings.Cut(what, "/")
	f.deeds = append(f.deeds, deed{kind: endedItself, member: member, parts: []string{what}, from: alive[what], to: time.Now()})
	return nil
}
