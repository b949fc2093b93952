package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/control"
	"github.com/pgporter/pgporter/internal/config/intake"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/jmespath"
	"github.com/pgporter/pgporter/internal/config/plan"
)

// controlled is a daemon that takes orders, and a client for it.
type controlled struct {
	*running
	node    string
	address string
	files   control.Files
	client  *control.Client
}

func startControlled(t *testing.T, f fixture, bind, text string, edit ...func(*Config)) *controlled {
	t.Helper()
	c := &controlled{node: f.host}
	var err error
	if c.files, err = control.MakeCredentials(t.TempDir(), []string{bind}, time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	credentials, err := control.LoadCredentials(c.files)
	if err != nil {
		t.Fatal(err)
	}
	free := listen(t, bind)
	c.address = free.Addr().String()
	free.Close()
	c.running = start(t, f, bind, text, false, append(edit, func(cfg *Config) { cfg.Control = &Control{Address: c.address, Credentials: credentials} })...)
	c.renewClient()
	return c
}

func (c *controlled) renewClient() {
	c.t.Helper()
	token, err := control.ReadToken(c.files.Token)
	if err != nil {
		c.t.Fatal(err)
	}
	if c.client, err = control.NewClient(token, c.files.Certificate); err != nil {
		c.t.Fatal(err)
	}
}

// order plans a node's part of an inventory's text.
func order(t *testing.T, node, text string) intake.Order {
	t.Helper()
	inv, problems := inventory.Parse("sent.yml", []byte(text))
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	p, problems := plan.ForNode(inv, node)
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	return intake.Order{Plan: p, Source: "sent.yml", Sender: "dba@infra"}
}

func (c *controlled) send(o intake.Order, dryRun bool) (api.Taken, error) {
	return c.client.Send(c.t.Context(), c.address, o, dryRun)
}

// services lists the changes of services in short.
func services(changes api.Changes) string {
	var all []string
	for _, s := range changes.Services {
		all = append(all, fmt.Sprintf("%s %s", s.Kind, s.Service))
	}
	return strings.Join(all, ", ")
}

func TestOrdersAreCarriedOut(t *testing.T) {
	f := newFixture(t, address(41))
	c := startControlled(t, f, address(42), f.inventory("primary:5433"))
	session := c.dial("5433")
	echo(t, session, "before\n")
	if who, err := c.client.Ask(t.Context(), c.address); err != nil || who != (api.Node{Version: "test", Node: f.host, Engine: "native", Generation: 1}) {
		t.Errorf("it says it is %+v, %v", who, err)
	}
	next := order(t, f.host, f.inventory("primary:5433", "more:5440"))

	// Tried first: it says what would change and changes nothing.
	taken, err := c.send(next, true)
	if err != nil {
		t.Fatal(err)
	}
	if taken.Generation != 1 || !taken.DryRun || services(taken.Changes) != "added pg-test-more" {
		t.Errorf("the dry run: %+v", taken)
	}
	if conn, err := net.Dial("tcp", c.bind+":5440"); err == nil {
		conn.Close()
		t.Error("a dry run opened a port")
	}
	if s := c.status(); s.Config.Generation != 1 || s.Config.Sent != nil || s.Config.Source != c.path || s.Config.Control != c.address {
		t.Errorf("after a dry run: %+v", s.Config)
	}

	taken, err = c.send(next, false)
	if err != nil {
		t.Fatal(err)
	}
	if taken.Node != f.host || taken.Generation != 2 || taken.DryRun || services(taken.Changes) != "added pg-test-more" ||
		strings.Join(taken.Changes.Services[0].ServersAdded, ",") != "pg-test-1" {
		t.Errorf("got %+v", taken)
	}
	echo(t, c.dial("5440"), "new service\n")
	echo(t, session, "after an order\n")
	s := c.status()
	if s.Config.Generation != 2 || s.Config.Source != "sent.yml" || s.Config.Sent == nil || s.Config.Sent.Sender != "dba@infra" || !strings.HasPrefix(s.Config.Sent.From, "127.") {
		t.Errorf("after an order: %+v", s.Config)
	}
	if log := c.log.String(); !strings.Contains(log, "level=INFO msg=\"an order was carried out\" from=127.") || !strings.Contains(log, "sender=dba@infra source=sent.yml generation=2") {
		t.Errorf("the log has no line about it:\n%s", log)
	}

	// The same again: nothing changes.
	if taken, err = c.send(next, true); err != nil || !taken.Changes.None() {
		t.Errorf("the same once more: %+v, %v", taken, err)
	}

	// The file is read again on SIGHUP, whatever was sent since.
	c.reload <- syscall.SIGHUP
	c.until("taken from the file", func(s *api.Status) bool { return s.Config.Generation == 3 })
	if s := c.status(); s.Config.Source != c.path || s.Config.Sent != nil || len(s.Clusters[0].Services) != 1 {
		t.Errorf("after SIGHUP: %+v", s.Config)
	}
	echo(t, session, "after the file\n")
}

func TestOrdersThatAreRefused(t *testing.T) {
	f := newFixture(t, address(51))
	c := startControlled(t, f, address(52), f.inventory("primary:5433"))
	session := c.dial("5433")
	unsupported := order(t, f.host, f.inventory("primary:5433"))
	unsupported.Plan.Clusters[0].Definitions[0].Balance = "static-rr"
	unresolved := order(t, f.host, f.inventory("primary:5433"))
	unresolved.Plan.Clusters[0].Definitions[0].Selector = jmespath.Read("[0].pg_role")
	elsewhere := order(t, f.host, f.inventory("primary:5433"))
	elsewhere.Plan.Node = "10.10.10.99"
	for _, test := range []struct {
		name  string
		order intake.Order
		want  string
	}{
		{"for another node", elsewhere, "the plan is for 10.10.10.99, and this node is " + f.host},
		{"for another engine", unsupported, "service pg-test-primary: balance static-rr is not supported by the native engine"},
		{"a selector that gives no members", unresolved, "cluster pg-test: service pg-test-primary: selector"},
		{"a port that is taken", order(t, f.host, f.inventory("primary:5433", "more:"+c.admin[strings.LastIndex(c.admin, ":")+1:])), "service pg-test-more"},
	} {
		for _, dryRun := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, dry run %v", test.name, dryRun), func(t *testing.T) {
				before := c.status().Config.Generation
				_, err := c.send(test.order, dryRun)
				if !errors.Is(err, control.ErrRefused) || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("got %v, want %q in it", err, test.want)
				}
				s := c.status()
				if s.Config.Generation != before || len(s.Clusters[0].Services) != 1 || s.Config.Sent != nil {
					t.Errorf("what runs has changed: %+v", s)
				}
				if shown := strings.Contains(s.Config.Refused, test.want); shown == dryRun {
					t.Errorf("the status says of the last reload %q", s.Config.Refused)
				}
				echo(t, session, "still there\n")
			})
		}
		// What was refused last is forgotten once something is taken.
		c.reload <- syscall.SIGHUP
		c.until("taken", func(s *api.Status) bool { return s.Config.Refused == "" })
	}
}

// TestOrdersComeOneAfterTheOther sends many at once: each is compared with what the one before left, and the numbers of the
// configurations have no gap and no double.
func TestOrdersComeOneAfterTheOther(t *testing.T) {
	f := newFixture(t, address(61))
	c := startControlled(t, f, address(62), f.inventory("primary:5433"))
	const orders = 20
	type answer struct {
		name  string
		taken api.Taken
		err   error
	}
	answers := make(chan answer, orders)
	var senders sync.WaitGroup
	for i := range orders {
		name := fmt.Sprintf("s%02d", i)
		o := order(t, f.host, f.inventory("primary:5433", fmt.Sprintf("%s:%d", name, 6000+i)))
		senders.Go(func() {
			taken, err := c.send(o, false)
			answers <- answer{name, taken, err}
		})
	}
	senders.Wait()
	close(answers)
	by := map[int]answer{}
	for a := range answers {
		if a.err != nil {
			t.Fatal(a.err)
		}
		by[a.taken.Generation] = a
	}
	before := ""
	for generation := 2; generation < 2+orders; generation++ {
		a, there := by[generation]
		if !there {
			t.Fatalf("no order became configuration %d: %v", generation, by)
		}
		want := "added pg-test-" + a.name
		if before != "" {
			want += ", removed pg-test-" + before
		}
		if got := services(a.taken.Changes); got != want {
			t.Errorf("configuration %d: %s, want %s", generation, got, want)
		}
		before = a.name
	}
	if s := c.status(); s.Config.Generation != 1+orders || s.Clusters[0].Services[1].Name != before {
		t.Errorf("at last: %+v", s.Config)
	}
}

// TestCredentialsAreRenewedOnSIGHUP replaces the token while the daemon runs.
func TestCredentialsAreRenewedOnSIGHUP(t *testing.T) {
	f := newFixture(t, address(71))
	c := startControlled(t, f, address(72), f.inventory("primary:5433"))
	token := strings.Repeat("another-token-", 4)
	if err := os.WriteFile(c.files.Token, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	c.reload <- syscall.SIGHUP
	c.until("taken", func(s *api.Status) bool { return s.Config.Generation == 2 })
	if _, err := c.client.Ask(t.Context(), c.address); !errors.Is(err, control.ErrRefused) {
		t.Errorf("the old token: %v", err)
	}
	c.renewClient()
	if _, err := c.client.Ask(t.Context(), c.address); err != nil {
		t.Errorf("the new token: %v", err)
	}
	if err := os.Chmod(c.files.Token, 0o644); err != nil {
		t.Fatal(err)
	}
	c.reload <- syscall.SIGHUP
	c.until("taken", func(s *api.Status) bool { return s.Config.Generation == 3 })
	if _, err := c.client.Ask(t.Context(), c.address); err != nil {
		t.Errorf("the token in use: %v", err)
	}
	if log := c.log.String(); !strings.Contains(log, "can't be renewed, those in use stay") || strings.Contains(log, token) {
		t.Errorf("the log:\n%s", log)
	}
}

func TestControlAddressThatIsTaken(t *testing.T) {
	f := newFixture(t, address(81))
	taken := listen(t, address(82))
	defer taken.Close()
	files, err := control.MakeCredentials(t.TempDir(), []string{address(82)}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := control.LoadCredentials(files)
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/pigsty.yml"
	if err := os.WriteFile(path, []byte(f.inventory("primary:5433")), 0o600); err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), Config{
		Source: &InventoryFile{Path: path, Node: f.host}, Bind: address(82), Admin: address(82) + ":8432", Logger: slog.New(slog.DiscardHandler),
		Control: &Control{Address: taken.Addr().String(), Credentials: credentials},
	})
	if err == nil || !strings.Contains(err.Error(), "control address "+taken.Addr().String()) {
		t.Errorf("got %v", err)
	}
	for _, port := range []string{"5433", "8432"} {
		if conn, err := net.Dial("tcp", address(82)+":"+port); err == nil {
			conn.Close()
			t.Errorf("port %s was left open", port)
		}
	}
}

// TestNothingIsOpenByDefault has a daemon without a control address: nothing on its admin address changes anything.
func TestNothingIsOpenByDefault(t *testing.T) {
	f := newFixture(t, address(91))
	r := start(t, f, address(92), f.inventory("primary:5433"), false)
	if s := r.status(); s.Config.Control != "" {
		t.Errorf("it says that orders are taken at %s", s.Config.Control)
	}
	if conn, err := net.Dial("tcp", r.bind+":"+control.DefaultPort); err == nil {
		conn.Close()
		t.Error("the control port is open")
	}
	for _, path := range []string{"/node", "/plan", "/plan/dry-run"} {
		res, err := http.Post("http://"+r.admin+path, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusNotFound {
			t.Errorf("POST %s at the admin address: %s", path, res.Status)
		}
	}
}
