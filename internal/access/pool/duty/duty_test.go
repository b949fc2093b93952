package duty

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

func TestPlace(t *testing.T) {
	addr := netip.MustParseAddr
	declared := model.Cluster{Name: "pg-test",
		Members:     []model.Member{{Name: "m1", Host: "10.0.0.1", PostgresPort: 5432}, {Name: "m2", Host: "10.0.0.2", PostgresPort: 5432}},
		Definitions: []model.Definition{{FullName: "pg-test-primary", IP: "*", Port: 5433}, {FullName: "pg-test-replica", IP: "127.0.0.7", Port: 5434}}}
	other := model.Cluster{Name: "pg-other", Members: []model.Member{{Name: "o1", Host: "10.0.0.1", PostgresPort: 6000}}}
	machine := Node{Host: "10.0.0.1", Own: []netip.Addr{addr("127.0.0.1"), addr("10.0.0.1"), addr("fe80::1")}, Clusters: []model.Cluster{declared}, Elsewhere: []model.Cluster{other}}
	bound := machine
	bound.Bind = addr("127.0.1.11")
	named := Node{Host: "db1", Own: machine.Own, Clusters: []model.Cluster{{Name: "pg-test", Members: []model.Member{{Name: "m1", Host: "db1", PostgresPort: 5432}}}}}
	discovered := machine
	discovered.Host = ""
	sandbox := Node{Host: "127.0.1.11", Bind: addr("127.0.1.11"), Own: machine.Own, Clusters: []model.Cluster{{Name: "pg-test",
		Members: []model.Member{{Name: "m1", Host: "127.0.1.11", PostgresPort: 5432}, {Name: "m2", Host: "127.0.1.12", PostgresPort: 5432}}}}}
	for _, tc := range []struct {
		node *Node
		host string
		port int
		want string
	}{
		{&machine, "127.0.0.1", 5433, "front pg-test-primary"},
		{&machine, "localhost", 5433, "front pg-test-primary"},
		{&machine, "::1", 5433, "front pg-test-primary"},
		{&machine, "10.0.0.1", 5433, "front pg-test-primary"},
		{&machine, "::ffff:10.0.0.1", 5433, "front pg-test-primary"},
		{&machine, "10.0.0.2", 5433, ""},
		{&machine, "/run/postgresql", 5433, ""},
		{&machine, "", 5433, ""},
		{&machine, "127.0.0.7", 5434, "front pg-test-replica"},
		{&machine, "127.0.0.1", 5434, ""},
		{&bound, "127.0.0.1", 5433, ""},
		{&bound, "127.0.1.11", 5433, "front pg-test-primary"},
		{&machine, "", 5432, "behind m1"},
		{&machine, "/run/postgresql", 5432, "behind m1"},
		{&machine, "@postgresql", 5432, "behind m1"},
		{&machine, "10.0.0.1", 5432, "behind m1"},
		{&machine, "127.0.0.1", 5432, "behind m1"},
		{&machine, "10.0.0.2", 5432, ""},
		{&machine, "10.0.0.1,10.0.0.2", 5432, ""},
		{&machine, "db1", 5432, ""},
		{&machine, "/run/postgresql", 6000, "behind o1"},
		{&machine, "/run/postgresql", 6001, ""},
		{&named, "db1", 5432, "behind m1"},
		{&named, "10.0.0.1", 5432, "behind m1"},
		{&discovered, "/run/postgresql", 5432, "behind m1"},
		{&sandbox, "127.0.1.11", 5432, "behind m1"},
		{&sandbox, "127.0.1.12", 5432, ""},
		{&sandbox, "127.0.0.1", 5432, ""},
		{&sandbox, "/tmp/m1", 5432, "behind m1"},
	} {
		p := tc.node.Place(Database{Name: "app", Host: tc.host, Port: tc.port})
		got := ""
		switch {
		case p.Service != "":
			got = "front " + p.Service
		case p.Member != "":
			got = "behind " + p.Member
		}
		if got != tc.want {
			t.Errorf("%q port %d on %s (bind %s): %q, want %q", tc.host, tc.port, tc.node.Host, tc.node.Bind, got, tc.want)
		}
	}
	if p := machine.Place(Database{Name: "pgbouncer", Port: 5432}); p != (Place{}) {
		t.Errorf("PgBouncer's own database leads to %v", p)
	}
}

// TestSteps has what is seen, a line each, and the command that it brings. Words that were said hold on: who leads, the hold, `paused`,
// `logins`, `sessions`. A command is done at once unless the line says what PgBouncer made of it.
func TestSteps(t *testing.T) {
	inFront, toReaders, behind := Place{Cluster: "c", Service: "c-primary"}, Place{Cluster: "c", Service: "c-replica"}, Place{Cluster: "c", Member: "m1"}
	for _, tc := range []struct {
		name  string
		place Place
		lines string
	}{
		{"in front, a switchover", inFront, `
			0ms leads=m1
			100ms hold=a PAUSE
			200ms
			300ms leads=m2
			400ms hold= RESUME
			500ms`},
		{"in front, who holds dies", inFront, `
			0ms leads=m1 hold=a PAUSE
			9900ms
			10000ms RESUME
			10100ms`},
		{"in front, the hold is another's after the first", inFront, `
			0ms leads=m1 hold=a PAUSE
			100ms hold=b
			200ms hold= RESUME`},
		{"an operator's pause", inFront, `
			0ms leads=m1 paused
			100ms hold=a
			200ms hold=
			300ms running`},
		{"an operator resumes", inFront, `
			0ms leads=m1 hold=a PAUSE
			100ms running
			200ms
			300ms hold=
			400ms hold=b PAUSE`},
		{"PgBouncer is another process", inFront, `
			0ms leads=m1 hold=a PAUSE
			100ms running anew PAUSE
			200ms hold= RESUME`},
		{"PgBouncer refuses", inFront, `
			0ms leads=m1 hold=a PAUSE refused
			500ms
			1000ms PAUSE
			1100ms hold= RESUME`},
		{"the cluster isn't declared any more", inFront, `
			0ms leads=m1 hold=a PAUSE
			100ms gone RESUME`},
		{"a login ends first", inFront, `
			0ms leads=m1 logins=1 hold=a
			100ms logins=0 PAUSE`},
		{"a login is held", inFront, `
			0ms leads=m1 logins=1 hold=a
			199ms
			200ms PAUSE`},
		{"readers, a switchover", toReaders, `
			0ms leads=m1
			100ms hold=a to=m2 RECONNECT
			200ms leads=
			300ms leads=m2 RECONNECT
			400ms hold=b to=m2
			500ms hold=
			600ms`},
		{"readers, nobody knows who comes", toReaders, `
			0ms leads=m1
			100ms hold=a
			200ms hold=
			300ms`},
		{"readers, a failover", toReaders, `
			0ms leads=
			100ms leads=m1
			200ms leads=
			300ms leads=m2 logins=1
			400ms logins=0 RECONNECT
			500ms`},
		{"readers, logins without end", toReaders, `
			0ms leads=m1
			100ms leads=m2 logins=1
			2099ms
			2100ms RECONNECT`},
		{"behind, a switchover", behind, `
			0ms leads=m1
			100ms hold=a from=m1 to=m2 PAUSE
			200ms leads= RECONNECT
			300ms leads=m2 sessions=2
			400ms hold=
			1400ms
			1500ms sessions=0 RESUME`},
		{"behind, no session was here", behind, `
			0ms leads=m1 hold=a from=m1 PAUSE
			100ms leads=m2 RECONNECT
			200ms hold=
			1199ms
			1200ms RESUME`},
		{"behind, sessions without end", behind, `
			0ms leads=m1 hold=a from=m1 sessions=1 PAUSE
			100ms leads=m2 RECONNECT
			200ms hold=
			5199ms
			5200ms RESUME`},
		{"behind, given up", behind, `
			0ms leads=m1 hold=a from=m1 sessions=2 PAUSE
			100ms hold= RESUME`},
		{"behind who is to lead", behind, `
			0ms leads=m2
			100ms hold=a from=m2 to=m1
			200ms leads=m1 RECONNECT
			300ms hold=`},
		{"behind who comes to lead while the hold stands", behind, `
			0ms leads=m2
			100ms hold=a
			200ms leads=m1 logins=1
			300ms logins=0 RECONNECT
			400ms hold=`},
		{"behind a leader that nobody names", behind, `
			0ms leads=m1
			100ms hold=a PAUSE
			200ms hold= RESUME`},
		{"a pause of before, and no hold", inFront, `
			0ms ours paused leads=m1 anew RESUME`},
		{"a pause of before, and its hold", inFront, `
			0ms ours paused leads=m1 hold=a anew
			100ms hold= RESUME`},
		{"a pause of before that is over", inFront, `
			0ms ours leads=m1 anew
			100ms paused`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var s State
			seen := Sight{Place: tc.place, View: &view.View{}}
			began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			leader, hold := "", view.Hold{}
			for line := range strings.Lines(strings.TrimSpace(tc.lines)) {
				line = strings.TrimSpace(line)
				want, refused := None, false
				seen.Anew = false
				gone := seen.View == nil
				for i, word := range strings.Fields(line) {
					key, value, _ := strings.Cut(word, "=")
					switch {
					case i == 0:
						d, err := time.ParseDuration(word)
						if err != nil {
							t.Fatal(err)
						}
						seen.Now = began.Add(d)
					case key == "leads":
						leader = value
					case key == "hold":
						hold = view.Hold{ID: value, Until: seen.Now.Add(10 * time.Second)}
					case key == "from":
						hold.From = value
					case key == "to":
						hold.To = value
					case key == "logins":
						_, _ = fmt.Sscan(value, &seen.Database.Logins)
					case key == "sessions":
						_, _ = fmt.Sscan(value, &seen.Sessions)
					case word == "paused":
						seen.Database.Paused = true
					case word == "running":
						seen.Database.Paused = false
					case word == "anew":
						seen.Anew = true
					case word == "ours":
						s.Ours = true
					case word == "gone":
						gone = true
					case word == "refused":
						refused = true
					default:
						want = Command(word)
					}
				}
				v := &view.View{Hold: hold, Services: []view.Service{{Service: model.Service{Definition: model.Definition{FullName: "c-primary"}}, Leads: true},
					{Service: model.Service{Definition: model.Definition{FullName: "c-replica"}}}}}
				for _, name := range []string{"m1", "m2"} {
					m := view.Member{Member: model.Member{Name: name}, Live: model.Replica, Answered: seen.Now}
					if name == leader {
						m.Live = model.Primary
					}
					v.Members = append(v.Members, m)
				}
				if seen.View = v; gone {
					seen.View = nil
				}
				next, command := Step(s, seen)
				if command != want {
					t.Fatalf("%q: %q is due, want %q", line, command, want)
				}
				if refused {
					s = s.Refused(seen.Now)
					continue
				}
				s = next
				switch command {
				case Pause:
					seen.Database.Paused = true
				case Resume:
					seen.Database.Paused = false
				}
			}
			if s.Waits() && hold.ID == "" {
				t.Error("something is waited for though all is done")
			}
		})
	}
}
