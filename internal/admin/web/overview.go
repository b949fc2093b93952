package web

import (
	"encoding/json"
	"math"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// tcpRow is what the services are called together that belong to no cluster.
const tcpRow = "(other services)"

// flow is what goes through something now.
type flow struct {
	Sessions int `json:"sessions"`
	Queued   int `json:"held"`
	// Rate are sessions begun, In and Out bytes to servers and to clients, each in a second; Connect is how long the connects of the last
	// interval took, in milliseconds, absent if there was none.
	Rate    float64  `json:"rate"`
	In      int64    `json:"in"`
	Out     int64    `json:"out"`
	Connect *float64 `json:"connect,omitempty"`
}

// overview is a cluster in the list of all.
type overview struct {
	standing
	flow
	Services []serviceOverview `json:"services"`
}

// standing is what of a cluster is worth telling at once.
type standing struct {
	Name    string    `json:"name"`
	Is      Judgement `json:"is"`
	Words   []string  `json:"words,omitempty"`
	Primary string    `json:"primary,omitempty"`
	// Up of Members take clients of some service. Ordered are the servers that an operator has kept from that.
	Members int  `json:"members"`
	Up      int  `json:"up"`
	Ordered int  `json:"ordered,omitempty"`
	VIP     bool `json:"vip,omitempty"`
}

// serviceOverview is one of its services.
type serviceOverview struct {
	Name     string   `json:"name"`
	FullName string   `json:"full_name"`
	Up       bool     `json:"up"`
	Shadow   bool     `json:"shadow,omitempty"`
	Servers  int      `json:"servers"`
	Serving  []string `json:"serving,omitempty"`
	flow
}

// counter is what has been counted of a service or a server until some moment.
type counter struct {
	total        uint64
	in, out      int64
	connects     uint64
	connectsTook float64
}

func counterOf(total uint64, c *api.Counts) counter {
	n := counter{total: total, in: c.ToServer, out: c.ToClient, connectsTook: c.Connecting.Sum}
	for _, count := range c.Connecting.Counts {
		n.connects += count
	}
	return n
}

// serverName names a server among the counters of all.
type serverName struct{ service, member string }

// sample is what was counted of everything at one moment. An empty member is the service itself.
type sample struct {
	at time.Time
	of map[serverName]counter
}

func sampleOf(s *api.Status) sample {
	all := sample{at: s.Now, of: map[serverName]counter{}}
	each(s, func(_ string, services []api.Service) {
		for i := range services {
			service := &services[i]
			all.of[serverName{service.FullName, ""}] = counterOf(service.Total, &service.Counts)
			for k := range service.Servers {
				server := &service.Servers[k]
				all.of[serverName{service.FullName, server.Member}] = counterOf(server.Total, &server.Counts)
			}
		}
	})
	return all
}

// each goes through the clusters, and then through what belongs to none, if there is something.
func each(s *api.Status, visit func(name string, services []api.Service)) {
	for i := range s.Clusters {
		visit(s.Clusters[i].Name, s.Clusters[i].Services)
	}
	if len(s.TCPServices) > 0 {
		visit(tcpRow, s.TCPServices)
	}
}

// since is what went through between two samples; nothing where the earlier one doesn't have it, or a new process counts anew.
func (s sample) since(before sample, name serverName) flow {
	now, is := s.of[name]
	then, was := before.of[name]
	seconds := s.at.Sub(before.at).Seconds()
	if !is || !was || seconds <= 0 || now.total < then.total || now.in < then.in || now.out < then.out {
		return flow{}
	}
	f := flow{
		Rate: tenth(float64(now.total-then.total) / seconds),
		In:   int64(float64(now.in-then.in) / seconds),
		Out:  int64(float64(now.out-then.out) / seconds),
	}
	if now.connects > then.connects && now.connectsTook >= then.connectsTook {
		took := 1000 * (now.connectsTook - then.connectsTook) / float64(now.connects-then.connects)
		took = math.Round(1000*took) / 1000
		f.Connect = &took
	}
	return f
}

func tenth(v float64) float64 { return math.Round(10*v) / 10 }

// add adds what goes through a part.
func (f *flow) add(part flow) {
	// Connects are averaged by how many there were.
	if part.Connect != nil {
		of, have := part.Rate, f.Rate
		mean := *part.Connect
		if f.Connect != nil && of+have > 0 {
			mean = (*f.Connect*have + mean*of) / (of + have)
		}
		mean = math.Round(1000*mean) / 1000
		f.Connect = &mean
	}
	f.Sessions += part.Sessions
	f.Queued += part.Queued
	f.Rate = tenth(f.Rate + part.Rate)
	f.In += part.In
	f.Out += part.Out
}

// overviews are the rows of the list, and everything together.
func overviews(s *api.Status, before, now sample) (rows []overview, all flow) {
	row := func(name string, services []api.Service) overview {
		o := overview{standing: standing{Name: name}, Services: make([]serviceOverview, 0, len(services))}
		for i := range services {
			service := &services[i]
			one := serviceOverview{Name: service.Name, FullName: service.FullName, Up: service.Up, Shadow: service.Shadow, Servers: len(service.Servers),
				flow: now.since(before, serverName{service.FullName, ""})}
			one.Sessions, one.Queued = service.Sessions, service.Queued
			for _, server := range service.Servers {
				if server.Serving {
					one.Serving = append(one.Serving, server.Member)
				}
			}
			o.Ordered += ordered(service)
			o.add(one.flow)
			o.Services = append(o.Services, one)
		}
		all.add(o.flow)
		return o
	}
	for i := range s.Clusters {
		c := &s.Clusters[i]
		o := row(c.Name, c.Services)
		o.Is, o.Words = judge(c, s.Now)
		o.Primary, o.Members, o.VIP = primaryOf(c), len(c.Members), c.VIP != nil
		for _, m := range c.Members {
			if takes(c, m.Name) {
				o.Up++
			}
		}
		rows = append(rows, o)
	}
	if len(s.TCPServices) > 0 {
		o := row(tcpRow, s.TCPServices)
		o.Is, o.Words = judgeTCP(s.TCPServices, s.Now)
		rows = append(rows, o)
	}
	return rows, all
}

// takes says whether a member takes clients of some service.
func takes(c *api.Cluster, member string) bool {
	for i := range c.Services {
		for _, server := range c.Services[i].Servers {
			if server.Member == member && server.Serving {
				return true
			}
		}
	}
	return false
}

// headOf is what is shown of the node itself: the status without what belongs to clusters, and without what changes all the time.
func headOf(s *api.Status) ([]byte, error) {
	head := *s
	head.Clusters, head.TCPServices = nil, nil
	head.Now, head.Goroutines = time.Time{}, 0
	p := s.Process
	head.Process = api.Process{ConnectionLimit: p.ConnectionLimit, Files: p.Files, Threads: p.Threads, Listeners: p.Listeners, Stopping: p.Stopping, HandOvers: p.HandOvers}
	if s.Names != nil {
		head.Names = &api.Names{Listen: s.Names.Listen, Names: s.Names.Names}
	}
	if s.Shadow != nil {
		head.Shadow = &api.Shadow{HAProxy: s.Shadow.HAProxy, Taken: s.Shadow.Taken}
	}
	return json.Marshal(head)
}

// detail is all of one cluster.
type detail struct {
	Cluster *api.Cluster `json:"cluster,omitempty"`
	// TCPServices are those that belong to no cluster, if those are looked at.
	TCPServices []api.Service `json:"generic_services,omitempty"`
	// Flows are what goes through each service now, and through each of its servers, by names: SERVICE, and SERVICE/MEMBER.
	Flows map[string]flow `json:"flows"`
}

// detailOf gives the detail of a name; false if nothing is called so.
func detailOf(s *api.Status, before, now sample, name string) ([]byte, bool) {
	d := detail{Flows: map[string]flow{}}
	var services []api.Service
	if name == tcpRow && len(s.TCPServices) > 0 {
		d.TCPServices = short(s.TCPServices)
		services = d.TCPServices
	}
	for i := range s.Clusters {
		if s.Clusters[i].Name == name {
			c := s.Clusters[i]
			c.Outages.Bounds, c.Outages.Counts = nil, nil
			c.Members = append([]api.Member{}, c.Members...)
			for k := range c.Members {
				c.Members[k].Answering = api.Histogram{Sum: 0}
				c.Members[k].Questions = api.Questions{}
			}
			c.Services = short(c.Services)
			d.Cluster, services = &c, c.Services
		}
	}
	if services == nil {
		return nil, false
	}
	for i := range services {
		d.Flows[services[i].FullName] = now.since(before, serverName{services[i].FullName, ""})
		for _, server := range services[i].Servers {
			d.Flows[services[i].FullName+"/"+server.Member] = now.since(before, serverName{services[i].FullName, server.Member})
		}
	}
	text, err := json.Marshal(d)
	return text, err == nil
}

// short is the same without histograms, which the page doesn't show.
func short(services []api.Service) []api.Service {
	all := append([]api.Service{}, services...)
	for i := range all {
		all[i].Connecting = api.Histogram{}
		all[i].Servers = append([]api.Server{}, all[i].Servers...)
		for k := range all[i].Servers {
			all[i].Servers[k].Connecting = api.Histogram{}
		}
	}
	return all
}
