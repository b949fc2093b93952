package sandbox

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTryPort(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	want := address + " is taken by process " + strconv.Itoa(os.Getpid()) + ": "
	err = tryPort(address)
	var taken portTaken
	if !errors.As(err, &taken) || !strings.HasPrefix(err.Error(), want) || taken.command == "" {
		t.Errorf("got %v, want %s…", err, want)
	}
	// Another loopback address has the port free.
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	if err := tryPort("127.0.0.2:" + port); err != nil {
		t.Errorf("port %s of another address: %v", port, err)
	}
	listener.Close()
	if err := tryPort(address); err != nil {
		t.Errorf("after it was given back: %v", err)
	}
	if err := tryPort("192.0.2.1:5432"); err == nil || errors.As(err, &taken) || !strings.Contains(err.Error(), "can't be listened on") {
		t.Errorf("an address that isn't this machine's: %v", err)
	}
}

// TestTryPortWildcard: whoever has the port on every address has it on ours, with SO_REUSEPORT too.
func TestTryPortWildcard(t *testing.T) {
	shared := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var optErr error
		err := raw.Control(func(fd uintptr) { optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, optErr)
	}}
	for _, network := range []string{"tcp4", "tcp"} {
		listener, err := shared.Listen(context.Background(), network, ":0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		var taken portTaken
		if err := tryPort("127.0.0.9:" + port); !errors.As(err, &taken) || taken.pid != os.Getpid() {
			t.Errorf("%s: %v, want it taken by process %d", network, err, os.Getpid())
		}
		listener.Close()
	}
}

func TestCheckPortsNamesAll(t *testing.T) {
	s := &Sandbox{layout: mustLayout(t, Config{Prefix: "127.91.73", Members: 1})}
	if err := s.checkPorts(); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"127.91.73.11:5433", "127.91.73.10:2379"} {
		listener, err := net.Listen("tcp4", address)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
	}
	err := s.checkPorts()
	for _, want := range []string{"choose another --prefix", "etcd needs a port: 127.91.73.10:2379 is taken by process", "pg-test-1/pgporter needs a port: 127.91.73.11:5433 is taken"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
}

func TestParseListener(t *testing.T) {
	rest := " 00000000:00000000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0"
	for _, c := range []struct {
		line, address string
	}{
		{"   0: 0100007F:1538" + rest, "127.0.0.1:5432"},
		{"   1: 00000000:1539" + rest, "0.0.0.0:5433"},
		{"   2: 00000000000000000000000000000000:1539" + rest, "[::]:5433"},
		{"   3: 0000000000000000FFFF00000100007F:1538" + rest, "127.0.0.1:5432"},
		{"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode", ""},
		{"   0: 0100007F:1538 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4711 1", ""}, // established
		{"   0: 0100007:1538" + rest, ""},
		{"   0: 0100007F:15381" + rest, ""},
		{"", ""},
	} {
		local, inode, ok := parseListener(c.line)
		if ok != (c.address != "") {
			t.Errorf("%q: %v", c.line, ok)
		}
		if ok && (local != netip.MustParseAddrPort(c.address) || inode != "4711") {
			t.Errorf("%q: %s inode %s, want %s", c.line, local, inode, c.address)
		}
	}
}

func FuzzParseListener(f *testing.F) {
	f.Add("   0: 0100007F:1538 00000000:00000000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1")
	f.Add("   0: 0000000000000000FFFF00000100007F:1538 0 0A 0 0 0 0 0 4711 1")
	f.Add(": : : 0A : : : : : :")
	f.Fuzz(func(t *testing.T, line string) {
		local, inode, ok := parseListener(line)
		if ok && (!local.IsValid() || inode == "") {
			t.Errorf("%q: accepted as %s inode %q", line, local, inode)
		}
	})
}

// TestWaitersTakeNoPort: whoever waits for a part to listen doesn't keep it from that.
func TestWaitersTakeNoPort(t *testing.T) {
	s := &Sandbox{layout: mustLayout(t, Config{Prefix: "127.91.74", Members: 1})}
	etcd := part{kind: etcdKind}
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel()
	looked := make(chan struct{})
	waiting.Go(func() {
		for ctx.Err() == nil {
			s.anybodyListens(etcd) //nolint:errcheck // it is only to look
			select {
			case looked <- struct{}{}:
			default:
			}
		}
	})
	for range 100 {
		<-looked
		listener, err := net.Listen("tcp4", "127.91.74.10:2379")
		if err != nil {
			t.Fatal(err)
		}
		listener.Close()
	}
	if err := s.anybodyListens(etcd); err == nil || err.Error() != "nobody listens on 127.91.74.10:2379" {
		t.Errorf("nobody listens: %v", err)
	}
}
