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

// FilesFor gives the limit of open files with which Berths is at least clients.
func FilesFor(clients int) uint64 {
	files := uint64(2*clients+reservedFiles) * reservedPart / (reservedPart - 1)
	for slotsOf(files) < clients {
		files++
	}
	return files
}

// slots counts the clients of all services.
type slots struct {
	mu    sync.Mutex
	limit int
	taken int
	// freed is closed, if somebody waits for it, when there is room again.
	freed chan struct{}
}

// room tells whether there may be another client, and if not, gives a channel that is closed when to ask again.
func (b *slots) room() (bool, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken < b.limit {
		return true, nil
	}
	if b.freed == nil {
		b.freed = make(chan struct{})
	}
	return false, b.freed
}

func (b *slots) add(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken += n
	if n < 0 && b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}

// reserve takes a slot if there is one.
func (b *slots) reserve() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken >= b.limit {
		return false
	}
	b.taken++
	return true
}

// count is how many clients a service has, as a part of all that the engine has. Its owner's lock guards n.
type count struct {
	n  int
	of *slots
}

func (c *count) add(n int) {
	c.n += n
	c.of.add(n)
}

// reserve is add(1) if the engine has a slot.
func (c *count) reserve() bool {
	if !c.of.reserve() {
		return false
	}
	c.n++
	return true
}
