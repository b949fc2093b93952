package chaos

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// place is a member in one service of one node.
type place struct {
	node   string
	port   int
	member string
}

func (p place) String() string { return fmt.Sprintf("%s in %d of %s", p.member, p.port, p.node) }

// sample is what a node's pgporter said of a place at a moment.
type sample struct {
	place
	at time.Time
	up bool
	// reason is pgporter's own.
	reason string
}

// leftOut finds the places that weren't up although the member had been well, in a role for the service, for so long that it has to be.
// Only what is after since counts, for each place. seen are the places of which there was something to say.
func leftOut(samples []sample, since func(p place) time.Time, fit func(p place, from, to time.Time) bool, frozen func(node string, from, to time.Time) time.Duration) (wrong []string, seen map[place]bool) {
	seen = map[place]bool{}
	told := map[place]bool{}
	for _, s := range samples {
		from := s.at.Add(-carriesWithin(s.port))
		from = from.Add(-frozen(s.node, from, s.at))
		if from.Before(since(s.place)) || !fit(s.place, from, s.at) {
			continue
		}
		seen[s.place] = true
		if !s.up && !told[s.place] {
			told[s.place] = true
			wrong = append(wrong, fmt.Sprintf("%s isn't up at %s, though it has been well since %s: %s", s.place, clock(s.at), clock(from), s.reason))
		}
	}
	return wrong, seen
}

// countsFrom says from when on a member has to be carried that is well: from the last fault, or when the questions have been given up that
// were swallowed by one.
func countsFrom(undone time.Time, deeds []deed) func(p place) time.Time {
	return func(p place) time.Time {
		since := undone
		for _, d := range deeds {
			ours := false
			switch d.kind {
			case hangAPI:
				ours = d.member == p.member
			case cutOff, cutOffOneWay, unplug, losePower:
				ours = d.member == p.member || d.member == p.node
			}
			if given := d.to.Add(swallowed); ours && given.After(since) {
				since = given
			}
		}
		return since
	}
}

// carrying asks the pgporters, after the last fault, whom they have as up, and PostgreSQL, Patroni and etcd who is well.
type carrying struct {
	field    *field
	patronis patronis

	began time.Time
	mu    sync.Mutex
	// samples grow; missed is why a node couldn't be asked, or that it could.
	samples []sample
	missed  map[string]string
	seen    map[place]bool
}

// await looks until of every member on every node can be said that it is up where it has to be, or until that takes too long.
func (c *carrying) await(ctx context.Context) []string {
	c.began = time.Now()
	c.patronis = patronis{field: c.field, said: map[string]spans{}}
	c.missed = map[string]string{}
	looking, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	for _, m := range c.field.members {
		all.Go(func() { c.patronis.watch(looking, m) })
		all.Go(func() { c.sample(looking, m) })
	}
	// Members come back as late as a service for replicas may.
	limit := answersWithin(offlinePort) + replicaCarries
	counts := countsFrom(c.began, c.field.done())
	for {
		rest(ctx, 500*time.Millisecond)
		c.mu.Lock()
		wrong, seen := leftOut(c.samples, counts, c.fit, c.field.frozen)
		c.seen = seen
		over := c.complete() || time.Since(c.began) > limit || ctx.Err() != nil
		if over {
			wrong = append(wrong, c.unseen()...)
		}
		c.mu.Unlock()
		if over || len(wrong) > 0 {
			return wrong
		}
	}
}

// sample asks a node's pgporter twice a second until ctx ends.
func (c *carrying) sample(ctx context.Context, m sandbox.Member) {
	for rest(ctx, 500*time.Millisecond) {
		asked, cancel := context.WithTimeout(ctx, 5*time.Second)
		status, err := c.field.status(asked, m)
		cancel()
		now := time.Now()
		c.mu.Lock()
		if err != nil {
			c.missed[m.Name] = err.Error()
			c.mu.Unlock()
			continue
		}
		delete(c.missed, m.Name)
		for _, cluster := range status.Clusters {
			if cluster.Name != scope {
				continue
			}
			for _, service := range cluster.Services {
				port, err := strconv.Atoi(service.Listen[strings.LastIndexByte(service.Listen, ':')+1:])
				if err != nil {
					continue
				}
				for _, name := range c.field.names() {
					s := sample{place: place{m.Name, port, name}, at: now, reason: "it isn't among the service's servers"}
					for _, server := range service.Servers {
						if server.Member == name {
							s.up, s.reason = server.Up, server.Reason
						}
					}
					c.samples = append(c.samples, s)
				}
			}
		}
		c.mu.Unlock()
	}
}

// fit says whether a member was well from one moment to another, and in a role for the service all the time.
func (c *carrying) fit(p place, from, to time.Time) bool {
	primary, there := c.field.roles.there(p.member, from, to)
	says, answers := c.patronis.throughout(p.member, from, to)
	if !there || !answers {
		return false
	}
	leads := c.field.keys.seen().holds(p.member, from, to)
	leader := primary && leads && says == "primary running"
	replica := !primary && !leads && says == "replica running"
	switch {
	case forPrimary(p.port):
		return leader
	case excludesPrimary(p.port):
		return replica
	case p.port == syncPort:
		return leader || replica && c.field.keys.synchronous().holds(p.member, from, to)
	case p.port == replicaPort:
		return leader || replica
	}
	return false
}

// complete says that everything has been seen that there is: each member on each node, and each service.
func (c *carrying) complete() bool {
	for _, to := range c.field.services() {
		any := false
		for _, member := range c.field.names() {
			here := c.seen[place{to.Node, to.Port, member}]
			any = any || here
			if to.Port == replicaPort && !here {
				return false
			}
		}
		if !any {
			return false
		}
	}
	return true
}

// unseen finds what must not be missing: nodes that say nothing, and Patronis that say nothing while their PostgreSQL is well. Both would
// leave nothing to be judged.
func (c *carrying) unseen() []string {
	var wrong []string
	now := time.Now().Add(-missing)
	for _, name := range c.field.names() {
		if why := c.missed[name]; why != "" {
			wrong = append(wrong, "the pgporter of "+name+" doesn't say whom it has as up: "+why)
		}
		since := now.Add(-replicaCarries)
		_, there := c.field.roles.there(name, since, now)
		if says := c.patronis.since(name, since); there && since.After(c.began) && (says == "" || strings.HasSuffix(says, "unknown")) {
			wrong = append(wrong, fmt.Sprintf("PostgreSQL of %s is well, and its Patroni doesn't answer by its own port within %s, or doesn't know it", name, patient))
		}
	}
	return wrong
}

func (c *carrying) figures() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var last time.Time
	for _, s := range c.samples {
		if c.seen[s.place] && !s.up && s.at.After(last) {
			last = s.at
		}
	}
	text := fmt.Sprintf("%d servers (of members that were well, in every service of every node) were looked at after the last fault", len(c.seen))
	if !last.IsZero() {
		text += fmt.Sprintf("; the last one was up %.1fs after looking began", last.Sub(c.began).Seconds())
	}
	lines := []string{text}
	var not []place
	for _, node := range c.field.names() {
		for _, member := range c.field.names() {
			if p := (place{node, replicaPort, member}); !c.seen[p] {
				not = append(not, p)
			}
		}
	}
	slices.SortFunc(not, func(a, b place) int { return cmp.Or(cmp.Compare(a.member, b.member), cmp.Compare(a.node, b.node)) })
	for _, p := range not {
		lines = append(lines, fmt.Sprintf("nothing can be said of %s: the member wasn't well for %s", p, carriesWithin(p.port)))
	}
	return lines
}

// times are what a bound is for each service, in the order of ports.
func times(bound func(port int) time.Duration) string {
	var all []string
	for _, port := range []int{pooledPort, replicaPort, syncPort, directPort, readersPort, offlinePort} {
		all = append(all, fmt.Sprintf("%d %.0fs", port, bound(port).Seconds()))
	}
	return strings.Join(all, ", ")
}
