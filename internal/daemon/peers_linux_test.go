package daemon

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/control"
)

// Another user of the machine gets nothing at the socket, and who holds connections there keeps nobody out for long.
func TestAttackTheSocketOfTheMachine(t *testing.T) {
	f := newFixture(t, address(177))
	r := start(t, f, address(178), f.inventory("primary:5433"), false)
	dial := func(ctx context.Context) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", steerName(os.Getpid()))
	}
	client := control.NewLocalClient(dial)
	if os.Geteuid() == 0 {
		ask := exec.CommandContext(t.Context(), "curl", "-sS", "--abstract-unix-socket", strings.TrimPrefix(steerName(os.Getpid()), "@"), "http://localhost/status")
		ask.Dir = "/"
		ask.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := ask.CombinedOutput(); err == nil || strings.Contains(string(out), "pg-test") {
			t.Errorf("another user is answered %v: %s", err, out)
		}
		if !strings.Contains(r.log.String(), "an order from this machine is refused: it is another user's") {
			t.Errorf("the log doesn't tell of it:\n%s", r.log.String())
		}
	} else {
		t.Log("only root can be another user: that is left out")
	}
	// A thousand that say nothing.
	for range 1000 {
		conn, err := dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := client.Order(ctx, "pgporter", api.Order{Member: "pg-test-1", State: api.Ready}); err != nil {
		t.Errorf("during a flood: %v", err)
	}
}
