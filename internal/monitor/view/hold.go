package view

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Hold is a time in which the new clients of a cluster's leader wait for who leads next, though the one that leads would take them: a
// switchover is about to be. Sessions go on. The services that are held are those which Lead.
//
// There are two kinds, and a View has at most one. An operator's (Board.Hold) lies over what the loop publishes, as orders do, and ends when
// he lets go or doesn't renew it. The loop's own is there while Patroni's failover key asks the leader to step down, and ends as soon as
// another member leads.
type Hold struct {
	// ID is the switchover's: who began the hold renews and ends it by that. Empty is no hold.
	ID string
	// From leads as the hold begins, To is to lead next; empty for whoever comes first.
	From, To string
	// By is who holds, for people.
	By string
	// Since is when it began. It is over at Until, whatever else happens.
	Since, Until time.Time
}

// KeyHold is what the ID of the loop's own hold begins with; a blank and the failover key's revision follow.
const KeyHold = "failover-key"

// ByKey says that it is the loop's own.
func (h Hold) ByKey() bool {
	before, _, _ := strings.Cut(h.ID, " ")
	return before == KeyHold
}

// ForClients is the hold as those who are refused are told of it: not who ordered it, since whoever reaches the port is told.
func (h Hold) ForClients() string {
	if !h.ByKey() {
		h.By = "an operator"
	}
	return h.Words()
}

// Words say it for operators; empty if there is no hold.
func (h Hold) Words() string {
	if h.ID == "" {
		return ""
	}
	to := ""
	if h.To != "" {
		to = " to " + h.To
	}
	return fmt.Sprintf("held for a switchover%s by %s since %s", to, h.By, h.Since.UTC().Format("15:04:05Z"))
}

// over says that a hold's time has passed.
func (h Hold) over(now time.Time) bool { return h.ID != "" && !now.Before(h.Until) }

// Leaders are the members that their checks have up in a service of the leader's, whether a Hold keeps clients from them or not.
func Leaders(services []Service) []string {
	var names []string
	for i := range services {
		for j, h := range services[i].Health {
			if services[i].Leads && h.Up && !slices.Contains(names, services[i].Servers[j].Member) {
				names = append(names, services[i].Servers[j].Member)
			}
		}
	}
	return names
}

// held gives what readers see of a View under a hold. The services of the leader are Held. Behind the others the member that is to lead
// takes no new clients while somebody else takes them: it ends what it has as a replica when it is promoted.
func (h Hold) held(v *View) *View {
	if h.ID == "" {
		h = v.Hold
	}
	if h.ID == "" {
		return v
	}
	next := *v
	next.Hold = h
	next.Services = make([]Service, len(v.Services))
	copy(next.Services, v.Services)
	for n := range next.Services {
		s := &next.Services[n]
		if s.Leads {
			s.Held, s.HeldWords = true, h.ForClients()
			continue
		}
		for _, i := range s.Usable() {
			if h.To != "" && s.Servers[i].Member != h.To {
				s.Spared = h.To
			}
		}
	}
	return &next
}

// Hold has an operator's hold be in force, in place of an earlier one with the same ID; false, with the one that is, if there is another
// operator's whose time isn't over at the moment at. It is in force when it returns: nobody is connected with the leader from then on.
// Whoever calls it ends the hold in time (Release).
func (b *Board) Hold(h Hold, at time.Time) (Hold, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.hold.ID != "" && b.hold.ID != h.ID && !b.hold.over(at) {
		return b.hold, false
	}
	if b.hold.ID == h.ID {
		h.Since = b.hold.Since
	}
	b.hold = h
	b.reposted++
	b.post(at)
	return h, true
}

// Release ends an operator's hold, that with an ID or, with an empty one, any whose time is over; false if there is none such. Those who
// wait go to who leads now.
func (b *Board) Release(id string, at time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.hold.ID == "" || id != "" && b.hold.ID != id || id == "" && !b.hold.over(at) {
		return false
	}
	b.hold = Hold{}
	b.reposted++
	b.post(at)
	return true
}

// Held is the operator's hold on the Board; its ID is empty if there is none.
func (b *Board) Held() Hold {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.hold
}
