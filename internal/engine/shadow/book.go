package shadow

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// at is a server of a service: the service's full name and the member's.
type at struct{ service, server string }

// mine is what pgporter would do with a server.
type mine struct {
	// takes says that new clients would be led to it, why its status in words, changed when takes did.
	takes   bool
	why     string
	changed time.Time
	epoch   uint64
	// used says that it would have had clients since its sessions would have ended last.
	used bool
	// shuts says that its options have sessions end with it.
	shuts bool
}

// theirs is what HAProxy does with a server.
type theirs struct {
	takes, lives  bool
	status        string
	changed       time.Time
	sessions      int
	total, unmade uint64
}

// Kind says what two sides disagree about.
type Kind string

// The kinds of disagreements.
const (
	// HAProxyLeads: HAProxy leads new clients to a server, pgporter wouldn't. PGPorterLeads is the other way round.
	HAProxyLeads  Kind = "haproxy_leads"
	PGPorterLeads Kind = "pgporter_leads"
	// HAProxyKeeps: pgporter would have ended a server's sessions, HAProxy hasn't. HAProxyEnded is the other way round.
	HAProxyKeeps Kind = "haproxy_keeps"
	HAProxyEnded Kind = "haproxy_ended"
)

// Disagreement is a time in which both sides treat a server differently.
type Disagreement struct {
	Service, Server string
	Kind            Kind
	// Since is when it began, Until when it was over; zero as long as it lasts.
	Since, Until time.Time
	// Sessions is how many HAProxy had there when it began.
	Sessions int
	// Clients are those that HAProxy led there meanwhile, Failed the connections that it couldn't make, retries included.
	Clients, Failed uint64
	// PGPorter and HAProxy are what each said of the server when it began.
	PGPorter, HAProxy string
	// Right says who was right, Because why; both are empty until that was judged.
	Right   Side
	Because string

	// total and unmade are HAProxy's counters when it began.
	total, unmade uint64
	// leader says that the leader key tells who is right.
	leader bool
}

// Side is one of the two, or unknown.
type Side string

// Who was right.
const (
	RightPGPorter Side = "pgporter"
	RightHAProxy  Side = "haproxy"
	RightUnknown  Side = "unknown"
)

// matter is what there can be one disagreement about at a time.
type matter struct {
	at
	sessions bool
}

// book is what is known of a cluster's servers. Nothing in it waits or asks; time comes with Views and answers.
type book struct {
	cluster string
	board   *view.Board
	// offered are the services that this node has, by full names.
	offered []string

	seen *view.View
	// begun says that both sides have been known once: what is compared from then on.
	begun  bool
	ours   map[at]mine
	theirs map[at]theirs
	// present are the services that HAProxy has, at its last answer; nil before that.
	present map[string]bool
	// services are those of the newest View.
	services map[string]*view.Service
	open     map[matter]*Disagreement
	// ending are servers whose sessions pgporter would have ended since the last look at HAProxy.
	ending map[at]time.Time

	// event is what is going on; nil while all is calm. changed is when something did last.
	event   *Event
	changed time.Time
	// holder is who was last known to hold the leader key, primary the member that was last the only live one.
	holder, primary string
	// over are disagreements that have ended since the last event was judged, settled those that were judged then.
	over, settled []*Disagreement
}

func newBook(cluster string, board *view.Board) *book {
	return &book{cluster: cluster, board: board, ours: map[at]mine{}, theirs: map[at]theirs{}, services: map[string]*view.Service{}, open: map[matter]*Disagreement{}, ending: map[at]time.Time{}}
}

// offer says which services are compared. Of those that aren't any more nothing is kept.
func (b *book) offer(services []string) {
	b.offered = services
	gone := func(service string) bool { return !slices.Contains(services, service) }
	maps.DeleteFunc(b.ours, func(key at, _ mine) bool { return gone(key.service) })
	maps.DeleteFunc(b.theirs, func(key at, _ theirs) bool { return gone(key.service) })
	maps.DeleteFunc(b.services, func(name string, _ *view.Service) bool { return gone(name) })
	maps.DeleteFunc(b.present, func(name string, _ bool) bool { return gone(name) })
	maps.DeleteFunc(b.open, func(m matter, _ *Disagreement) bool { return gone(m.service) })
	// Those that are new are compared from the next View and answer on.
	b.seen = nil
}

// viewed takes a View; one that was taken already does nothing.
func (b *book) viewed(v *view.View) {
	if v == b.seen {
		return
	}
	b.seen = v
	now := v.At
	next := map[at]mine{}
	services := map[string]*view.Service{}
	for i := range v.Services {
		s := &v.Services[i]
		if !slices.Contains(b.offered, s.FullName) {
			continue
		}
		services[s.FullName] = s
		usable := s.Usable()
		for j, server := range s.Servers {
			h := s.Health[j]
			key := at{s.FullName, server.Member}
			was, before := b.ours[key]
			is := mine{takes: slices.Contains(usable, j), why: s.Words(j), changed: was.changed, epoch: h.Epoch, shuts: s.OptionsOf(j).ShutdownSessions}
			if !before || was.takes != is.takes {
				is.changed = now
			}
			is.used = is.takes || was.used && was.epoch == is.epoch
			next[key] = is
			// A service that is compared from now on is no news.
			if !b.begun || b.services[s.FullName] == nil {
				continue
			}
			if was.takes != is.takes {
				b.step(now, stepOf(OfPGPorter, key, is.takes, is.why))
			}
			if before && was.epoch != is.epoch && (was.used || b.theirs[key].sessions > 0) {
				b.wouldEnd(now, key, h.Ended)
			}
		}
	}
	if b.begun {
		for _, key := range keys(b.ours) {
			was := b.ours[key]
			if _, stays := next[key]; stays || services[key.service] == nil {
				continue
			}
			const left = "it isn't one of the service's servers any more"
			if was.takes {
				b.step(now, stepOf(OfPGPorter, key, false, left))
			}
			if was.shuts && (was.used || b.theirs[key].sessions > 0) {
				b.wouldEnd(now, key, left)
			}
		}
		b.followKey(v, now)
	} else {
		b.holder, b.primary = cmp.Or(holderOf(v), b.holder), cmp.Or(primaryOf(v), b.primary)
	}
	b.ours, b.services = next, services
}

// followKey notes who holds the leader key now, and who the primary is.
func (b *book) followKey(v *view.View, now time.Time) {
	if holder := holderOf(v); holder != "" && holder != b.holder {
		b.step(now, Step{Of: OfKey, Server: holder, Did: HoldsKey, Why: "before it: " + cmp.Or(b.holder, "nobody that is known")})
		b.holder = holder
	}
	if primary := primaryOf(v); primary != "" {
		b.primary = primary
	}
}

// holderOf is who holds the leader key; empty if nobody does, or that isn't known.
func holderOf(v *view.View) string {
	if !v.Key.Watched || v.Key.Lost != "" || v.Key.Doubted {
		return ""
	}
	return v.Key.Holder
}

// primaryOf is the one primary, by its role.
func primaryOf(v *view.View) string {
	name := ""
	for _, m := range v.Members {
		if m.Live == model.Primary {
			if name != "" {
				return ""
			}
			name = m.Name
		}
	}
	return name
}

// answered takes HAProxy's statistics as they were at a time, and compares.
func (b *book) answered(now time.Time, lines []haproxy.Statistic) {
	if b.seen == nil || !b.begun && !checked(b.seen) {
		return
	}
	present := map[string]bool{}
	next := map[at]theirs{}
	for name, s := range b.services {
		var servers []haproxy.Statistic
		for _, l := range lines {
			switch {
			case l.Service != name:
			case l.Server == haproxy.Frontend || l.Server == haproxy.Backend:
				present[name] = true
			default:
				// HAProxy's page may be anybody's.
				l.Server, l.Status = safetext.Line(l.Server), safetext.Line(l.Status)
				servers = append(servers, l)
			}
		}
		takes := usable(servers, s.AllBackups)
		for i, l := range servers {
			next[at{name, l.Server}] = theirs{takes: takes[i], lives: l.Lives(), status: l.Status, sessions: l.Sessions, total: l.TotalSessions, unmade: l.Failed + l.Retried}
		}
	}
	before := b.present
	b.present = present
	for _, key := range keys(next) {
		is, was := next[key], b.theirs[key]
		is.changed = was.changed
		if was.takes != is.takes || was.changed.IsZero() {
			is.changed = now
		}
		next[key] = is
		if !b.begun || !before[key.service] {
			continue
		}
		if was.takes != is.takes {
			b.step(now, stepOf(OfHAProxy, key, is.takes, is.status))
		}
		if was.lives && !is.lives && b.shuts(key) && (was.takes || was.sessions > 0) {
			b.haveEnded(now, key, was, is.status)
		}
	}
	if b.begun {
		for _, key := range keys(b.theirs) {
			if _, stays := next[key]; !stays && b.theirs[key].takes && b.services[key.service] != nil {
				b.step(now, stepOf(OfHAProxy, key, false, "it isn't in HAProxy's configuration any more"))
			}
		}
	}
	b.theirs, b.begun = next, true
	b.compare(now)
}

// shuts says whether sessions end with a server that goes down, by the service's options.
func (b *book) shuts(key at) bool {
	if is, known := b.ours[key]; known {
		return is.shuts
	}
	s := b.services[key.service]
	return s != nil && s.Options.ShutdownSessions
}

// usable says which of a service's servers HAProxy leads new clients to: the regular ones, or else the first backup, or all.
func usable(servers []haproxy.Statistic, allBackups bool) []bool {
	takes := make([]bool, len(servers))
	regular, first := false, true
	for i, s := range servers {
		takes[i] = s.TakesClients() && !s.Backup
		regular = regular || takes[i]
	}
	for i, s := range servers {
		if !regular && s.Backup && s.TakesClients() && (first || allBackups) {
			takes[i], first = true, false
		}
	}
	return takes
}

// ready says why HAProxy can't be given a service yet.
func ready(s *view.Service, lines []haproxy.Statistic) error {
	var servers []haproxy.Statistic
	listens := false
	for _, l := range lines {
		switch {
		case l.Service != s.FullName || l.Server == haproxy.Backend:
		case l.Server == haproxy.Frontend:
			listens = l.Status == "OPEN"
		default:
			servers = append(servers, l)
		}
	}
	if !listens {
		return fmt.Errorf("it doesn't listen for %s", s.FullName)
	}
	ours := map[string]bool{}
	for _, i := range s.Unheld().Usable() {
		ours[s.Servers[i].Member] = true
	}
	leads := false
	for i, takes := range usable(servers, s.AllBackups) {
		name := safetext.Line(servers[i].Server)
		if takes && len(ours) > 0 && !ours[name] && health.KindOf(s.Check).OfLeader() {
			return fmt.Errorf("it leads clients of %s to %s", s.FullName, name)
		}
		leads = leads || takes
	}
	if len(ours) > 0 && !leads {
		return fmt.Errorf("it leads nobody of %s anywhere", s.FullName)
	}
	return nil
}

// checked says that every member was asked, and every server judged.
func checked(v *view.View) bool {
	for _, m := range v.Members {
		if m.Answer == view.NotChecked {
			return false
		}
	}
	for _, s := range v.Services {
		for _, h := range s.Health {
			if h.Reason == view.NotChecked {
				return false
			}
		}
	}
	return true
}

// compare begins and ends disagreements by what both sides say at this moment.
func (b *book) compare(now time.Time) {
	all := map[at]bool{}
	for key := range b.ours {
		all[key] = true
	}
	for key := range b.theirs {
		all[key] = true
	}
	for m := range b.open {
		all[m.at] = true
	}
	for _, key := range keys(all) {
		is, has := b.ours[key], b.theirs[key]
		about := matter{at: key}
		d := b.open[about]
		kind := HAProxyLeads
		if is.takes {
			kind = PGPorterLeads
		}
		// The later of the two changes began it, or ended it.
		turned := later(is.changed, has.changed)
		differ := is.takes != has.takes && b.present[key.service] && b.services[key.service] != nil
		if d != nil && (!differ || d.Kind != kind) {
			if turned.Before(d.Since) {
				turned = now
			}
			b.end(about, turned, has)
			d = nil
		}
		if d == nil && differ {
			if !b.calmBefore(turned) {
				turned = now
			}
			b.begin(about, kind, turned)
		}
		b.compareSessions(key, now)
	}
	clear(b.ending)
}

// calmBefore says that a disagreement may have begun at a time: not before the comparison did.
func (b *book) calmBefore(t time.Time) bool {
	return !t.IsZero() && (b.event != nil && !t.Before(b.event.Began))
}

// begin begins a disagreement.
func (b *book) begin(about matter, kind Kind, since time.Time) *Disagreement {
	is, has := b.ours[about.at], b.theirs[about.at]
	d := &Disagreement{Service: about.service, Server: about.server, Kind: kind, Since: since, Sessions: has.sessions,
		PGPorter: cmp.Or(is.why, "it isn't one of the service's servers"), HAProxy: cmp.Or(has.status, "it isn't in HAProxy's configuration"), total: has.total, unmade: has.unmade}
	if s := b.services[about.service]; s != nil && b.cluster != "" {
		d.leader = health.KindOf(s.Check).OfLeader()
	}
	b.open[about] = d
	if b.event != nil {
		b.event.disagree(d)
	}
	return d
}

// end ends a disagreement.
func (b *book) end(about matter, until time.Time, has theirs) {
	d := b.open[about]
	d.Until = until
	d.count(has)
	delete(b.open, about)
	if until.Sub(d.Since) < busyGap {
		// Both did it at the same time, as far as looks tell.
		if b.event != nil {
			b.event.Disagreements = slices.DeleteFunc(b.event.Disagreements, func(other *Disagreement) bool { return other == d })
		}
		return
	}
	b.over = append(b.over, d)
}

// count brings what HAProxy has counted meanwhile up to date. Counters that are lower than before are another process's.
func (d *Disagreement) count(has theirs) {
	if has.total >= d.total {
		d.Clients = has.total - d.total
	}
	if has.unmade >= d.unmade {
		d.Failed = has.unmade - d.unmade
	}
}

// standing are the disagreements that last, in order.
func (b *book) standing() []*Disagreement {
	all := make([]*Disagreement, 0, len(b.open))
	for about, d := range b.open {
		d.count(b.theirs[about.at])
		all = append(all, d)
	}
	slices.SortFunc(all, func(x, y *Disagreement) int {
		return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.Service, y.Service), cmp.Compare(x.Server, y.Server), cmp.Compare(x.Kind, y.Kind))
	})
	return all
}

// absent are the services that HAProxy hasn't; none before it has answered.
func (b *book) absent() []string {
	var all []string
	for _, name := range b.offered {
		if b.present != nil && !b.present[name] {
			all = append(all, name)
		}
	}
	return all
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// keys are a map's keys in order.
func keys[V any](of map[at]V) []at {
	all := make([]at, 0, len(of))
	for key := range of {
		all = append(all, key)
	}
	slices.SortFunc(all, func(a, b at) int {
		return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.server, b.server))
	})
	return all
}
