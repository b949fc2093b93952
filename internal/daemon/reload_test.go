package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// witness is a Part that notes what becomes of a configuration and what the Boards show then, and refuses it if it is to.
type witness struct {
	mu      sync.Mutex
	refuses error
	notes   []string
	boards  []*view.Board
}

func (w *witness) Prepare(_ context.Context, o engine.Offer) (Change, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuses != nil {
		return Change{}, w.refuses
	}
	w.boards = []*view.Board{o.Clusters[0].Board}
	if o.TCP.Board != nil {
		w.boards = append(w.boards, o.TCP.Board)
	}
	w.notes = nil
	note := func(what string) func() {
		return func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			shown := 0
			for _, b := range w.boards {
				shown += len(b.View().Services)
			}
			w.notes = append(w.notes, fmt.Sprintf("%s with %d services", what, shown))
		}
	}
	return Change{Commit: note("committed"), Publish: note("published"), Abort: note("aborted")}, nil
}

func (w *witness) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (w *witness) noted() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.notes)
}

// epochs are those of all servers, by service and address.
func (w *witness) epochs() map[string]uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]uint64{}
	for _, b := range w.boards {
		for _, s := range b.View().Services {
			for i, server := range s.Servers {
				all[s.FullName+" "+server.Address()] = s.Health[i].Epoch
			}
		}
	}
	return all
}

// TestReloadInOrder: everything is prepared before anything is committed, and committed before anything is published; what
// clients meet comes after the Views that they are dispatched by.
func TestReloadInOrder(t *testing.T) {
	f := newFixture(t, address(101))
	first, last := &witness{}, &witness{}
	r := start(t, f, address(102), f.inventory("primary:5433"), false, func(c *Config) { c.Parts = []Part{first, last} })
	reload := func(what string, holds func(*api.Status) bool, want ...string) {
		t.Helper()
		r.write(f.inventory("primary:5433", "more:5440"))
		r.reload <- syscall.SIGHUP
		r.until(what, holds)
		if got := first.noted(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	last.mu.Lock()
	last.refuses = errors.New("the last one can't")
	last.mu.Unlock()
	reload("refused", func(s *api.Status) bool { return s.Config.Refused == "the last one can't" }, "aborted with 1 services")
	last.mu.Lock()
	last.refuses = nil
	last.mu.Unlock()
	reload("taken", func(s *api.Status) bool { return s.Config.Generation == 2 }, "committed with 1 services", "published with 2 services")
}

// TestRefusedReloadLeavesEverything: whoever refuses a configuration that would end every session, none ends, no epoch rises,
// no port opens or closes, and the reason is logged.
func TestRefusedReloadLeavesEverything(t *testing.T) {
	f := newFixture(t, address(103))
	one, two := banner(t, f.host, "one"), banner(t, f.host, "two")
	mail := func(port int, lines string) string {
		return fmt.Sprintf("    haproxy_services: [ { name: mail, port: 2525, options: [%s], servers: [ { name: one, ip: %s, port: %d, options: 'on-marked-down shutdown-sessions' } ] } ]\n", lines, f.host, port)
	}
	part := &witness{}
	r := start(t, f, address(104), f.inventory("primary:5433", "gone:5439")+mail(one, ""), false, func(c *Config) { c.Parts = []Part{part} })
	taken := listen(t, r.bind)
	defer taken.Close()
	_, port, _ := strings.Cut(taken.Addr().String(), ":")

	sessions := map[string]func(){}
	for _, p := range []string{"5433", "5439", "2525"} {
		conn := r.dial(p)
		if p == "2525" {
			greeted(t, conn)
		}
		sessions[p] = func() { echo(t, conn, "still here\n") }
	}
	before, was := part.epochs(), r.status()
	// Nobody carries primary any more, gone is gone, mail's server is another, and new is new.
	wreck := strings.Replace(f.inventory("primary:5433", "new:5441"), "/primary, selector: '[]'", "/primary, selector: '[?pg_role==`delayed`]'", 1)
	for _, test := range []struct{ name, text, want string }{
		{"the engine: a port that is taken", strings.Replace(wreck, "5441", port, 1) + mail(two, ""), "service pg-test-new"},
		{"the inventory: a selector", strings.Replace(wreck, "5441, dest: postgres, check: /primary, selector: '[]'", "5441, dest: postgres, check: /primary, selector: '[].pg_role'", 1) + mail(two, ""), "selector, column 1: "},
		{"a TCP service's checks", wreck + mail(two, "option mysql-check"), "option mysql-check isn't supported"},
		{"a part", wreck + mail(two, ""), "the part can't"},
	} {
		part.mu.Lock()
		if part.refuses = nil; test.name == "a part" {
			part.refuses = errors.New("the part can't")
		}
		part.mu.Unlock()
		r.write(test.text)
		r.reload <- syscall.SIGHUP
		r.until("refused by "+test.name, func(s *api.Status) bool { return strings.Contains(s.Config.Refused, test.want) })
		for _, alive := range sessions {
			alive()
		}
		if after := part.epochs(); !reflect.DeepEqual(after, before) {
			t.Errorf("%s: the epochs were %v, are %v", test.name, before, after)
		}
		s := r.status()
		if s.Config.Generation != 1 || len(s.Clusters[0].Services) != 2 || s.Clusters[0].Services[0].Sessions != 1 || s.TCPServices[0].Sessions != 1 ||
			s.Clusters[0].Services[1].Listen != was.Clusters[0].Services[1].Listen {
			t.Errorf("%s: the status is %+v", test.name, s)
		}
	}
	part.mu.Lock()
	part.refuses = nil
	part.mu.Unlock()
	r.write(wreck + mail(two, ""))
	r.reload <- syscall.SIGHUP
	r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 2 && s.Config.Refused == "" })
	if after := part.epochs(); reflect.DeepEqual(after, before) {
		t.Error("what was refused would have ended nothing")
	}
}

// TestHAProxyThatRefuses: a configuration that haproxy -c finds sound and HAProxy can't load ends no session either.
func TestHAProxyThatRefuses(t *testing.T) {
	f := newFixture(t, address(105))
	dir, err := os.MkdirTemp("", "ha-") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	part := &witness{}
	r := start(t, f, address(106), f.inventory("primary:5433", "gone:5439"), false, func(c *Config) {
		c.Source.(*InventoryFile).HAProxy, c.HAProxy = true, &haproxy.Config{Dir: dir}
		c.Parts, c.StopTimeout = []Part{part}, time.Second
	})
	t.Cleanup(func() { r.stop(); <-r.ended })
	one, two := r.dial("5433"), r.dial("5439")
	echo(t, one, "before\n")
	echo(t, two, "before\n")
	before := part.epochs()
	file := filepath.Join(dir, "conf.d", "pg-test-gone.cfg")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wreck := strings.Replace(f.inventory("primary:5433"), "selector: '[]'", "selector: '[?pg_role==`delayed`]'", 1)
	r.write(wreck + fmt.Sprintf("    haproxy_services: [ { name: web, ip: 192.0.2.1, port: 5450, options: [], servers: [ { name: one, ip: %s, port: %d } ] } ]\n", f.host, f.echoPort))
	r.reload <- syscall.SIGHUP
	r.until("refused", func(s *api.Status) bool { return strings.Contains(s.Config.Refused, "192.0.2.1") })
	if got, want := part.noted(), []string{"aborted with 2 services"}; !slices.Equal(got, want) {
		t.Errorf("the part has %q, want %q", got, want)
	}
	// HAProxy's old worker has the sessions; two looks at it later they are there, too.
	time.Sleep(time.Second)
	echo(t, one, "afterwards\n")
	echo(t, two, "afterwards\n")
	if after := part.epochs(); !reflect.DeepEqual(after, before) {
		t.Errorf("the epochs were %v, are %v", before, after)
	}
	if now, err := os.ReadFile(file); err != nil || string(now) != string(text) {
		t.Errorf("the file of the service has changed: %v", err)
	}
	echo(t, r.dial("5439"), "new clients, too\n")
	if s := r.status(); s.Config.Generation != 1 || len(s.Clusters[0].Services) != 2 {
		t.Errorf("the status is %+v", s)
	}
	// Taken, it ends both.
	r.write(wreck)
	r.reload <- syscall.SIGHUP
	r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 2 })
	for _, conn := range []interface {
		Read([]byte) (int, error)
	}{one, two} {
		if n, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a session that has to end: %d bytes, %v", n, err)
		}
	}
}
