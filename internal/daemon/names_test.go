package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/pgporter/pgporter/internal/access/dns"
	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/engine"
)

// scripted is a member whose Patroni says what the test has it say; empty is silence. Its PostgreSQL and its PgBouncer only
// answer whether they are there.
type scripted struct {
	host                      string
	port, postgres, pgbouncer int
	role                      atomic.Pointer[string]
}

func newScripted(t *testing.T, host, role string) *scripted {
	t.Helper()
	s := &scripted{host: host}
	s.role.Store(&role)
	patroni := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		role := *s.role.Load()
		if role == "" {
			panic(http.ErrAbortHandler)
		}
		isPrimary := role == "master"
		passes := isPrimary
		switch r.URL.Path {
		case "/read-only":
			passes = true
		case "/replica":
			passes = !isPrimary
		}
		if !passes {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, `{"state": "running", "role": %q, "timeline": 1, "patroni": {"version": "3.0.2", "scope": "pg-far"}}`, role)
	}))
	patroni.Listener.Close()
	patroni.Listener = listen(t, host)
	patroni.Start()
	t.Cleanup(patroni.Close)
	s.port = patroni.Listener.Addr().(*net.TCPAddr).Port
	s.postgres, s.pgbouncer = answering(t, host), answering(t, host)
	return s
}

// answering is a port that declines encryption and has nothing else to say. It gives the port's number.
func answering(t *testing.T, host string) int {
	l := listen(t, host)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(conn, make([]byte, 8)); err == nil {
				_, _ = conn.Write([]byte("N"))
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	return l.Addr().(*net.TCPAddr).Port
}

func (s *scripted) says(role string) { s.role.Store(&role) }

// pair declares a cluster of two scripted members, with a service that has a name of its own.
func pair(name string, first, second *scripted, service string) string {
	return fmt.Sprintf(`%s:
  hosts:
    %s: { pg_seq: 1, pg_role: primary, patroni_port: %d, pg_port: %d, pgbouncer_port: %d }
    %s: { pg_seq: 2, pg_role: replica, patroni_port: %d, pg_port: %d, pgbouncer_port: %d }
  vars:
    pg_cluster: %s
    pg_rto: fast
    pg_dns_suffix: .db.example
    pg_rto_plan: { fast: [ 20, 5, 5, 15, 5, 3s, 200ms, 200ms, 2, 3 ] }
    pg_services: [ { name: %s, port: 5499, selector: "[]", check: /read-only } ]
`, name, first.host, first.port, first.postgres, first.pgbouncer, second.host, second.port, second.postgres, second.pgbouncer, name, service)
}

// withNames has a daemon tell names, in a directory for dnsmasq too.
func withNames(t *testing.T, address, dir string) (*Names, func(*Config)) {
	t.Helper()
	names, err := NewNames(t.Context(), dns.Config{Address: address, HostsDir: dir, Logger: slog.New(slog.DiscardHandler)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(names.Close)
	return names, func(c *Config) {
		c.Parts = append(c.Parts, names)
		if file, is := c.Source.(*InventoryFile); is {
			file.Names = true
		}
	}
}

// asked gives the addresses of a name, sorted, or the code of the answer.
func asked(t *testing.T, server, name string) string {
	t.Helper()
	m := new(wire.Msg)
	m.SetQuestion(name+".", wire.TypeA)
	answer, _, err := (&wire.Client{Timeout: patience}).ExchangeContext(t.Context(), m, server)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var all []string
	for _, rr := range answer.Answer {
		all = append(all, rr.(*wire.A).A.String())
	}
	if len(all) == 0 {
		return wire.RcodeToString[answer.Rcode]
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// The names of a cluster whose services other nodes carry follow its Patroni, and no configuration that is refused changes any.
func TestNamesFollowRoles(t *testing.T) {
	f := newFixture(t, address(81))
	one, two := newScripted(t, address(82), "master"), newScripted(t, address(83), "replica")
	dir := t.TempDir()
	names, edit := withNames(t, address(84)+":0", dir)
	text := f.inventory("primary:5433") + pair("pg-far", one, two, "extra")
	r := start(t, f, address(85), text, false, edit)
	at := names.Address()
	becomes := func(name, want string) {
		t.Helper()
		limit := time.After(patience)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for got := ""; got != want; got = asked(t, at, name) {
			if strings.HasPrefix(got, "NX") {
				t.Fatalf("%s is %s", name, got)
			}
			select {
			case <-tick.C:
			case <-limit:
				t.Fatalf("%s is %s, want %s\n%s", name, got, want, &r.log)
			}
		}
	}
	becomes("pg-far", one.host)
	becomes("primary.pg-far.db.example", one.host)
	becomes("replica.pg-far", two.host)
	becomes("extra.pg-far", one.host+" "+two.host)
	becomes("primary.pg-test", f.host)
	if got := asked(t, at, "pg-far-2") + " " + asked(t, at, "www.example.com"); got != two.host+" REFUSED" {
		t.Errorf("an instance and somebody else: %s", got)
	}
	if s := r.status(); len(s.Clusters) != 1 || s.Names == nil || s.Names.Listen != at || s.Names.Questions == 0 || s.Names.Refused != 1 {
		t.Errorf("the status has %d clusters and names %+v", len(s.Clusters), s.Names)
	}

	// Nobody leads for a while: names keep the addresses of who did.
	one.says("replica")
	becomes("replica.pg-far", one.host+" "+two.host)
	if got := asked(t, at, "pg-far") + " " + asked(t, at, "primary.pg-far"); got != one.host+" "+one.host {
		t.Errorf("while nobody leads: %s", got)
	}
	two.says("master")
	becomes("pg-far", two.host)
	becomes("primary.pg-far", two.host)
	becomes("replica.pg-far", one.host)
	// The files are written behind the answers.
	r.until("written", func(*api.Status) bool {
		got, _ := os.ReadFile(filepath.Join(dir, "pg-far"))
		return strings.HasSuffix(string(got), "\n"+two.host+" pg-far.db.example\n")
	})
	one.says("")
	two.says("")

	for name, broken := range map[string]struct{ text, want string }{
		"a name that can't be":        {f.inventory("primary:5433") + pair("pg-far", one, two, "a..b"), `"_postgresql._tcp.a..b.pg-far" can't be a name of the DNS: a label is empty`},
		"a mistake in what is served": {f.inventory("primary:5433") + pair("pg-far", one, two, "a b"), `name is the text "a b"`},
	} {
		r.write(broken.text)
		r.reload <- syscall.SIGHUP
		r.until("refused: "+name, func(s *api.Status) bool { return strings.Contains(s.Config.Refused, broken.want) })
		if own, extra := asked(t, at, "pg-far"), asked(t, at, "extra.pg-far"); own != two.host || !strings.HasPrefix(extra, "127.") {
			t.Errorf("%s: the names have changed: %s, %s", name, own, extra)
		}
	}

	// What is known of the primary stays over a reload, though its Patroni is silent; new names come, old ones go.
	r.write(f.inventory("primary:5433", "more:5440") + pair("pg-far", one, two, "other"))
	r.reload <- syscall.SIGHUP
	r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 2 })
	for name, want := range map[string]string{"pg-far": two.host, "primary.pg-far": two.host, "extra.pg-far": "NXDOMAIN", "more.pg-test": f.host} {
		if got := asked(t, at, name); got != want {
			t.Errorf("after a reload %s is %s, want %s", name, got, want)
		}
	}
	r.write(f.inventory("primary:5433", "more:5440"))
	r.reload <- syscall.SIGHUP
	r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 3 })
	if got := asked(t, at, "pg-far"); got != "REFUSED" {
		t.Errorf("a cluster that is gone is %s", got)
	}
	r.until("removed", func(*api.Status) bool {
		_, err := os.Stat(filepath.Join(dir, "pg-far"))
		return os.IsNotExist(err)
	})
	r.stop()
	if err := <-r.ended; err != nil {
		t.Fatal(err)
	}
}

// A member whose services are delegated watches its own cluster for the names, and shows none of the services as its own.
func TestNamesOfDelegatedServices(t *testing.T) {
	f := newFixture(t, address(86))
	names, edit := withNames(t, address(87)+":0", "")
	text := strings.Replace(f.inventory("primary:5433"), "    pg_rto: fast\n", "    pg_rto: fast\n    pg_service_provider: proxy\n", 1) +
		"proxy: { hosts: { " + address(88) + ": } }\n"
	r := start(t, f, address(87), text, false, edit)
	if s := r.status(); len(s.Clusters) != 1 || len(s.Clusters[0].Services) != 0 || len(s.Clusters[0].Members) != 1 {
		t.Errorf("the status shows %+v", s.Clusters)
	}
	if got := asked(t, names.Address(), "primary.pg-test"); got != f.host {
		t.Errorf("the name is %s", got)
	}
}

func TestNamesNeedTheirAddress(t *testing.T) {
	taken := listen(t, address(89))
	defer taken.Close()
	if _, err := NewNames(t.Context(), dns.Config{Address: taken.Addr().String()}, nil); err == nil ||
		!strings.Contains(err.Error(), fmt.Sprintf("address already in use: this pgporter (pid %d) listens on", os.Getpid())) || !strings.Contains(err.Error(), "--dns=ADDRESS:PORT") {
		t.Errorf("a taken port: %v", err)
	}
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	if _, err := NewNames(t.Context(), dns.Config{Address: ":" + port}, nil); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("this pgporter (pid %d) listens on %s", os.Getpid(), taken.Addr())) {
		t.Errorf("a port that is taken on one of all addresses: %v", err)
	}
	names, edit := withNames(t, address(90)+":0", "")
	edit(&Config{})
	if _, err := names.Prepare(t.Context(), engine.Offer{Clusters: []engine.Cluster{{}}}); err == nil || !strings.Contains(err.Error(), "this node tells names, and the configuration has none") {
		t.Errorf("a configuration without names: %v", err)
	}
}

// An order brings names to a node that tells them, and one without any is refused there.
func TestNamesInOrders(t *testing.T) {
	f := newFixture(t, address(91))
	names, edit := withNames(t, address(92)+":0", "")
	c := startControlled(t, f, address(92), f.inventory("primary:5433"), edit)
	if who, err := c.client.Ask(t.Context(), c.address); err != nil || !who.Names {
		t.Errorf("it says it is %+v, %v", who, err)
	}
	text := f.inventory("primary:5433") + "pg-far: { hosts: { " + address(93) + ": { pg_seq: 1, pg_role: primary } }, vars: { pg_cluster: pg-far } }\n"
	without := order(t, f.host, text)
	if _, err := c.send(without, false); err == nil || !strings.Contains(err.Error(), "this node tells names, and the configuration has none") {
		t.Errorf("an order without names: %v", err)
	}
	inv, problems := inventory.Parse("sent.yml", []byte(text))
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	with := without
	with.Plan, _ = plan.WithNames(inv, without.Plan)
	taken, err := c.send(with, true)
	if err != nil || len(taken.Changes.Clusters) != 1 || taken.Changes.Clusters[0].Cluster != "pg-far" {
		t.Errorf("the dry run: %+v, %v", taken, err)
	}
	if got := asked(t, names.Address(), "pg-far"); got != "REFUSED" {
		t.Errorf("after a dry run pg-far is %s", got)
	}
	if _, err := c.send(with, false); err != nil {
		t.Fatal(err)
	}
	if got := asked(t, names.Address(), "pg-far"); got != address(93) {
		t.Errorf("pg-far is %s", got)
	}
}
