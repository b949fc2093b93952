package proxy

import (
	"cmp"
	"errors"
	"slices"

	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/relay"
)

// chosen is a session that a filter has chosen.
type chosen struct {
	dispatcher *dispatcher
	session    *session
	flow       *relay.Flow
	ends       relay.Ends
}

// choose gives the sessions that a filter chooses, the oldest first, and how many there were beyond its limit. Where the filter goes by
// idleness, or addresses are wanted, the kernel is asked, with no lock of the table held, and sessions that don't move yet are left out.
func (e *Engine) choose(f engine.SessionFilter, addresses bool) (all []chosen, more int, err error) {
	for _, d := range e.offered() {
		if f.Service != "" && f.Service != d.name || f.Cluster != "" && f.Cluster != d.endpoint().Cluster {
			continue
		}
		d.sessions.mu.Lock()
		for s := range d.sessions.open {
			if s.flow != nil && !s.ending && s.matches(f) {
				all = append(all, chosen{dispatcher: d, session: s, flow: s.flow})
			}
		}
		d.sessions.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b chosen) int {
		return cmp.Or(a.session.began.Compare(b.session.began), cmp.Compare(a.session.id, b.session.id))
	})
	limit := f.Limit
	if limit <= 0 {
		limit = len(all)
	}
	kept := all[:0]
	for _, c := range all {
		if f.Idle > 0 || addresses && len(kept) < limit {
			var moves bool
			if c.ends, moves = c.flow.Ends(); !moves {
				continue // it has just ended
			}
		}
		switch {
		case f.Idle > 0 && c.ends.Idle < 0:
			return nil, 0, errors.New("for how long a session is idle isn't known on this system")
		case f.Idle > 0 && c.ends.Idle < f.Idle:
		case len(kept) == limit:
			more++
		default:
			kept = append(kept, c)
		}
	}
	return kept, more, nil
}

// matches tells whether a filter chooses a session, as far as its service and its idleness don't matter.
func (s *session) matches(f engine.SessionFilter) bool {
	return (f.Member == "" || f.Member == s.member) && (f.ID == 0 || f.ID == s.id) && (!f.Client.IsValid() || f.Client.Contains(s.client.Addr().WithZone("")))
}

// Sessions gives the sessions that a filter chooses, the oldest first, and how many there were beyond its limit.
func (e *Engine) Sessions(f engine.SessionFilter) (sessions []engine.Session, more int, err error) {
	all, more, err := e.choose(f, true)
	if err != nil {
		return nil, 0, err
	}
	sessions = make([]engine.Session, len(all))
	for i, c := range all {
		s := c.session
		sessions[i] = engine.Session{ID: s.id, Cluster: c.dispatcher.endpoint().Cluster, Service: c.dispatcher.name, Member: s.member, Client: s.client,
			Listen: c.ends.Listen, Local: c.ends.Local, Server: c.ends.Server, Began: s.began}
		sessions[i].ToServer, sessions[i].ToClient = c.flow.Bytes()
	}
	return sessions, more, nil
}

// EndSessions ends the sessions that a filter chooses, as a mark-down does, and tells how many; dry only tells. by is who wants that.
func (e *Engine) EndSessions(f engine.SessionFilter, by string, dry bool) (int, error) {
	all, _, err := e.choose(f, false)
	if err != nil || dry {
		return len(all), err
	}
	of := map[*dispatcher]map[*session]bool{}
	for _, c := range all {
		if of[c.dispatcher] == nil {
			of[c.dispatcher] = map[*session]bool{}
		}
		of[c.dispatcher][c.session] = true
	}
	n := 0
	for d, sessions := range of {
		ended := d.sessions.kill(sessions, "by order of "+by)
		for _, some := range ended {
			n += some
		}
		d.logEnded(ended)
	}
	return n, nil
}

// kill ends sessions that an operator wants ended, as far as they are still there.
func (t *sessions) kill(sessions map[*session]bool, reason string) endings {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.end(endKilled, func(s *session) string {
		if !sessions[s] {
			return ""
		}
		return reason
	})
}
