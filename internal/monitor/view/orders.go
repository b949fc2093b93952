package view

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
)

// State is what operators have a server be, in HAProxy's words (management guide, "set server").
type State int

const (
	// Ready servers take new clients if they are up.
	Ready State = iota
	// Drain: no new clients, sessions go on.
	Drain
	// Maintenance: no new clients, and sessions end where the server's options end those of one that goes down.
	Maintenance
)

var states = [...]string{"ready", "drain", "maint"}

// String is HAProxy's word.
func (s State) String() string { return states[s] }

// StateOf reads HAProxy's word; false if it is none.
func StateOf(word string) (State, bool) {
	i := slices.Index(states[:], word)
	return State(max(i, 0)), i >= 0
}

// Order is what operators want of a server, beside what its checks say. It is the zero Order where nothing else is wanted than that the
// server is ready with its declared weight.
type Order struct {
	State State
	// Weighed says that Weight, from 0 to 256, counts instead of the declared one.
	Weighed bool
	Weight  int
	// By is who gave the last order that is in it, Since when that was.
	By    string
	Since time.Time
}

// Words say it for operators and for clients that are refused; empty if nothing was ordered.
func (o Order) Words() string {
	what := ""
	switch {
	case o.State == Drain:
		what = "drained"
	case o.State == Maintenance:
		what = "in maintenance"
	case o.Weighed:
		what = fmt.Sprintf("given weight %d", o.Weight)
	default:
		return ""
	}
	return fmt.Sprintf("%s by order of %s since %s", what, o.By, o.Since.UTC().Format("2006-01-02 15:04:05Z"))
}

// ServerID names a server: a member's part in the service of that full name.
type ServerID struct{ Service, Member string }

// Command is an order that is being given.
type Command struct {
	// State is what servers are to be; nil leaves that.
	State *State
	// Weight is from 0 to 256, nil leaves it; Declared goes back to the declared one.
	Weight   *int
	Declared bool
	// By is who gives it, At when.
	By string
	At time.Time
}

// on gives what a server's order is after the command.
func (c Command) on(o Order) Order {
	next := o
	if c.State != nil {
		next.State = *c.State
	}
	switch {
	case c.Declared:
		next.Weighed, next.Weight = false, 0
	case c.Weight != nil:
		next.Weighed, next.Weight = true, *c.Weight
	}
	if next == o {
		return o
	}
	if next.State == Ready && !next.Weighed {
		return Order{}
	}
	next.By, next.Since = c.By, c.At
	return next
}

// standing is what orders have left of a server.
type standing struct {
	Order
	// bumps is by how much orders have raised the server's epoch. It only rises, and outlives the order, the server's place in the service
	// and its declaration: an epoch that fell would take up sessions that are over.
	bumps uint64
	// ended is why the last of them did, and over the loop's epoch then: a higher one is of an end that came later.
	ended string
	over  uint64
	// readied is when it left maintenance last; zero if it never did.
	readied time.Time
}

// orders are those that were given on a Board. Nobody changes one after it was made.
type orders map[ServerID]standing

// apply gives what readers see of a View of the loop's: with the orders. The View itself stays as it is, and is the result if no order
// has anything to say about it.
func (o orders) apply(v *View) *View {
	if len(o) == 0 {
		return v
	}
	next := *v
	next.Services = slices.Clone(v.Services)
	for n := range next.Services {
		s := &next.Services[n]
		for i := range s.Servers {
			given, there := o[ServerID{s.FullName, s.Servers[i].Member}]
			if !there {
				continue
			}
			if &s.Health[0] == &v.Services[n].Health[0] {
				s.Health = slices.Clone(s.Health)
			}
			h := &s.Health[i]
			h.Order = given.Order
			if given.Weighed {
				h.DeclaredWeight = s.Servers[i].Weight
				if &s.Servers[0] == &v.Services[n].Servers[0] {
					s.Servers = slices.Clone(s.Servers)
				}
				s.Servers[i].Weight = given.Weight
			}
			if given.bumps > 0 && h.Epoch <= given.over {
				h.Ended = given.ended
			}
			h.Epoch += given.bumps
			if given.readied.After(h.Recovered) {
				h.Recovered = given.readied
			}
		}
	}
	return &next
}

// with gives the orders after a command to servers of a View of the loop's. Sessions end as HAProxy ends them: those of a server that
// goes into maintenance where its options end those of one that goes down, and those of backups, where the options want that, as a
// regular server comes back.
func (o orders) with(v *View, c Command, servers []ServerID) orders {
	next := maps.Clone(o)
	if next == nil {
		next = orders{}
	}
	for _, id := range servers {
		was := next[id]
		is := was
		is.Order = c.on(was.Order)
		if is == was {
			continue
		}
		if was.State == Maintenance && is.State != Maintenance {
			is.readied = c.At
		}
		next[id] = is
	}
	before, after := o.apply(v), next.apply(v)
	bump := func(s *Service, i int, why string) {
		id := ServerID{s.FullName, s.Servers[i].Member}
		given := next[id]
		given.bumps, given.ended, given.over = given.bumps+1, why, v.Service(s.FullName).Health[i].Epoch
		next[id] = given
	}
	for n := range after.Services {
		was, is := &before.Services[n], &after.Services[n]
		back := ""
		for i := range is.Servers {
			entered := is.Health[i].Order.State == Maintenance && was.Health[i].Order.State != Maintenance
			if entered && is.OptionsOf(i).ShutdownSessions {
				bump(is, i, "it was put into maintenance by "+c.By+" (on-marked-down shutdown-sessions)")
			}
			if is.Takes(i) && !was.Takes(i) && !is.Servers[i].Backup {
				back = is.Servers[i].Member
			}
		}
		if back == "" || !is.Options.ShutdownBackupSessions {
			continue
		}
		for i := range is.Servers {
			if is.Servers[i].Backup {
				bump(is, i, fmt.Sprintf("a backup, and %s was made ready by %s (on-marked-up shutdown-backup-sessions)", back, c.By))
			}
		}
	}
	return next
}

// kept gives the orders without those for servers that are declared no more: of a service that the cluster hasn't, or a member. A member
// that a role has taken out of a service is still declared. What they did to epochs stays.
func (o orders) kept(v *View) orders {
	gone := func(id ServerID) bool {
		s := v.Service(id.Service)
		switch {
		case s == nil:
			return true
		case v.Cluster == "":
			return !slices.ContainsFunc(s.Servers, func(server model.Server) bool { return server.Member == id.Member })
		}
		return !slices.ContainsFunc(v.Members, func(m Member) bool { return m.Name == id.Member })
	}
	var next orders
	for id, given := range o {
		if given.Order == (Order{}) || !gone(id) {
			continue
		}
		if next == nil {
			next = maps.Clone(o)
		}
		given.Order = Order{}
		next[id] = given
	}
	if next == nil {
		return o
	}
	return next
}
