package zone

import (
	"reflect"
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Live is what the names of a cluster resolve to at a moment. It is immutable; Follow makes the next one.
type Live struct {
	// Serial rises with each change, and across restarts too: it is the time of the change in seconds since 1970, or one more
	// than the last (RFC 1982 arithmetic is not needed before 2106).
	Serial uint32
	// Asked says that each member has been asked what it is. Before, the declared roles hold, and nobody should keep the answer.
	Asked bool
	// Primary is the member that leads, or the last that did.
	Primary string
	// Carriers are the members that carry each service, by the service's short name: those that take clients now, or those
	// that did last, so that who connects meanwhile waits at the right node.
	Carriers map[string][]Carrier
}

// Carrier is a member behind a service's name.
type Carrier struct {
	Member string
	Weight int
	// Port is where the member itself serves: PostgreSQL's, PgBouncer's or another.
	Port int
}

// Follow gives what names resolve to after a View, from what they did before. A Live that says the same is given back
// as it was. now is the time.
func Follow(before *Live, v *view.View, now time.Time) *Live {
	if before == nil {
		before = &Live{}
	}
	next := &Live{Serial: before.Serial, Primary: primaryOf(before.Primary, v), Carriers: make(map[string][]Carrier, len(v.Services))}
	next.Asked = !slices.ContainsFunc(v.Members, func(m view.Member) bool { return m.Answer == view.NotChecked })
	for i := range v.Services {
		s := &v.Services[i]
		next.Carriers[s.Name] = carriersOf(before.Carriers[s.Name], s, next.Primary)
	}
	if before.Carriers != nil && reflect.DeepEqual(before, next) {
		return before
	}
	next.Serial = max(uint32(now.Unix()), before.Serial+1)
	return next
}

// primaryOf is the member that leads now; else the one that led last, if it is still there; else the declared one.
func primaryOf(last string, v *view.View) string {
	declared := ""
	lastIsThere := false
	for _, m := range v.Members {
		if m.Live == model.Primary {
			return m.Name
		}
		lastIsThere = lastIsThere || m.Name == last
		if m.Role == model.Primary && declared == "" {
			declared = m.Name
		}
	}
	if lastIsThere {
		return last
	}
	return declared
}

// carriersOf are the members that take a service's clients now; else those that did last and are still its servers; else,
// before any was up, the primary if it is one of the regular servers, or all of these, or the backups.
func carriersOf(last []Carrier, s *view.Service, primary string) []Carrier {
	of := func(i int) Carrier {
		return Carrier{Member: s.Servers[i].Member, Weight: s.Servers[i].Weight, Port: s.Servers[i].Port}
	}
	var now []Carrier
	// Who asks for a name waits for the next leader at the service, or goes past it: a hold is nothing to a name.
	for _, i := range s.Unheld().Usable() {
		now = append(now, of(i))
	}
	if len(now) > 0 {
		return now
	}
	var still, regular, all []Carrier
	for i, server := range s.Servers {
		if slices.ContainsFunc(last, func(c Carrier) bool { return c.Member == server.Member }) {
			still = append(still, of(i))
		}
		if !server.Backup {
			regular = append(regular, of(i))
		}
		all = append(all, of(i))
	}
	if len(still) > 0 {
		return still
	}
	if i := slices.IndexFunc(regular, func(c Carrier) bool { return c.Member == primary }); i >= 0 {
		return regular[i : i+1]
	}
	if len(regular) > 0 {
		return regular
	}
	return all
}
