package history

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Between says what has happened from one View of a Board to a later one. What is known for the first time has not happened: neither is
// anything told of a cluster's first View, nor that a server is up which was not checked before.
func Between(was, is *view.View) []api.Event {
	if was == nil || was == is {
		return nil
	}
	t := telling{was: was, is: is}
	t.key()
	t.roles()
	t.contested()
	t.hold()
	t.servers()
	t.services()
	return t.events
}

// telling is two Views and what was found so far.
type telling struct {
	was, is *view.View
	events  []api.Event
}

func (t *telling) add(e api.Event) {
	e.Cluster, e.At = t.is.Cluster, t.is.At
	t.events = append(t.events, e)
}

// key tells of the leader key.
func (t *telling) key() {
	was, is := t.was.Key, t.is.Key
	if !was.Watched || !is.Watched {
		return
	}
	e := api.Event{Kind: api.EventLeader, Member: is.Holder}
	switch {
	case is.Lost != "" && was.Lost == "" && !was.Confirmed.IsZero():
		e.Text = "the leader key can't be read: " + is.Lost
	case is.Lost != "":
		return
	case is.Doubted && !was.Doubted:
		e.Text = "the leader key isn't believed: it is another cluster's"
	case was.Lost != "" && is.Confirmed.IsZero():
		return
	case was.Lost != "" && is.Holder == "":
		e.Text = "the leader key can be read again: nobody holds it"
	case was.Lost != "":
		e.Text = "the leader key can be read again: " + is.Holder + " holds it"
	case was.Holder == is.Holder || was.Confirmed.IsZero() && !t.known(is.Holder):
		return
	case is.Holder == "":
		e.Member = was.Holder
		e.Text = was.Holder + " holds the leader key no more, and nobody does"
	case was.Holder == "":
		e.Text = is.Holder + " holds the leader key"
	default:
		e.Text = is.Holder + " holds the leader key, before it " + was.Holder
	}
	t.add(e)
}

// known says that it was known of a member, before, what it is.
func (t *telling) known(member string) bool {
	m := memberOf(t.was, member)
	return m != nil && m.Answer != view.NotChecked
}

func memberOf(v *view.View, name string) *view.Member {
	for i := range v.Members {
		if v.Members[i].Name == name {
			return &v.Members[i]
		}
	}
	return nil
}

// roles tells whose role has changed.
func (t *telling) roles() {
	for i := range t.is.Members {
		m := &t.is.Members[i]
		// The order is the same as a rule.
		var before *view.Member
		if i < len(t.was.Members) && t.was.Members[i].Name == m.Name {
			before = &t.was.Members[i]
		} else {
			before = memberOf(t.was, m.Name)
		}
		if before == nil || before.Live == m.Live || before.Answer == view.NotChecked {
			continue
		}
		t.add(api.Event{Kind: api.EventRole, Member: m.Name, Text: fmt.Sprintf("%s is %s now, it was %s", m.Name, m.Live, before.Live)})
	}
}

// contested tells of members that claim to lead at once.
func (t *telling) contested() {
	switch {
	case t.is.Contested == t.was.Contested:
	case t.is.Contested == "":
		t.add(api.Event{Kind: api.EventContested, Text: "one member claims to be the leader again"})
	default:
		t.add(api.Event{Kind: api.EventContested, Text: t.is.Contested})
	}
}

// hold tells of one that Patroni's failover key has begun. Who orders another one notes that.
func (t *telling) hold() {
	was, is := t.was.Hold, t.is.Hold
	e := api.Event{Kind: api.EventHold}
	switch {
	case is.ByKey() && is.ID != was.ID:
		e.Member, e.By, e.Text = is.To, is.By, "new clients of its leader wait"
	case was.ByKey() && is.ID == "":
		e.Member, e.By, e.Text = was.To, was.By, "clients are let go, who leads takes them"
	default:
		return
	}
	t.add(e)
}

// turn is a change of a member's servers.
type turn struct {
	member string
	up     bool
}

// servers tells which servers have gone up or down. One member's are told together, since it is one thing that has happened.
func (t *telling) servers() {
	services := map[turn][]string{}
	reasons := map[turn]string{}
	var order []turn
	t.each(func(was, is *view.Service, i, j int) {
		before, now := was.Health[i], is.Health[j]
		if before.Up == now.Up || before.Reason == view.NotChecked {
			return
		}
		of := turn{is.Servers[j].Member, now.Up}
		if services[of] == nil {
			order = append(order, of)
			reasons[of] = now.Reason
		}
		services[of] = append(services[of], is.FullName)
	})
	for _, of := range order {
		e := api.Event{Kind: api.EventServer, Member: of.member}
		where := fmt.Sprintf("%d services", len(services[of]))
		if few := services[of]; len(few) <= 4 {
			where = strings.Join(few, ", ")
		}
		if len(services[of]) == 1 {
			e.Service = services[of][0]
		}
		is := "is down"
		if of.up {
			is = "is up"
		}
		e.Text = fmt.Sprintf("%s %s in %s: %s", of.member, is, where, reasons[of])
		t.add(e)
	}
}

// each calls visit with each server that both Views have, at its index before and now.
func (t *telling) each(visit func(was, is *view.Service, i, j int)) {
	for n := range t.is.Services {
		is := &t.is.Services[n]
		was := t.serviceBefore(n)
		if was == nil {
			continue
		}
		for j := range is.Servers {
			i := j
			if i >= len(was.Servers) || was.Servers[i].Member != is.Servers[j].Member {
				i = slices.IndexFunc(was.Servers, func(s model.Server) bool { return s.Member == is.Servers[j].Member })
			}
			if i >= 0 {
				visit(was, is, i, j)
			}
		}
	}
}

// serviceBefore is the n-th service as it was before; nil if it is new.
func (t *telling) serviceBefore(n int) *view.Service {
	name := t.is.Services[n].FullName
	if n < len(t.was.Services) && t.was.Services[n].FullName == name {
		return &t.was.Services[n]
	}
	return t.was.Service(name)
}

// services tells which services have lost their last server for new clients, and which have one again. A hold is told by itself.
func (t *telling) services() {
	for n := range t.is.Services {
		was := t.serviceBefore(n)
		if was == nil {
			continue
		}
		was, is := was.Unheld(), t.is.Services[n].Unheld()
		if alike(was, is) {
			continue
		}
		now := is.Usable()
		had := len(was.Usable()) > 0
		switch {
		case had && len(now) == 0:
			why := "it has no servers"
			var reasons []string
			for i, s := range is.Servers {
				reasons = append(reasons, s.Member+" "+is.Words(i))
			}
			if len(reasons) > 0 {
				why = strings.Join(reasons, "; ")
			}
			t.add(api.Event{Kind: api.EventService, Service: is.FullName, Text: is.FullName + " has no server left: " + why})
		case !had && len(now) > 0 && !fresh(was):
			text := is.FullName + " has a server again: " + is.Servers[now[0]].Member
			if since := outSince(was); !since.IsZero() {
				text += fmt.Sprintf(", after %s", max(0, t.is.At.Sub(since)).Round(10*time.Millisecond))
			}
			t.add(api.Event{Kind: api.EventService, Service: is.FullName, Member: is.Servers[now[0]].Member, Text: text})
		}
	}
}

// alike says that a service's servers take clients as they did, by what decides that.
func alike(was, is *view.Service) bool {
	if len(was.Servers) != len(is.Servers) {
		return false
	}
	for i := range is.Servers {
		if is.Servers[i].Member != was.Servers[i].Member || is.Servers[i].Backup != was.Servers[i].Backup || is.Takes(i) != was.Takes(i) {
			return false
		}
	}
	return true
}

// fresh says that a service had a server that wasn't checked yet: it has had none so far, and hasn't lost it.
func fresh(s *view.Service) bool {
	return slices.ContainsFunc(s.Health, func(h view.Health) bool { return h.Reason == view.NotChecked })
}

// outSince is since when a service without a usable server has had none: since the last of those that were up wasn't any more, or was
// ordered out. Zero if that isn't known.
func outSince(s *view.Service) time.Time {
	var last time.Time
	for i, h := range s.Health {
		since := h.Since
		if h.Up && !s.Takes(i) {
			since = h.Order.Since
		}
		if since.After(last) {
			last = since
		}
	}
	return last
}
