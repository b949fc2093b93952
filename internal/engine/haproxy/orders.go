package haproxy

import (
	"context"
	"errors"
	"fmt"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Told is what became of an order at one server.
type Told struct {
	// Changed says that HAProxy had it otherwise before.
	Changed bool
	// Err says why HAProxy didn't take it.
	Err error
}

// Order tells the current worker what an operator ordered of servers, and gives what it answered of those that it has. What orders do to
// the sessions of old workers follows from the Boards. It waits neither for a reload nor for the lock: a worker that begins meanwhile
// begins with the Boards' orders, and is told those again (see obey).
//
// down are the servers that the Boards have down: one that leaves maintenance is up for HAProxy until its check fails.
func (e *Engine) Order(ctx context.Context, c view.Command, on []view.ServerID, down map[view.ServerID]bool) (map[view.ServerID]Told, error) {
	l := e.wanted.Load()
	running, err := e.control.processes(ctx)
	if err == nil && running.Current.PID == 0 {
		err = errors.New("HAProxy has no worker")
	}
	if err != nil {
		return nil, err
	}
	servers, err := e.control.servers(ctx, running.Current.PID)
	if err != nil {
		return nil, err
	}
	told := map[view.ServerID]Told{}
	for _, id := range on {
		p, _ := l.find(id.Service)
		declared, wanted := p.find(id.Member)
		at := serverID{id.Service, id.Member}
		has, there := servers[at]
		if !wanted || !there {
			continue
		}
		// The weight comes first: it is what HAProxy may refuse, and then nothing of the order is to hold.
		var commands []string
		weight := has.Weight
		switch {
		case c.Declared:
			weight = declared.weight
		case c.Weight != nil:
			weight = *c.Weight
		}
		if weight != has.Weight {
			commands = append(commands, fmt.Sprintf("set server %s weight %d", at, weight))
		}
		if c.State != nil && has.state() != *c.State {
			commands = append(commands, stateCommands(at, has, *c.State, down[id])...)
		}
		t := Told{Changed: len(commands) > 0}
		for _, command := range commands {
			if t.Err = e.control.tell(ctx, running.Current.PID, command); t.Err != nil {
				break
			}
		}
		told[id] = t
	}
	return told, nil
}

// stateCommands bring a server to a state.
func stateCommands(at serverID, has serverState, to view.State, down bool) []string {
	command := fmt.Sprintf("set server %s state %s", at, to)
	if has.state() == view.Maintenance && to != view.Maintenance && down {
		return []string{fmt.Sprintf("set server %s state drain", at), fmt.Sprintf("set server %s health down", at), command}
	}
	return []string{command}
}

// state is what an operator has ordered of a server over the runtime API.
func (s serverState) state() view.State {
	switch {
	case s.Admin&adminMaintenance != 0:
		return view.Maintenance
	case s.Admin&adminDrain != 0:
		return view.Drain
	}
	return view.Ready
}

// ordered are the orders that hold, by Views.
func ordered(views []*view.View) map[serverID]view.Order {
	all := map[serverID]view.Order{}
	for _, v := range views {
		for _, s := range v.Services {
			for i, server := range s.Servers {
				if o := s.Health[i].Order; o != (view.Order{}) {
					all[serverID{s.FullName, server.Member}] = o
				}
			}
		}
	}
	return all
}

// obey gives the commands that bring a server to its order. Each order is told a worker once: what somebody else tells HAProxy after that
// stays, until a new worker begins with what the Boards say.
func (e *Engine) obey(at serverID, o view.Order, has serverState, declared int, down bool) []string {
	was := e.watch.ordered[at]
	if o.State == was.State && o.Weighed == was.Weighed && o.Weight == was.Weight {
		return nil
	}
	e.watch.ordered[at] = o
	var commands []string
	if has.state() != o.State {
		commands = append(commands, stateCommands(at, has, o.State, down)...)
	}
	weight := declared
	if o.Weighed {
		weight = o.Weight
	}
	if o.Weighed != was.Weighed || o.Weight != was.Weight {
		if has.Weight != weight {
			commands = append(commands, fmt.Sprintf("set server %s weight %d", at, weight))
		}
	}
	return commands
}
