package shadow

import "time"

// wouldEnd notes that pgporter would have ended a server's sessions.
func (b *book) wouldEnd(now time.Time, key at, why string) {
	b.step(now, Step{Of: OfPGPorter, Service: key.service, Server: key.server, Did: EndsSessions, Why: why, Sessions: b.theirs[key].sessions})
	about := matter{key, true}
	if d := b.open[about]; d != nil && d.Kind == HAProxyEnded {
		b.end(about, now, b.theirs[key])
		return
	}
	b.ending[key] = now
}

// haveEnded notes that HAProxy has ended a server's sessions, as many as it had at the look before.
func (b *book) haveEnded(now time.Time, key at, was theirs, status string) {
	b.step(now, Step{Of: OfHAProxy, Service: key.service, Server: key.server, Did: EndsSessions, Why: status, Sessions: was.sessions})
	about := matter{key, true}
	_, both := b.ending[key]
	delete(b.ending, key)
	switch d := b.open[about]; {
	case d != nil && d.Kind == HAProxyKeeps:
		b.end(about, now, was)
	case d == nil && !both && was.sessions > 0:
		b.begin(about, HAProxyEnded, now).Sessions = was.sessions
	}
}

// compareSessions begins a disagreement about sessions that pgporter would have ended and HAProxy has, and ends those of which
// nothing is left.
func (b *book) compareSessions(key at, now time.Time) {
	about := matter{key, true}
	is, has := b.ours[key], b.theirs[key]
	if since, ended := b.ending[key]; ended && b.open[about] == nil && has.lives && has.sessions > 0 && !is.takes {
		b.begin(about, HAProxyKeeps, since)
	}
	d := b.open[about]
	if d == nil {
		return
	}
	// Sessions that are begun now can't be told from those of before.
	keptNone := d.Kind == HAProxyKeeps && (has.sessions == 0 || is.takes)
	if keptNone || d.Kind == HAProxyEnded && has.lives {
		b.end(about, now, has)
	}
}
