package daemon

import (
	"context"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Status is what the daemon does now, from each cluster's current View and the engine's counters.
func (d *Daemon) Status() api.Status {
	traffic := d.engine.Traffic(context.Background())
	vips, seen := d.virtualStatus(), d.shadowStatus()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := api.Status{
		Version: d.cfg.Version, Node: d.node, PID: os.Getpid(), Goroutines: runtime.NumGoroutine(), Started: d.started, Now: time.Now(),
		Config:   api.Config{Source: d.cfg.Source.Name(), Loaded: d.loaded, Generation: d.accepted, Refused: d.refused, Refusals: d.refusals, Assumed: slices.Clone(d.assumed)},
		Clusters: []api.Cluster{},
	}
	s.Page = d.page.status()
	s.Upgrade, s.Shadow = d.upgraded, seen
	if d.cfg.LogDropped != nil {
		s.LogDropped = d.cfg.LogDropped()
	}
	s.Stalled, _, _ = d.liveness.get()
	if d.cfg.Control != nil {
		expires := d.cfg.Control.Credentials.Expires()
		s.Config.Control, s.Config.ControlExpires = d.cfg.Control.Address, &expires
	}
	if d.sent != nil {
		s.Config.Source = d.sent.Source
		s.Config.Sent = &api.Sent{Sender: d.sent.Sender, From: d.sent.From}
	}
	s.Config.Plan = d.acceptance.status()
	if n := d.names(); n != nil {
		s.Names = n.status()
	}
	// A cluster that is watched for its names may have services that only other nodes carry.
	carries := map[string]bool{}
	for _, c := range d.plan.Clusters {
		for _, definition := range c.Definitions {
			carries[definition.FullName] = true
		}
	}
	for _, name := range d.order {
		v := d.running[name].loop.Board().View()
		c := api.Cluster{Name: name, Members: []api.Member{}, Services: []api.Service{}}
		if v.Key.Watched {
			c.LeaderKey = &api.LeaderKey{Holder: v.Key.Holder, Lost: v.Key.Lost}
		}
		if declared := d.running[name].plan.VIP; declared != nil && vips[name] != nil {
			c.VIP = vips[name]
			c.VIP.Address = declared.Address.String()
		}
		live := make(map[string]view.Member, len(v.Members))
		for _, m := range v.Members {
			live[m.Name] = m
			c.Members = append(c.Members, memberStatus(m))
		}
		for i := range v.Services {
			if carries[v.Services[i].FullName] {
				c.Services = append(c.Services, serviceStatus(&v.Services[i], live, traffic))
			}
		}
		s.Clusters = append(s.Clusters, c)
	}
	if d.tcpcheck != nil {
		v := d.tcpcheck.Board().View()
		for i := range v.Services {
			s.TCPServices = append(s.TCPServices, serviceStatus(&v.Services[i], nil, traffic))
		}
		return s
	}
	for _, g := range d.plan.TCPServices {
		s.TCPServices = append(s.TCPServices, tcpStatus(g, traffic[g.Name]))
	}
	return s
}

func memberStatus(m view.Member) api.Member {
	shown := api.Member{Name: m.Name, Host: m.Host, Role: string(m.Live), Declared: string(m.Role), State: m.State, Timeline: m.Timeline, Answer: m.Answer,
		Remark: m.Remark, Questions: api.Questions(m.Questions)}
	if !m.Answered.IsZero() {
		shown.Answered = &m.Answered
	}
	return shown
}

func serviceStatus(s *view.Service, live map[string]view.Member, traffic map[string]Traffic) api.Service {
	counted := traffic[s.FullName]
	s = asCarried(s, counted)
	usable := s.Usable()
	shown := api.Service{
		Name: s.Name, FullName: s.FullName, Listen: counted.Address, Shadow: counted.Closed, Check: s.Check, Up: len(usable) > 0,
		Sessions: counted.Sessions, Queued: counted.Queued, Total: counted.Total, Refused: counted.Refused, Servers: []api.Server{},
	}
	for i, server := range s.Servers {
		member := live[server.Member]
		carried := counted.Servers[server.Member]
		shown.Servers = append(shown.Servers, api.Server{
			Member: server.Member, Address: server.Address(), Role: string(member.Live), State: member.State, Weight: server.Weight, Backup: server.Backup,
			Up: s.Health[i].Up, Serving: slices.Contains(usable, i), Reason: s.Health[i].Reason, Since: s.Health[i].Since,
			Sessions: carried.Sessions, Total: carried.Total, DeclaredWeight: s.DeclaredWeight(i), Order: orderShown(s.Health[i].Order, carried),
		})
	}
	return shown
}

// orderShown is what was ordered of a server by way of pgporter, or else of HAProxy; nil if nothing was.
func orderShown(o view.Order, carried ServerTraffic) *api.Ordered {
	switch {
	case o != view.Order{}:
		shown := orderedOf(o)
		return &shown
	case carried.Ordered != view.Ready:
		return &api.Ordered{State: api.ServerState(carried.Ordered.String()), By: "HAProxy's runtime API"}
	}
	return nil
}

// tcpStatus is what HAProxy has of a service that belongs to no cluster.
func tcpStatus(g model.TCPService, t Traffic) api.Service {
	shown := api.Service{Name: g.Name, FullName: g.Name, Listen: t.Address, Sessions: t.Sessions, Total: t.Total, Refused: t.Refused, Servers: []api.Server{}}
	regular := slices.ContainsFunc(g.Servers, func(s model.TCPServer) bool { return !s.Backup && t.Servers[s.Name].Up })
	for _, s := range g.Servers {
		has := t.Servers[s.Name]
		server := api.Server{Member: s.Name, Address: net.JoinHostPort(s.Host, strconv.Itoa(s.Port)), Weight: 1, Backup: s.Backup,
			Up: has.Up, Reason: "by HAProxy's own check", Sessions: has.Sessions, Total: has.Total}
		if s.Weight != nil {
			server.Weight = *s.Weight
		}
		server.DeclaredWeight, server.Order = server.Weight, orderShown(view.Order{}, has)
		// Of several backups the first takes all.
		server.Serving = has.Up && (!s.Backup || !regular && !shown.Up)
		shown.Up = shown.Up || server.Serving
		shown.Servers = append(shown.Servers, server)
	}
	return shown
}

// asCarried is a service with the health that its engine goes by, where the engine has a mind of its own: what counts for a
// client is where it is dispatched.
func asCarried(s *view.Service, t Traffic) *view.Service {
	carried := *s
	carried.Health = slices.Clone(s.Health)
	for i, server := range s.Servers {
		has := t.Servers[server.Member]
		if h := &carried.Health[i]; has.Asked && has.Up != h.Up {
			h.Up = has.Up
			h.Reason = map[bool]string{true: "HAProxy sends clients to it", false: "HAProxy has it down"}[has.Up] + "; " + h.Reason
		}
	}
	return &carried
}
