package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine/handover"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
	"github.com/pgporter/pgporter/internal/engine/proxy"
)

// haproxyProgram is what HAProxy's processes are called.
const haproxyProgram = "haproxy"

// heldByHAProxy are the sockets at a service's address that HAProxy has, each once with one of its processes.
func heldByHAProxy(c Carried) ([]proxy.Held, error) {
	at, err := model.ParseListenAddr(c.Address)
	if err != nil {
		return nil, err
	}
	var found []proxy.Held
	seen := map[string]bool{}
	for _, held := range proxy.HeldAt(at) {
		if held.Command == haproxyProgram && !seen[held.Inode] {
			seen[held.Inode] = true
			found = append(found, held)
		}
	}
	return found, nil
}

// TakeFromHAProxy has a shadow serve a service that HAProxy listens for, and HAProxy accept nobody for it any more. socket is HAProxy's
// runtime API. Whoever calls needs the right to look into HAProxy (root's). With an error HAProxy serves it as before.
func TakeFromHAProxy(ctx context.Context, shadow Local, c Carried, socket string) error {
	// Before anything is done: will HAProxy do what it is told?
	if _, err := haproxy.Ask(ctx, socket, "show info"); err != nil {
		return err
	}
	held, err := heldByHAProxy(c)
	switch {
	case err != nil:
		return err
	case len(held) == 0 && os.Geteuid() != 0:
		return fmt.Errorf("HAProxy isn't seen to listen at %s: only root may look into it", c.Address)
	case len(held) == 0:
		return fmt.Errorf("HAProxy isn't seen to listen at %s", c.Address)
	case len(held) > 1:
		return fmt.Errorf("HAProxy listens at %s with %d sockets, only one can be taken without losing clients: `bind … shards 1`", c.Address, len(held))
	}
	fd, err := handover.Copy(held[0].PID, held[0].FD)
	if err != nil {
		return fmt.Errorf("a copy of HAProxy's socket: %w", err)
	}
	defer handover.Close([]handover.Item{{Descriptors: []int{fd}}})
	if err := shadow.Take(ctx, c, fd); err != nil {
		return err
	}
	// Both accept now, from one queue.
	answer, err := haproxy.Ask(ctx, socket, "shutdown frontend "+c.Service)
	if answer = strings.TrimSpace(answer); err == nil && answer != "" && !strings.Contains(answer, "already shut down") {
		err = fmt.Errorf("HAProxy refuses to shut its frontend down: %s", answer)
	}
	if err == nil {
		return nil
	}
	undone, cancel := context.WithTimeout(context.WithoutCancel(ctx), localTime)
	defer cancel()
	if failed := shadow.GiveBack(undone, []string{c.Service}, true); failed != nil {
		return fmt.Errorf("%w; and pgporter serves it, too: %w", err, failed)
	}
	return err
}

// Lent are copies of a shadow's sockets, which bear HAProxy's beside them.
type Lent struct {
	services []Carried
	fds      map[string]int
}

// Lend has HAProxy be able to listen where a shadow does. New clients still go to the shadow alone.
func Lend(ctx context.Context, shadow Local, services []Carried) (*Lent, error) {
	var names []string
	for _, c := range services {
		names = append(names, c.Service)
	}
	fds, err := shadow.Lend(ctx, names)
	if err != nil {
		return nil, err
	}
	l := &Lent{services, fds}
	for _, c := range services {
		fd, there := fds[c.Address]
		if !there {
			err = fmt.Errorf("no socket came for %s", c.Address)
		} else if err = handover.Share(fd); err == nil {
			err = l.keep(fd)
		}
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("service %s: %w", c.Service, err)
		}
	}
	return l, nil
}

// keep has new clients go to the shadow while both listen. A socket that never had one beside it can't be told so yet.
func (l *Lent) keep(fd int) error {
	if err := handover.Steer(fd, handover.First); err != nil && !errors.Is(err, handover.ErrAlone) {
		return err
	}
	return nil
}

// Close lets go of the copies.
func (l *Lent) Close() {
	for _, fd := range l.fds {
		handover.Close([]handover.Item{{Descriptors: []int{fd}}})
	}
	l.fds = nil
}

// Await waits until HAProxy listens for all services, by its own word and by what is seen.
func (l *Lent) Await(ctx context.Context, socket string) error {
	limit, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		err := l.listens(limit, socket)
		if err == nil {
			return nil
		}
		select {
		case <-limit.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (l *Lent) listens(ctx context.Context, socket string) error {
	text, err := haproxy.Ask(ctx, socket, "show stat")
	if err != nil {
		return err
	}
	lines, err := haproxy.ParseStatistics(text)
	if err != nil {
		return err
	}
	open := map[string]bool{}
	for _, s := range lines {
		open[s.Service] = open[s.Service] || s.Server == haproxy.Frontend && s.Status == "OPEN"
	}
	for _, c := range l.services {
		held, err := heldByHAProxy(c)
		if err != nil {
			return err
		}
		if !open[c.Service] || len(held) == 0 {
			return fmt.Errorf("HAProxy doesn't listen for %s (%s): have its files the service?", c.Service, c.Address)
		}
		if err := l.keep(l.fds[c.Address]); err != nil {
			return err
		}
	}
	return nil
}
