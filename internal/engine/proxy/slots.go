package proxy

import (
	"math"
	"sync"
)

// A process that has no descriptor left can't check servers either: they would count as silent, and as down before long, and
// the sessions that it has would end for clients that it can't serve anyway. So the engine accepts no more clients than it has
// descriptors for, two each, and leaves some for everything else; who comes beyond waits in the kernel's backlog.
const (
	// reservedFiles descriptors are not for clients, and one more for each setAsidePart that the limit allows.
	reservedFiles = 64
	reservedPart  = 32
)

// Slots gives for how many clients this process has descriptors. The limit of open files is the one that holds now: Go has
// raised it as far as it may be at the process's start (os, since Go 1.19).
func Slots() int { return slotsOf(openFilesLimit()) }

func slotsOf(files uint64) int {
	files = min(files, math.MaxInt32)
	if files <= reservedFiles {
		return 1
	}
	return max(1, int(files-reservedFiles-files/reservedPart)/2)
}

// FilesFor gives the limit of open files with which Slots is at least clients.
func FilesFor(clients int) uint64 {
	files := uint64(2*clients+reservedFiles) * reservedPart / (reservedPart - 1)
	for slotsOf(files) < clients {
		files++
	}
	return files
}

// slots count clients against a limit: those of a service, and, through of, those of all services together.
type slots struct {
	// of are the engine's, of which each of a service's slots takes one; nil for the engine's own.
	of *slots

	mu sync.Mutex
	// limit is how many there may be; 0 is any number.
	limit int
	taken int
	// freed is closed, if somebody waits for it, when there may be room again.
	freed chan struct{}
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
	case s.of != nil:
		return s.of.room()
	}
	return true, nil
}

// reserve takes a slot if there is one.
func (s *slots) reserve() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full() || s.of != nil && !s.of.reserve() {
		return false
	}
	s.taken++
	return true
}

// take takes a slot whether there is one or not, for a client that is here already.
func (s *slots) take() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken++
	if s.of != nil {
		s.of.take()
	}
}

// free gives a slot back.
func (s *slots) free() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.of != nil {
		s.of.free()
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
