package daemon

import (
	"os"
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/api"
	"github.com/pgporter/pgporter/internal/proxy"
	"github.com/pgporter/pgporter/internal/state"
)

// Status is what the daemon does now, from each cluster's current View and the engine's counters.
func (d *Daemon) Status() api.Status {
	traffic := map[string]proxy.ServiceStatus{}
	for _, s := range d.engine.Status().Services {
		traffic[s.Service] = s
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := api.Status{
		Version: d.cfg.Version, Node: d.node, PID: os.Getpid(), Started: d.started, Now: time.Now(),
		Config:   api.Config{Source: d.cfg.Source.Name(), Loaded: d.loaded, Generation: d.accepted, Refused: d.refused, Assumed: slices.Clone(d.assumed)},
		Clusters: []api.Cluster{},
	}
	for _, name := range d.order {
		view := d.running[name].loop.Board().View()
		c := api.Cluster{Name: name, Members: []api.Member{}, Services: []api.Service{}}
		if view.Key.Watched {
			c.LeaderKey = &api.LeaderKey{Holder: view.Key.Holder, Lost: view.Key.Lost}
		}
		live := make(map[string]state.Member, len(view.Members))
		for _, m := range view.Members {
			live[m.Name] = m
			c.Members = append(c.Members, memberStatus(m))
		}
		for i := range view.Services {
			c.Services = append(c.Services, serviceStatus(&view.Services[i], live, traffic))
		}
		s.Clusters = append(s.Clusters, c)
	}
	return s
}

func memberStatus(m state.Member) api.Member {
	told := api.Member{Name: m.Name, Host: m.Host, Role: string(m.Live), Declared: string(m.Role), State: m.State, Timeline: m.Timeline, Answer: m.Answer}
	if !m.Answered.IsZero() {
		told.Answered = &m.Answered
	}
	return told
}

func serviceStatus(s *state.Service, live map[string]state.Member, traffic map[string]proxy.ServiceStatus) api.Service {
	counted := traffic[s.FullName]
	usable := s.Usable()
	told := api.Service{
		Name: s.Name, FullName: s.FullName, Listen: counted.Address, Check: s.Check, Up: len(usable) > 0,
		Sessions: counted.Sessions, Total: counted.TotalSessions, Refused: counted.Refused, Servers: []api.Server{},
	}
	for i, server := range s.Servers {
		member := live[server.Member]
		var carried proxy.ServerStatus
		if at := slices.IndexFunc(counted.Servers, func(c proxy.ServerStatus) bool { return c.Member == server.Member }); at >= 0 {
			carried = counted.Servers[at]
		}
		told.Servers = append(told.Servers, api.Server{
			Member: server.Member, Address: server.Address(), Role: string(member.Live), State: member.State, Weight: server.Weight, Backup: server.Backup,
			Up: s.Health[i].Up, Serving: slices.Contains(usable, i), Reason: s.Health[i].Reason, Since: s.Health[i].Since,
			Sessions: carried.Sessions, Total: carried.TotalSessions,
		})
	}
	return told
}
