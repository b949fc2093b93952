package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/pgporter/pgporter/lab/sandbox"
)

const (
	// ours is the virtual address that pgporter keeps, theirs the one that vip-manager does, beside it in the same cluster.
	ours   = "10.10.10.3/24"
	theirs = "10.10.10.7/24"
	// namePort is where each node tells its name.
	namePort = "7070"
	// sandboxTTL is how long the leader key lives in a sandbox.
	sandboxTTL = 20 * time.Second
)

// TestVirtualAddress is a cluster on the documents' network whose pgporters keep the virtual address: it moves at a switchover,
// as soon as a promotion beside Debian's vip-manager, and is never on two nodes for longer than the leader key lives, whatever
// happens to pgporters, etcd and the network.
func TestVirtualAddress(t *testing.T) {
	t.Parallel()
	c := upOnNetwork(t)
	for _, m := range c.members() {
		c.tellName(m)
	}
	c.soleHolder(t, patience, "pg-test-1")
	t.Run("upgrade", func(t *testing.T) { virtualUpgrade(t, c, "pg-test-1") })
	t.Run("switchover", func(t *testing.T) { virtualSwitchover(t, c) })
	t.Run("chaos", func(t *testing.T) { virtualChaos(t, c) })
}

// members are the names of pg-test's.
func (c *cluster) members() []string {
	var names []string
	for _, m := range c.Declared() {
		if m.Cluster == "pg-test" {
			names = append(names, m.Name)
		}
	}
	return names
}

// tellName has a node say its name to whoever connects to any of its addresses.
func (c *cluster) tellName(node string) {
	c.t.Helper()
	var listener net.Listener
	err := c.On(node, func() (err error) {
		listener, err = net.Listen("tcp", ":"+namePort)
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, node)
			conn.Close()
		}
	}()
}

// holders are the members that have an address.
func (c *cluster) holders(address string) []string {
	var holders []string
	for _, m := range c.members() {
		all, err := c.Addresses(m)
		if err == nil && slices.Contains(all, netip.MustParsePrefix(address)) {
			holders = append(holders, m)
		}
	}
	return holders
}

// soleHolder waits until a member alone has our address.
func (c *cluster) soleHolder(t *testing.T, within time.Duration, member string) {
	t.Helper()
	eventually(t, within, func(context.Context) error {
		if got := c.holders(ours); !slices.Equal(got, []string{member}) {
			return fmt.Errorf("%s is on %v, want %s", ours, got, member)
		}
		return nil
	})
}

// soleHolderBut waits until one member alone has our address, another one than but, and gives its name.
func (c *cluster) soleHolderBut(t *testing.T, within time.Duration, but string) string {
	t.Helper()
	var holder string
	eventually(t, within, func(context.Context) error {
		got := c.holders(ours)
		if len(got) != 1 || got[0] == but {
			return fmt.Errorf("%s is on %v", ours, got)
		}
		holder = got[0]
		return nil
	})
	return holder
}

// visitor asks again and again, from the client's node, who answers at an address.
type visitor struct {
	mu   sync.Mutex
	seen map[string]time.Time // each name's first answer since forget
}

func (v *visitor) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.seen = map[string]time.Time{}
}

func (v *visitor) first(name string) (time.Time, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	at, there := v.seen[name]
	return at, there
}

// visit begins visits every 10 ms until the test ends. The client's neighbour table stays warm by them.
func (c *cluster) visit(t *testing.T, address string) *visitor {
	v := &visitor{}
	v.forget()
	host, _, _ := strings.Cut(address, "/")
	ctx, cancel := context.WithCancel(context.Background())
	var joined sync.WaitGroup
	joined.Go(func() {
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			joined.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
				defer cancel()
				conn, err := c.Dial(ctx, sandbox.Client, "tcp", net.JoinHostPort(host, namePort))
				if err != nil {
					return
				}
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
				name, _ := io.ReadAll(conn)
				v.mu.Lock()
				defer v.mu.Unlock()
				if _, there := v.seen[string(name)]; !there && len(name) > 0 {
					v.seen[string(name)] = time.Now()
				}
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		joined.Wait()
	})
	return v
}

// virtualUpgrade has processes take over from the pgporter that keeps the address, one after the other: it stays all the time.
func virtualUpgrade(t *testing.T, c *cluster, holder string) {
	c.t = t
	ctx, stop := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	defer looking.Wait()
	defer stop()
	looks := 0
	looking.Go(func() {
		again := time.NewTicker(25 * time.Millisecond)
		defer again.Stop()
		for ; ctx.Err() == nil; looks++ {
			<-again.C
			if got := c.holders(ours); !slices.Equal(got, []string{holder}) {
				t.Errorf("look %d: %s is on %v", looks, ours, got)
				return
			}
		}
	})
	for range 5 {
		before, _ := c.PID(holder + "/pgporter")
		if err := c.Kill(t.Context(), syscall.SIGUSR2, holder+"/pgporter"); err != nil {
			t.Fatal(err)
		}
		eventually(t, patience, func(context.Context) error {
			if now, running := c.PID(holder + "/pgporter"); !running || now == before {
				return fmt.Errorf("process %d is still the one", before)
			}
			return nil
		})
	}
	stop()
	looking.Wait()
	t.Logf("looked %d times", looks)
}

// virtualSwitchover measures how soon after a promotion a client that knew the old holder reaches the new one, by pgporter and by
// vip-manager in the same switchovers. Promotion is when etcd tells that the new leader has the key.
func virtualSwitchover(t *testing.T, c *cluster) {
	c.t = t
	keys := c.etcdClient(t)
	mirror := c.mirror(t, keys)
	for _, m := range c.members() {
		c.vipManager(t, m)
	}
	eventually(t, patience, func(context.Context) error {
		if got := c.holders(theirs); !slices.Equal(got, []string{"pg-test-1"}) {
			return fmt.Errorf("%s is on %v", theirs, got)
		}
		return nil
	})
	byOurs, byTheirs := c.visit(t, ours), c.visit(t, theirs)
	to := "pg-test-2"
	eventually(t, patience, func(context.Context) error {
		for _, v := range []*visitor{byOurs, byTheirs} {
			if _, there := v.first("pg-test-1"); !there {
				return fmt.Errorf("the client doesn't reach pg-test-1")
			}
		}
		return nil
	})
	byOurs.forget()
	byTheirs.forget()
	if _, err := c.Switchover(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	promoted, delay := mirror.took(t, to)
	took := func(v *visitor) time.Duration {
		var at time.Time
		eventually(t, patience, func(context.Context) error {
			var there bool
			if at, there = v.first(to); !there {
				return fmt.Errorf("nobody has reached %s", to)
			}
			return nil
		})
		return at.Sub(promoted).Round(time.Millisecond)
	}
	a, b := took(byOurs), took(byTheirs)
	t.Logf("from the promotion until a client that knew the old holder reached the new one: %v by pgporter, %v by vip-manager (its key was mirrored %v after the promotion)", a, b, delay.Round(time.Millisecond))
	if a > b {
		t.Errorf("pgporter took %v, vip-manager %v", a, b)
	}
	c.soleHolder(t, 5*time.Second, to)
}

// etcdClient is a client of the sandbox's etcd.
func (c *cluster) etcdClient(t *testing.T) *clientv3.Client {
	t.Helper()
	const address = "10.10.10.10:2379"
	dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return c.Dial(ctx, "pg-meta-1", "tcp", address)
	})
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + address}, Logger: zap.NewNop(), DialOptions: []grpc.DialOption{dial}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// mirrored is a second etcd with the old API, into whose keys the leader key is copied.
type mirrored struct {
	mu sync.Mutex
	// when each member's promotion was heard of, and how much later its copy was there.
	heard  map[string]time.Time
	copied map[string]time.Duration
}

// mirror copies the leader key to http://10.10.10.100:2379/v2/keys/pg/pg-test/leader until the test ends.
func (c *cluster) mirror(t *testing.T, keys *clientv3.Client) *mirrored {
	t.Helper()
	const base = "http://10.10.10.100:2379"
	const peer = "http://10.10.10.100:2380"
	old := exec.Command("etcd", "--name", "old", "--data-dir", t.TempDir(), "--enable-v2", "--listen-client-urls", base, "--advertise-client-urls", base,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "old="+peer)
	c.startOn(t, sandbox.Client, old)
	web := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return c.Dial(ctx, sandbox.Client, network, address)
	}}}
	t.Cleanup(web.CloseIdleConnections)
	write := func(ctx context.Context, holder string) error {
		method, body := http.MethodPut, io.Reader(strings.NewReader(url.Values{"value": {holder}}.Encode()))
		if holder == "" {
			method, body = http.MethodDelete, nil
		}
		request, err := http.NewRequestWithContext(ctx, method, base+"/v2/keys/pg/pg-test/leader", body)
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer, err := web.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		io.Copy(io.Discard, answer.Body)
		if answer.StatusCode >= 300 && answer.StatusCode != http.StatusNotFound {
			return fmt.Errorf("etcd's old API: %s", answer.Status)
		}
		return nil
	}
	m := &mirrored{heard: map[string]time.Time{}, copied: map[string]time.Duration{}}
	now, err := keys.Get(t.Context(), "/pg/pg-test/leader")
	if err != nil || len(now.Kvs) != 1 {
		t.Fatalf("the leader key: %v, %v", now, err)
	}
	eventually(t, patience, func(ctx context.Context) error { return write(ctx, string(now.Kvs[0].Value)) })
	ctx, cancel := context.WithCancel(context.Background())
	changes := keys.Watch(ctx, "/pg/pg-test/leader", clientv3.WithRev(now.Header.Revision+1))
	var joined sync.WaitGroup
	joined.Go(func() {
		for change := range changes {
			for _, e := range change.Events {
				heard := time.Now()
				holder := string(e.Kv.Value)
				if err := write(ctx, holder); err != nil && ctx.Err() == nil {
					t.Errorf("mirroring %q: %v", holder, err)
				}
				m.mu.Lock()
				m.heard[holder], m.copied[holder] = heard, time.Since(heard)
				m.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		joined.Wait()
	})
	return m
}

// took gives when a member's promotion was heard of, and how much later its copy was there.
func (m *mirrored) took(t *testing.T, member string) (promoted time.Time, delay time.Duration) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.heard[member].IsZero() {
		t.Fatalf("the key never named %s", member)
	}
	return m.heard[member], m.copied[member]
}

// vipManager runs vip-manager for their address on a member's node, as Pigsty sets it up, until the test ends.
func (c *cluster) vipManager(t *testing.T, member string) {
	t.Helper()
	host, bits, _ := strings.Cut(theirs, "/")
	c.startOn(t, member, exec.Command("vip-manager", "--ip", host, "--netmask", bits, "--interface", "eth1", "--trigger-key", "/pg/pg-test/leader",
		"--trigger-value", member, "--dcs-endpoints", "http://10.10.10.100:2379", "--interval", "1000"))
}

// startOn runs a program on a node until the test ends.
func (c *cluster) startOn(t *testing.T, node string, program *exec.Cmd) {
	t.Helper()
	var log strings.Builder
	program.Stdout, program.Stderr = &log, &log
	if err := c.StartOn(node, program); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		program.Process.Kill()
		program.Wait()
		if t.Failed() {
			t.Logf("%s on %s:\n%s", program.Path, node, log.String()[max(0, log.Len()-3000):])
		}
	})
}

// overlap is for how long each two members had the address together without a break.
type overlap struct {
	since   map[[2]string]time.Time
	longest map[[2]string]time.Duration
}

// watchHolders looks every 50 ms who has our address until stop is called, which gives for how long two had it at most.
func (c *cluster) watchHolders(t *testing.T) (stop func() map[[2]string]time.Duration) {
	o := &overlap{since: map[[2]string]time.Time{}, longest: map[[2]string]time.Duration{}}
	ctx, cancel := context.WithCancel(context.Background())
	var joined sync.WaitGroup
	joined.Go(func() {
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				o.note(c.holders(ours), time.Now())
			}
		}
	})
	end := sync.OnceFunc(func() {
		cancel()
		joined.Wait()
	})
	t.Cleanup(end)
	return func() map[[2]string]time.Duration {
		end()
		return o.longest
	}
}

func (o *overlap) note(holders []string, now time.Time) {
	pairs := map[[2]string]bool{}
	for i, a := range holders {
		for _, b := range holders[i+1:] {
			pairs[[2]string{a, b}] = true
		}
	}
	for pair := range pairs {
		if _, there := o.since[pair]; !there {
			o.since[pair] = now
		}
		o.longest[pair] = max(o.longest[pair], now.Sub(o.since[pair]))
	}
	for pair := range o.since {
		if !pairs[pair] {
			delete(o.since, pair)
		}
	}
}

// virtualChaos has every kind of fault happen while somebody looks who has the address: a pgporter that hangs and one
// that is killed while their members lose the lead, an etcd that is lost for a while, and a leader that is cut off.
func virtualChaos(t *testing.T, c *cluster) {
	c.t = t
	stop := c.watchHolders(t)
	switchTo := func(member string) {
		t.Helper()
		if _, err := c.Switchover(t.Context(), member); err != nil {
			t.Fatal(err)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// Three have it in the end, of which two can't know.
	do(c.Kill(t.Context(), syscall.SIGSTOP, "pg-test-2/pgporter"))
	switchTo("pg-test-3")
	do(c.Kill(t.Context(), syscall.SIGKILL, "pg-test-3/pgporter"))
	switchTo("pg-test-1")
	if got := c.holders(ours); !slices.Contains(got, "pg-test-1") || len(got) < 2 {
		t.Errorf("%v have the address: this doesn't try what it is meant to", got)
	}
	c.soleHolder(t, sandboxTTL, "pg-test-1")
	do(c.Kill(t.Context(), syscall.SIGCONT, "pg-test-2/pgporter"))
	do(c.Start(t.Context(), "pg-test-3/pgporter"))
	c.soleHolder(t, 5*time.Second, "pg-test-1")

	// etcd is away until everybody has noticed. Patroni may give the primary up over that; whoever leads then has the address.
	do(c.Kill(t.Context(), syscall.SIGSTOP, "etcd"))
	eventually(t, patience, func(ctx context.Context) error {
		if text := c.log("pg-test-1/pgporter"); !strings.Contains(text, "pg-test: etcd is lost") {
			return fmt.Errorf("pgporter hasn't noticed that etcd is lost")
		}
		return nil
	})
	do(c.Kill(t.Context(), syscall.SIGCONT, "etcd"))
	leader := c.soleHolderBut(t, sandboxTTL+patience, "")

	// The leader is cut off with its etcd out of reach: another one is elected, and only then gets the address.
	do(c.Cut(false, leader))
	began := time.Now()
	next := c.soleHolderBut(t, sandboxTTL+patience, leader)
	t.Logf("%.1f s from the partition until %s alone had the address instead of %s", time.Since(began).Seconds(), next, leader)
	do(c.Heal())
	for pair, d := range stop() {
		t.Logf("%s and %s both had the address for %.1f s at most", pair[0], pair[1], d.Seconds())
		if d > sandboxTTL {
			t.Errorf("%s and %s both had the address for %v; the leader key lives for %v", pair[0], pair[1], d, sandboxTTL)
		}
	}
}
