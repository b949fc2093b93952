package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// upgradeWithin is how long a pgporter may take to hand over or to say why it doesn't: it waits for servers that are just failing.
const upgradeWithin = time.Minute

// upgrade has a new process take over from a node's pgporter. That it doesn't come to that because the cluster is in no state for it
// is as good, if the old process goes on.
func (f *field) upgrade(ctx context.Context, member string) error {
	// The new process reads the inventory, which has to be a sound one.
	f.inventory.Lock()
	defer f.inventory.Unlock()
	what := member + "/pgporter"
	m := f.members[slices.IndexFunc(f.members, func(m sandbox.Member) bool { return m.Name == member })]
	ctx, cancel := context.WithTimeout(ctx, upgradeWithin)
	defer cancel()
	before, err := f.status(ctx, m)
	if err != nil {
		return err
	}
	if err := f.Kill(ctx, syscall.SIGUSR2, what); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return errors.New("nobody has said how it went")
		case <-time.After(50 * time.Millisecond):
		}
		after, err := f.status(ctx, m)
		switch {
		case err != nil || after.Upgrade == nil:
		case after.PID != before.PID && after.Upgrade.PID == before.PID:
			f.say("%s of %s: process %d took over %d sessions and %d waiting clients", upgrade, member, after.PID, after.Upgrade.Sessions, after.Upgrade.Clients)
			f.follow(what, after.PID)
			return f.gone(ctx, before.PID)
		case after.PID == before.PID && after.Upgrade.Problem != "" && (before.Upgrade == nil || after.Upgrade.At.After(before.Upgrade.At)):
			f.say("%s of %s: not now: %s", upgrade, member, after.Upgrade.Problem)
			return nil
		}
	}
}

// gone waits for the end of a process that handed over.
func (f *field) gone(ctx context.Context, pid int) error {
	for sandbox.Runs(pid) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d handed over, and is still there", pid)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// follow notes it if a process that took over ends though no fault ends it and none took over in turn. It is no child of the
// sandbox's, which sees only those.
func (f *field) follow(what string, pid int) {
	f.following.Go(func() {
		for sandbox.Runs(pid) {
			select {
			case <-f.over:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
		_, succeeded := f.PID(what)
		f.mu.Lock()
		defer f.mu.Unlock()
		if !f.claimed[what] && !succeeded {
			f.died = append(f.died, fmt.Sprintf("%s %s (process %d, which had taken over) ended by itself", clock(time.Now()), what, pid))
		}
	})
}
