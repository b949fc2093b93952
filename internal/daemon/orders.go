package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// errHandingOver refuses an order that the next process wouldn't hear of.
var errHandingOver = errors.New("a new process is taking over: give the order again in a moment")

// Order has an operator's order hold for servers, and gives what it does to each: it is in force when it returns, for who comes from then
// on. o.By is who gives it. An order for a member without a service holds for all services of its cluster, those among them that it is
// no server of now: whoever drains a primary and switches over doesn't want it to take clients as a replica. The result has those that it
// is a server of.
func (d *Daemon) Order(ctx context.Context, o api.Order) ([]api.OrderResult, error) {
	o.By = cmp.Or(safetext.Line(o.By), "somebody who wasn't named")
	c, err := commandOf(o)
	if err != nil {
		return nil, err
	}
	carried := trafficOf(d.engine.Traffic(ctx))
	// An upgrade takes along what was ordered before it began.
	d.ordering.Lock()
	defer d.ordering.Unlock()
	if d.handingOver {
		return nil, errHandingOver
	}
	c.At = time.Now()
	targets, err := d.targets(o, carried)
	if err != nil {
		return nil, err
	}
	told := map[view.ServerID]haproxy.Told{}
	if !o.DryRun {
		if told, err = d.tellEngine(ctx, c, targets); err != nil {
			return nil, fmt.Errorf("nothing was ordered: %w", err)
		}
	}
	var results []api.OrderResult
	for _, t := range targets {
		results = append(results, d.orderOn(t, c, o.DryRun, told, carried)...)
	}
	if len(results) == 0 {
		results = waiting(c, targets)
	}
	if !o.DryRun {
		d.tellOrder(o, results)
	}
	return results, nil
}

// commandOf reads what is ordered.
func commandOf(o api.Order) (view.Command, error) {
	c := view.Command{Weight: o.Weight, Declared: o.DeclaredWeight, By: o.By}
	switch {
	case o.Service == "" && o.Member == "":
		return c, errors.New("the order names no server: say a service (by its full name), a member, or both")
	case o.State == "" && o.Weight == nil && !o.DeclaredWeight:
		return c, errors.New("the order says nothing: a state (ready, drain, maint), a weight or both")
	case o.Weight != nil && o.DeclaredWeight:
		return c, errors.New("the order has a weight and wants the declared one: say one of the two")
	case o.Weight != nil && (*o.Weight < 0 || *o.Weight > 256):
		return c, fmt.Errorf("a weight is 0 to 256, not %d", *o.Weight)
	}
	if o.State != "" {
		s, known := view.StateOf(string(o.State))
		if !known {
			return c, fmt.Errorf("a state is ready, drain or maint, not %q", safetext.Line(string(o.State)))
		}
		c.State = &s
	}
	return c, nil
}

// target is what of a Board an order is for.
type target struct {
	cluster string
	// board is nil where HAProxy alone knows of the servers (TCP services); on are then those servers.
	board *view.Board
	on    []view.ServerID
}

// targets finds what an order is for; the error says what there is instead of what it names.
func (d *Daemon) targets(o api.Order, carried traffic) ([]target, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if o.Cluster != "" && !slices.Contains(d.order, o.Cluster) {
		return nil, unknown("cluster", o.Cluster, "clusters", d.order)
	}
	var all []target
	var services, members, closed []string
	// note says that a service has these, which an order may name.
	note := func(t *target, service string, names []string) {
		services = append(services, service)
		if o.Service != "" && o.Service != service {
			return
		}
		members = append(members, names...)
		if o.Member != "" && !slices.Contains(names, o.Member) {
			return
		}
		if carried.service(service).Closed {
			closed = append(closed, service)
			return
		}
		for _, name := range names {
			if o.Member == "" || o.Member == name {
				t.on = append(t.on, view.ServerID{Service: service, Member: name})
			}
		}
	}
	for _, c := range d.plan.Clusters {
		if o.Cluster != "" && o.Cluster != c.Name {
			continue
		}
		t := target{cluster: c.Name, board: d.running[c.Name].loop.Board()}
		names := make([]string, len(c.Members))
		for i, m := range c.Members {
			names[i] = m.Name
		}
		for _, definition := range c.Definitions {
			note(&t, definition.FullName, names)
		}
		all = append(all, t)
	}
	if o.Cluster == "" {
		var t target
		if d.tcpcheck != nil {
			t.board = d.tcpcheck.Board()
		}
		for _, g := range d.plan.TCPServices {
			names := make([]string, len(g.Servers))
			for i, s := range g.Servers {
				names[i] = s.Name
			}
			note(&t, g.Name, names)
		}
		all = append(all, t)
	}
	all = slices.DeleteFunc(all, func(t target) bool { return len(t.on) == 0 })
	switch {
	case len(all) > 0:
		return all, nil
	case len(closed) > 0:
		return nil, fmt.Errorf("HAProxy serves %s: this pgporter is its shadow and carries only what was taken from it, so give the order to HAProxy", strings.Join(closed, ", "))
	case o.Service != "" && !slices.Contains(services, o.Service):
		return nil, unknown("service", o.Service, "services", services)
	}
	return nil, unknown("member", o.Member, "members", members)
}

// mostOffered is how many names an error lists.
const mostOffered = 20

// unknown says that there is nothing of a name, and what there is.
func unknown(kind, name, kinds string, there []string) error {
	there = slices.Compact(slices.Sorted(slices.Values(there)))
	more, near := "", diag.Nearest(name, there)
	if near != "" {
		near = "; did you mean " + near
	}
	if n := len(there) - mostOffered; n > 0 {
		there, more = there[:mostOffered], fmt.Sprintf(" and %d more", n)
	}
	if len(there) == 0 {
		return fmt.Errorf("there is no %s %q here, and no other", kind, safetext.Line(name))
	}
	return fmt.Errorf("there is no %s %q here: the %s are %s%s%s", kind, safetext.Line(name), kinds, strings.Join(there, ", "), more, near)
}

// tellTime bounds how long HAProxy may take for all commands of an order: others wait meanwhile.
const tellTime = 15 * time.Second

// tellEngine has an engine with a mind of its own take the order first.
func (d *Daemon) tellEngine(ctx context.Context, c view.Command, targets []target) (map[view.ServerID]haproxy.Told, error) {
	engine, is := d.engine.(balancer)
	if !is {
		return nil, nil
	}
	var on []view.ServerID
	down := map[view.ServerID]bool{}
	for _, t := range targets {
		on = append(on, t.on...)
		if t.board == nil {
			continue
		}
		for _, s := range t.board.View().Services {
			for i, server := range s.Servers {
				down[view.ServerID{Service: s.FullName, Member: server.Member}] = !s.Health[i].Up
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, tellTime)
	defer cancel()
	return engine.Engine.Order(ctx, c, on, down)
}

// orderOn gives a command on one Board's servers, and says what it does to each of those that there are now.
func (d *Daemon) orderOn(t target, c view.Command, dry bool, told map[view.ServerID]haproxy.Told, carried traffic) []api.OrderResult {
	refused := func(id view.ServerID) bool { return told[id].Err != nil }
	results := []api.OrderResult{}
	if t.board == nil {
		for _, id := range t.on {
			r := api.OrderResult{Service: id.Service, Member: id.Member, Changed: told[id].Changed && !refused(id), Sessions: serverTraffic(carried.service(id.Service), id.Member).Sessions}
			r.Now = api.Ordered{State: api.Ready, Weight: c.Weight, By: c.By, Since: c.At}
			if c.State != nil {
				r.Now.State = api.ServerState(c.State.String())
			}
			r.Effect = "HAProxy alone knows of it and goes by the order"
			if refused(id) {
				r.Effect = "HAProxy refuses: " + safetext.Line(told[id].Err.Error())
			}
			results = append(results, r)
		}
		return results
	}
	on := slices.DeleteFunc(slices.Clone(t.on), refused)
	give := t.board.Order
	if dry {
		give = t.board.Try
	}
	before, after := give(c, on)
	for _, id := range t.on {
		was, is := before.Service(id.Service), after.Service(id.Service)
		if is == nil || was == nil {
			continue
		}
		i := slices.IndexFunc(is.Servers, func(s model.Server) bool { return s.Member == id.Member })
		if i < 0 {
			continue
		}
		e := effect{before: was, after: is, i: i, sessions: serverTraffic(carried.service(id.Service), id.Member).Sessions, hold: d.holdOf(is)}
		r := api.OrderResult{Cluster: t.cluster, Service: id.Service, Member: id.Member, Sessions: e.sessions,
			Changed: was.Health[i].Order != is.Health[i].Order || told[id].Changed && !refused(id), Now: orderedOf(is.Health[i].Order), Effect: e.String()}
		if refused(id) {
			r.Effect = "HAProxy refuses: " + safetext.Line(told[id].Err.Error())
		}
		if r.Now.By == "" {
			r.Now.By, r.Now.Since = c.By, c.At
		}
		results = append(results, r)
	}
	return results
}

// orderedOf is an order in the API's words.
func orderedOf(o view.Order) api.Ordered {
	shown := api.Ordered{State: api.ServerState(o.State.String()), By: o.By, Since: o.Since}
	if o.Weighed {
		shown.Weight = &o.Weight
	}
	return shown
}

// waiting are the results of an order for members that are no servers of their services now.
func waiting(c view.Command, targets []target) []api.OrderResult {
	var results []api.OrderResult
	for _, t := range targets {
		for _, id := range t.on {
			r := api.OrderResult{Cluster: t.cluster, Service: id.Service, Member: id.Member, Changed: true,
				Effect: "is no server of the service now; the order holds from when it is one", Now: api.Ordered{State: api.Ready, Weight: c.Weight, By: c.By, Since: c.At}}
			if c.State != nil {
				r.Now.State = api.ServerState(c.State.String())
			}
			results = append(results, r)
		}
	}
	return results
}

// toldSingly is how many services of a member an order may be for that is told for each of them.
const toldSingly = 8

// tellOrder logs an order and notes it for the timeline, once for each server; for a member with many services once.
func (d *Daemon) tellOrder(o api.Order, results []api.OrderResult) {
	changed := map[[2]string]int{}
	for _, r := range results {
		if r.Changed {
			changed[[2]string{r.Cluster, r.Member}]++
		}
	}
	for _, r := range results {
		of := [2]string{r.Cluster, r.Member}
		n := changed[of]
		if !r.Changed || n == 0 {
			continue
		}
		service, where, effect := r.Service, r.Service, r.Effect
		if n > toldSingly {
			changed[of] = 0
			service, where, effect = "", fmt.Sprintf("%d services", n), "so in each of them"
		}
		d.note(api.Event{Kind: api.EventOrder, Cluster: r.Cluster, Service: service, Member: r.Member, By: o.By,
			Text: fmt.Sprintf("%s in %s, %s: %s", r.Member, where, wanted(o), effect)})
		d.log.Info("ordered", "what", wanted(o), "service", where, "server", r.Member, "by", o.By, "effect", effect)
	}
}

// wanted is an order in words.
func wanted(o api.Order) string {
	var words []string
	if o.State != "" {
		words = append(words, string(o.State))
	}
	if o.Weight != nil {
		words = append(words, fmt.Sprintf("weight %d", *o.Weight))
	}
	if o.DeclaredWeight {
		words = append(words, "the declared weight")
	}
	return strings.Join(words, ", ")
}

// effect is what an order does to a server, for people.
type effect struct {
	before, after *view.Service
	i             int
	sessions      int
	// hold is how long clients wait while there is no server.
	hold model.Hold
}

// holdOf is how long clients of a service wait while it has no server.
func (d *Daemon) holdOf(svc *view.Service) model.Hold {
	_, refuses := d.engine.(balancer)
	switch {
	case refuses:
		return model.Hold{}
	case svc.Hold != nil:
		return *svc.Hold
	}
	return model.Hold{Failover: d.cfg.HoldFailover, For: d.cfg.Hold}
}

func (e effect) String() string {
	was, is := e.before.Health[e.i].Order, e.after.Health[e.i].Order
	if was == is {
		if words := is.Words(); words != "" {
			return "is so already: " + words
		}
		return "is so already"
	}
	var parts []string
	if from, to := e.before.Servers[e.i].Weight, e.after.Servers[e.i].Weight; from != to || was.Weighed != is.Weighed {
		parts = append(parts, fmt.Sprintf("its weight is %d, it was %d", to, from))
	}
	parts = append(parts, e.clients())
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "; ")
}

// clients says what becomes of clients, new ones and those that it has.
func (e effect) clients() string {
	took, takes := e.before.Takes(e.i), e.after.Takes(e.i)
	served := slices.Contains(e.before.Usable(), e.i)
	h := e.after.Health[e.i]
	sessions := e.ofSessions()
	if takes {
		switch serves := slices.Contains(e.after.Usable(), e.i); {
		case took:
			return ""
		case serves:
			return "takes new clients"
		default:
			return "is ready to take clients, as a backup"
		}
	}
	if h.Order.State == view.Ready && h.Order != (view.Order{}) && took {
		return "takes no new clients" + sessions + e.others()
	}
	switch {
	case h.Order.State == view.Ready && !h.Up:
		return "is ready, and takes clients once its checks have it up: " + h.Reason
	case h.Order.State == view.Ready:
		return "is ready, and takes no new clients: its weight is 0"
	case !took && !h.Up:
		return "took no new clients anyway, its checks have it down" + sessions
	case !served:
		return "takes no new clients" + sessions
	}
	return "takes no new clients" + sessions + e.others()
}

// ofSessions says what becomes of the sessions that it has.
func (e effect) ofSessions() string {
	is := e.after.Health[e.i].Order.State
	ends := is == view.Maintenance && e.before.Health[e.i].Order.State != view.Maintenance && e.after.OptionsOf(e.i).ShutdownSessions
	switch {
	case e.sessions == 0:
		return "; it has no session"
	case ends && e.sessions == 1:
		return "; its one session ends now"
	case ends:
		return fmt.Sprintf("; its %d sessions end now", e.sessions)
	case e.sessions == 1:
		return "; its one session goes on"
	}
	return fmt.Sprintf("; its %d sessions go on", e.sessions)
}

// others says who takes the clients that it doesn't any more.
func (e effect) others() string {
	var names []string
	for _, i := range e.after.Usable() {
		names = append(names, e.after.Servers[i].Member)
	}
	switch {
	case len(names) == 1:
		return "; " + names[0] + " takes them"
	case len(names) > 1:
		return "; " + strings.Join(names, ", ") + " take them"
	case e.hold.Waits():
		return fmt.Sprintf("; no server is left: clients of %s will wait %s and be refused", e.after.FullName, e.hold.Words())
	}
	return fmt.Sprintf("; no server is left: clients of %s are refused", e.after.FullName)
}
