package dns

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// pair is a cluster of two with its Board, and Views in which either leads.
type pair struct {
	model.Cluster
	board         *view.Board
	first, second *view.View
}

func newPair(t *testing.T, name, firstHost, secondHost string) pair {
	t.Helper()
	members := []member{{firstHost, model.Primary, model.Primary, true}, {secondHost, model.Replica, model.Replica, true}}
	p := pair{Cluster: declared(name, members...)}
	p.first = seen(t, p.Cluster, members...)
	members[0].live, members[1].live = model.Replica, model.Primary
	p.second = seen(t, p.Cluster, members...)
	p.board = view.NewBoard(p.first)
	return p
}

func offer(pairs ...pair) engine.Offer {
	var o engine.Offer
	for _, p := range pairs {
		o.Clusters = append(o.Clusters, engine.Cluster{Cluster: p.Cluster, Board: p.board})
		o.Names = append(o.Names, model.Naming{Cluster: p.Name, Target: model.TargetPrimary})
	}
	return o
}

// ask gives the addresses of a name, or the code of the answer.
func ask(t *testing.T, address, network, name string) string {
	t.Helper()
	m := new(wire.Msg)
	m.SetQuestion(name+".", wire.TypeA)
	client := wire.Client{Net: network, Timeout: time.Minute}
	answer, _, err := client.ExchangeContext(t.Context(), m, address)
	if err != nil {
		t.Fatalf("%s over %s: %v", name, network, err)
	}
	if answer.Rcode != wire.RcodeSuccess {
		return wire.RcodeToString[answer.Rcode]
	}
	var all []string
	for _, rr := range answer.Answer {
		all = append(all, rr.(*wire.A).A.String())
	}
	return strings.Join(all, " ")
}

// A new configuration adds and takes names; what names resolved to last is known further on, and followed.
func TestAnotherConfiguration(t *testing.T) {
	a, b := newPair(t, "pg-a", "10.0.0.1", "10.0.0.2"), newPair(t, "pg-b", "10.0.1.1", "10.0.1.2")
	r := start(t, Config{Address: "127.0.81.1:0"}, offer(a))
	a.board.Publish(a.second)
	until(t, "the new primary", func() bool { return ask(t, r.Address(), "udp", "pg-a") == "10.0.0.2" })
	if got := ask(t, r.Address(), "tcp", "pg-b"); got != "REFUSED" {
		t.Errorf("pg-b before it is declared: %s", got)
	}
	nobody := *a.second
	nobody.Members = append([]view.Member(nil), nobody.Members...)
	nobody.Members[1].Live = model.Replica
	a.board.Publish(&nobody)

	broken := offer(a, b)
	broken.Names[1].Suffix = "..db"
	if _, err := r.Prepare(broken); err == nil || !strings.Contains(err.Error(), `"pg-b..db" can't be a name of the DNS: a label is empty`) {
		t.Errorf("a suffix that can't be: %v", err)
	}
	if got := ask(t, r.Address(), "udp", "pg-a") + " " + ask(t, r.Address(), "udp", "pg-b"); got != "10.0.0.2 REFUSED" {
		t.Errorf("after a refused configuration: %s", got)
	}
	commit, err := r.Prepare(offer(b, a))
	if err != nil {
		t.Fatal(err)
	}
	commit()
	if got := ask(t, r.Address(), "udp", "pg-a") + " " + ask(t, r.Address(), "udp", "pg-b"); got != "10.0.0.2 10.0.1.1" {
		t.Errorf("both: %s", got)
	}
	b.board.Publish(b.second)
	until(t, "the other's new primary", func() bool { return ask(t, r.Address(), "udp", "primary.pg-b") == "10.0.1.2" })
	commit, err = r.Prepare(offer(b))
	if err != nil {
		t.Fatal(err)
	}
	commit()
	if got := ask(t, r.Address(), "udp", "pg-a"); got != "REFUSED" {
		t.Errorf("pg-a after it is gone: %s", got)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`msg="the primary's name leads elsewhere" cluster=pg-a from=pg-a-1 to=pg-a-2`, `msg="a service's name leads elsewhere" cluster=pg-b service=primary from=pg-b-1 to=pg-b-2`} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("%s isn't in the log:\n%s", want, r.log)
		}
	}
}

// On every address of the machine, an answer comes from the address that was asked.
func TestEveryAddress(t *testing.T) {
	a := newPair(t, "pg-a", "10.0.0.1", "10.0.0.2")
	r := start(t, Config{Address: ":0"}, offer(a))
	_, port, err := net.SplitHostPort(r.Address())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.81.2", "127.0.81.3", "::1"} {
		if conn, err := net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
			t.Logf("%s isn't an address of this machine: %v", host, err)
			if host == "::1" {
				continue
			}
			t.FailNow()
		} else {
			conn.Close()
		}
		// The client's socket is connected: the kernel gives it nothing that comes from elsewhere.
		for _, network := range []string{"udp", "tcp"} {
			if got := ask(t, net.JoinHostPort(host, port), network, "pg-a"); got != "10.0.0.1" {
				t.Errorf("%s over %s: %s", host, network, got)
			}
		}
	}
}

// What is no question is left alone, and connections are bounded: those that say nothing give way.
func TestAttackBadClients(t *testing.T) {
	a := newPair(t, "pg-a", "10.0.0.1", "10.0.0.2")
	r := start(t, Config{Address: "127.0.81.4:0", Connections: 16}, offer(a))
	to := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(r.Address()))
	from := func(host string) *net.TCPConn {
		t.Helper()
		conn, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.ParseIP(host)}, to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	closed := func(conn *net.TCPConn) bool {
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		_, err := conn.Read(make([]byte, 1))
		return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	}
	const most = 12 // of one source
	var idle []*net.TCPConn
	for range 10 * most {
		idle = append(idle, from("127.0.81.5"))
	}
	if got := ask(t, r.Address(), "tcp", "pg-a"); got != "10.0.0.1" {
		t.Errorf("while others say nothing: %s", got)
	}
	for _, conn := range idle[:9*most] {
		if !closed(conn) {
			t.Fatal("a connection that says nothing stays, though there are too many")
		}
	}

	for name, message := range map[string]string{
		"a length that no question has": "\xff\xffx",
		"no question":                   "\x00\x0cno-question!",
		"too short to be one":           "\x00\x03abc",
	} {
		conn := from("127.0.81.6")
		if _, err := io.WriteString(conn, message); err != nil {
			t.Fatal(err)
		}
		conn.CloseWrite()
		if got, err := io.ReadAll(conn); name != "no question" && len(got) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	datagram, err := net.Dial("udp", r.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer datagram.Close()
	for _, junk := range []string{"", "x", strings.Repeat("\xff", 12), strings.Repeat("a", 9000)} {
		if _, err := io.WriteString(datagram, junk); err != nil {
			t.Fatal(err)
		}
	}
	if got := ask(t, r.Address(), "udp", "pg-a"); got != "10.0.0.1" {
		t.Errorf("after junk: %s", got)
	}
	if c, names := r.Counts(); c.Rejected < 1 || c.Questions < 3 || c.Malformed < 3 || names == 0 {
		t.Errorf("counted %+v, %d names", c, names)
	}
}

// A flood of datagrams neither grows the number of goroutines nor keeps another client from its answer.
func TestFlood(t *testing.T) {
	a := newPair(t, "pg-a", "10.0.0.1", "10.0.0.2")
	r := start(t, Config{Address: "127.0.81.7:0"}, offer(a))
	flood, err := net.Dial("udp", r.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer flood.Close()
	m := new(wire.Msg)
	m.SetQuestion("_postgresql._tcp.replica.pg-a.", wire.TypeSRV)
	text, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for range 5_000 {
		flood.Write(text) // what the kernel drops is the flood's loss
	}
	answered := false
	for range 10 {
		client := wire.Client{Timeout: 3 * time.Second}
		one := new(wire.Msg)
		one.SetQuestion("pg-a.", wire.TypeA)
		if answer, _, err := client.ExchangeContext(t.Context(), one, r.Address()); err == nil && len(answer.Answer) == 1 {
			answered = true
			break
		}
	}
	if !answered {
		t.Error("nobody else is answered")
	}
}

func TestAddressesThatCannotBeHad(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.81.8:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	datagrams, err := net.ListenPacket("udp", "127.0.81.9:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		cfg  Config
		want string
	}{
		{Config{Address: taken.Addr().String()}, "DNS address " + taken.Addr().String() + ": listen tcp4 " + taken.Addr().String() + ": bind: address already in use"},
		{Config{Address: datagrams.LocalAddr().String()}, "DNS address " + datagrams.LocalAddr().String() + ": listen udp4 "},
		{Config{Address: "192.0.2.1:5353"}, "it is no address of this machine"},
		{Config{Address: "localhost:5353"}, `DNS address "localhost:5353": an address with a port, as in 10.10.10.10:53`},
		{Config{HostsDir: file}, "is no directory"},
		{Config{HostsDir: file + "-not"}, "no such file or directory"},
	} {
		s, err := New(context.Background(), test.cfg)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q in it", test.cfg, err, test.want)
		}
	}
	// What an unprivileged user reads, whoever runs this test.
	if err := explained("10.10.10.10:53", &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)}); !strings.Contains(err.Error(), "CAP_NET_BIND_SERVICE (setcap cap_net_bind_service=+ep ") || !errors.Is(err, syscall.EACCES) {
		t.Errorf("no right to the port: %v", err)
	}
}
