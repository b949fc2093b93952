package proxy

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
)

// perServer is how many connections for cancel requests one server has at a time, each of which costs it a process, and perSource how
// many of those one source has.
const perServer, perSource = 16, 8

// errCrowded is why a cancel request isn't passed on to a server.
var errCrowded = errors.New("too many cancel requests are on their way")

// cancels bound the connections by which cancel requests are passed on, in all, for each server, and so that neither one service
// nor one source has all of them. Whoever finds no room waits in line.
type cancels struct {
	mu sync.Mutex
	// limit is how many there may be.
	limit int
	taken int
	// by counts those of each server, service and source.
	by map[any]int
	// line are those that wait, in order.
	line []*passing
}

// passing is a cancel request on its way to a server.
type passing struct {
	service string
	source  netip.Addr
	server  string
	// turn is closed when its turn has come.
	turn chan struct{}
}

// Keys of cancels.by.
type (
	ofService string
	ofServer  string
	ofSource  netip.Addr
	ofBoth    struct {
		ofSource
		ofServer
	}
)

// keys are what p is counted by.
func (p *passing) keys() [4]any {
	source, server := ofSource(p.source), ofServer(p.server)
	return [...]any{server, ofService(p.service), source, ofBoth{source, server}}
}

// may tells whether p may begin. c.mu is held.
func (c *cancels) may(p *passing) bool {
	most := [...]int{perServer, max(1, c.limit*3/4), max(1, c.limit/2), perSource}
	for i, key := range p.keys() {
		if c.by[key] >= most[i] {
			return false
		}
	}
	return c.taken < c.limit
}

// count counts p, or with -1 takes it out again. c.mu is held.
func (c *cancels) count(p *passing, n int) {
	if c.by == nil {
		c.by = map[any]int{}
	}
	c.taken += n
	for _, key := range p.keys() {
		if c.by[key] += n; c.by[key] == 0 {
			delete(c.by, key)
		}
	}
}

// take waits until p may begin, or ctx has ended. Without an error, leave is to be called.
func (c *cancels) take(ctx context.Context, p *passing) error {
	c.mu.Lock()
	if c.may(p) {
		c.count(p, 1)
		c.mu.Unlock()
		return nil
	}
	p.turn = make(chan struct{})
	c.line = append(c.line, p)
	c.mu.Unlock()
	select {
	case <-p.turn:
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.line, p); i >= 0 {
		c.line = slices.Delete(c.line, i, i+1)
		return errCrowded
	}
	return nil // its turn came just then
}

// leave lets those begin that p has kept waiting.
func (c *cancels) leave(p *passing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count(p, -1)
	c.line = slices.DeleteFunc(c.line, func(next *passing) bool {
		if !c.may(next) {
			return false
		}
		c.count(next, 1)
		close(next.turn)
		return true
	})
}
