package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

var update = flag.Bool("update", false, "write the goldens anew")

// doctor asks the doctor about one cluster, first healthy and then broken by one fault after another. What it says is in
// testdata/doctor.
func (s shared) doctor(t *testing.T) {
	const names = nameServerPort
	c := s.cluster
	nameServer := c.member(1) + ":" + names
	written, err := os.ReadFile(c.Inventory())
	if err != nil {
		t.Fatal(err)
	}
	// as is the cluster's inventory with some words changed.
	as := func(words ...string) string {
		path := filepath.Join(t.TempDir(), "inventory.yml")
		text := strings.NewReplacer(words...).Replace(string(written))
		if text == string(written) && len(words) > 0 {
			t.Fatalf("%q isn't in the inventory", words[0])
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sound := as()
	d := doctor{c, t}

	// A pgporter that has just come may have asked nobody yet.
	d.says("healthy", 0, sound, "--dns", nameServer)
	d.opens(sound, "ip", 18)
	d.opens(sound, "smart", 8)
	d.says("wrong-password", 1, as("password: test,", "password: Wrong-Word,"), "--by", "ip")
	d.says("no-pool-database", 1, sound, "--by", "ip", "--db", "postgres")
	d.says("unknown-name", 1, as("pg_cluster: pg-test\n", "pg_cluster: pg-test\n        pg_dns_suffix: .example\n"), "--by", "dns", "--dns", nameServer)
	d.says("no-name-server", 1, sound, "--by", "instance", "--dns", c.member(9)+":"+names)

	d.kill(syscall.SIGKILL, "2/pgporter")
	d.says("no-pgporter", 1, sound, "--by", "ip")
	d.start("2/pgporter")

	d.kill(syscall.SIGSTOP, "3/pgbouncer")
	d.says("stopped-pgbouncer", 1, sound, "--by", "ip", "--service", "pgbouncer", "--timeout", "2s")
	d.kill(syscall.SIGCONT, "3/pgbouncer")

	d.kill(syscall.SIGKILL, "2/pgbouncer")
	d.says("no-pgbouncer", 1, sound, "--by", "ip")
	d.start("2/pgbouncer")

	d.kill(syscall.SIGKILL, "1/patroni", "1/postgres")
	d.says("no-primary", 1, sound, "--by", "ip", "--service", "primary")
}

// doctor asks about a cluster.
type doctor struct {
	c *cluster
	t *testing.T
}

func (d doctor) kill(signal syscall.Signal, whats ...string) {
	d.t.Helper()
	if err := d.c.Kill(d.t.Context(), signal, whats...); err != nil {
		d.t.Fatal(err)
	}
}

func (d doctor) start(whats ...string) {
	d.t.Helper()
	if err := d.c.Start(d.t.Context(), whats...); err != nil {
		d.t.Fatal(err)
	}
}

// opens has psql open what url prints, as it is printed.
func (d doctor) opens(inventory, by string, count int) {
	d.t.Helper()
	list := exec.CommandContext(d.t.Context(), binary, "url", "pg-test", "--inventory", inventory, "--by", by, "--driver", "libpq@15", "--plain", "--with-password")
	out, err := list.Output()
	if err != nil {
		d.t.Fatal(err)
	}
	urls := strings.Fields(string(out))
	if len(urls) != count {
		d.t.Errorf("by %s there are %d URLs, not %d:\n%s", by, len(urls), count, out)
	}
	for _, url := range urls {
		out, err := exec.CommandContext(d.t.Context(), "psql", url, "-Atc", "select pg_is_in_recovery()").CombinedOutput()
		if err != nil {
			d.t.Errorf("psql %s: %v\n%s", url, err, out)
			continue
		}
		wanted := ""
		switch {
		case strings.Contains(url, "attrs=primary"), strings.Contains(url, ":5433/"), strings.Contains(url, ":5436/"):
			wanted = "f"
		case strings.Contains(url, "attrs=prefer-standby"), strings.Contains(url, ":5434/"), strings.Contains(url, ":5438/"):
			wanted = "t"
		}
		if got := strings.TrimSpace(string(out)); wanted != "" && got != wanted {
			d.t.Errorf("psql %s: pg_is_in_recovery() is %s, not %s", url, got, wanted)
		}
	}
}

// settling is how long a pgporter may take to see what was just broken or mended.
const settling = patience

// says waits until the doctor says what the golden has, and ends as it should: what a pgporter knows of its members is as
// old as its last check.
func (d doctor) says(name string, status int, inventory string, args ...string) {
	d.t.Helper()
	golden := filepath.Join("testdata", "doctor", name+".txt")
	ask := func(ctx context.Context) (string, error) {
		cmd := exec.CommandContext(ctx, binary, append([]string{"doctor", "pg-test", "--inventory", inventory}, args...)...)
		cmd.Env = append(os.Environ(), "PGPASSWORD=", "PGPASSFILE=/dev/null", "PGSSLMODE=")
		out, err := cmd.CombinedOutput()
		var ended *exec.ExitError
		if err != nil && !errors.As(err, &ended) {
			return "", err
		}
		for _, secret := range []string{"DBUser.", "Wrong-Word"} {
			if strings.Contains(string(out), secret) {
				d.t.Fatalf("%s: a password is shown:\n%s", name, out)
			}
		}
		text := d.steady(string(out))
		if got := cmd.ProcessState.ExitCode(); got != status {
			return text, fmt.Errorf("%s: it ended with %d, not %d:\n%s", name, got, status, out)
		}
		return text, nil
	}
	if *update {
		var text string
		eventually(d.t, settling, func(ctx context.Context) error {
			again, err := ask(ctx)
			if err == nil && again != text {
				err = errors.New("it says something else each time")
			}
			text = again
			return err
		})
		if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
			d.t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
			d.t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		d.t.Fatal(err)
	}
	eventually(d.t, settling, func(ctx context.Context) error {
		text, err := ask(ctx)
		if err == nil && text != string(want) {
			err = fmt.Errorf("%s: it says\n%s\nthe golden says\n%s", name, text, want)
		}
		return err
	})
}

var (
	took    = regexp.MustCompile(`\b[0-9.]+(µs|ms|s)\b`)
	columns = regexp.MustCompile(` {2,}`)
	turn    = regexp.MustCompile(`(  replica  .*  )pg-test-[23]  `)
)

// steady has the documents' addresses, and none of what every run has anew: times, and which replica's turn it was.
func (d doctor) steady(text string) string {
	lines := strings.Split(strings.ReplaceAll(text, d.c.prefix+".", "10.10.10."), "\n")
	for i, line := range lines {
		body := strings.TrimLeft(line, " ")
		indent := line[:len(line)-len(body)]
		body = columns.ReplaceAllString(took.ReplaceAllString(body, "TIME"), "  ")
		lines[i] = indent + turn.ReplaceAllString(body, "${1}a replica  ")
	}
	return strings.Join(lines, "\n")
}
