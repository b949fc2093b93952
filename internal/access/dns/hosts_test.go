package dns

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/render/stamp"
)

func read(t *testing.T, dir, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

// The files say what is so: after a switchover, after a new configuration, and again after they couldn't be written.
func TestHostsFiles(t *testing.T) {
	dir := t.TempDir()
	old := stamp.Stamp{Kind: stamp.DNSMasq, Cluster: "pg-old", File: "pg-old"}.Line() + "10.0.9.1 pg-old\n"
	for name, text := range map[string]string{
		"pg-old": old, "copy": old, "mine": "10.0.0.1 pg-a\n",
		"pg-a.cfg": stamp.Stamp{Kind: stamp.HAProxy, Cluster: "pg-a", File: "pg-a.cfg"}.Line(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a, b := newPair(t, "pg-a", "10.0.0.1", "fd00::2"), newPair(t, "pg-b", "10.0.1.1", "10.0.1.2")
	unmarked := offer(a)
	unmarked.Clusters[0].Members[0].Name = "mine"
	s, err := New(t.Context(), Config{HostsDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prepare(unmarked); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "mine")+" is there and isn't pgporter's: remove it") {
		t.Errorf("a file of somebody else under the name of ours: %v", err)
	}
	s.Close()

	a = newPair(t, "pg-a", "10.0.0.1", "fd00::2")
	r := start(t, Config{HostsDir: dir, retry: 20 * time.Millisecond}, offer(a, b))
	first := "# pgporter made this for dnsmasq: pg-a of pg-a. Edits are lost: change the inventory.\n10.0.0.1 pg-a\n"
	until(t, "written", func() bool {
		return read(t, dir, "pg-a") == first && read(t, dir, "pg-b-2") != "" && read(t, dir, "pg-old") == ""
	})
	if got, want := read(t, dir, "pg-a-2"), "# pgporter made this for dnsmasq: pg-a-2 of pg-a. Edits are lost: change the inventory.\nfd00::2 pg-a-2\n"; got != want {
		t.Errorf("pg-a-2: %q, want %q", got, want)
	}
	if read(t, dir, "copy") == "" || read(t, dir, "mine") == "" || read(t, dir, "pg-a.cfg") == "" {
		t.Error("files that aren't ours are gone")
	}
	a.board.Publish(a.second)
	until(t, "followed", func() bool { return strings.HasSuffix(read(t, dir, "pg-a"), "\nfd00::2 pg-a\n") })

	commit, err := r.Prepare(offer(a))
	if err != nil {
		t.Fatal(err)
	}
	commit()
	until(t, "without pg-b", func() bool { return read(t, dir, "pg-b")+read(t, dir, "pg-b-1")+read(t, dir, "pg-b-2") == "" })

	// Somebody puts a file of their own there: it stays and is reported, and once it is gone ours is back.
	if err := os.WriteFile(filepath.Join(dir, "pg-a"), []byte("10.9.9.9 pg-a\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	a.board.Publish(a.first)
	until(t, "logged", func() bool { return strings.Contains(r.log.String(), "pg-a is there and isn't pgporter's") })
	if got := read(t, dir, "pg-a"); got != "10.9.9.9 pg-a\n" {
		t.Errorf("somebody's file is %q now", got)
	}
	if got := strings.Count(r.log.String(), "isn't pgporter's"); got != 1 {
		t.Errorf("it is logged %d times", got)
	}
	os.Remove(filepath.Join(dir, "pg-a"))
	until(t, "ours again", func() bool { return read(t, dir, "pg-a") == first })
	until(t, "said", func() bool { return strings.Contains(r.log.String(), "up to date again") })
}

// The real dnsmasq answers what the files say, switchover after switchover.
func TestDNSMasqFollows(t *testing.T) {
	dir := t.TempDir()
	hosts := filepath.Join(dir, "hosts")
	if err := os.Mkdir(hosts, 0o755); err != nil {
		t.Fatal(err)
	}
	a := newPair(t, "pg-a", "10.0.0.1", "10.0.0.2")
	start(t, Config{HostsDir: hosts}, offer(a))
	until(t, "written", func() bool { return read(t, hosts, "pg-a") != "" })

	const address = "127.0.81.10"
	free, err := net.ListenPacket("udp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(free.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	server := exec.CommandContext(ctx, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--hostsdir="+hosts, "--no-hosts", "--no-resolv",
		"--listen-address="+address, "--bind-interfaces", "--port="+port, "--user="+me.Username, "--pid-file="+filepath.Join(dir, "pid"))
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stop()
		server.Wait()
	}()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(address, port))
	}}
	answers := func(want string) {
		t.Helper()
		until(t, "pg-a at "+want, func() bool {
			got, err := resolver.LookupHost(ctx, "pg-a.")
			return err == nil && len(got) == 1 && got[0] == want
		})
	}
	answers("10.0.0.1")
	for range 2 {
		a.board.Publish(a.second)
		answers("10.0.0.2")
		a.board.Publish(a.first)
		answers("10.0.0.1")
	}
}
