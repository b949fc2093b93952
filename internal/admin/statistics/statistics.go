// Package statistics says what an api.Status says in HAProxy's words: one table of its services, and what it tells of its process. All
// that speaks them is made of these two: the runtime socket's `show stat` and `show info`, the page's CSV, and the exporter.
//
// A service is a frontend and a backend of one name, as a `listen` section is, so it has a row FRONTEND, one for each server, and a row
// BACKEND. Columns have HAProxy's names, order, units and meaning (its management guide, "CSV format" and "show info"). They are those of
// HAProxy 2.6: later ones have more, behind these. A column is empty where HAProxy leaves it empty for a listen section in mode tcp.
//
// The listener of HAProxy's own page, `stats` by custom, isn't listed. It carries no client of PostgreSQL, most queries leave it out by its
// name, and in the sums of the others it counts whoever scrapes.
//
// What differs from HAProxy, since pgporter works otherwise:
//
//   - scur of a FRONTEND and a BACKEND are all clients that are connected, also those that have said nothing yet or wait for a server.
//   - econ of a server counts each connect in vain, not only the last of a client. That of a BACKEND adds the clients that were refused.
//   - qcur of a BACKEND are the clients that wait within `hold` or for a server below its maxconn.
//   - pid is always 1, as it is in HAProxy: the number of the process among those of one program.
package statistics

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// Kind is what a row is of; its number is HAProxy's.
type Kind int

// The kinds of rows.
const (
	Frontend Kind = iota
	Backend
	Server
)

// String is HAProxy's word in JSON.
func (k Kind) String() string { return [...]string{"Frontend", "Backend", "Server"}[k] }

// Row is a row of the table. What a column has of it is asked of the Column.
type Row struct {
	Kind Kind
	// Proxy is the service's full name; Name is the server's, FRONTEND or BACKEND.
	Proxy, Name string
	// ID is the proxy's number, ServerID the server's within it, from 1; 0 for the others.
	ID, ServerID int
	// Service is what the row is of, Server the server of it; nil for the others.
	Service *api.Service
	Server  *api.Server

	of *api.Status
	// weight, userWeight, active and backups are a BACKEND's.
	weight, userWeight, active, backups int
}

// firstID is the number of the first proxy: HAProxy's is that of its first frontend, which is its page's as Pigsty has it.
const firstID = 2

// Rows are the table's rows: services in the status' order, servers in the service's.
func Rows(s *api.Status) []Row {
	var rows []Row
	id := firstID
	add := func(services []api.Service) {
		for i := range services {
			rows = append(rows, ofService(s, &services[i], id)...)
			id++
		}
	}
	for i := range s.Clusters {
		add(s.Clusters[i].Services)
	}
	add(s.TCPServices)
	return rows
}

func ofService(s *api.Status, service *api.Service, id int) []Row {
	row := func(kind Kind, name string) Row {
		return Row{Kind: kind, Proxy: service.FullName, Name: name, ID: id, Service: service, of: s}
	}
	rows := make([]Row, 0, len(service.Servers)+2)
	rows = append(rows, row(Frontend, "FRONTEND"))
	backend := row(Backend, "BACKEND")
	for i := range service.Servers {
		r := row(Server, service.Servers[i].Member)
		r.ServerID, r.Server = i+1, &service.Servers[i]
		rows = append(rows, r)
		if usable := r.State() == Up && r.Server.Weight > 0; usable && r.Server.Backup {
			backend.backups++
		} else if usable {
			backend.active++
		}
		if r.Server.Serving {
			backend.weight += r.effectiveWeight()
			backend.userWeight += r.Server.Weight
		}
	}
	return append(rows, backend)
}

// State is a server's status in one of HAProxy's words.
type State string

// The states of servers. HAProxy has NOLB, too, for a server that takes those alone who have been there before.
const (
	Down  State = "DOWN"
	Up    State = "UP"
	Maint State = "MAINT"
	Drain State = "DRAIN"
)

// States are all states of a server, in HAProxy's order.
var States = []State{Down, Up, Maint, Drain, "NOLB"}

// State is a server's state: what was ordered goes before what its checks say, but one that is down isn't said to be drained.
func (r *Row) State() State {
	ordered := api.Ready
	if r.Server.Order != nil {
		ordered = r.Server.Order.State
	}
	switch {
	case ordered == api.Maintenance:
		return Maint
	case ordered == api.Drain && r.Server.Up:
		return Drain
	case r.Server.Up:
		return Up
	}
	return Down
}

// checked says that the server is checked by pgporter.
func (r *Row) checked() bool { return r.Server.LastCheck != nil }

// Open says that clients are accepted for the service.
func (r *Row) Open() bool { return !r.Service.Shadow && !r.of.Process.Stopping }

// status is a row's column of that name.
func (r *Row) status() string {
	switch {
	case r.Kind == Frontend && r.Open():
		return "OPEN"
	case r.Kind == Frontend:
		return "STOP"
	case r.Kind == Backend && r.Service.Up:
		return string(Up)
	case r.Kind == Backend:
		return string(Down)
	}
	state, c := r.State(), r.Server.LastCheck
	switch {
	case state == Maint:
	case state == Up && c == nil && r.of.Engine != api.EngineHAProxy:
		return "no check"
	case c == nil:
	case state == Down && c.Health > 0 && c.Health < c.Rise:
		return string(state) + " " + fraction(c.Health, c.Rise)
	case state != Down && c.Health < c.Rise+c.Fall-1 && c.Health >= c.Rise:
		return string(state) + " " + fraction(c.Health-c.Rise+1, c.Fall)
	}
	return string(state)
}

// effectiveWeight is what counts of a server's weight in its slow start.
func (r *Row) effectiveWeight() int {
	if r.Server.Throttle == nil || r.Server.Weight == 0 {
		return r.Server.Weight
	}
	return max(1, (r.Server.Weight**r.Server.Throttle+99)/100)
}

// limit is how many clients there may be at once: where only the process has a limit it is that one.
func (r *Row) limit() int { return cmp.Or(r.Service.Limit, r.of.Process.ConnectionLimit) }

// ago is how long ago something was, in whole seconds; 0 if it is to come or was never.
func (r *Row) ago(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(0, int64(r.of.Now.Sub(t)/time.Second))
}

// counts are those of a server, or of the whole service.
func (r *Row) counts() *api.Counts {
	if r.Server != nil {
		return &r.Server.Counts
	}
	return &r.Service.Counts
}

// idle is how long ago the last session began, in seconds; -1 before the first.
func (r *Row) idle() int64 {
	if last := r.counts().LastSession; last != nil {
		return r.ago(*last)
	}
	return -1
}

// selected is how often the server was chosen: attempts of a client at the same server are one choice.
func (r *Row) selected() uint64 {
	c := r.counts()
	return less(c.Attempts, again(c))
}

// again are the attempts at the server that the client had tried before.
func again(c *api.Counts) uint64 { return less(c.Retries, c.Redispatches) }

// less is a-b, and 0 where counters that weren't read at one moment would make it less than that.
func less(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}

func milliseconds(ms float64) int64 { return int64(math.Round(ms)) }

// Filter chooses rows.
type Filter struct {
	// Proxy is a service's full name; empty is any. ID is its number, -1 is any.
	Proxy string
	ID    int
	// Kinds is HAProxy's sum of 1 (frontends), 2 (backends) and 4 (servers), -1 all of them. Server is a server's number, -1 is any.
	Kinds  int
	Server int
	// Up leaves out servers that are down or in maintenance, NoMaint those in maintenance.
	Up, NoMaint bool
}

// All is the filter that leaves out nothing.
var All = Filter{ID: -1, Kinds: -1, Server: -1}

// Of gives the rows that the filter lets through.
func (f Filter) Of(rows []Row) []Row {
	return slices.DeleteFunc(slices.Clone(rows), func(r Row) bool {
		switch {
		case f.Proxy != "" && r.Proxy != f.Proxy, f.ID != -1 && r.ID != f.ID, f.Kinds&(1<<r.Kind) == 0:
			return true
		case r.Kind != Server:
			return false
		}
		state := r.State()
		return f.Server != -1 && r.ServerID != f.Server || state == Maint && (f.Up || f.NoMaint) || state == Down && f.Up
	})
}

// Version is what tools are told that ask an HAProxy for its version: the one whose words these are, and behind it pgporter's own.
func Version(s *api.Status) string {
	return "2.6.0-pgporter-" + strings.ReplaceAll(cmp.Or(s.Version, "dev"), " ", "-")
}
