package nodes

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// Overview is what several nodes say, summed up: each carries the same services, and each has sessions of its own.
type Overview struct {
	// Nodes is how many were summed up.
	Nodes    int
	Clusters []Cluster
}

// Cluster is one cluster; that without a name has the services that belong to none.
type Cluster struct {
	Name string
	// Leader holds the leader key; empty where nobody does, or none is watched. Contested says who claims to lead besides.
	Leader    string
	Contested string
	// Held says that a node holds it for a switchover, empty if none does.
	Held     string
	Services []Service
}

// Service is a service on all nodes that have it.
type Service struct {
	Name string
	// Nodes is how many have it, Up how many of these have a server for it.
	Nodes, Up int
	// Clients wait on Queued; rates are of the last second.
	Sessions, Queued, Rate int
	ToServer, ToClient     int64
	Servers                []Server
}

// Server is a member behind a service. Where nodes disagree it is told as the first of them sees it that has it not serving.
type Server struct {
	Member, Role, Reason string
	Backup               bool
	// Nodes is how many have it, Up and Serving how many of these have it so.
	Nodes, Up, Serving     int
	Sessions, Queued, Rate int
	Weight                 int
	Since                  time.Time
	// Now is the clock of the node that Since is of.
	Now time.Time
	// Ordered is how many nodes have an operator's order for it, Order the first of them.
	Ordered int
	Order   *api.Ordered
	// Lag is in bytes; nil where it isn't known.
	Lag *int64
}

// State is a word for a server: serving, ready (it would if those before it were gone), drain, maint or down; where only some nodes
// have it serving, on how many.
func (s Server) State() string {
	switch {
	case s.Ordered == s.Nodes && s.Order != nil && s.Order.State != api.Ready && s.Order.State != "":
		return string(s.Order.State)
	case s.Serving == s.Nodes:
		return "serving"
	case s.Serving > 0:
		return "on " + of(s.Serving, s.Nodes)
	case s.Up == s.Nodes:
		return "ready"
	case s.Up > 0:
		return "ready on " + of(s.Up, s.Nodes)
	}
	return "down"
}

// State is up, down, or on how many nodes it is up.
func (s Service) State() string {
	switch s.Up {
	case 0:
		return "down"
	case s.Nodes:
		return "up"
	}
	return "up on " + of(s.Up, s.Nodes)
}

func of(some, all int) string { return strconv.Itoa(some) + "/" + strconv.Itoa(all) }

// Sum adds up what nodes say, of one cluster or, with an empty name, of all. The order is that of the first that has a thing.
func Sum(all []*api.Status, cluster string) Overview {
	o := Overview{Nodes: len(all)}
	for _, status := range all {
		for _, c := range append(slices.Clone(status.Clusters), api.Cluster{Services: status.TCPServices}) {
			if cluster != "" && c.Name != cluster || c.Name == "" && len(c.Services) == 0 {
				continue
			}
			sum := find(&o.Clusters, func(s *Cluster) bool { return s.Name == c.Name })
			sum.Name = c.Name
			sum.add(c, status.Now)
		}
	}
	// What belongs to no cluster comes last, whichever node has it first.
	slices.SortStableFunc(o.Clusters, func(a, b Cluster) int {
		return strings.Compare(b.Name, "") - strings.Compare(a.Name, "")
	})
	return o
}

// find gives the entry of a list that is, or a new one at its end.
func find[T any](list *[]T, is func(*T) bool) *T {
	for i := range *list {
		if is(&(*list)[i]) {
			return &(*list)[i]
		}
	}
	var fresh T
	*list = append(*list, fresh)
	return &(*list)[len(*list)-1]
}

func (sum *Cluster) add(c api.Cluster, now time.Time) {
	if c.LeaderKey != nil && sum.Leader == "" {
		sum.Leader = c.LeaderKey.Holder
	}
	if sum.Held == "" && c.Hold != nil {
		sum.Held = c.Hold.Words()
	}
	if sum.Contested == "" {
		sum.Contested = c.Contested
	}
	lags := map[string]*int64{}
	for _, m := range c.Members {
		lags[m.Name] = m.Lag
	}
	for _, s := range c.Services {
		one := find(&sum.Services, func(o *Service) bool { return o.Name == s.FullName })
		one.Name = s.FullName
		one.Nodes++
		if s.Up {
			one.Up++
		}
		one.Sessions += s.Sessions
		one.Queued += s.Queued
		one.Rate += s.SessionRate
		one.ToServer += s.ToServer
		one.ToClient += s.ToClient
		for _, r := range s.Servers {
			find(&one.Servers, func(o *Server) bool { return o.Member == r.Member }).add(r, lags[r.Member], now)
		}
	}
}

func (sum *Server) add(r api.Server, lag *int64, now time.Time) {
	if sum.Nodes == 0 || sum.Serving == sum.Nodes && !r.Serving {
		sum.Role, sum.Reason, sum.Backup, sum.Weight, sum.Since, sum.Now = r.Role, r.Reason, r.Backup, r.Weight, r.Since, now
	}
	sum.Member = r.Member
	sum.Nodes++
	if r.Up {
		sum.Up++
	}
	if r.Serving {
		sum.Serving++
	}
	sum.Sessions += r.Sessions
	sum.Queued += r.Queued
	sum.Rate += r.SessionRate
	if r.Order != nil {
		sum.Ordered++
		if sum.Order == nil {
			sum.Order = r.Order
		}
	}
	if lag != nil && (sum.Lag == nil || *lag > *sum.Lag) {
		sum.Lag = lag
	}
}
