package sandbox

import (
	"context"
	"fmt"
	"net"
	"strconv"
)

// Begin starts processes that have ended, in the order in which they are named, and doesn't wait until they answer: for
// who tests failures, where what they need may be away. PostgreSQL isn't Begin's to start, but its Patroni's.
func (s *Sandbox) Begin(ctx context.Context, whats ...string) error {
	if err := s.checkOwner(); err != nil {
		return err
	}
	t, err := findTools()
	if err != nil {
		return err
	}
	lock, err := lockDir(ctx, s.layout.config.Dir)
	if err != nil {
		return err
	}
	defer lock.release()
	for _, what := range whats {
		p, err := s.layout.part(what)
		if err != nil {
			return err
		}
		r, err := s.current()
		if err != nil {
			return err
		}
		switch process, running := s.find(r, p); {
		case r.Phase != phaseUp:
			return fmt.Errorf("%s can't be started: the sandbox is %s", p, r.Phase)
		case running:
			return fmt.Errorf("%s is running already (process %d)", p, process.PID)
		case p.kind == postgresKind:
			return inputErrorf("%s is started by its Patroni", p)
		}
		if err := s.launch(p, t); err != nil {
			return err
		}
	}
	return nil
}

// PID is the process that something is now, WHAT as in Kill; false if it isn't running.
func (s *Sandbox) PID(what string) (int, bool) {
	p, err := s.layout.part(what)
	if err != nil {
		return 0, false
	}
	r, err := s.current()
	if err != nil {
		return 0, false
	}
	process, running := s.find(r, p)
	return process.PID, running
}

// Etcd is where the sandbox's etcd listens, host:port.
func (s *Sandbox) Etcd() string {
	return net.JoinHostPort(s.layout.etcdAddress(), strconv.Itoa(etcdPort))
}
