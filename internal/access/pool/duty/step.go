package duty

import (
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Command is one of PgBouncer's.
type Command string

// The commands that may be due. None is the empty one.
const (
	None      Command = ""
	Pause     Command = "PAUSE"
	Resume    Command = "RESUME"
	Reconnect Command = "RECONNECT"
)

const (
	// settle is how long the clients of a member that leads no more wait after the hold: whoever came to it through a leader's service, on
	// any node, is ended by then and isn't handed to a replica.
	settle = time.Second
	// grace is how long they wait at most, whatever sessions there are.
	grace = 5 * time.Second
	// logging is how long a PAUSE waits for a moment in which nobody logs in at the server: it ends a login, too, and PgBouncer refuses new
	// clients then until another one succeeds. One that is held as clients are doesn't end before the hold does.
	logging = 200 * time.Millisecond
	// patience is how long a RECONNECT waits for such a moment.
	patience = 2 * time.Second
	// again is when a command is given again that PgBouncer refused.
	again = time.Second
)

// State is what is known of a database from step to step. The zero State is that of one that nothing is known of yet.
type State struct {
	// Ours says that we have paused it: RESUME is ours to say. Somebody else's pause is never ended.
	Ours bool

	// hold is the ID of the hold that was seen last, began when that was seen first, wanted that it pauses the database, and released that somebody else resumed it
	// meanwhile: he is left to it.
	hold             string
	began            time.Time
	wanted, released bool
	// over is since when no hold wants what is Ours.
	over time.Time
	// leads is whom the server connections are of: the leader for a service, the role for a member. Empty while nothing is known.
	leads string
	// due is since when a RECONNECT is.
	due time.Time
	// refused is when PgBouncer refused a command last.
	refused time.Time
}

// Sight is what a step goes by.
type Sight struct {
	Place    Place
	Database Database
	// View is the cluster's; nil if it isn't declared any more.
	View *view.View
	// Sessions are those that this node has with the Place's Member in services of the leader.
	Sessions int
	// Anew says that the PgBouncer was asked for the first time, or again after a while: it may be another process, which knows of no
	// pause.
	Anew bool
	Now  time.Time
}

// Step gives what is due now for a database, and the State once that was done. Whoever can't do it keeps the State of before, by Refused
// if PgBouncer said no.
func Step(s State, seen Sight) (State, Command) {
	holds := s.see(seen)
	s.compare(seen)
	if s.Ours && !seen.Database.Paused {
		s.Ours, s.released = false, !seen.Anew
	}
	want := holds && s.wanted && !s.released
	if want || !s.Ours {
		s.over = time.Time{}
	} else if s.over.IsZero() {
		s.over = seen.Now
	}
	switch {
	case !s.refused.IsZero() && seen.Now.Before(s.refused.Add(again)):
		return s, None
	case want && !seen.Database.Paused && (seen.Database.Logins == 0 || !seen.Now.Before(s.began.Add(logging))):
		s.Ours = true
		return s, Pause
	case !s.due.IsZero() && (seen.Database.Logins == 0 || !seen.Now.Before(s.due.Add(patience))):
		s.due = time.Time{}
		return s, Reconnect
	case !want && s.Ours && s.free(seen):
		s.Ours = false
		return s, Resume
	}
	return s, None
}

// Refused is the State after PgBouncer has refused a command.
func (s State) Refused(now time.Time) State {
	s.refused = now
	return s
}

// Waits tells whether something is to be done soon, or might be: there is a hold, a pause of ours, or a RECONNECT that is due.
func (s State) Waits() bool { return s.Ours || s.hold != "" || !s.due.IsZero() }

// see says whether there is a hold, and notes what one that is new means for the database.
func (s *State) see(seen Sight) bool {
	v := seen.View
	if v == nil || v.Hold.ID == "" || !seen.Now.Before(v.Hold.Until) {
		s.hold = ""
		return false
	}
	h := v.Hold
	if s.hold == h.ID {
		return true
	}
	s.hold, s.began, s.released = h.ID, seen.Now, false
	if at := v.Service(seen.Place.Service); at != nil {
		s.wanted = at.Leads
		if !at.Leads && h.To != "" && h.To != leader(v) {
			// Readers go to others than the member that is to lead, unless it does by now and an earlier hold was over before this one.
			s.due = seen.Now
		}
		return true
	}
	m := seen.Place.Member
	// Who leads as the hold begins. What led next would be paused otherwise while an operator's hold still stands.
	s.wanted = m != "" && m != h.To && (m == h.From || h.From == "" && leader(v) == m)
	return true
}

// compare has a RECONNECT be due if others lead than those whom the server connections are of.
func (s *State) compare(seen Sight) {
	v := seen.View
	if v == nil {
		return
	}
	now := ""
	if m := seen.Place.Member; m != "" {
		i := slices.IndexFunc(v.Members, func(o view.Member) bool { return o.Name == m })
		if i < 0 || v.Members[i].Answered.IsZero() {
			return
		}
		// A server's in_hot_standby is the same whatever kind of standby it is.
		now = map[bool]string{true: "primary", false: "standby"}[v.Members[i].Live == model.Primary]
	} else if at := v.Service(seen.Place.Service); at != nil && !at.Leads {
		now = leader(v)
	}
	if now == "" || now == s.leads {
		return
	}
	if s.leads != "" {
		s.due = seen.Now
	}
	s.leads = now
}

// free says whether clients may go on that wait though no hold wants that any more. Those of a member that leads no more first have their
// sessions ended by whoever connected them.
func (s *State) free(seen Sight) bool {
	if seen.Place.Member == "" || seen.View == nil || leader(seen.View) == seen.Place.Member {
		return true
	}
	waits := seen.Now.Sub(s.over)
	return waits >= grace || waits >= settle && seen.Sessions == 0
}

// leader is the member that leads by its own word; empty if none does.
func leader(v *view.View) string {
	for _, m := range v.Members {
		if m.Live == model.Primary && !m.Answered.IsZero() {
			return m.Name
		}
	}
	return ""
}
