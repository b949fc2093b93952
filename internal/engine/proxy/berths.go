package proxy

import (
	"math"
	"sync"
)

// A process that has no descriptor left can't check servers either: they would count as silent, and as down before long, and
// the sessions that it has would end for clients that it can't serve anyway. So the engine accepts no more clients than it has
// descriptors for, two each, and leaves some for everything else; who comes beyond waits in the kernel's backlog.
const (
	// setAside descriptors are not for clients, and one more for each setAsidePart that the limit allows.
	setAside     = 64
	setAsidePart = 32
)

// Berths gives for how many clients this process has descriptors. The limit of open files is the one that holds now: Go has
// raised it as far as it may be at the process's start (os, since Go 1.19).
func Berths() int { return berthsOf(openFilesLimit()) }

func berthsOf(files uint64) int {
	files = min(files, math.MaxInt32)
	if files <= setAside {
		return 1
	}
	return max(1, int(files-setAside-files/setAsidePart)/2)
}

// FilesFor gives the limit of open files with which Berths is at least clients.
func FilesFor(clients int) uint64 {
	files := uint64(2*clients+setAside) * setAsidePart / (setAsidePart - 1)
	for berthsOf(files) < clients {
		files++
	}
	return files
}

// berths counts the clients of all services.
type berths struct {
	mu    sync.Mutex
	most  int
	taken int
	// freed is closed, if somebody waits for it, when there is room again.
	freed chan struct{}
}

// room tells whether there may be another client, and if not, gives a channel that is closed when to ask again.
func (b *berths) room() (bool, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken < b.most {
		return true, nil
	}
	if b.freed == nil {
		b.freed = make(chan struct{})
	}
	return false, b.freed
}

func (b *berths) add(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken += n
	if n < 0 && b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}

// reserve takes a berth if there is one.
func (b *berths) reserve() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken >= b.most {
		return false
	}
	b.taken++
	return true
}

// census is how many clients a service has, as a part of all that the engine has. Its owner's lock guards n.
type census struct {
	n  int
	of *berths
}

func (c *census) add(n int) {
	c.n += n
	c.of.add(n)
}

// reserve is add(1) if the engine has a berth.
func (c *census) reserve() bool {
	if !c.of.reserve() {
		return false
	}
	c.n++
	return true
}
