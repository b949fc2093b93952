package zone

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
)

func TestHosts(t *testing.T) {
	text, err := Hosts("pg-test", "pg-test", model.Record{Name: "pg-test.example.com", Address: "010.010.010.3"})
	if err == nil {
		t.Errorf("an address with leading zeros is taken: %q", text)
	}
	text, err = Hosts("pg-test", "pg-test", model.Record{Name: "pg-test.example.com", Address: "10.10.10.3"})
	if want := "# pgporter made this for dnsmasq: pg-test of pg-test. Edits are lost: change the inventory.\n10.10.10.3 pg-test.example.com\n"; err != nil || text != want {
		t.Errorf("got %q, %v; want %q", text, err, want)
	}
	for _, r := range []model.Record{
		{Name: "pg test", Address: "10.10.10.3"}, {Name: "", Address: "10.10.10.3"}, {Name: "-pg", Address: "10.10.10.3"},
		{Name: "pg\n10.0.0.1 evil", Address: "10.10.10.3"}, {Name: "pg-test.", Address: "10.10.10.3"},
		{Name: strings.Repeat("a", 254), Address: "10.10.10.3"},
		{Name: "pg-test", Address: "pg-1.lan"}, {Name: "pg-test", Address: "fe80::1%eth0"}, {Name: "pg-test", Address: ""},
	} {
		if text, err := Hosts("pg-test", "pg-test", r); err == nil {
			t.Errorf("%+v is rendered: %q", r, text)
		}
	}
}

// The real dnsmasq takes the directory, answers from it, and follows a file that is put there.
func TestDNSMasq(t *testing.T) {
	dir := t.TempDir()
	hosts := filepath.Join(dir, "hosts")
	if err := os.Mkdir(hosts, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(file string, r model.Record) {
		t.Helper()
		text, err := Hosts("pg-test", file, r)
		if err != nil {
			t.Fatal(err)
		}
		beside := filepath.Join(hosts, "."+file+".new")
		if err := errors.Join(os.WriteFile(beside, []byte(text), 0o644), os.Rename(beside, filepath.Join(hosts, file))); err != nil {
			t.Fatal(err)
		}
	}
	put("pg-test-1", model.Record{Name: "pg-test-1", Address: "10.10.10.11"})
	put("pg-test", model.Record{Name: "pg-test.db.example", Address: "10.10.10.3"})
	put("pg-six-1", model.Record{Name: "pg-six-1", Address: "fd00::11"})

	const address = "127.0.70.53"
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "dnsmasq.conf")
	port := freePort(t, address)
	text := strings.Join([]string{
		"hostsdir=" + hosts, "no-hosts", "no-resolv", "listen-address=" + address, "bind-interfaces", "port=" + port,
		"user=" + me.Username, "pid-file=" + filepath.Join(dir, "pid"), "",
	}, "\n")
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("dnsmasq", "--test", "--conf-file="+conf).CombinedOutput(); err != nil {
		t.Fatalf("dnsmasq --test: %v\n%s", err, out)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	server := exec.CommandContext(ctx, "dnsmasq", "--keep-in-foreground", "--conf-file="+conf)
	var log strings.Builder
	server.Stderr = &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stop()
		server.Wait()
		if t.Failed() {
			t.Logf("dnsmasq said:\n%s", log.String())
		}
	}()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(address, port))
	}}
	// A name counts once dnsmasq has begun to answer and has seen the file.
	answers := func(name, want string) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		var got []string
		var err error
		for ctx.Err() == nil {
			if got, err = resolver.LookupHost(ctx, name+"."); err == nil && slices.Equal(got, []string{want}) {
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
		t.Fatalf("%s is %v (%v), want %s", name, got, err, want)
	}
	answers("pg-test-1", "10.10.10.11")
	answers("pg-test.db.example", "10.10.10.3")
	answers("pg-six-1", "fd00::11")
	put("pg-test-2", model.Record{Name: "pg-test-2", Address: "10.10.10.12"})
	answers("pg-test-2", "10.10.10.12")
}

// freePort finds a port of an address that nobody has.
func freePort(t *testing.T, address string) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", net.JoinHostPort(address, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return strconv.Itoa(conn.LocalAddr().(*net.UDPAddr).Port)
}
