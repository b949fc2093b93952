package vip

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/access/vip/owner"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
	"github.com/pgporter/pgporter/lab/sandbox/guard"
)

// TestMain is also the program that the tests run in their namespaces.
func TestMain(m *testing.M) {
	switch role := os.Getenv("VIP_ROLE"); role {
	case "":
		os.Exit(guard.Run(m.Run))
	case "keep":
		keepAsAsked()
	case "who":
		askWho(os.Getenv("VIP_ADDRESS"))
	default:
		panic("what is the role " + role)
	}
}

// keepAsAsked keeps an address by what it reads on standard input: `key MEMBER`, `lost`, `hand over`, `quit`. It tells
// anybody who connects to port 5000 its name.
func keepAsAsked() {
	name := os.Getenv("VIP_MEMBER")
	listener, err := net.Listen("tcp", ":5000")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, name+"\n")
			conn.Close()
		}
	}()
	var mu sync.Mutex
	v := view.View{Cluster: "pg-test", Key: view.Key{Watched: true, Holder: os.Getenv("VIP_KEY"), Confirmed: time.Now()}}
	for _, m := range []string{"pg-test-1", "pg-test-2"} {
		v.Members = append(v.Members, view.Member{Member: model.Member{Name: m}, Answer: "200 primary running"})
	}
	board := view.NewBoard(&v)
	// post shows what is known now; a key that is heard is confirmed with it.
	post := func(change func(k *view.Key)) {
		mu.Lock()
		defer mu.Unlock()
		next := *board.View()
		if next.Members = append([]view.Member(nil), next.Members...); change != nil {
			change(&next.Key)
		}
		if next.Key.Lost == "" {
			next.Key.Confirmed = time.Now()
		}
		for i := range next.Members {
			next.Members[i].Led = time.Now()
		}
		board.Publish(&next)
	}
	go func() {
		for range time.Tick(500 * time.Millisecond) {
			post(nil)
		}
	}()
	prefix := netip.MustParsePrefix(os.Getenv("VIP_ADDRESS"))
	k := New(Config{Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	ctx, stop := contextUntilQuit()
	k.Keep([]Address{{Board: board, Want: owner.Want{Cluster: "pg-test", TTL: ttl, Keyed: true, VirtualIP: model.VirtualIP{
		Address: prefix, Interface: os.Getenv("VIP_INTERFACE"), Member: name, Host: os.Getenv("VIP_HOST"), OnLoss: model.GraceOnLoss}}}})
	go func() {
		defer stop()
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			switch what, rest, _ := strings.Cut(lines.Text(), " "); what {
			case "key":
				post(func(key *view.Key) { *key = view.Key{Watched: true, Holder: rest} })
			case "lost":
				post(func(key *view.Key) { *key = view.Key{Watched: true, Lost: "timed out"} })
			case "hand":
				k.HandOver()
			case "quit":
				return
			}
		}
	}()
	if err := k.Run(ctx); err != nil {
		panic(err)
	}
}

// askWho prints who answers at an address, asking until somebody does.
func askWho(address string) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(address, "5000"), 200*time.Millisecond)
		if err != nil {
			continue
		}
		name, _ := io.ReadAll(conn)
		conn.Close()
		if len(name) > 0 {
			os.Stdout.Write(name)
			return
		}
	}
	os.Exit(1)
}

// ttl is the shortest that may be: the lifetime is 8 s then.
const ttl = model.LeastVIPTTL * time.Second

// network is two nodes and a bridge, each in a network namespace of its own. The namespace that the tests run in gets no
// interface, no address and no route of it.
type network struct {
	t      *testing.T
	prefix string
	nodes  [2]*node
}

// node is one of the two: pg-test-1 with the addresses 10.10.10.11 and fd00::11, or pg-test-2 with those of .12.
type node struct {
	*network
	name, space string
	process     *exec.Cmd
	stdin       io.WriteCloser
	log         syncBuffer
}

type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

var networks struct {
	sync.Mutex
	made int
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("%s needs root: it makes network namespaces", t.Name())
	}
	networks.Lock()
	networks.made++
	n := &network{t: t, prefix: fmt.Sprintf("pgporter-vip-%d-%d-", os.Getpid(), networks.made)}
	networks.Unlock()
	n.keep("switch")
	n.ip("netns add " + n.prefix + "switch")
	t.Cleanup(func() { n.ip("netns del " + n.prefix + "switch") })
	n.in("switch", "link add br0 type bridge")
	n.in("switch", "address add 10.10.10.20/24 dev br0")
	n.in("switch", "address add fd00::20/64 dev br0 nodad")
	n.in("switch", "link set br0 up")
	for i := range n.nodes {
		v := &node{network: n, name: fmt.Sprintf("pg-test-%d", i+1), space: fmt.Sprintf("node%d", i+1)}
		n.nodes[i] = v
		n.keep(v.space)
		n.ip("netns add " + n.prefix + v.space)
		t.Cleanup(func() { n.ip("netns del " + n.prefix + v.space) })
		n.ip(fmt.Sprintf("link add eth0 netns %s type veth peer name %s netns %s", n.prefix+v.space, v.space, n.prefix+"switch"))
		n.in("switch", "link set "+v.space+" master br0 up")
		n.in(v.space, "link set lo up")
		n.in(v.space, fmt.Sprintf("address add 10.10.10.1%d/24 dev eth0", i+1))
		n.in(v.space, fmt.Sprintf("address add fd00::1%d/64 dev eth0 nodad", i+1))
		n.in(v.space, "link set eth0 up")
	}
	return n
}

// keep has a namespace removed if the tests can't do it any more.
func (n *network) keep(space string) {
	n.t.Helper()
	if err := guard.Keep(namespace, n.prefix+space); err != nil {
		n.t.Fatal(err)
	}
}

// namespace is the kind of thing that network namespaces are to the guardian.
const namespace = "namespace"

func init() {
	guard.Handle(namespace, func(name string) error {
		if _, err := os.Lstat("/run/netns/" + name); err != nil {
			return nil
		}
		return exec.Command("ip", "netns", "del", name).Run()
	})
}

func (n *network) ip(arguments string) []byte {
	n.t.Helper()
	out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("ip %s: %v: %s", arguments, err, out)
	}
	return out
}

// in runs ip in a namespace.
func (n *network) in(space, arguments string) []byte {
	n.t.Helper()
	return n.ip("-n " + n.prefix + space + " " + arguments)
}

// program is this test's own program with a role, in a namespace.
func (n *network) program(space string, wrapper []string, environment ...string) *exec.Cmd {
	arguments := append([]string{"netns", "exec", n.prefix + space}, wrapper...)
	c := exec.Command("ip", append(arguments, os.Args[0])...)
	c.Env = append(os.Environ(), environment...)
	return c
}

// keep starts a node's program; holder is who has the leader key at first.
func (v *node) keep(address, holder string, more ...string) {
	v.t.Helper()
	v.keepWrapped(nil, address, holder, more...)
}

func (v *node) keepWrapped(wrapper []string, address, holder string, more ...string) {
	v.t.Helper()
	host := fmt.Sprintf("10.10.10.1%c", v.name[len(v.name)-1])
	v.process = v.program(v.space, wrapper, append([]string{"VIP_ROLE=keep", "VIP_MEMBER=" + v.name, "VIP_ADDRESS=" + address, "VIP_KEY=" + holder, "VIP_HOST=" + host}, more...)...)
	v.process.Stderr, v.process.Stdout = &v.log, &v.log
	var err error
	if v.stdin, err = v.process.StdinPipe(); err != nil {
		v.t.Fatal(err)
	}
	if err := v.process.Start(); err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() {
		if v.process != nil {
			v.kill()
		}
		if v.t.Failed() {
			v.t.Logf("log of %s:\n%s", v.name, v.log.String())
		}
	})
}

func (v *node) kill() {
	v.process.Process.Kill()
	v.process.Wait()
	v.process = nil
}

func (v *node) tell(line string) {
	v.t.Helper()
	if _, err := io.WriteString(v.stdin, line+"\n"); err != nil {
		v.t.Fatal(err)
	}
}

// quit ends a node's program as a stop does.
func (v *node) quit() {
	v.t.Helper()
	v.tell("quit")
	if err := v.process.Wait(); err != nil {
		v.t.Errorf("%s ended with %v", v.name, err)
	}
	v.process = nil
}

// bound is an address as `ip -j address` shows it.
type bound struct {
	Local     string `json:"local"`
	Prefix    int    `json:"prefixlen"`
	Valid     int64  `json:"valid_life_time"`
	Preferred int64  `json:"preferred_life_time"`
}

// has gives the address on a node's eth0; false if it isn't there.
func (v *node) has(address string) (bound, bool) {
	v.t.Helper()
	var links []struct {
		Addresses []bound `json:"addr_info"`
	}
	if err := json.Unmarshal(v.in(v.space, "-j address show dev eth0"), &links); err != nil {
		v.t.Fatal(err)
	}
	for _, l := range links {
		for _, a := range l.Addresses {
			if fmt.Sprintf("%s/%d", a.Local, a.Prefix) == address {
				return a, true
			}
		}
	}
	return bound{}, false
}

// mac is the Ethernet address of a node's eth0.
func (v *node) mac() string {
	v.t.Helper()
	var links []struct {
		Address string `json:"address"`
	}
	if err := json.Unmarshal(v.in(v.space, "-j link show dev eth0"), &links); err != nil || len(links) != 1 {
		v.t.Fatal(err)
	}
	return links[0].Address
}

// neighbour is what the switch's namespace remembers of who has an address.
func (n *network) neighbour(address string) string {
	n.t.Helper()
	var all []struct {
		To  string `json:"dst"`
		MAC string `json:"lladdr"`
	}
	if err := json.Unmarshal(n.in("switch", "-j neighbour show dev br0"), &all); err != nil {
		n.t.Fatal(err)
	}
	for _, a := range all {
		if a.To == address {
			return a.MAC
		}
	}
	return ""
}

// who asks from the switch's namespace who answers at an address.
func (n *network) who(address string) string {
	n.t.Helper()
	name, err := n.program("switch", nil, "VIP_ROLE=who", "VIP_ADDRESS="+address).Output()
	if err != nil {
		n.t.Fatalf("nobody answers at %s: %v", address, err)
	}
	return strings.TrimSpace(string(name))
}

// until waits for a condition, and gives how long that took.
func (n *network) until(within time.Duration, what string, holds func() bool) time.Duration {
	n.t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > within {
			n.t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}
