package shadow

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/health"
)

const (
	// calmTime is how long nothing may change until an event is over.
	calmTime = 5 * time.Second
	// longestEvent is when it is judged in any case.
	longestEvent = 5 * time.Minute
	// mostSteps and mostDisagreements of an event are kept; more are counted.
	mostSteps         = 200
	mostDisagreements = 100
)

// Event is a time in which things change: a leader that changes, a member that goes. It begins with the first change on either side and is
// over when nothing has changed for a while and, where there is a leader's service, there is a leader.
type Event struct {
	Number  int
	Cluster string
	// What names it in words.
	What         string
	Began, Ended time.Time
	// From and To are who held the leader key, or was the primary, before it and after it.
	From, To string
	// Steps are what each side did, in order; Dropped is how many more there were, of steps and disagreements.
	Steps         []Step
	Dropped       int
	Disagreements []*Disagreement

	// lost and gained are servers that either side took out and in.
	lost, gained map[string]bool
}

// Of says whose a step is.
type Of string

// Whose steps there are.
const (
	OfPGPorter Of = "pgporter"
	OfHAProxy  Of = "haproxy"
	OfKey      Of = "leader key"
)

// Did says what a step is.
type Did string

// What is done.
const (
	LeadsClients Did = "leads new clients to it"
	LeadsNobody  Did = "leads no new clients to it"
	EndsSessions Did = "ends its sessions"
	HoldsKey     Did = "is held by it"
)

// Step is something that a side did, or would have done.
type Step struct {
	At time.Time
	Of Of
	// Service is empty for the leader key's.
	Service, Server string
	Did             Did
	// Why is what that side says of the server.
	Why string
	// Sessions are those that HAProxy had there, where they end.
	Sessions int
}

func stepOf(of Of, key at, takes bool, why string) Step {
	did := LeadsNobody
	if takes {
		did = LeadsClients
	}
	return Step{Of: of, Service: key.service, Server: key.server, Did: did, Why: why}
}

// step notes a change: it belongs to the event that goes on, or begins one.
func (b *book) step(now time.Time, s Step) {
	s.At = now
	if b.event == nil {
		b.event = &Event{Cluster: b.cluster, Began: now, From: b.leader(), lost: map[string]bool{}, gained: map[string]bool{}}
	}
	b.changed = later(b.changed, now)
	e := b.event
	switch s.Did {
	case LeadsClients:
		e.gained[s.Server] = true
	case LeadsNobody, EndsSessions:
		e.lost[s.Server] = true
	}
	if len(e.Steps) >= mostSteps {
		e.Dropped++
		return
	}
	// What HAProxy did is known a moment later than what pgporter decided meanwhile.
	i := len(e.Steps)
	for i > 0 && e.Steps[i-1].At.After(now) {
		i--
	}
	e.Steps = slices.Insert(e.Steps, i, s)
	if now.Before(e.Began) {
		e.Began = now
	}
}

// leader is who leads, as far as is known.
func (b *book) leader() string {
	if b.holder != "" {
		return b.holder
	}
	return b.primary
}

func (e *Event) disagree(d *Disagreement) {
	if len(e.Disagreements) >= mostDisagreements {
		e.Dropped++
		return
	}
	e.Disagreements = append(e.Disagreements, d)
}

// calm ends the event that goes on, if it is over, and judges: nil otherwise.
func (b *book) calm(now time.Time) *Event {
	e := b.event
	if e == nil || now.Sub(b.changed) < calmTime || now.Sub(e.Began) < longestEvent && !b.led() {
		return nil
	}
	b.event = nil
	e.Ended, e.To, e.What = b.changed, b.leader(), what(e, b.leader())
	for _, d := range b.open {
		b.judge(d)
	}
	for _, d := range b.over {
		b.judge(d)
	}
	b.settled, b.over = append(b.settled, b.over...), nil
	return e
}

// led says that who leads is settled: a service of the leader has a server, and the leader key names it.
func (b *book) led() bool {
	if b.cluster == "" {
		return true
	}
	asked, led := false, false
	for _, key := range keys(b.ours) {
		if s := b.services[key.service]; s == nil || !health.KindOf(s.Check).OfLeader() {
			continue
		}
		asked = true
		if is := b.ours[key]; is.takes && (!b.keyed() || holderOf(b.seen) == key.server) {
			led = true
		}
	}
	return led || !asked
}

// keyed says that the leader key can be read.
func (b *book) keyed() bool {
	return b.seen.Key.Watched && b.seen.Key.Lost == "" && !b.seen.Key.Doubted
}

// judge says who was right, by who holds the leader key now that all is calm.
func (b *book) judge(d *Disagreement) {
	holder := holderOf(b.seen)
	switch {
	case !d.leader && d.Kind == HAProxyLeads && d.Failed > 0:
		d.Right, d.Because = RightPGPorter, fmt.Sprintf("of the clients that HAProxy led to it %d connections failed", d.Failed)
		return
	case !d.leader:
		d.Right, d.Because = RightUnknown, "the leader key says nothing of this service"
		return
	case holder == "":
		d.Right, d.Because = RightUnknown, "the leader key isn't known"
		return
	}
	d.Because = holder + " held the leader key afterwards"
	haproxyWould := d.Kind == HAProxyLeads || d.Kind == HAProxyKeeps
	d.Right = RightPGPorter
	if haproxyWould == (holder == d.Server) {
		d.Right = RightHAProxy
	}
	if d.Right == RightHAProxy && d.Kind == HAProxyLeads && d.Failed > 0 {
		d.Right = RightPGPorter
		d.Because += fmt.Sprintf(", but of the clients that HAProxy led to it %d connections failed", d.Failed)
	}
}

// what names the event that goes on.
func (b *book) what() string { return what(b.event, b.leader()) }

func what(e *Event, leader string) string {
	if e.From != "" && leader != "" && e.From != leader {
		return fmt.Sprintf("the leader changed from %s to %s", e.From, leader)
	}
	var parts []string
	for _, names := range []struct {
		in, out map[string]bool
		words   string
	}{{e.gained, e.lost, "went and came back"}, {nil, e.lost, "went"}, {e.gained, nil, "came"}} {
		var some []string
		for _, name := range union(e.lost, e.gained) {
			gained, lost := e.gained[name], e.lost[name]
			if (names.in != nil) == gained && (names.out != nil) == lost {
				some = append(some, name)
			}
		}
		if len(some) > 0 {
			parts = append(parts, strings.Join(some, ", ")+" "+names.words)
		}
	}
	if len(parts) == 0 {
		return "something changed"
	}
	return strings.Join(parts, "; ")
}

func union(sets ...map[string]bool) []string {
	var all []string
	for _, set := range sets {
		for name := range set {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	slices.Sort(all)
	return all
}

// copied is the event as it is now.
func (e *Event) copied() Event {
	c := *e
	c.Steps = slices.Clone(e.Steps)
	c.Disagreements = nil
	for _, d := range e.Disagreements {
		now := *d
		c.Disagreements = append(c.Disagreements, &now)
	}
	c.lost, c.gained = nil, nil
	return c
}
