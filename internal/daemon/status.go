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
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/balance"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Status is what the daemon does now, from each cluster's current View and the engine's counters.
func (d *Daemon) Status() api.Status {
	now := time.Now()
	all := d.engine.Traffic(context.Background())
	carried, process := trafficOf(all), d.processStatus(all, now)
	vips, seen := d.virtualStatus(), d.shadowStatus()
	pools := d.poolsOf("")
	d.mu.Lock()
	defer d.mu.Unlock()
	s := api.Status{
		Version: d.cfg.Version, Node: d.node, PID: os.Getpid(), Goroutines: runtime.NumGoroutine(), Started: d.started, Now: now, Engine: d.engineName(), Process: process,
		Config:   api.Config{Source: d.cfg.Source.Name(), Loaded: d.loaded, Generation: d.accepted, Refused: d.refused, Refusals: d.refusals, Assumed: slices.Clone(d.assumed)},
		Clusters: []api.Cluster{},
	}
	s.Page, s.Pools = d.page.status(), pools
	s.Upgrade, s.Shadow = d.upgraded, seen
	if d.cfg.LogDropped != nil {
		s.LogDropped = d.cfg.LogDropped()
	}
	s.SessionLogDropped = d.cfg.SessionLog.Dropped()
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
		c := api.Cluster{Name: name, Contested: v.Contested, Outages: histogramOf(v.Outages, view.OutageBounds), Members: []api.Member{}, Services: []api.Service{}}
		if !v.Outage.IsZero() {
			c.OutageSince = &v.Outage
		}
		c.Hold = holdShown(v, carried)
		if v.Key.Watched {
			c.LeaderKey = &api.LeaderKey{Holder: v.Key.Holder, Lost: v.Key.Lost, Unordered: d.unordered[name]}
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
				shown := serviceStatus(&v.Services[i], live, carried.service(v.Services[i].FullName), now)
				showTurns(&shown, d.running[name].loop.Board(), now)
				c.Services = append(c.Services, shown)
			}
		}
		s.Clusters = append(s.Clusters, c)
	}
	if d.tcpcheck != nil {
		v := d.tcpcheck.Board().View()
		for i := range v.Services {
			shown := serviceStatus(&v.Services[i], nil, carried.service(v.Services[i].FullName), now)
			showTurns(&shown, d.tcpcheck.Board(), now)
			s.TCPServices = append(s.TCPServices, shown)
		}
		return s
	}
	for _, g := range d.plan.TCPServices {
		s.TCPServices = append(s.TCPServices, tcpStatus(g, carried.service(g.Name)))
	}
	return s
}

func memberStatus(m view.Member) api.Member {
	shown := api.Member{Name: m.Name, Host: m.Host, Role: string(m.Live), Declared: string(m.Role), State: m.State, Timeline: m.Timeline, Answer: m.Answer,
		Remark: m.Remark, Questions: api.Questions(m.Questions), Answering: histogramOf(m.Answering, view.AnswerBounds)}
	if m.LagKnown {
		shown.Lag = &m.Lag
	}
	if !m.Answered.IsZero() {
		shown.Answered = &m.Answered
	}
	return shown
}

// histogramOf is what was counted, as it is told.
func histogramOf(d view.Durations, bounds []float64) api.Histogram {
	return api.Histogram{Bounds: bounds, Counts: slices.Clone(d.Counts[:len(bounds)+1]), Sum: d.Sum.Seconds()}
}

func serviceStatus(s *view.Service, live map[string]view.Member, counted *engine.Traffic, now time.Time) api.Service {
	own := s
	s = asCarried(s, counted)
	usable := s.Unheld().Usable()
	shown := api.Service{Name: s.Name, FullName: s.FullName, Check: s.Check, Balance: string(s.Balance), Up: len(usable) > 0, Servers: make([]api.Server, 0, len(s.Servers))}
	showTraffic(&shown, counted)
	for i, server := range s.Servers {
		member, options := live[server.Member], s.OptionsOf(i)
		one := api.Server{
			Member: server.Member, Address: server.Address(), Role: string(member.Live), State: member.State, Weight: server.Weight, DeclaredWeight: s.DeclaredWeight(i),
			Backup: server.Backup, Up: s.Health[i].Up, Serving: slices.Contains(usable, i), Reason: s.Health[i].Reason, Since: s.Health[i].Since,
			Limit: options.MaxConn, QueueLimit: options.MaxQueue,
		}
		checks := s.Health[i].Checks
		one.LastCheck = checkShown(checks.Last, options, member.Answering.Last)
		one.CheckFailures, one.Downs, one.DownSeconds = checks.Failures, checks.Downs, checks.DownFor.Seconds()
		if h := own.Health[i]; !h.Up && !h.Since.IsZero() {
			one.DownSeconds += max(now.Sub(h.Since), 0).Seconds()
		}
		if share := balance.Share(options.SlowStart, now.Sub(s.Health[i].Recovered)); share < 100 && one.Up {
			one.Throttle = &share
		}
		showServerTraffic(&one, counted)
		one.Order = orderShown(s.Health[i].Order, serverTraffic(counted, server.Member))
		shown.Servers = append(shown.Servers, one)
	}
	return shown
}

// showTurns puts since when a service has a server, or has none, into what is shown of it.
func showTurns(s *api.Service, b *view.Board, now time.Time) {
	t := b.Turns(s.FullName)
	s.Since, s.Downs, s.DownSeconds = t.Since, t.Downs, t.DownFor.Seconds()
	if !t.Up {
		s.DownSeconds += max(now.Sub(t.Since), 0).Seconds()
	}
}

// checkShown is the last check of a server, by the words of its Views; nil if it isn't checked.
func checkShown(r view.Result, o *model.Options, took time.Duration) *api.ServerCheck {
	if r.Code == "" {
		return nil
	}
	return &api.ServerCheck{Status: r.Code, Code: r.Status, Text: r.Text, Seconds: took.Seconds(), Rise: o.Rise, Fall: o.Fall, Health: r.Health}
}

// showTraffic puts what was counted of a service into what is shown of it.
func showTraffic(s *api.Service, t *engine.Traffic) {
	s.Listen, s.Shadow = t.Address, t.Closed
	s.Sessions, s.Queued, s.Total, s.Refused = t.Sessions, t.Queued, t.TotalSessions, t.Refused
	s.Clients, s.ClientsMax, s.Limit = t.Clients, t.ClientsMax, t.Limit
	s.Accepted, s.AcceptRate, s.AcceptRateMax, s.Denied = t.Accepted, t.AcceptRate, t.AcceptRateMax, t.Denied
	s.Cancels, s.CancelsSent = t.Cancels, t.CancelsSent
	s.Counts = shownCounts(&t.Counts)
	if !t.Waiting.IsZero() {
		waiting := t.Waiting
		s.Waiting = &waiting
	}
	if len(t.Ended) > 0 {
		s.Ended = make(map[string]uint64, len(t.Ended))
		for reason, n := range t.Ended {
			s.Ended[string(reason)] = n
		}
	}
}

// showServerTraffic is showTraffic of one server.
func showServerTraffic(s *api.Server, t *engine.Traffic) {
	of := serverTraffic(t, s.Member)
	s.Sessions, s.Total, s.Queued, s.Counts = of.Sessions, of.TotalSessions, of.Queued, shownCounts(&of.Counts)
}

// traffic is what is carried, by the services' full names.
type traffic map[string]*engine.Traffic

func trafficOf(all []engine.Traffic) traffic {
	t := make(traffic, len(all))
	for i := range all {
		t[all[i].Service] = &all[i]
	}
	return t
}

// service is what is carried of a service; nothing if the engine doesn't have it.
func (t traffic) service(name string) *engine.Traffic {
	if has := t[name]; has != nil {
		return has
	}
	return &engine.Traffic{}
}

// serverTraffic is a server's part of its service's.
func serverTraffic(t *engine.Traffic, member string) *engine.ServerTraffic {
	for i := range t.Servers {
		if t.Servers[i].Member == member {
			return &t.Servers[i]
		}
	}
	return &engine.ServerTraffic{}
}

// connectBounds are engine.ConnectBounds in seconds.
var connectBounds = func() []float64 {
	all := make([]float64, len(engine.ConnectBounds))
	for i, bound := range engine.ConnectBounds {
		all[i] = bound.Seconds()
	}
	return all
}()

func shownCounts(c *engine.Counts) api.Counts {
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	shown := api.Counts{SessionsMax: c.SessionsMax, QueuedMax: c.QueuedMax, SessionRate: c.SessionRate, SessionRateMax: c.SessionRateMax, ToServer: c.ToServer,
		ToClient: c.ToClient, Attempts: c.Attempts, ConnectFailures: c.ConnectFailures, Retries: c.Retries, Redispatches: c.Redispatches, ClientAborts: c.ClientAborts,
		ServerAborts: c.ServerAborts, QueueTime: milliseconds(c.QueueTime), ConnectTime: milliseconds(c.ConnectTime), SessionTime: milliseconds(c.SessionTime),
		QueueTimeMax: milliseconds(c.QueueTimeMax), ConnectTimeMax: milliseconds(c.ConnectTimeMax), SessionTimeMax: milliseconds(c.SessionTimeMax)}
	if c.ConnectSum > 0 {
		shown.Connecting = api.Histogram{Bounds: connectBounds, Counts: slices.Clone(c.Connecting[:]), Sum: c.ConnectSum.Seconds()}
	}
	if !c.LastSession.IsZero() {
		last := c.LastSession
		shown.LastSession = &last
	}
	return shown
}

// orderShown is what was ordered of a server by way of pgporter, or else of HAProxy; nil if nothing was.
func orderShown(o view.Order, carried *engine.ServerTraffic) *api.Ordered {
	switch {
	case o != view.Order{}:
		shown := orderedOf(o)
		return &shown
	case carried.State != view.Ready:
		return &api.Ordered{State: api.ServerState(carried.State.String()), By: "HAProxy's runtime API"}
	}
	return nil
}

// tcpStatus is what HAProxy has of a service that belongs to no cluster.
func tcpStatus(g model.TCPService, t *engine.Traffic) api.Service {
	shown := api.Service{Name: g.Name, FullName: g.Name, Balance: g.Balance, Servers: []api.Server{}}
	showTraffic(&shown, t)
	regular := slices.ContainsFunc(g.Servers, func(s model.TCPServer) bool { return !s.Backup && serverTraffic(t, s.Name).Up })
	for _, s := range g.Servers {
		up := serverTraffic(t, s.Name).Up
		server := api.Server{Member: s.Name, Address: net.JoinHostPort(s.Host, strconv.Itoa(s.Port)), Weight: 1, Backup: s.Backup, Up: up, Reason: "by HAProxy's own check"}
		if s.Weight != nil {
			server.Weight = *s.Weight
		}
		server.DeclaredWeight, server.Order = server.Weight, orderShown(view.Order{}, serverTraffic(t, s.Name))
		showServerTraffic(&server, t)
		// Of several backups the first takes all.
		server.Serving = up && (!s.Backup || !regular && !shown.Up)
		shown.Up = shown.Up || server.Serving
		shown.Servers = append(shown.Servers, server)
	}
	return shown
}

// asCarried is a service with the health that its engine goes by, where the engine has a mind of its own: what counts for a
// client is where it is dispatched.
func asCarried(s *view.Service, t *engine.Traffic) *view.Service {
	if !slices.ContainsFunc(t.Servers, func(has engine.ServerTraffic) bool { return has.Asked }) {
		return s
	}
	carried := *s
	carried.Health = slices.Clone(s.Health)
	for i, server := range s.Servers {
		has := serverTraffic(t, server.Member)
		if h := &carried.Health[i]; has.Asked && has.Up != h.Up {
			h.Up = has.Up
			h.Reason = map[bool]string{true: "HAProxy sends clients to it", false: "HAProxy has it down"}[has.Up] + "; " + h.Reason
		}
	}
	return &carried
}
