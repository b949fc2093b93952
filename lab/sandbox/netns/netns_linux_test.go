package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

const echoPort = "7"

// up makes a LAN of three nodes that echo datagrams. It is the same network as any other's on this machine.
func up(t *testing.T) LAN {
	t.Helper()
	if err := Supported(); err != nil {
		t.Skipf("NOT TESTED: %v", err)
	}
	l := LAN{Name: fmt.Sprintf("lantest%d", os.Getpid()), Resolver: netip.MustParseAddr("10.10.10.12")}
	for i, name := range []string{"a", "b", "c"} {
		address := netip.AddrFrom4([4]byte{10, 10, 10, byte(11 + i)})
		l.Nodes = append(l.Nodes, Node{name, netip.PrefixFrom(address, 24)})
	}
	t.Cleanup(func() {
		if err := Remove(l.Name); err != nil {
			t.Error(err)
		}
		for _, dir := range []string{namedDir, filesDir} {
			if left, _ := filepath.Glob(filepath.Join(dir, l.Name+"*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		}
	})
	if err := l.Up(); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Nodes {
		l.echo(t, n)
	}
	return l
}

func (l LAN) echo(t *testing.T, n Node) {
	t.Helper()
	var server net.PacketConn
	err := l.Do(n.Name, func() (err error) {
		server, err = net.ListenPacket("udp", net.JoinHostPort(n.Address.Addr().String(), echoPort))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for buffer := make([]byte, 512); ; {
			n, from, err := server.ReadFrom(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				server.WriteTo(buffer[:n], from) //nolint:errcheck // a lost answer is what the tests look at
			}
		}
	}()
}

// hears says whether an echo comes back to a node from another. Each attempt is a datagram of its own, so that one which was
// lost while ARP still asked costs nothing.
func (l LAN) hears(t *testing.T, from, to string, within time.Duration) bool {
	t.Helper()
	n, err := l.node(to)
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Dial(t.Context(), from, "udp", net.JoinHostPort(n.Address.Addr().String(), echoPort))
	if err != nil {
		t.Fatalf("%s to %s: %v", from, to, err)
	}
	defer c.Close()
	for end := time.Now().Add(within); time.Now().Before(end); {
		if _, err := c.Write([]byte("are you there")); err != nil {
			return false
		}
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) //nolint:errcheck // a socket that is open
		if _, err := c.Read(make([]byte, 512)); err == nil {
			return true
		}
	}
	return false
}

// expect tells which pairs of nodes hear each other, as "ab ac".
func (l LAN) expect(t *testing.T, when, want string) {
	t.Helper()
	var got []string
	for i, a := range l.Nodes {
		for _, b := range l.Nodes[i+1:] {
			pair := a.Name + b.Name
			within := time.Minute
			if !strings.Contains(want, pair) {
				within = 200 * time.Millisecond
			}
			if l.hears(t, a.Name, b.Name, within) {
				got = append(got, pair)
			}
		}
	}
	if text := strings.Join(got, " "); text != want {
		t.Errorf("%s: %q hear each other, want %q", when, text, want)
	}
}

func TestNetwork(t *testing.T) {
	interfaces, routes := outside(t)
	l := up(t)
	l.expect(t, "at first", "ab ac bc")

	// Nothing of it shows on the machine.
	if now, nowRoutes := outside(t); !slices.Equal(now, interfaces) || !slices.Equal(nowRoutes, routes) {
		t.Errorf("the machine has interfaces %v and routes %v, had %v and %v", now, nowRoutes, interfaces, routes)
	}
	if err := l.Up(); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("a second Up: %v", err)
	}

	// A connection that is open notices nothing of a cut: what it sends is just not there.
	open, peer := l.connection(t, "a", "b")
	do(t, l.Cut(false, "a", "b"))
	l.expect(t, "a and b cut", "ac bc")
	if _, err := open.Write([]byte("x")); err != nil {
		t.Errorf("writing over a cut: %v", err)
	}
	peer.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) //nolint:errcheck // a socket that is open
	if n, err := peer.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("over a cut came %d bytes, %v", n, err)
	}
	do(t, l.Cut(false, "c", "b"))
	l.expect(t, "b cut off step by step", "ac")
	faults, err := l.Faults()
	if want := []Cut{{"a", "b"}, {"b", "a"}, {"c", "b"}, {"b", "c"}}; err != nil || !slices.Equal(faults.Cuts, want) || faults.Unplugged != nil {
		t.Errorf("faults %+v, %v; want %v", faults, err, want)
	}
	do(t, l.Heal())
	l.expect(t, "healed", "ab ac bc")
	// What was sent before is sent again by TCP.
	peer.SetReadDeadline(time.Now().Add(time.Minute)) //nolint:errcheck // a socket that is open
	if n, err := peer.Read(make([]byte, 1)); n != 1 {
		t.Errorf("after healing: %d bytes, %v", n, err)
	}

	do(t, l.Cut(false, "c"))
	l.expect(t, "c cut off from all", "ab")
	do(t, l.Heal())

	do(t, l.Unplug("b"))
	if faults, err := l.Faults(); err != nil || !slices.Equal(faults.Unplugged, []string{"b"}) {
		t.Errorf("faults %+v, %v; want b unplugged", faults, err)
	}
	if l.carrier(t, "b") || !l.carrier(t, "a") {
		t.Error("want no carrier on b and one on a")
	}
	l.expect(t, "b unplugged", "ac")
	do(t, l.Heal())
	if !l.carrier(t, "b") {
		t.Error("no carrier on b after healing")
	}
	l.expect(t, "healed again", "ab ac bc")
}

// TestOneWay: what a node sends is lost, what it is sent isn't.
func TestOneWay(t *testing.T) {
	l := up(t)
	l.expect(t, "at first", "ab ac bc") // and so every node knows every other's hardware address
	do(t, l.Cut(true, "a", "b"))
	var server net.PacketConn
	do(t, l.Do("a", func() (err error) {
		server, err = net.ListenPacket("udp", "10.10.10.11:9")
		return err
	}))
	defer server.Close()
	c, err := l.Dial(t.Context(), "b", "udp", "10.10.10.11:9")
	do(t, err)
	defer c.Close()
	_, err = c.Write([]byte("to a"))
	do(t, err)
	buffer := make([]byte, 16)
	server.SetReadDeadline(time.Now().Add(time.Minute)) //nolint:errcheck // a socket that is open
	n, _, err := server.ReadFrom(buffer)
	if string(buffer[:n]) != "to a" {
		t.Errorf("a heard %q, %v", buffer[:n], err)
	}
	l.expect(t, "a isn't heard by b", "ac bc")
}

func TestPrograms(t *testing.T) {
	l := up(t)
	machine, err := os.ReadFile("/etc/resolv.conf")
	do(t, err)
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "cat", "/etc/resolv.conf", "/proc/net/fib_trie")
	cmd.Stdout = &out
	do(t, l.Start("c", cmd))
	do(t, cmd.Wait())
	for _, want := range []string{"nameserver 10.10.10.12\n", "search .\n", "10.10.10.13\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("a program on c sees no %q in %s", want, out.String())
		}
	}
	if now, err := os.ReadFile("/etc/resolv.conf"); err != nil || !bytes.Equal(now, machine) {
		t.Errorf("the machine's resolv.conf is now %s, %v", now, err)
	}

	if _, err := l.Dial(t.Context(), "a", "tcp", "localhost:80"); err == nil {
		t.Error("a name was dialled: the machine's resolver would have been asked")
	}
	if err := l.Do("d", func() error { return nil }); !errors.Is(err, ErrNoNode) {
		t.Errorf("a node that isn't there: %v", err)
	}
}

// TestReset: what a node was given beside its own address is gone.
func TestReset(t *testing.T) {
	l := up(t)
	more := netip.MustParsePrefix("10.10.10.3/24")
	do(t, l.Do("a", func() error {
		link, err := netlink.LinkByName(Interface)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(more)})
	}))
	own := l.Nodes[0].Address
	if all, err := l.Addresses("a"); err != nil || !slices.Equal(all, []netip.Prefix{more, own}) {
		t.Errorf("addresses %v, %v", all, err)
	}
	do(t, l.Reset("a"))
	if all, err := l.Addresses("a"); err != nil || !slices.Equal(all, []netip.Prefix{own}) {
		t.Errorf("after a reset %v, %v", all, err)
	}
	l.expect(t, "after a reset", "ab ac bc")
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// connection is one from a node to another, both ends of it.
func (l LAN) connection(t *testing.T, from, to string) (near, far net.Conn) {
	t.Helper()
	n, err := l.node(to)
	do(t, err)
	var listener net.Listener
	do(t, l.Do(to, func() (err error) {
		listener, err = net.Listen("tcp", net.JoinHostPort(n.Address.Addr().String(), "0"))
		return err
	}))
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	near, err = l.Dial(ctx, from, "tcp", listener.Addr().String())
	do(t, err)
	t.Cleanup(func() { near.Close() })
	far, err = listener.Accept()
	do(t, err)
	t.Cleanup(func() { far.Close() })
	return near, far
}

// carrier says whether a node's interface has a link.
func (l LAN) carrier(t *testing.T, node string) bool {
	t.Helper()
	at, err := l.handle(node)
	do(t, err)
	defer at.Close()
	link, err := at.LinkByName(Interface)
	do(t, err)
	return link.Attrs().RawFlags&0x10000 != 0 // IFF_LOWER_UP, netdevice(7)
}

// outside lists the machine's own interfaces and routes.
func outside(t *testing.T) (interfaces, routes []string) {
	t.Helper()
	links, err := netlink.LinkList()
	do(t, err)
	for _, link := range links {
		interfaces = append(interfaces, link.Attrs().Name)
	}
	all, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	do(t, err)
	for _, route := range all {
		routes = append(routes, route.String())
	}
	return interfaces, routes
}
