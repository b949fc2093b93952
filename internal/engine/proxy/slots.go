package proxy

import (
	"math"
	"sync"
	"sync/atomic"
)

// A process that has no descriptor left can't check servers either, or be asked what is wrong. So everything that isn't a client has its
// descriptors set aside, and the engine accepts no more clients than it has descriptors for beside that, two each. Who comes beyond
// waits in the lobby, as far as that has room, and else in the kernel's backlog.

// defaultAside is what is set aside for the rest of the process where nobody says how much that is.
const defaultAside = 64

// cancelFiles and lobbyFiles are what the engine itself sets aside of a limit of open files: for connections by which CancelRequests are
// passed on, and for clients that came while there was no slot.
func cancelFiles(files uint64) int { return part(files, 21, 16, 512) }
func lobbyFiles(files uint64) int  { return part(files, 64, 4, 256) }

// part is one of so many parts, at least and at most so much.
func part(files uint64, of uint64, least, most int) int {
	return max(least, int(min(files/of, uint64(most))))
}

// Slots gives for how many clients there are descriptors with a limit of open files, of which aside are for the rest of the process and
// one is for each service's port.
func Slots(files uint64, aside, services int) int {
	left := int64(min(files, math.MaxInt32)) - int64(cancelFiles(files)+lobbyFiles(files)+aside+services)
	return int(max(1, left/2))
}

// OpenFiles is the limit of open files that holds now: Go has raised it as far as it may be at the process's start (os, since Go 1.19).
func OpenFiles() uint64 { return openFilesLimit() }

// SetAside has so many descriptors be for the rest of the process from now on. Clients that are there stay.
func (e *Engine) SetAside(descriptors int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.aside = descriptors
	e.divide()
}

// ownPart is which part of all slots is divided among the services as their own.
const ownPart = 8

// divide gives each service its own slots, and what is left to all. e.mu is held.
func (e *Engine) divide() {
	all, services := Slots(e.files, e.aside, len(e.listeners)), max(1, len(e.dispatchers))
	own := all / ownPart / services
	if own == 0 && all >= 2*services {
		own = 1
	}
	for _, d := range e.dispatchers {
		share := own
		if most := d.endpoint().Definition.MaxConn; most > 0 {
			share = min(share, most)
		}
		all -= share
		d.slots.setOwn(share)
	}
	e.slots.setLimit(all)
}

// slots count clients against a limit: those of a service, and, through of, those of all services together.
type slots struct {
	// of are those that all services have in common, of which a service takes one for each client beyond its own; nil for these.
	of *slots

	mu sync.Mutex
	// limit is how many there may be; 0 is any number.
	limit int
	// own are a service's that no other one can take.
	own   int
	taken int
	// freed is closed, if somebody waits for it, when there may be room again.
	freed chan struct{}

	// clients are those of a service who have a slot, unlike loops that have reserved one for a client who may come; most is the most at
	// once.
	clients, most atomic.Int64
}

// setOwn changes how many of a service's slots no other one can take.
func (s *slots) setOwn(own int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := max(0, s.taken-s.own)
	s.own = own
	s.of.add(max(0, s.taken-own) - before)
	s.wakeLocked()
}

// add counts some more or less, whether there is room or not.
func (s *slots) add(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken += n
	s.wakeLocked()
}

// setLimit changes how many there may be. Clients that are there stay.
func (s *slots) setLimit(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit
	s.wakeLocked()
}

// full tells whether the limit, not that of s.of, is reached. s.mu is held.
func (s *slots) full() bool { return s.limit > 0 && s.taken >= s.limit }

// room tells whether there may be another client, and if not, gives a channel that is closed when to ask again.
func (s *slots) room() (bool, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.full():
		if s.freed == nil {
			s.freed = make(chan struct{})
		}
		return false, s.freed
	case s.of != nil && s.taken >= s.own:
		return s.of.room()
	}
	return true, nil
}

// reserve takes a slot if there is one.
func (s *slots) reserve() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full() || s.of != nil && s.taken >= s.own && !s.of.reserve() {
		return false
	}
	s.taken++
	return true
}

// arrived notes that a client is there for a slot that was reserved.
func (s *slots) arrived() {
	s.remember(s.clients.Add(1))
}

// remember notes that there were so many clients.
func (s *slots) remember(clients int64) {
	for most := s.most.Load(); clients > most && !s.most.CompareAndSwap(most, clients); most = s.most.Load() {
	}
}

// leave is free for a client that had arrived.
func (s *slots) leave() {
	s.clients.Add(-1)
	s.free()
}

// take takes a slot whether there is one or not, for a client that is here already.
func (s *slots) take() {
	s.arrived()
	s.exceed()
}

// exceed takes a slot whether there is one or not.
func (s *slots) exceed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken++
	if s.of != nil && s.taken > s.own {
		s.of.exceed()
	}
}

// free gives a slot back for which nobody came.
func (s *slots) free() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	switch {
	case s.of == nil:
	case s.taken >= s.own:
		s.of.free()
	default:
		// Who waits for one that all have in common may have this service's own.
		s.of.wake()
	}
	s.wakeLocked()
}

// wake has those who wait for room ask again.
func (s *slots) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakeLocked()
}

func (s *slots) wakeLocked() {
	if s.freed != nil {
		close(s.freed)
		s.freed = nil
	}
}

// count gives how many are taken.
func (s *slots) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// spare gives which part of the limit is left, of a service's or of what all have in common, whichever is less; 1 without a limit.
func (s *slots) spare() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	part := 1.0
	if s.limit > 0 {
		part = max(0, float64(s.limit-s.taken)/float64(s.limit))
	}
	if s.of != nil {
		part = min(part, s.of.spare())
	}
	return part
}
