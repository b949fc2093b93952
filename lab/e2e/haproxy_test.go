package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// reloads is how often HAProxy is reloaded in a row under load at least, and sessions how many each service has meanwhile.
const (
	reloads  = 60
	sessions = 200
)

// haproxy has a real HAProxy carry the services of one node: they are right before and after a switchover without anybody
// giving a command, sessions don't stay on a demoted primary in a worker of before a reload, and reloads hurt nobody.
func (s shared) haproxy(t *testing.T) {
	c := s.cluster
	one, two, three := c.member(1), c.member(2), c.member(3)
	node := c.prefix + ".31"
	dir, err := os.MkdirTemp("", "pgporter-ha-") // short enough for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text, err := os.ReadFile(c.Inventory())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pigsty.yml")
	// edit writes the inventory with another limit of clients, so that HAProxy's files change.
	edit := func(limit int) {
		edited := strings.Replace(string(text), "pg_cluster: pg-test\n", fmt.Sprintf(
			"pg_cluster: pg-test\n        pg_services: [ { name: extra, port: 5440, dest: postgres, check: /primary, selector: '[]', maxconn: %d } ]\n", limit), 1)
		if err := os.WriteFile(path, []byte(edited), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	edit(100)
	p := startPorter(t, node, "--engine", "haproxy", "--haproxy-dir", dir, "--inventory", path, "--node", one, "--stop-timeout", "3s")
	leads := func(within time.Duration, want ...serves) {
		t.Helper()
		eventually(t, within, func(ctx context.Context) error {
			for _, w := range want {
				if err := w.check(ctx, node); err != nil {
					return err
				}
			}
			return nil
		})
	}
	leads(afterFailover, serves{primary, []instance{at(one, false)}}, serves{replica, []instance{at(two, true), at(three, true)}},
		serves{direct, []instance{at(one, false)}}, serves{offline, []instance{at(three, true)}})

	t.Run("reloads under load", func(t *testing.T) { reloadsUnderLoad(t, node, p, edit) })

	t.Run("switchover", func(t *testing.T) {
		c.t = t
		onPrimary, onReplica := c.hold(node, direct).watch(t), c.hold(node, offline)
		hangUpAndWait(t, p)
		// Both sessions are now in a worker that checks nothing.
		if _, err := c.Switchover(t.Context(), "pg-test-2"); err != nil {
			t.Fatal(err)
		}
		onPrimary.hasEnded(t, sessionsEnd)
		// The replica service has a server that came back: HAProxy's slowstart gives it little for half a minute.
		leads(afterSwitchover, serves{primary, []instance{at(two, false)}}, serves{direct, []instance{at(two, false)}}, serves{offline, []instance{at(three, true)}})
		for range 10 {
			if i, err := ask(t.Context(), node, replica); err != nil || !i.recovery {
				t.Errorf("the replica service: %s, %v", i, err)
			}
		}
		onReplica.lives(t)
		onReplica.Close(t.Context())
		if log := p.logged(); !strings.Contains(log, "HAProxy follows a change of roles") {
			t.Error("the files weren't rendered anew")
		}
	})
}

// hangUpAndWait has HAProxy reloaded once.
func hangUpAndWait(t *testing.T, p *porter) {
	t.Helper()
	s, err := p.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hangUp(t, p, s.Config.Generation+1)
}

// hangUp sends SIGHUP and waits until the configuration has this generation.
func hangUp(t *testing.T, p *porter, generation int) {
	t.Helper()
	from := len(p.logged())
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	taken := fmt.Sprintf(`msg="the configuration is taken" generation=%d `, generation)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	limit := time.After(patience)
	for {
		said := p.logged()[from:]
		if strings.Contains(said, taken) {
			return
		}
		select {
		case <-again.C:
		case <-limit:
			t.Fatalf("generation %d isn't there after %s:\n%s", generation, patience, said)
		}
		if strings.Contains(said, "is refused") {
			t.Fatalf("a reload was refused:\n%s", said)
		}
	}
}

// bench is a load of one kind on one service.
type bench struct {
	service
	// wrong is what pg_is_in_recovery says on a server of the wrong role.
	wrong bool
	// fresh opens a connection for each transaction.
	fresh bool
}

func (b bench) String() string { return fmt.Sprintf("%d, fresh connections %v", b.port, b.fresh) }

var transactions = regexp.MustCompile(`number of transactions actually processed: (\d+)`)

// run runs pgbench for a few seconds and gives the number of its transactions. A connection that fails, a session that ends
// or one on a wrong role (a division by zero) makes it fail.
func (b bench) run(ctx context.Context, node, script string) (int, error) {
	rate := 20
	if b.fresh {
		rate = 12 // each costs milliseconds of SCRAM, twice
	}
	args := []string{"-n", "-h", node, "-p", strconv.Itoa(b.port), "-U", b.user, "-c", "2", "-T", "4", "-R", strconv.Itoa(rate), "-M", "simple",
		"-D", "wrong=" + strconv.FormatBool(b.wrong), "-f", script, b.database}
	if b.fresh {
		args = append([]string{"-C"}, args...)
	}
	command := exec.CommandContext(ctx, "pgbench", args...)
	command.Env = append(os.Environ(), "PGPASSWORD="+b.password, "PGSSLMODE=disable")
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	err := command.Run()
	text := out.String()
	done := transactions.FindStringSubmatch(text)
	if err != nil || done == nil || !strings.Contains(text, "number of failed transactions: 0 ") || strings.Contains(text, "error") {
		return 0, fmt.Errorf("pgbench on %s: %w\n%s", b, err, text)
	}
	return strconv.Atoi(done[1])
}

// reloadsUnderLoad reloads HAProxy again and again, now and then with other files, while pgbench uses three services, with connections that stay and with
// ones that come and go.
func reloadsUnderLoad(t *testing.T, node string, p *porter, edit func(limit int)) {
	script := filepath.Join(t.TempDir(), "role.sql")
	if err := os.WriteFile(script, []byte("select 1 / (pg_is_in_recovery() <> :wrong)::int;\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var over sync.WaitGroup
	loaded, stop := context.WithCancel(t.Context())
	defer over.Wait()
	defer stop()
	for _, b := range []bench{
		{primary, true, false}, {replica, false, false}, {offline, false, false}, {primary, true, true}, {replica, false, true}, {offline, false, true},
	} {
		over.Go(func() {
			sum := 0
			for loaded.Err() == nil {
				n, err := b.run(t.Context(), node, script)
				if err != nil {
					t.Error(err)
					return
				}
				sum += n
			}
			t.Logf("pgbench on %s: %d transactions", b, sum)
		})
	}
	s, err := p.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	began, done := time.Now(), 0
	for ; done < reloads || fewestSessions(t, p) < sessions; done++ {
		if done%10 == 0 {
			edit(200 + done)
		}
		hangUp(t, p, s.Config.Generation+1+done)
	}
	t.Logf("%d reloads in %.1fs", done, time.Since(began).Seconds())
	if n := strings.Count(p.logged(), "HAProxy has been reloaded"); n < done {
		t.Errorf("%d reloads, not %d", n, done)
	}
	stop()
	over.Wait()
}

// fewestSessions is how many sessions the service has had that was used least.
func fewestSessions(t *testing.T, p *porter) int64 {
	t.Helper()
	s, err := p.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fewest := int64(math.MaxInt64)
	for _, service := range s.Clusters[0].Services {
		if slices.Contains([]string{"primary", "replica", "offline"}, service.Name) {
			fewest = min(fewest, int64(service.Total))
		}
	}
	return fewest
}
