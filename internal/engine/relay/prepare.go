//go:build linux && !portable

package relay

import "golang.org/x/sys/unix"

// Prepare makes a flow whose sockets are still being connected. Until Begin, which makes it move bytes, or Drop, it
// calls happened from a loop whenever there may be something new on a socket that it was told to await: server says on
// which. happened must not block. Nothing but the methods in this file, Begin, Bytes, Abort and Detach may be called until then; the
// last two have the flow end as soon as it begins.
//
// So whoever opens many connections needs no goroutine for each, and nobody is to be woken up when one begins.
//
// It begins in the loop of another flow that hasn't begun, affinity, if one is given: whoever was called by that one stays on the same
// thread.
func (r *Relay) Prepare(affinity *Flow, happened func(server bool)) (*Flow, error) {
	l, err := r.join(affinity)
	if err != nil {
		return nil, err
	}
	f := &Flow{loop: l, happened: happened}
	f.client.flow, f.client.id = f, r.ids.Add(1)
	f.server.flow, f.server.id = f, r.ids.Add(1)
	return f, nil
}

// AwaitClient and AwaitServer have the flow tell of what happens on a socket: each time when it gets bytes, takes bytes again,
// comes to its end, or breaks (edge-triggered, epoll(7)), and once in the beginning if there is something already.
func (f *Flow) AwaitClient(fd int) error { return f.expect(&f.client, fd, everything) }

// AwaitServer is AwaitClient for the other side.
func (f *Flow) AwaitServer(fd int) error { return f.expect(&f.server, fd, everything) }

// Watch is AwaitServer, but tells of what can be taken from the socket again and again until it was taken: what a flow goes on
// to wait for when it begins.
func (f *Flow) Watch(fd int) error { return f.expect(&f.server, fd, unix.EPOLLIN) }

// WatchListener has every loop tell of clients that wait at a listening socket, one of the loops at a time as a rule
// (EPOLLEXCLUSIVE). waiting gets the flow of the loop that calls it; dropping all that are given ends it.
func (r *Relay) WatchListener(fd int, waiting func(affinity *Flow)) ([]*Flow, error) {
	var all []*Flow
	first, err := r.Prepare(nil, nil)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	loops := r.loops
	r.mu.Unlock()
	first.Drop()
	for _, l := range loops {
		f, err := r.Prepare(&Flow{loop: l}, nil)
		if err == nil {
			f.happened = func(bool) { waiting(f) }
			all = append(all, f)
			err = f.expect(&f.server, fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE)
		}
		if err != nil {
			for _, f := range all {
				f.Drop()
			}
			return nil, err
		}
	}
	return all, nil
}

const everything = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

func (f *Flow) expect(s *side, fd int, interest uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.fd = fd
	if err := f.loop.watch(s, interest); err != 0 {
		return err
	}
	return nil
}

// Drop ends a flow that didn't begin. Its sockets are the caller's.
func (f *Flow) Drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	f.unwatchBoth()
}
