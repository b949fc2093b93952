package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/intake"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
)

// planOf makes a node's plan of an inventory's text.
func planOf(t *testing.T, node, text string, needs plan.Needs) intake.File {
	t.Helper()
	inv, problems := inventory.Parse("pigsty.yml", []byte(text))
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	n, problems := plan.ForRun(inv, node, needs)
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	return intake.File{Made: intake.Made{By: "test", At: time.Now().UTC(), From: "pigsty.yml"}, Node: n}
}

func writePlanOf(t *testing.T, path, node, text string) {
	t.Helper()
	if err := WritePlan(path, planOf(t, node, text, plan.Needs{})); err != nil {
		t.Fatal(err)
	}
}

// keeps has a daemon keep what it accepts.
func keeps(dir string) func(*Config) { return func(c *Config) { c.StateDir = dir } }

// fromPlan has it run from a plan's file.
func fromPlan(path string) func(*Config) {
	return func(c *Config) { c.Source = &PlanFile{Path: path, Logger: c.Logger} }
}

// ends has a daemon stop, and waits for it.
func (r *running) ends() {
	r.t.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		r.t.Errorf("the stop: %v", err)
	}
	r.ended <- nil
}

func TestWritePlan(t *testing.T) {
	f := newFixture(t, address(111))
	dir := t.TempDir()
	path := filepath.Join(dir, "plan.json")
	// What a process left that had our number and was killed.
	beside := filepath.Join(dir, ".plan.json."+strconv.Itoa(os.Getpid())+".new")
	if err := os.WriteFile(beside, []byte("half a pl"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer syscall.Umask(syscall.Umask(0o077))
	for _, services := range [][]string{{"primary:5433", "more:5440"}, {"primary:5433"}} {
		writePlanOf(t, path, f.host, f.inventory(services...))
		got, problems := ReadPlan(path)
		if len(problems) > 0 || len(got.Plan.Clusters[0].Definitions) != len(services) {
			t.Errorf("%v: %v, %+v", services, problems, got.Plan)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("its mode: %v, %v", info, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("beside it there is more: %v, %v", entries, err)
	}
	// What can't be read isn't written, and what was there stays.
	broken := planOf(t, f.host, f.inventory("primary:5433"), plan.Needs{})
	broken.Plan.Clusters[0].Definitions[0].Port = 0
	if err := WritePlan(path, broken); err == nil || !strings.Contains(err.Error(), "port is 0") {
		t.Errorf("a broken one: %v", err)
	}
	if _, problems := ReadPlan(path); len(problems) > 0 {
		t.Error(problems)
	}
	if err := WritePlan(filepath.Join(dir, "none", "plan.json"), planOf(t, f.host, f.inventory("primary:5433"), plan.Needs{})); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without its directory: %v", err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, problems := ReadPlan(filepath.Join(dir, "fifo")); !strings.Contains(problems.Error(), "it isn't a regular file") {
		t.Errorf("a FIFO: %v", problems)
	}
}

func TestWhoseAPlanMayBe(t *testing.T) {
	local := []string{"10.10.10.11", "fe80::1"}
	for _, test := range []struct{ node, said, want string }{
		{"10.10.10.11", "", ""},
		{"10.10.10.12", "", "the plan is for 10.10.10.12, which is no address of this machine: say --node 10.10.10.12"},
		{"10.10.10.12", "10.10.10.12", ""},
		{"10.10.10.11", "10.10.10.12", "the plan is for 10.10.10.11, and this node is 10.10.10.12"},
		{"127.0.1.11", "", ""}, {"pg-test-1", "", ""}, {"fe80::1", "", ""}, {"fe80::2", "", "no address of this machine"},
	} {
		got := ""
		if err := fits(test.node, test.said, local); err != nil {
			got = err.Error()
		}
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("a plan for %s at a node that is said to be %q: %q, want %q", test.node, test.said, got, test.want)
		}
	}
}

// TestRunFromAPlan: what the file says is served, edits come by SIGHUP, and nobody else's plan is taken.
func TestRunFromAPlan(t *testing.T) {
	f := newFixture(t, address(113))
	path := filepath.Join(t.TempDir(), "plan.json")
	writePlanOf(t, path, f.host, f.inventory("primary:5433"))
	r := start(t, f, address(114), "", false, fromPlan(path))
	session := r.dial("5433")
	echo(t, session, "before\n")
	writePlanOf(t, path, f.host, f.inventory("primary:5433", "more:5440"))
	r.reload <- syscall.SIGHUP
	r.until("taken", func(s *api.Status) bool { return s.Config.Generation == 2 })
	echo(t, r.dial("5440"), "new service\n")
	echo(t, session, "after a reload\n")
	if s := r.status(); s.Config.Plan.Origin != api.FromFile || s.Config.Plan.Kept != "" || s.Config.Plan.Unkept != "" || s.Node != f.host {
		t.Errorf("the status says %+v", s.Config.Plan)
	}
	writePlanOf(t, path, "127.0.0.9", strings.ReplaceAll(f.inventory("primary:5433"), f.host, "127.0.0.9"))
	r.reload <- syscall.SIGHUP
	r.until("refused", func(s *api.Status) bool {
		return strings.Contains(s.Config.Refused, "the plan is for 127.0.0.9, and this node is "+f.host)
	})
	echo(t, session, "still there\n")
}

// TestWatchDoesntUndoWhatWasSent: a look at the file that finds what was there when an order came leaves the order in force.
func TestWatchDoesntUndoWhatWasSent(t *testing.T) {
	f := newFixture(t, address(115))
	path := filepath.Join(t.TempDir(), "plan.json")
	writePlanOf(t, path, f.host, f.inventory("primary:5433"))
	log := &lockedBuffer{}
	c := startControlled(t, f, address(116), "", fromPlan(path), func(cfg *Config) {
		cfg.Source.(*PlanFile).Watch = true
		cfg.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	looks := func(n int) func(*api.Status) bool {
		return func(*api.Status) bool { return strings.Count(log.String(), "nothing changed for this node") >= n }
	}
	c.until("looked at for the first time", looks(1))
	if _, err := c.send(order(t, f.host, f.inventory("primary:5433", "more:5440")), false); err != nil {
		t.Fatal(err)
	}
	// Made anew it is another file that says the same.
	again := planOf(t, f.host, f.inventory("primary:5433"), plan.Needs{})
	again.Made.By = "another"
	if err := WritePlan(path, again); err != nil {
		t.Fatal(err)
	}
	c.until("looked at", looks(2))
	if s := c.status(); s.Config.Generation != 2 || s.Config.Sent == nil {
		t.Errorf("what was sent is undone: %+v", s.Config)
	}
	writePlanOf(t, path, f.host, f.inventory("primary:5433", "more:5440", "third:5441"))
	c.until("taken", func(s *api.Status) bool { return s.Config.Generation == 3 && s.Config.Sent == nil })
	echo(t, c.dial("5441"), "new service\n")
}

// TestAPlanThatCantBeKept runs all the same, and everybody is told.
func TestAPlanThatCantBeKept(t *testing.T) {
	f := newFixture(t, address(117))
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	c := startControlled(t, f, address(118), f.inventory("primary:5433"), keeps(dir))
	if s := c.status(); s.Config.Plan.Kept != filepath.Join(dir, "plan.json") {
		t.Errorf("the status says %+v", s.Config.Plan)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	taken, err := c.send(order(t, f.host, f.inventory("primary:5433", "more:5440")), false)
	if err != nil || !strings.Contains(taken.Unkept, "no such file or directory") {
		t.Errorf("the order: %+v, %v", taken, err)
	}
	echo(t, c.dial("5440"), "new service\n")
	if s := c.status(); s.Config.Plan.Kept != "" || s.Config.Plan.Unkept == "" {
		t.Errorf("the status says %+v", s.Config.Plan)
	}
	if !strings.Contains(c.log.String(), `level=ERROR msg="the plan runs and couldn't be kept`) {
		t.Errorf("the log says\n%s", &c.log)
	}
}

// TestAKeptPlanThatCantBeTaken: the file's is better than none, and what was kept stays for another time.
func TestAKeptPlanThatCantBeTaken(t *testing.T) {
	f := newFixture(t, address(119))
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "plan.json")
	writePlanOf(t, path, f.host, f.inventory("primary:5433"))
	c := startControlled(t, f, address(120), "", fromPlan(path), keeps(dir))
	if _, err := c.send(order(t, f.host, f.inventory("primary:5433", "more:5440")), false); err != nil {
		t.Fatal(err)
	}
	c.ends()
	kept, err := os.ReadFile(filepath.Join(dir, "plan.json"))
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", c.bind+":5440")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, f, c.bind, "", false, fromPlan(path), keeps(dir))
	if s := r.status(); len(s.Clusters[0].Services) != 1 || s.Config.Sent != nil || !strings.Contains(s.Config.Plan.Unkept, "can't be taken now") {
		t.Errorf("with its port taken: %+v, %+v", s.Config, s.Config.Plan)
	}
	if !strings.Contains(r.log.String(), `level=ERROR msg="the plan that was kept can't be taken, the file is for now"`) {
		t.Errorf("the log says\n%s", &r.log)
	}
	if now, err := os.ReadFile(filepath.Join(dir, "plan.json")); err != nil || string(now) != string(kept) {
		t.Errorf("what was kept is another now: %v", err)
	}
	r.ends()
	taken.Close()
	r = start(t, f, c.bind, "", false, fromPlan(path), keeps(dir))
	if s := r.status(); len(s.Clusters[0].Services) != 2 || s.Config.Sent == nil || s.Config.Sent.Sender != "dba@infra" {
		t.Errorf("with its port free: %+v", s.Config)
	}
}

// TestKeptPlansOfOthers: another node's or engine's plan isn't gone by, whatever the file says.
func TestKeptPlansOfOthers(t *testing.T) {
	f := newFixture(t, address(121))
	for name, test := range map[string]struct {
		edit func(*intake.File)
		want string
	}{
		"another node's": {func(k *intake.File) { k.Plan.Node = "127.0.0.9" }, "the plan is for 127.0.0.9, and this node is " + f.host},
		"another engine's": {func(k *intake.File) {
			k.Page = nil
			k.Base = &model.Base{Node: "a", ClientTimeout: "1h", ServerTimeout: "1h", StatsIP: "*", StatsPort: 9101, MetricsPath: "/metrics"}
		}, "it is for another engine"},
		"one that wasn't kept": {func(k *intake.File) { k.Accepted = nil }, "it doesn't say when it was accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			kept := planOf(t, f.host, f.inventory("primary:5433", "more:5440"), plan.Needs{})
			kept.Accepted = &intake.Accepted{At: time.Now().UTC(), Source: "x", Sender: "dba@infra", From: "10.0.0.1:1"}
			test.edit(&kept)
			if err := WritePlan(filepath.Join(dir, keptFile), kept); err != nil {
				t.Fatal(err)
			}
			r := start(t, f, address(122), f.inventory("primary:5433"), false, keeps(dir))
			if s := r.status(); len(s.Clusters[0].Services) != 1 || !strings.Contains(r.log.String(), test.want) {
				t.Errorf("got %+v\n%s", s.Config, &r.log)
			}
			r.ends()
			// Where there is no file there is nothing.
			if err := WritePlan(filepath.Join(dir, keptFile), kept); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := Run(ctx, Config{Source: &InventoryFile{Path: filepath.Join(dir, "none.yml"), Node: f.host}, Bind: address(122), Admin: r.admin, StateDir: dir, Logger: slog.New(slog.DiscardHandler)})
			if err == nil || !strings.Contains(err.Error(), "none.yml") {
				t.Errorf("without a file: %v", err)
			}
		})
	}
}

func TestThePasswordOfHAProxysPage(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "haproxy.password")
	if err := os.WriteFile(file, []byte("Hidden.1\nmore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name       string
		base       model.Base
		said, want string
		wrong      string
	}{
		{"the inventory's", model.Base{Auth: true, AdminPassword: "its own"}, "", "its own", ""},
		{"a file that was said goes before", model.Base{Auth: true, AdminPassword: "its own"}, file, "Hidden.1", ""},
		{"a plan's", model.Base{Auth: true, PasswordFile: file}, "", "Hidden.1", ""},
		{"none is asked for", model.Base{PasswordFile: "nowhere"}, "", "", ""},
		{"nowhere", model.Base{Auth: true}, "", "", "nothing says where that is: --haproxy-password-file FILE"},
		{"a file that isn't there", model.Base{Auth: true, PasswordFile: filepath.Join(dir, "none")}, "", "", "no such file or directory (another file: --haproxy-password-file)"},
		{"an empty file", model.Base{Auth: true}, empty, "", "its first line is empty"},
	} {
		d := &Daemon{cfg: Config{HAProxy: &haproxy.Config{}, HAProxyPassword: test.said}}
		got, err := d.withPassword(&test.base)
		switch {
		case test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)), test.wrong == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case err == nil && got.AdminPassword.Reveal() != test.want:
			t.Errorf("%s: %q", test.name, got.AdminPassword.Reveal())
		}
	}
}

// TestHAProxyFromAPlan is the wiring with a real HAProxy: from a plan, with a password of the node's, over an order and a restart without
// the file.
func TestHAProxyFromAPlan(t *testing.T) {
	f := newFixture(t, address(123))
	dir, err := os.MkdirTemp("", "ha-") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	state, path, password := t.TempDir(), filepath.Join(t.TempDir(), "plan.json"), filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("Hidden.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stats := listen(t, address(124))
	_, port, _ := net.SplitHostPort(stats.Addr().String())
	stats.Close()
	text := func(services ...string) string {
		return f.inventory(services...) + "    haproxy_exporter_port: " + port + "\n    haproxy_admin_password: Hidden.2\n"
	}
	if err := WritePlan(path, planOf(t, f.host, text("primary:5433"), plan.Needs{HAProxy: true})); err != nil {
		t.Fatal(err)
	}
	engine := func(c *Config) {
		c.Source.(*PlanFile).HAProxy = true
		c.HAProxy, c.HAProxyPassword, c.StopTimeout = &haproxy.Config{Dir: dir}, password, time.Second
	}
	c := startControlled(t, f, address(124), "", fromPlan(path), keeps(state), engine)
	t.Cleanup(func() { c.stop(); <-c.ended })
	echo(t, c.dial("5433"), "before\n")
	cfg, err := os.ReadFile(filepath.Join(dir, "haproxy.cfg"))
	if err != nil || !strings.Contains(string(cfg), "Hidden.1") {
		t.Errorf("haproxy.cfg, %v:\n%s", err, cfg)
	}
	if _, err := c.send(order(t, f.host, f.inventory("primary:5433", "more:5440")), false); err != nil {
		t.Fatal(err)
	}
	echo(t, c.dial("5440"), "new service\n")
	c.ends()
	kept, err := os.ReadFile(filepath.Join(state, "plan.json"))
	if err != nil || strings.Contains(string(kept), "Hidden") || !strings.Contains(string(kept), `"haproxy"`) {
		t.Errorf("kept, %v:\n%s", err, kept)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r := start(t, f, c.bind, "", false, fromPlan(path), keeps(state), engine)
	t.Cleanup(func() { r.stop(); <-r.ended })
	if s := r.status(); s.Config.Sent == nil || s.Config.Plan.Instead == "" {
		t.Errorf("without its file: %+v", s.Config)
	}
	echo(t, r.dial("5440"), "still there\n")
}
