package proxy

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// retryPause is how long a server that failed is left alone.
const retryPause = 100 * time.Millisecond

// backoff is about servers that failed their latest client. Until one of them takes a client, or at least doesn't fail it at once,
// one client at a time tries it, and none within retryPause of the failure: many clients that wait must not be a storm on a server
// that starts.
type backoff struct {
	// count is len(servers), for whoever has no use for the lock while there is none, as a rule.
	count atomic.Int32

	mu      sync.Mutex
	servers map[string]*failing // by member
}

// failing is a server that failed its latest client.
type failing struct {
	// until is when it may be tried again; zero is now.
	until time.Time
	// try is the session that tries it; nil while none does.
	try *session
}

// avoid gives the servers that no client is to try now. For one try at a time whoever picks a server calls it, and then trying,
// with the sessions' lock held.
func (b *backoff) avoid(now time.Time) map[string]bool {
	if b.count.Load() == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	members := make(map[string]bool, len(b.servers))
	for member, f := range b.servers {
		if f.try != nil || now.Before(f.until) {
			members[member] = true
		}
	}
	return members
}

// trying notes that a session was given its server.
func (b *backoff) trying(s *session) {
	if b.count.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.servers[s.member]; f != nil {
		f.try = s
	}
}

// fail notes that a session's server failed it.
func (b *backoff) fail(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.servers[s.member]
	if f == nil {
		f = &failing{}
		b.servers[s.member] = f
		b.count.Add(1)
	}
	f.until = time.Now().Add(retryPause)
	if f.try == s {
		f.try = nil
	}
}

// yield lets another client try the session's server, because it isn't the server that this session waits for.
func (b *backoff) yield(s *session) {
	if b.count.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.servers[s.member]; f != nil && f.try == s {
		f.try = nil
	}
}

// reset notes that a server has taken a client, or at least hasn't failed it at once.
func (b *backoff) reset(member string) {
	if b.count.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(member)
}

// retryNow lets servers that failed be tried at once, because something has changed, and forgets those that aren't among
// members.
func (b *backoff) retryNow(members []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for member, f := range b.servers {
		f.until = time.Time{}
		if !slices.Contains(members, member) {
			b.remove(member)
		}
	}
}

// remove forgets a server's back-off, if there is one. b.mu is held.
func (b *backoff) remove(member string) {
	if b.servers[member] != nil {
		delete(b.servers, member)
		b.count.Add(-1)
	}
}
