package proxy

import "sync"

// underway counts clients that are on their way to a server. Unlike with a sync.WaitGroup, whoever waits for there to be none may
// give up, and nothing is left of the wait: a WaitGroup needs a goroutine for that, which goes on to wait, and must not be used
// again while it does.
type underway struct {
	mu sync.Mutex
	n  int
	// none is made when somebody waits, and closed when n comes to 0.
	none chan struct{}
}

func (u *underway) add(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n += n
	if u.n == 0 && u.none != nil {
		close(u.none)
		u.none = nil
	}
}

// over gives a channel that is closed once there is none, be it for a moment.
func (u *underway) over() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n > 0 {
		if u.none == nil {
			u.none = make(chan struct{})
		}
		return u.none
	}
	none := make(chan struct{})
	close(none)
	return none
}
