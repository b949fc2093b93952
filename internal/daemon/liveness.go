package daemon

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/beat"
)

const (
	// lookGap is how often it is looked whether loops go round.
	lookGap = time.Second
	// standstill is how long a loop may hang, unless it says otherwise. A round takes microseconds of work, and an idle loop
	// begins one each beat.Gap at least: on a machine that is ten times slower, or as busy, one that works is as long late, and
	// that is no accident any more.
	standstill = 10 * beat.Gap
	// longestStep is how much time counts between two looks. If more has passed, this process didn't run in between (it was
	// stopped, or the machine was suspended), and no loop could have: all of them have until the next look to catch up.
	longestStep = 2 * lookGap
)

// rounds is how often a loop has gone round, and how long it may take for a round.
type rounds struct {
	count uint64
	limit time.Duration
}

// pulse is what is known of a loop from looking at its beats.
type pulse struct {
	count uint64
	// seen is when the count was first seen as it is now, still how long that lasts, as far as this process ran.
	seen  time.Time
	still time.Duration
}

// judge tells from their beats which loops hang. It is pure: the time is an argument.
type judge struct {
	last   time.Time
	pulses map[string]pulse
}

// look takes the beats of all loops that run now, by what each is in words, and gives those that hang, in order. A loop
// that is seen for the first time has all its time before it, and one that isn't there any more is forgotten.
func (j *judge) look(now time.Time, beats map[string]rounds) []api.Stalled {
	step := min(now.Sub(j.last), longestStep)
	j.last = now
	pulses := make(map[string]pulse, len(beats))
	var stalled []api.Stalled
	for _, name := range slices.Sorted(maps.Keys(beats)) {
		b := beats[name]
		p, before := j.pulses[name]
		if !before || p.count != b.count {
			p = pulse{count: b.count, seen: now}
		} else {
			p.still += step
		}
		pulses[name] = p
		if p.still > b.limit {
			stalled = append(stalled, api.Stalled{Loop: name, Since: p.seen})
		}
	}
	j.pulses = pulses
	return stalled
}

// liveness is what is known of the loops.
type liveness struct {
	mu      sync.Mutex
	stalled []api.Stalled
	// at is when it was looked last, and looked closed with the next look.
	at     time.Time
	looked chan struct{}
}

func newLiveness() *liveness { return &liveness{at: time.Now(), looked: make(chan struct{})} }

// note takes the outcome of a look.
func (l *liveness) note(at time.Time, stalled []api.Stalled) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at, l.stalled = at, stalled
	close(l.looked)
	l.looked = make(chan struct{})
}

func (l *liveness) get() ([]api.Stalled, time.Time, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stalled, l.at, l.looked
}

// problems says in words what hangs; empty if nothing does. It waits for no loop, and for no lock that one may hold.
func (l *liveness) problems() []string {
	stalled, at, looked := l.get()
	if time.Since(at) > standstill {
		// Perhaps this process was stopped until now: then there is a look at once.
		select {
		case <-looked:
		case <-time.After(longestStep):
		}
		stalled, at, _ = l.get()
	}
	now := time.Now()
	since := func(t time.Time) string {
		return fmt.Sprintf("since %s (%s)", t.Format(time.RFC3339), now.Sub(t).Round(time.Second))
	}
	var all []string
	if now.Sub(at) > standstill {
		all = append(all, "nobody looks whether loops go round "+since(at))
	}
	for _, s := range stalled {
		all = append(all, s.Loop+" stands still "+since(s.Since))
	}
	return all
}

// beats are those of all loops that decide or move something.
func (d *Daemon) beats() map[string]rounds {
	all := map[string]rounds{}
	d.mu.Lock()
	for name, r := range d.running {
		all["the loop of cluster "+name] = rounds{r.loop.Beats(), standstill}
	}
	d.mu.Unlock()
	if d.tcpcheck != nil {
		all["the loop of services that aren't PostgreSQL's"] = rounds{d.tcpcheck.Beats(), standstill}
	}
	if d.exchange != nil {
		all["the loop of questions to members"] = rounds{d.exchange.Beats(), standstill}
	}
	maps.Copy(all, d.engine.Beats())
	return all
}

// watchLoops looks whether all loops go round until ctx ends. While they do, alive is called after each look.
func (d *Daemon) watchLoops(ctx context.Context, alive func()) {
	var j judge
	before := ""
	again := beat.Every(lookGap)
	defer again.Stop()
	for {
		now := time.Now()
		stalled := j.look(now, d.beats())
		d.liveness.note(now, stalled)
		d.usage.sample(now)
		if len(stalled) == 0 {
			alive()
		}
		names := make([]string, len(stalled))
		for i, s := range stalled {
			names[i] = s.Loop
		}
		switch stuck := strings.Join(names, ", "); {
		case stuck == before:
		case stuck == "":
			d.log.Info("all loops go round again", "stood_still", before)
			before = stuck
		default:
			d.log.Error("a loop stands still: what it decides is as old", "loops", stuck, "since", stalled[0].Since)
			before = stuck
		}
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			again.Again()
		}
	}
}

// watchdog gives what tells systemd that this process lives (sd_notify(3), WATCHDOG=1), or does nothing where it doesn't want to
// know (WatchdogSec= isn't set).
func (d *Daemon) watchdog() func() {
	// It wants to know of the process that it started, or of the one that has taken over from it.
	const variable = "WATCHDOG_PID"
	if i := d.cfg.Inherited; i != nil && os.Getenv(variable) == strconv.Itoa(i.state.PID) {
		if err := os.Setenv(variable, strconv.Itoa(os.Getpid())); err != nil {
			d.log.Warn("systemd's watchdog isn't told that pgporter lives", "error", err)
		}
	}
	limit, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("systemd's watchdog isn't told that pgporter lives", "error", err)
	}
	if limit <= 0 {
		return func() {}
	}
	if limit < 2*longestStep {
		d.log.Warn("WatchdogSec= is too short: pgporter tells systemd's watchdog once a second that it lives", "limit", limit)
	}
	return func() { _, _ = systemd.SdNotify(false, systemd.SdNotifyWatchdog) }
}
