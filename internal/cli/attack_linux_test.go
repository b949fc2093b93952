package cli

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// bystander is a process that SIGUSR2 ends, in a group of its own.
func bystander(t *testing.T, program string, files ...*os.File) *exec.Cmd {
	t.Helper()
	c := exec.Command(program, "60")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.ExtraFiles = files
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		// Starting a process with a file makes it block, here as well.
		if err := syscall.SetNonblock(int(file.Fd()), true); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return c
}

// Whoever is first to listen on the admin address's port, which any local user may be, chooses whom `pgporter upgrade` is told to
// signal. Nobody but a pgporter that listens there is.
func TestAttackUpgradeSignalsOnlyWhoListens(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	// Called as ours is, it still doesn't listen.
	alike := t.TempDir() + "/pgporter"
	text, err := os.ReadFile(sleep)
	if err == nil {
		err = os.WriteFile(alike, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	answered := 0
	admin := httptest.NewUnstartedServer(nil)
	socket, err := admin.Listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for _, test := range []struct {
		name    string
		program string
		files   []*os.File
		named   func(pid int) int
	}{
		{"a process", sleep, nil, func(pid int) int { return pid }},
		{"its group", sleep, nil, func(pid int) int { return -pid }},
		{"the system's first process", sleep, nil, func(int) int { return 1 }},
		{"another program that has the socket", sleep, []*os.File{socket}, func(pid int) int { return pid }},
		{"one of our name that hasn't", alike, nil, func(pid int) int { return pid }},
	} {
		t.Run(test.name, func(t *testing.T) {
			victim := bystander(t, test.program, test.files...)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				answered++
				_ = json.NewEncoder(w).Encode(api.Status{PID: test.named(victim.Process.Pid)})
			}))
			server.Listener = admin.Listener
			if test.files == nil {
				server.Listener, err = net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
			}
			server.Start()
			t.Cleanup(server.Close)
			local := localFlags{admin: server.Listener.Addr().String(), timeout: 5 * time.Second}
			err = local.ask(syscall.SIGUSR2, func(*api.Status, *api.Status) (bool, error) { return true, nil })
			if err == nil || !strings.Contains(err.Error(), "sent a signal") {
				t.Errorf("upgrade says %v", err)
			}
			if state := stateOf(victim.Process.Pid); state == "Z" || state == "" {
				t.Error("the process was ended")
			}
		})
	}
	if answered == 0 {
		t.Error("nobody asked")
	}
}

// stateOf is a process's state (proc(5)); Z is one that has ended.
func stateOf(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest[:min(1, len(rest))]
}
