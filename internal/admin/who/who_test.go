package who

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// noon is when the nodes' sessions are read first in all tests, by the asker's clock.
var noon = time.Date(2026, 8, 10, 12, 0, 0, 0, time.UTC)

func ago(seconds float64) time.Time { return noon.Add(-time.Duration(seconds * float64(time.Second))) }

// right is a clock that agrees with the asker's to 1 ms.
var right = Clock{Within: time.Millisecond, Known: true}

func session(id uint64, client, local, server string, began time.Time) api.Session {
	return api.Session{ID: id, Service: "pg-test-primary", Member: "pg-test-1", Client: client, Local: local, Server: server, Began: began, ToServer: 10, ToClient: 20}
}

func backend(pid int, address string, start time.Time) Backend {
	b := Backend{PID: pid, Start: start, Type: clientBackend, Database: "test", User: "app", State: "idle"}
	if address == "unix" {
		b.Socket = true
	} else if address != "" {
		b.Address = netip.MustParseAddrPort(address)
	}
	return b
}

func ends(t *testing.T, text string) Address {
	t.Helper()
	host, port, _ := strings.Cut(text, " ")
	a, err := ParseAddress(host, port)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// tables is a cluster of one member at 10.0.0.11, with nodes at 10.0.0.11 and 10.0.0.12, whose sessions were all seen twice.
func tables(sessions []api.Session, change func(*Tables, *Member)) Tables {
	t := Tables{
		Nodes: []Node{
			{Name: "10.0.0.11", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.11")}, Clock: right, Before: sessions, After: sessions, Read: noon},
			{Name: "10.0.0.12", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.12")}, Clock: right, Read: noon},
		},
		Members: []Member{{Name: "pg-test-1", Host: "10.0.0.11", Port: 5432, PoolPort: 6432, Clock: right}},
	}
	change(&t, &t.Members[0])
	return t
}

// line is a row in short.
func (r Row) line() string {
	pid := "-"
	if r.PID != 0 {
		pid = fmt.Sprint(r.PID)
	}
	text := fmt.Sprintf("%s %s [%s]", r.Member, pid, r.Route)
	for _, part := range []string{r.Client, r.Service, r.Node, r.State} {
		if part != "" {
			text += " " + part
		}
	}
	if r.Uncertain != "" {
		text += " ? " + r.Uncertain
	}
	return text
}

func TestJoin(t *testing.T) {
	client := ends(t, "10.0.0.11 40001")
	for _, test := range []struct {
		name     string
		sessions []api.Session
		change   func(*Tables, *Member)
		want     string
	}{
		{
			"straight to PostgreSQL", []api.Session{session(1, "10.9.9.7:50000", "10.0.0.11:40001", "10.0.0.11:5432", ago(60))},
			func(_ *Tables, m *Member) { m.Backends = []Backend{backend(7, "10.0.0.11:40001", ago(59.9))} },
			"pg-test-1 7 [pgporter] 10.9.9.7:50000 pg-test-primary 10.0.0.11 idle",
		},
		{
			"IPv4 written as IPv6", []api.Session{session(1, "10.9.9.7:50000", "[::ffff:10.0.0.11]:40001", "[::ffff:10.0.0.11]:5432", ago(60))},
			func(_ *Tables, m *Member) { m.Backends = []Backend{backend(7, "10.0.0.11:40001", ago(59.9))} },
			"pg-test-1 7 [pgporter] 10.9.9.7:50000 pg-test-primary 10.0.0.11 idle",
		},
		{
			"the same port at PgBouncer is another connection", []api.Session{session(1, "10.9.9.7:50000", "10.0.0.11:40001", "10.0.0.11:6432", ago(60))},
			func(_ *Tables, m *Member) {
				m.Backends = []Backend{backend(7, "10.0.0.11:40001", ago(59.9))}
				m.Clients = []PoolClient{{Address: client, Pointer: "a", State: "active"}}
			},
			"pg-test-1 7 [direct] 10.0.0.11:40001 idle\npg-test-1 - [pgporter, pool] 10.9.9.7:50000 pg-test-primary 10.0.0.11 idle in the pool",
		},
		{
			"another cluster's member of the same name", []api.Session{session(1, "10.9.9.7:50000", "10.0.0.11:40001", "10.0.0.99:5432", ago(60))},
			func(_ *Tables, m *Member) { m.Backends = []Backend{backend(7, "10.0.0.11:40001", ago(59.9))} },
			"pg-test-1 7 [direct] 10.0.0.11:40001 idle",
		},
		{
			"pooled over TCP", []api.Session{session(1, "10.9.9.7:50000", "10.0.0.11:40001", "10.0.0.11:6432", ago(60))},
			func(_ *Tables, m *Member) {
				m.Clients = []PoolClient{{Address: client, Pointer: "a", Link: "s", State: "active"}}
				m.Servers = []PoolServer{{Address: ends(t, "10.0.0.11 5432"), Local: ends(t, "10.0.0.11 33333"), Pointer: "s", Link: "a", PID: 7, State: "active"}}
				m.Backends = []Backend{backend(7, "10.0.0.11:33333", ago(900))}
			},
			"pg-test-1 7 [pgporter, pool] 10.9.9.7:50000 pg-test-primary 10.0.0.11 idle",
		},
		{
			"pooled over a Unix socket", []api.Session{session(1, "10.9.9.7:50000", "10.0.0.11:40001", "10.0.0.11:6432", ago(60))},
			func(_ *Tables, m *Member) {
				m.Clients = []PoolClient{{Address: client, Pointer: "a", Link: "s", State: "active"}, {Address: ends(t, "unix 6432"), Pointer: "b", State: "active"}}
				m.Servers = []PoolServer{{Address: ends(t, "unix 5432"), Local: ends(t, "unix 5432"), Pointer: "s", Link: "a", PID: 7, State: "active"}}
				m.Backends = []Backend{backend(7, "unix", ago(900)), backend(8, "unix", ago(900))}
			},
			"pg-test-1 7 [pgporter, pool] 10.9.9.7:50000 pg-test-primary 10.0.0.11 idle\npg-test-1 8 [socket] idle\npg-test-1 - [pool] idle in the pool",
		},
		{
			"idle in the pool, waiting, and a connection that nobody uses",
			[]api.Session{session(1, "10.9.9.7:50000", "10.0.0.11:40001", "10.0.0.11:6432", ago(60)), session(2, "10.9.9.8:50000", "10.0.0.11:40002", "10.0.0.11:6432", ago(60))},
			func(_ *Tables, m *Member) {
				m.Clients = []PoolClient{{Address: client, Pointer: "a", State: "active"}, {Address: ends(t, "10.0.0.11 40002"), Pointer: "b", State: "waiting"}}
				m.Servers = []PoolServer{{Address: ends(t, "10.0.0.11 5432"), Local: ends(t, "10.0.0.11 33333"), Pointer: "s", PID: 7, State: "idle"}}
				m.Backends = []Backend{backend(7, "10.0.0.11:33333", ago(900))}
			},
			"pg-test-1 7 [pool, idle] idle\npg-test-1 - [pgporter, pool] 10.9.9.7:50000 pg-test-primary 10.0.0.11 idle in the pool\n" +
				"pg-test-1 - [pgporter, pool] 10.9.9.8:50000 pg-test-primary 10.0.0.11 waits for the pool",
		},
		{
			"a pool's connection changes hands between SHOW CLIENTS and SHOW SERVERS",
			[]api.Session{session(1, "10.9.9.7:50000", "10.0.0.11:40001", "10.0.0.11:6432", ago(60)), session(2, "10.9.9.8:50000", "10.0.0.11:40002", "10.0.0.11:6432", ago(60))},
			func(_ *Tables, m *Member) {
				m.Clients = []PoolClient{{Address: client, Pointer: "a", Link: "s", State: "active"}, {Address: ends(t, "10.0.0.11 40002"), Pointer: "b", State: "active"}}
				m.Servers = []PoolServer{{Address: ends(t, "10.0.0.11 5432"), Local: ends(t, "10.0.0.11 33333"), Pointer: "s", Link: "b", PID: 7, State: "active"}}
				m.Backends = []Backend{backend(7, "10.0.0.11:33333", ago(900))}
			},
			"pg-test-1 7 [pgporter, pool] 10.9.9.8:50000 pg-test-primary 10.0.0.11 idle ? the pool gave the connection to another client while the tables were read\n" +
				"pg-test-1 - [pgporter, pool] 10.9.9.7:50000 pg-test-primary 10.0.0.11 no backend ? its connection to PostgreSQL came or ended while the tables were read",
		},
		{
			"past pgporter to PgBouncer", nil,
			func(_ *Tables, m *Member) {
				m.Clients = []PoolClient{{Address: ends(t, "10.9.9.9 41000"), Pointer: "a", Link: "s", State: "active"}}
				m.Servers = []PoolServer{{Address: ends(t, "10.0.0.11 5432"), Local: ends(t, "10.0.0.11 33333"), Pointer: "s", Link: "a", PID: 7, State: "active"}}
				m.Backends = []Backend{backend(7, "10.0.0.11:33333", ago(900))}
			},
			"pg-test-1 7 [pool] 10.9.9.9:41000 idle",
		},
		{
			"PgBouncer leads to another member", []api.Session{session(1, "10.9.9.7:50000", "10.0.0.12:40001", "10.0.0.11:6432", ago(60))},
			func(all *Tables, m *Member) {
				m.Clients = []PoolClient{{Address: ends(t, "10.0.0.12 40001"), Pointer: "a", Link: "s", State: "active"}}
				m.Servers = []PoolServer{{Address: ends(t, "10.0.0.12 5432"), Local: ends(t, "10.0.0.11 33333"), Pointer: "s", Link: "a", PID: 7, State: "active"}}
				m.Backends = []Backend{backend(7, "10.0.0.11:33334", ago(900))}
				other := Member{Name: "pg-test-2", Host: "10.0.0.12", Port: 5432, PoolPort: 6432, Clock: right, Backends: []Backend{backend(7, "10.0.0.11:33333", ago(900))}}
				all.Members = append(all.Members, other)
			},
			"pg-test-1 7 [direct] 10.0.0.11:33334 idle\npg-test-2 7 [pgporter, pool] 10.9.9.7:50000 pg-test-primary 10.0.0.11 idle",
		},
		{
			"direct, replication, PostgreSQL's own", nil,
			func(_ *Tables, m *Member) {
				m.Backends = []Backend{backend(9, "10.9.9.9:40001", ago(60)), backend(7, "10.0.0.12:40001", ago(60)), backend(5, "", ago(60))}
				m.Backends[1].Type, m.Backends[1].State = walSender, "active"
				m.Backends[2].Type, m.Backends[2].State = "checkpointer", ""
			},
			"pg-test-1 5 [internal]\npg-test-1 7 [replication] 10.0.0.12:40001 active\npg-test-1 9 [direct] 10.9.9.9:40001 idle",
		},
		{
			"a port that is used again: the session is younger than the backend", []api.Session{session(2, "10.9.9.8:50000", "10.0.0.11:40001", "10.0.0.11:5432", ago(5))},
			func(_ *Tables, m *Member) { m.Backends = []Backend{backend(7, "10.0.0.11:40001", ago(300))} },
			"pg-test-1 7 [direct] 10.0.0.11:40001 idle ? its port was used again by a session that is younger than it\n" +
				"pg-test-1 - [pgporter] 10.9.9.8:50000 pg-test-primary 10.0.0.11 no backend ? the server has no such connection in its table: it is authenticating the client, or sees another address",
		},
		{
			"a port that is used again while the tables are read: the times tell", nil,
			func(all *Tables, m *Member) {
				all.Nodes[0].Before = []api.Session{session(1, "10.9.9.7:50000", "10.0.0.11:40001", "10.0.0.11:5432", ago(60))}
				all.Nodes[0].After = []api.Session{session(2, "10.9.9.8:50000", "10.0.0.11:40001", "10.0.0.11:5432", ago(-8))}
				m.Backends = []Backend{backend(7, "10.0.0.11:40001", ago(-8))}
			},
			"pg-test-1 7 [pgporter] 10.9.9.8:50000 pg-test-primary 10.0.0.11 idle ? its session began while the tables were read",
		},
		{
			"a clock that is an hour ahead", []api.Session{session(1, "10.9.9.7:50000", "10.0.0.11:40001", "10.0.0.11:5432", ago(60).Add(time.Hour))},
			func(all *Tables, m *Member) {
				all.Nodes[0].Clock.Ahead = time.Hour
				m.Backends = []Backend{backend(7, "10.0.0.11:40001", ago(60))}
			},
			"pg-test-1 7 [pgporter] 10.9.9.7:50000 pg-test-primary 10.0.0.11 idle",
		},
		{
			"a clock that isn't known decides nothing", []api.Session{session(1, "10.9.9.7:50000", "10.0.0.11:40001", "10.0.0.11:5432", ago(60).Add(time.Hour))},
			func(all *Tables, m *Member) {
				all.Nodes[0].Clock = Clock{}
				m.Backends = []Backend{backend(7, "10.0.0.11:40001", ago(60))}
			},
			"pg-test-1 7 [pgporter] 10.9.9.7:50000 pg-test-primary 10.0.0.11 idle",
		},
		{
			"a session that ended in between", nil,
			func(all *Tables, m *Member) {
				all.Nodes[0].Before = []api.Session{session(1, "10.9.9.7:50000", "10.0.0.11:40001", "10.0.0.11:5432", ago(60))}
				m.Backends = []Backend{backend(7, "10.0.0.11:40001", ago(60))}
			},
			"pg-test-1 7 [pgporter] 10.9.9.7:50000 pg-test-primary 10.0.0.11 idle ? its session ended while the tables were read",
		},
		{
			"a node that doesn't tell", nil,
			func(all *Tables, m *Member) {
				all.Nodes[1].Problem = "no answer"
				m.Backends = []Backend{backend(7, "10.0.0.12:40001", ago(60)), backend(8, "10.9.9.9:40001", ago(60))}
			},
			"pg-test-1 7 [direct] 10.0.0.12:40001 idle ? it comes from 10.0.0.12, whose pgporter doesn't tell\npg-test-1 8 [direct] 10.9.9.9:40001 idle",
		},
		{
			"another program on a node, and one that may be a session's", nil,
			func(_ *Tables, m *Member) {
				m.Backends = []Backend{backend(7, "10.0.0.12:40001", ago(60)), backend(8, "10.0.0.12:40002", ago(1))}
			},
			"pg-test-1 7 [direct] 10.0.0.12:40001 idle\npg-test-1 8 [direct] 10.0.0.12:40002 idle ? it is younger than the sessions of 10.0.0.12 that were read first",
		},
		{
			"a member whose PostgreSQL doesn't tell", []api.Session{session(1, "10.9.9.7:50000", "10.0.0.11:40001", "10.0.0.11:5432", ago(60))},
			func(_ *Tables, m *Member) { m.Problem = "refused" },
			"pg-test-1 - [pgporter] 10.9.9.7:50000 pg-test-primary 10.0.0.11 no backend ? the server's side doesn't tell",
		},
		{
			"a member whose PgBouncer doesn't tell", []api.Session{session(1, "10.9.9.7:50000", "10.0.0.11:40001", "10.0.0.11:6432", ago(60))},
			func(_ *Tables, m *Member) {
				m.PoolProblem = "refused"
				m.Backends = []Backend{backend(7, "10.0.0.11:33333", ago(60)), backend(8, "unix", ago(60)), backend(9, "10.9.9.9:40001", ago(60))}
			},
			"pg-test-1 7 [direct] 10.0.0.11:33333 idle ? it may be of the member's own PgBouncer, which doesn't tell\n" +
				"pg-test-1 8 [socket] idle ? it may be PgBouncer's, which doesn't tell\npg-test-1 9 [direct] 10.9.9.9:40001 idle\n" +
				"pg-test-1 - [pgporter, pool] 10.9.9.7:50000 pg-test-primary 10.0.0.11 no backend ? the server's side doesn't tell",
		},
		{
			"a process number of another program's socket isn't PgBouncer's", nil,
			func(_ *Tables, m *Member) {
				m.Servers = []PoolServer{{Address: ends(t, "10.0.0.50 5432"), Local: ends(t, "10.0.0.11 33333"), Pointer: "s", PID: 7, State: "idle"}}
				m.Backends = []Backend{backend(7, "unix", ago(900))}
			},
			"pg-test-1 7 [socket] idle",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var lines []string
			for _, r := range Join(tables(test.sessions, test.change)) {
				lines = append(lines, r.line())
			}
			if got := strings.Join(lines, "\n"); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
}

// What is joined of a client is what its session and its place in the pool say, not what PgBouncer's connection does.
func TestRowOfPooledClient(t *testing.T) {
	rows := Join(tables([]api.Session{session(5, "10.9.9.7:50000", "10.0.0.11:40001", "10.0.0.11:6432", ago(60))}, func(_ *Tables, m *Member) {
		m.Clients = []PoolClient{{Address: ends(t, "10.0.0.11 40001"), Pointer: "a", Link: "s", State: "active", Database: "shop", User: "web", Application: "till", Connected: ago(60)}}
		m.Servers = []PoolServer{{Address: ends(t, "10.0.0.11 5432"), Local: ends(t, "10.0.0.11 33333"), Pointer: "s", Link: "a", PID: 7}}
		m.Backends = []Backend{backend(7, "10.0.0.11:33333", ago(900))}
	}))
	if len(rows) != 1 {
		t.Fatalf("%d rows", len(rows))
	}
	r := rows[0]
	if r.Session != 5 || r.Database != "shop" || r.User != "web" || r.Application != "till" || !r.Since.Equal(ago(60)) || !r.Start.Equal(ago(900)) || r.ToServer != 10 || r.ToClient != 20 {
		t.Errorf("%+v", r)
	}
}

func TestFilter(t *testing.T) {
	r := Row{Member: "pg-test-1", PID: 7, Client: "[::ffff:10.0.0.7]:50000", Service: "pg-test-primary", Node: "10.0.0.11", Database: "shop", User: "web"}
	client := func(text string) netip.Prefix {
		p, err := ParseClient(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, test := range []struct {
		filter Filter
		want   bool
	}{
		{Filter{}, true},
		{Filter{Client: client("10.0.0.7")}, true}, {Filter{Client: client("10.0.0.0/24")}, true}, {Filter{Client: client("10.0.0.70")}, false}, {Filter{Client: client("::ffff:10.0.0.7")}, true},
		{Filter{PID: 7}, true}, {Filter{PID: 77}, false}, {Filter{Member: "pg-test-1"}, true}, {Filter{Member: "pg-test-2"}, false},
		{Filter{Service: "pg-test-primary"}, true}, {Filter{Service: "primary", Cluster: "pg-test"}, true}, {Filter{Service: "replica", Cluster: "pg-test"}, false},
		{Filter{Node: "10.0.0.12"}, false}, {Filter{Database: "shop", User: "web"}, true}, {Filter{Database: "shop", User: "root"}, false},
	} {
		if got := test.filter.Chooses(r); got != test.want {
			t.Errorf("%+v: %v", test.filter, got)
		}
	}
	if (Filter{Client: client("10.0.0.7")}).Chooses(Row{Route: Socket}) || (Filter{Service: "primary"}).Chooses(Row{}) {
		t.Error("who has no address and no service isn't chosen by them")
	}
	if !(Filter{Cluster: "pg-test"}).Empty() || (Filter{PID: 1}).Empty() {
		t.Error("a cluster alone chooses nothing")
	}
	for _, bad := range []string{"", "10.0.0", "host", "10.0.0.1:5", "10.0.0.0/33"} {
		if _, err := ParseClient(bad); err == nil {
			t.Errorf("%q is taken for an address", bad)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, seed := range [][2]string{{"10.0.0.1", "5432"}, {"::1", "6432"}, {"fe80::1%eth0", "1"}, {"unix", "6432"}, {"unix(4711)", "6432"}, {"unix(4711@db1)", "6432"}, {"/var/run/postgresql", "5432"}, {"@abstract", "0"}, {"", "0"}, {"unixhost", "1"}, {"10.0.0.1", "70000"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, addr, port string) {
		a, err := ParseAddress(addr, port)
		if err != nil {
			if a != (Address{}) {
				t.Errorf("%q %q: an error and %v", addr, port, a)
			}
			return
		}
		if a.Socket && a.IsValid() {
			t.Errorf("%q %q is a socket and %v", addr, port, a.AddrPort)
		}
		if a.IsValid() {
			again, err := ParseAddress(a.Addr().String(), fmt.Sprint(a.Port()))
			if err != nil || again != a || a.Addr().Is4In6() || a.Addr().Zone() != "" {
				t.Errorf("%q %q is %v, and that is %v, %v", addr, port, a, again, err)
			}
		}
	})
}
