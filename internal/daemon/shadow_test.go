package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/engine/handover"
)

// balancerOf is a HAProxy that says nothing but whether it listens for the services of an inventory.
type balancerOf struct {
	services []string
	silent   atomic.Bool
}

func (b *balancerOf) String() string { return "the balancer" }

func (b *balancerOf) Statistics(context.Context) (string, error) {
	if b.silent.Load() {
		return "", errors.New("it hangs")
	}
	var text strings.Builder
	fmt.Fprintln(&text, "# pxname,svname,status,weight,bck,scur,stot,econ,wretr,")
	for _, name := range b.services {
		fmt.Fprintf(&text, "%s,FRONTEND,OPEN,,,0,0,,,\n%s,pg-test-1,UP,1,0,0,0,0,0,\n%s,BACKEND,UP,1,0,0,0,0,0,\n", name, name, name)
	}
	return text.String(), nil
}

// take has a shadow take a service with a copy of a listening socket.
func take(t *testing.T, local Local, c Carried, l net.Listener) error {
	t.Helper()
	fd, err := handover.Duplicate(l.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	defer handover.Close([]handover.Item{{Descriptors: []int{fd}}})
	return local.Take(t.Context(), c, fd)
}

// A shadow serves nothing until it is given the socket of a service; what it has taken it serves after a restart, too, and gives back with
// its sessions going on.
func TestShadow(t *testing.T) {
	if !abstractSockets {
		t.Skip("shadows take orders on Linux")
	}
	f, bind, state := newFixture(t, address(11)), address(12), t.TempDir()
	theirs, err := net.Listen("tcp", bind+":5433")
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	h := &balancerOf{services: []string{"pg-test-primary", "pg-test-more"}}
	shadowed := func(c *Config) { c.Shadow, c.StateDir = h, state }
	text := f.inventory("primary:5433", "more:5440")
	r := start(t, f, bind, text, false, shadowed)
	s := r.status()
	if s.Shadow == nil || len(s.Shadow.Taken) != 0 || !s.Clusters[0].Services[0].Shadow || !s.Clusters[0].Services[0].Up {
		t.Errorf("at first: %+v, %+v", s.Shadow, s.Clusters[0].Services)
	}
	if _, err := net.Dial("tcp", bind+":5440"); err == nil {
		t.Error("somebody listens for the other service")
	}
	local := Local{os.Getpid()}
	carried, err := local.Carried(t.Context())
	if err != nil || fmt.Sprint(carried) != fmt.Sprintf("[{pg-test-primary %s:5433 false} {pg-test-more %s:5440 false}]", bind, bind) {
		t.Fatalf("%v, %v", carried, err)
	}
	primary := carried[0]
	elsewhere, err := net.Listen("tcp", bind+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	for want, try := range map[string]func() error{
		"listens at " + elsewhere.Addr().String(): func() error { return take(t, local, primary, elsewhere) },
		`this node has no service "pg-test-none"`: func() error { return take(t, local, Carried{Service: "pg-test-none"}, theirs) },
		"no socket came for service pg-test-more": func() error {
			return take(t, local, Carried{Service: "pg-test-more", Address: primary.Address}, theirs)
		},
		"service pg-test-primary is HAProxy's already": func() error { return local.GiveBack(t.Context(), []string{"pg-test-primary"}, false) },
		"the order names no service":                   func() error { return local.GiveBack(t.Context(), nil, true) },
	} {
		if err := try(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if taken := r.status().Shadow.Taken; len(taken) != 0 {
		t.Errorf("taken all the same: %v", taken)
	}

	if err := take(t, local, primary, theirs); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	echo(t, r.dial("5433"), "taken\n")
	if kept, err := os.ReadFile(filepath.Join(state, takenFile)); err != nil || string(kept) != "pg-test-primary\n" {
		t.Errorf("kept: %q, %v", kept, err)
	}
	if err := take(t, local, primary, elsewhere); err == nil || !strings.Contains(err.Error(), "is served here already") {
		t.Errorf("taken twice: %v", err)
	}
	if s := r.status(); fmt.Sprint(s.Shadow.Taken) != "[pg-test-primary]" || s.Clusters[0].Services[0].Shadow || !s.Clusters[0].Services[1].Shadow {
		t.Errorf("when it is taken: %+v, %+v", s.Shadow, s.Clusters[0].Services)
	}
	r.until("seen that both listen", func(s *api.Status) bool { return fmt.Sprint(s.Shadow.Both) == "[pg-test-primary]" })

	// A restart.
	r.stop()
	if err := <-r.ended; err != nil {
		t.Fatal(err)
	}
	r = start(t, f, bind, text, false, shadowed)
	session := r.dial("5433")
	echo(t, session, "after a restart\n")
	lent, err := local.Lend(t.Context(), []string{"pg-test-primary"})
	if err != nil || len(lent) != 1 || lent[primary.Address] == 0 {
		t.Fatalf("lent %v, %v", lent, err)
	}
	handover.Close([]handover.Item{{Descriptors: []int{lent[primary.Address]}}})
	if err := local.GiveBack(t.Context(), []string{"pg-test-primary"}, false); err != nil {
		t.Fatal(err)
	}
	echo(t, session, "it goes on\n")
	if _, err := net.Dial("tcp", bind+":5433"); err == nil {
		t.Error("it still listens")
	}
	if s := r.status(); len(s.Shadow.Taken) != 0 || s.Clusters[0].Services[0].Sessions != 1 {
		t.Errorf("when it was given back: %+v, %+v", s.Shadow, s.Clusters[0].Services)
	}
	session.Close()
	r.stop()
	if err := <-r.ended; err != nil {
		t.Fatal(err)
	}

	// A port that is another's by now is left to him.
	if err := os.WriteFile(filepath.Join(state, takenFile), []byte("pg-test-primary\npg-test-more\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := net.Listen("tcp", bind+":5433")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	r = start(t, f, bind, text, false, shadowed)
	echo(t, r.dial("5440"), "the other one\n")
	if s := r.status(); fmt.Sprint(s.Shadow.Taken) != "[pg-test-more]" || !strings.Contains(r.log.String(), "services that were taken from HAProxy can't be served") {
		t.Errorf("%v\n%s", s.Shadow.Taken, &r.log)
	}
	// So is that of a reload, which is refused as ever.
	r.reload <- syscall.SIGHUP
	r.until("read again", func(s *api.Status) bool { return s.Config.Generation == 2 })
}

// Where nothing is kept nothing is taken: a restart would leave the port to nobody.
func TestShadowWithoutState(t *testing.T) {
	if !abstractSockets {
		t.Skip("shadows take orders on Linux")
	}
	f, bind := newFixture(t, address(11)), address(12)
	theirs, err := net.Listen("tcp", bind+":5433")
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	h := &balancerOf{}
	h.silent.Store(true)
	r := start(t, f, bind, f.inventory("primary:5433"), false, func(c *Config) { c.Shadow = h })
	local := Local{os.Getpid()}
	err = take(t, local, Carried{Service: "pg-test-primary", Address: bind + ":5433"}, theirs)
	if err == nil || !strings.Contains(err.Error(), "run with --state-dir") {
		t.Errorf("%v", err)
	}
	if n := len(r.status().Shadow.Taken); n != 0 {
		t.Errorf("%d taken", n)
	}
	r.until("said that HAProxy is silent", func(s *api.Status) bool { return s.Shadow.Silent == "it hangs" })
	if _, err := (Local{1 << 22}).Carried(t.Context()); err == nil || !strings.Contains(err.Error(), "takes no orders from here") {
		t.Errorf("nobody there: %v", err)
	}
}
