package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/control"
	"github.com/pgporter/pgporter/internal/cli/command"
)

// planning is a node that runs from a plan and keeps what it accepts, with its files.
type planning struct {
	t     *testing.T
	dir   string
	files control.Files
	log   *os.File
}

func newPlanning(t *testing.T) *planning {
	t.Helper()
	newPair(t)
	p := &planning{t: t, dir: t.TempDir()}
	var err error
	if p.files, err = control.MakeCredentials(filepath.Join(p.dir, "secrets"), []string{unreadNode}, time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.path("state"), 0o750); err != nil {
		t.Fatal(err)
	}
	if p.log, err = os.Create(p.path("log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.log.Close() })
	return p
}

func (p *planning) path(name string) string { return filepath.Join(p.dir, name) }

// inventory writes one with services of these names besides primary, from port 5440 on.
func (p *planning) inventory(name string, services ...string) string {
	p.t.Helper()
	text := pairInventory
	for i, s := range services {
		text += fmt.Sprintf("      - { name: %s, port: %d, dest: postgres, check: /primary, selector: '[]' }\n", s, 5440+i)
	}
	if err := os.WriteFile(p.path(name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return p.path(name)
}

// command runs a command to its end, which is to be well.
func (p *planning) command(args ...string) string {
	p.t.Helper()
	out, err := exec.Command("pgporter", args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("%v: %v\n%s\n%s", args, err, out, p.said())
	}
	return string(out)
}

// plan writes the node's plan of an inventory.
func (p *planning) plan(services ...string) {
	p.t.Helper()
	p.command("plan", "-i", p.inventory("pigsty.yml", services...), "--node", unreadNode, "--out", p.path("plan.json"))
}

func (p *planning) said() string {
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// start starts the node, whose log begins anew.
func (p *planning) start() *porting {
	p.t.Helper()
	if err := p.log.Truncate(0); err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.log.Seek(0, 0); err != nil {
		p.t.Fatal(err)
	}
	return startPorter(p.t, p.log, "--plan", p.path("plan.json"), "--state-dir", p.path("state"), "--control", unreadNode,
		"--control-token-file", p.files.Token, "--control-tls-cert", p.files.Certificate, "--control-tls-key", p.files.Key)
}

// killed has a process gone as kill -9 does it.
func killed(p *porting) {
	p.Process.Signal(syscall.SIGKILL)
	<-p.ended
}

// serves waits until the node offers these services, and gives its status.
func (p *planning) serves(services ...string) *api.Status {
	p.t.Helper()
	want := strings.Join(append([]string{"primary"}, services...), " ")
	var last *api.Status
	comesTrue(p.t, "the node serves "+want, func() bool {
		s, err := statusOf()
		if err != nil || len(s.Clusters) == 0 {
			return false
		}
		var got []string
		for _, one := range s.Clusters[0].Services {
			got = append(got, one.Name)
		}
		last = s
		return strings.Join(got, " ") == want
	})
	if last.Config.Plan == nil || len(last.Config.Plan.Hash) != 64 {
		p.t.Fatalf("the status says of the plan %+v", last.Config.Plan)
	}
	return last
}

// TestWhatWasAcceptedLastSurvives takes a node through changes, kill -9 and files that break.
func TestWhatWasAcceptedLastSurvives(t *testing.T) {
	p := newPlanning(t)
	p.plan()
	node := p.start()
	first := p.serves()
	if c := first.Config; c.Plan.Origin != api.FromFile || c.Plan.MadeFrom != "pigsty.yml" || c.Plan.Kept != p.path("state/plan.json") || c.Source != p.path("plan.json") {
		t.Errorf("from the file: %+v, %+v", c, c.Plan)
	}
	text, err := os.ReadFile(p.path("plan.json"))
	if err != nil || !bytes.Contains(text, []byte(first.Config.Plan.Hash)) {
		t.Errorf("the hash %s isn't the file's: %v", first.Config.Plan.Hash, err)
	}
	if info, err := os.Stat(p.path("state/plan.json")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("what is kept: %v, %v", info, err)
	}

	// A change that is sent outlives kill -9, with who sent it and when.
	out := p.command("reload", "-i", p.inventory("changed.yml", "sent"), "pg-test", unreadNode, "--token-file", p.files.Token, "--ca", p.files.Certificate)
	if !strings.Contains(out, "+ pg-test-sent *:5440") {
		t.Fatalf("the reload says\n%s", out)
	}
	sent := p.serves("sent").Config
	if sent.Plan.Origin != api.FromControl || sent.Sent == nil || sent.Plan.Hash == first.Config.Plan.Hash {
		t.Errorf("sent: %+v, %+v", sent, sent.Plan)
	}
	killed(node)
	node = p.start()
	again := p.serves("sent").Config
	if *again.Plan != *sent.Plan || again.Sent == nil || *again.Sent != *sent.Sent || again.Source != sent.Source || again.Generation != 1 {
		t.Errorf("after kill -9: %+v, %+v, want %+v", again, again.Plan, sent.Plan)
	}
	status := p.command("status", "--admin", unreadAdmin)
	for _, want := range []string{"plan " + sent.Plan.Hash[:12] + " of changed.yml, accepted ", " from the control address, made by pgporter ", ", kept in " + p.path("state/plan.json"), ", sent by "} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	// The plan of what runs already, made anew, is no change of the file.
	p.plan()
	killed(node)
	node = p.start()
	p.serves("sent")

	// An upgrade takes it along, with what the file said when it was accepted.
	p.plan("filed")
	p.command("upgrade", "--admin", unreadAdmin)
	upgraded := p.serves("sent")
	if got := upgraded.Config; *got.Plan != *sent.Plan || upgraded.Upgrade == nil || upgraded.Process.HandOvers != 1 {
		t.Errorf("after an upgrade: %+v, want %+v", got.Plan, sent.Plan)
	}
	<-node.ended
	syscall.Kill(upgraded.PID, syscall.SIGKILL)
	comesTrue(t, "the upgraded process has ended", func() bool { return !lives(upgraded.PID) })

	// A file that has changed since counts.
	node = p.start()
	if filed := p.serves("filed").Config; filed.Plan.Origin != api.FromFile || filed.Sent != nil || !strings.Contains(p.said(), "the file has changed since a plan was sent") {
		t.Errorf("after the file has changed: %+v\n%s", filed.Plan, p.said())
	}

	// SIGHUP reads the file again, a broken one too.
	if err := os.WriteFile(p.path("plan.json"), []byte("{"), 0o640); err != nil {
		t.Fatal(err)
	}
	node.Process.Signal(syscall.SIGHUP)
	comesTrue(t, "the broken file is refused", func() bool {
		s, err := statusOf()
		return err == nil && strings.Contains(s.Config.Refused, "plan.json:1:2: error: the file ends in the middle")
	})
	p.serves("filed")

	// And so the kept plan goes on where the file can't be used, said aloud.
	for _, broken := range []func() error{
		func() error { return os.WriteFile(p.path("plan.json"), []byte("{"), 0o640) },
		func() error { return os.Remove(p.path("plan.json")) },
	} {
		killed(node)
		if err := broken(); err != nil {
			t.Fatal(err)
		}
		node = p.start()
		s := p.serves("filed")
		if s.Config.Plan.Instead == "" || !strings.Contains(p.said(), `level=WARN msg="the configuration can't be used: this node goes on with the plan that it accepted last"`) {
			t.Errorf("with a broken file: %+v\n%s", s.Config.Plan, p.said())
		}
		if status := p.command("status", "--admin", unreadAdmin); !strings.Contains(status, "the node's own file can't be used, this is the plan that it accepted before:\n"+p.path("plan.json")) {
			t.Errorf("the status says\n%s", status)
		}
	}

	// Mended it counts again.
	killed(node)
	p.plan("mended")
	node = p.start()
	if s := p.serves("mended"); s.Config.Plan.Instead != "" {
		t.Errorf("mended: %+v", s.Config.Plan)
	}

	// What was kept and is damaged is passed over where there is a file, and no plan where there is none.
	killed(node)
	kept, err := os.ReadFile(p.path("state/plan.json"))
	if err != nil {
		t.Fatal(err)
	}
	for what, damage := range map[string]func() error{
		"cut off": func() error { return os.WriteFile(p.path("state/plan.json"), kept[:len(kept)/2], 0o640) },
		"altered": func() error {
			return os.WriteFile(p.path("state/plan.json"), bytes.Replace(kept, []byte("5433"), []byte("5439"), 1), 0o640)
		},
		"anybody's": func() error { return os.Chmod(p.path("state/plan.json"), 0o666) },
	} {
		if err := os.WriteFile(p.path("state/plan.json"), kept, 0o640); err != nil {
			t.Fatal(err)
		}
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(p.path("plan.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(p.path("plan.json")); err != nil {
			t.Fatal(err)
		}
		p.start().exits(t, command.ExitInput)
		if !strings.Contains(p.said(), "state/plan.json") || !strings.Contains(p.said(), "plan.json: error: the plan can't be read") {
			t.Errorf("%s, without a file: it says\n%s", what, p.said())
		}
		if err := os.WriteFile(p.path("plan.json"), file, 0o640); err != nil {
			t.Fatal(err)
		}
		node = p.start()
		p.serves("mended")
		if !strings.Contains(p.said(), `level=WARN msg="the plan that was kept can't be used`) {
			t.Errorf("%s: it says\n%s", what, p.said())
		}
		killed(node)
		if err := os.Chmod(p.path("state/plan.json"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

// A node that reads the inventory itself keeps what it accepts likewise, and says once what it has there.
func TestAnInventoryOnTheNode(t *testing.T) {
	p := newPlanning(t)
	inventory := p.inventory("pigsty.yml")
	text, err := os.ReadFile(inventory)
	if err != nil {
		t.Fatal(err)
	}
	secret := bytes.Replace(text, []byte("    pg_rto: fast\n"), []byte("    pg_rto: fast\n    pg_admin_password: Hidden.1\n    pg_users: [ { name: test, password: Hidden.2 } ]\n"), 1)
	if err := os.WriteFile(inventory, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func() *porting {
		return startPorter(t, p.log, "--inventory", inventory, "--node", unreadNode, "--state-dir", p.path("state"))
	}
	node := run()
	p.serves()
	node.Process.Signal(syscall.SIGHUP)
	comesTrue(t, "it has read the file again", func() bool {
		s, err := statusOf()
		return err == nil && s.Config.Generation == 2
	})
	if said := p.said(); strings.Count(said, "the inventory that this node reads holds secrets") != 1 || !strings.Contains(said, `variables=2 names="pg_admin_password pg_users"`) || strings.Contains(said, "Hidden") {
		t.Errorf("it says\n%s", said)
	}
	kept, err := os.ReadFile(p.path("state/plan.json"))
	if err != nil || bytes.Contains(kept, []byte("Hidden")) {
		t.Errorf("it keeps, %v,\n%s", err, kept)
	}
	// Without its inventory it goes on from what it kept.
	killed(node)
	if err := os.Remove(inventory); err != nil {
		t.Fatal(err)
	}
	run()
	if s := p.serves(); !strings.Contains(s.Config.Plan.Instead, "pigsty.yml: error: the inventory can't be read") {
		t.Errorf("without the inventory: %+v", s.Config.Plan)
	}
}
