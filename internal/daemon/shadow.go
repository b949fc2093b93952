package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/handover"
	"github.com/pgporter/pgporter/internal/engine/proxy"
	"github.com/pgporter/pgporter/internal/engine/shadow"
)

// shadowing is the engine of a shadow: the native one, which nobody is accepted at but for the services that were taken from HAProxy, and
// what compares the others.
type shadowing struct {
	native
	watcher *shadow.Watcher
	bind    string
	log     *slog.Logger

	// mu guards what follows.
	mu sync.Mutex
	// taken are the services that are served here, by full names.
	taken map[string]bool
	// offer is what is carried and watched; begun says that there is one.
	offer engine.Offer
	begun bool
}

func newShadowing(n native, cfg Config, taken []string) *shadowing {
	s := &shadowing{native: n, watcher: shadow.New(shadow.Config{HAProxy: cfg.Shadow, Logger: cfg.Logger}), bind: cfg.Bind, log: cfg.Logger, taken: map[string]bool{}}
	for _, name := range taken {
		s.taken[name] = true
	}
	return s
}

// has says that a service is served here.
func (s *shadowing) has(service string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken[service]
}

// set has services served here, or not.
func (s *shadowing) set(services []string, taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range services {
		if taken {
			s.taken[name] = true
		} else {
			delete(s.taken, name)
		}
	}
}

// takenNow are the services that are served here, in order.
func (s *shadowing) takenNow() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.taken))
}

// Prepare opens the ports of what is taken. At the start a port that somebody else has by now, HAProxy as a rule, is left to him: its
// service is watched again.
func (s *shadowing) Prepare(ctx context.Context, o engine.Offer) (Change, error) {
	change, err := s.native.Prepare(ctx, o)
	if _, begun := s.offered(); err != nil && !begun {
		if lost := s.unbindable(o, err); len(lost) > 0 {
			s.log.Error("services that were taken from HAProxy can't be served: they are only watched until they are taken again", "services", lost, "problems", err.Error())
			s.set(lost, false)
			change, err = s.native.Prepare(ctx, o)
		}
	}
	if err != nil {
		return Change{}, err
	}
	return Change{Commit: change.Commit, Abort: change.Abort, Publish: func() {
		change.Publish()
		s.mu.Lock()
		s.offer, s.begun = o, true
		s.mu.Unlock()
		s.watcher.Watch(o, s.has)
	}}, nil
}

// offered is what is carried and watched, and whether there is such a thing yet.
func (s *shadowing) offered() (o engine.Offer, begun bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.offer, s.begun
}

// carried are the services of what is carried and watched, with where they listen.
func (s *shadowing) carried() []Carried {
	o, _ := s.offered()
	return s.addresses(o)
}

// unbindable are the taken services whose addresses an error is about.
func (s *shadowing) unbindable(o engine.Offer, err error) []string {
	var taken []string
	for _, at := range s.addresses(o) {
		if at.Taken && slices.ContainsFunc(bindErrors(err), func(b *proxy.BindError) bool { return b.Address == at.Address }) {
			taken = append(taken, at.Service)
		}
	}
	return taken
}

// bindErrors are those that an error joins.
func bindErrors(err error) []*proxy.BindError {
	if many, is := err.(interface{ Unwrap() []error }); is {
		var all []*proxy.BindError
		for _, one := range many.Unwrap() {
			all = append(all, bindErrors(one)...)
		}
		return all
	}
	var b *proxy.BindError
	if errors.As(err, &b) {
		return []*proxy.BindError{b}
	}
	return nil
}

// addresses are the services of an Offer with where they listen.
func (s *shadowing) addresses(o engine.Offer) []Carried {
	var all []Carried
	add := func(d model.Definition) {
		ip := d.IP
		if (ip == "*" || ip == "") && s.bind != "" {
			ip = s.bind
		}
		if at, err := model.ListenAddrOf(ip, d.Port); err == nil {
			all = append(all, Carried{d.FullName, at.String(), s.has(d.FullName)})
		}
	}
	for _, c := range o.Clusters {
		for _, d := range c.Definitions {
			add(d)
		}
	}
	for _, t := range o.TCP.Services {
		add(t.Definition)
	}
	return all
}

// Run carries what is taken and watches the rest.
func (s *shadowing) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.native.Run(ctx) })
	group.Go(func() error { return s.watcher.Run(ctx) })
	return group.Wait()
}

// Beats are those of the native engine and of the loop that compares.
func (s *shadowing) Beats() map[string]rounds {
	all := s.native.Beats()
	all["the loop that compares with HAProxy"] = rounds{s.watcher.Beats(), standstill}
	return all
}

// take has services served here, by listening sockets that HAProxy has, too: whoever comes is accepted by either. keep keeps which
// are taken for the next start. The sockets are the engine's; with an error they are closed, and nothing has changed.
func (s *shadowing) take(ctx context.Context, services []string, sockets map[string]*net.TCPListener, keep func(taken []string) error) error {
	s.Adopt(sockets)
	defer s.Forget()
	return s.alter(ctx, services, true, keep)
}

// alter has services served here from now on, or not.
func (s *shadowing) alter(ctx context.Context, services []string, taken bool, keep func(taken []string) error) error {
	offer, _ := s.offered()
	s.set(services, taken)
	change, err := s.native.Prepare(ctx, offer)
	if err == nil {
		if err = keep(s.takenNow()); err != nil {
			change.Abort()
		}
	}
	if err != nil {
		s.set(services, !taken)
		return err
	}
	change.Commit()
	change.Publish()
	s.watcher.Watch(offer, s.has)
	return nil
}

// Times of a giving back.
const (
	// readyTime is how long HAProxy may take until it does what pgporter would.
	readyTime = 30 * time.Second
	// handshakeTime is how long handshakes may last that have begun with a socket of ours: so long we go on to accept after new ones go to
	// HAProxy.
	handshakeTime = time.Second
)

// giveBack leaves services to a HAProxy that listens for them, too: once it leads clients where pgporter would, new ones go there, and who
// has come here already is served here. Sessions go on.
func (s *shadowing) giveBack(ctx context.Context, services []string, keep func(taken []string) error) error {
	limit, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		err := s.watcher.Ready(limit, services)
		if err == nil {
			break
		}
		select {
		case <-limit.Done():
			return fmt.Errorf("HAProxy isn't ready: %w", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
	if steered, err := s.steer(services); err != nil {
		return err
	} else if steered {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(handshakeTime):
		}
	}
	return s.release(ctx, services, keep)
}

// release is giveBack without waiting for anything.
func (s *shadowing) release(ctx context.Context, services []string, keep func(taken []string) error) error {
	return s.alter(ctx, services, false, keep)
}

// steer has new clients of services go to the sockets that listen beside ours. Where there is none HAProxy has the very same one.
func (s *shadowing) steer(services []string) (bool, error) {
	steered := false
	sockets := s.Sockets()
	for _, c := range s.carried() {
		socket := sockets[c.Address]
		at, err := model.ParseListenAddr(c.Address)
		if socket == nil || err != nil || !slices.Contains(services, c.Service) {
			continue
		}
		inodes := map[string]bool{}
		for _, held := range proxy.HeldAt(at) {
			inodes[held.Inode] = true
		}
		if len(inodes) < 2 {
			continue
		}
		if err := onDescriptor(socket, func(fd int) error { return handover.Steer(fd, handover.Next) }); err != nil && !errors.Is(err, handover.ErrAlone) {
			return false, fmt.Errorf("service %s: %w", c.Service, err)
		}
		steered = true
	}
	return steered, nil
}

func onDescriptor(socket syscall.Conn, do func(fd int) error) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	if outer := raw.Control(func(fd uintptr) { err = do(int(fd)) }); outer != nil {
		return outer
	}
	return err
}

// shadowStatus tells what the shadow has seen; nil if this is none.
func (d *Daemon) shadowStatus() *api.Shadow {
	engine, is := d.engine.(*shadowing)
	if !is {
		return nil
	}
	r := engine.watcher.Report()
	s := &api.Shadow{HAProxy: r.HAProxy, Asked: r.Asked, Unanswered: r.Unanswered, Silent: r.Silent, Absent: r.Absent, Both: r.Both, Dropped: r.Dropped, Taken: engine.takenNow(),
		Right: api.Right{PGPorter: r.Right.PGPorter, HAProxy: r.Right.HAProxy, Unknown: r.Right.Unknown}, Standing: []api.Disagreement{}, Events: []api.ShadowEvent{}}
	if !r.Answered.IsZero() {
		s.Answered = &r.Answered
	}
	for i := range r.Standing {
		s.Standing = append(s.Standing, disagreement(&r.Standing[i]))
	}
	for _, e := range r.Events {
		shown := api.ShadowEvent{Number: e.Number, Cluster: e.Cluster, What: e.What, Began: e.Began, From: e.From, To: e.To, Dropped: e.Dropped,
			Steps: []api.ShadowStep{}, Disagreements: []api.Disagreement{}}
		if !e.Ended.IsZero() {
			shown.Ended = &e.Ended
		}
		for _, step := range e.Steps {
			shown.Steps = append(shown.Steps, api.ShadowStep{At: step.At, After: step.At.Sub(e.Began).Seconds(), Of: string(step.Of), Service: step.Service, Server: step.Server,
				Did: string(step.Did), Why: step.Why, Sessions: step.Sessions})
		}
		for _, one := range e.Disagreements {
			shown.Disagreements = append(shown.Disagreements, disagreement(one))
		}
		s.Events = append(s.Events, shown)
	}
	return s
}

func disagreement(d *shadow.Disagreement) api.Disagreement {
	shown := api.Disagreement{Service: d.Service, Server: d.Server, Kind: string(d.Kind), Text: d.Text(), Since: d.Since, Sessions: d.Sessions,
		Clients: d.Clients, Failed: d.Failed, PGPorter: d.PGPorter, HAProxy: d.HAProxy, Right: string(d.Right), Because: d.Because}
	if !d.Until.IsZero() {
		shown.Until, shown.Seconds = &d.Until, d.Until.Sub(d.Since).Seconds()
	}
	return shown
}
