package chaos

import (
	"context"
	"strings"
	"time"
)

// poolsSeen is how often it is looked whether PgBouncers live.
const poolsSeen = 250 * time.Millisecond

// keepPools starts PgBouncers that end by themselves, as their unit would, and notes it: their sessions end with them, and nobody else is to
// blame. That of Debian 12 (1.18.0) ends now and then when a client cancels (github.com/pgbouncer/pgbouncer, issues 801 and 822).
func (f *field) keepPools(ctx context.Context) error {
	alive := map[string]time.Time{}
	for rest(ctx, poolsSeen) {
		status, err := f.Status(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for _, p := range status.Processes {
			member, pool := strings.CutSuffix(p.What, "/pgbouncer")
			switch {
			case !pool:
				continue
			case p.State != "ended":
				alive[p.What] = time.Now()
				continue
			}
			from, was := alive[p.What]
			if !was || !f.claim([]string{p.What}) {
				// A fault has it in hand.
				continue
			}
			err := f.Begin(ctx, p.What)
			f.release([]string{p.What})
			if err != nil && ctx.Err() == nil {
				f.say("%s ended by itself, and can't be started: %v", p.What, err)
				continue
			}
			f.mu.Lock()
			f.deeds = append(f.deeds, deed{kind: endedItself, member: member, parts: endedItself.parts(member), from: from, to: time.Now()})
			f.mu.Unlock()
			delete(alive, p.What)
			f.say("%s ended by itself: started again", p.What)
		}
	}
	return nil
}
