package vip

import (
	"context"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

func contextUntilQuit() (context.Context, context.CancelFunc) {
	return context.WithCancel(context.Background())
}

// families are the kinds of addresses that every test is run with.
var families = []struct{ name, prefix string }{{"IPv4", "10.10.10.3/24"}, {"IPv6", "fd00::3/64"}}

func both(t *testing.T, test func(t *testing.T, n *network, prefix, address string)) {
	t.Parallel()
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			test(t, newNetwork(t), f.prefix, netip.MustParsePrefix(f.prefix).Addr().String())
		})
	}
}

// TestMoves: the address follows the key, others learn at once where it is without having asked, and a stop releases it.
func TestMoves(t *testing.T) {
	both(t, func(t *testing.T, n *network, prefix, address string) {
		one, two := n.nodes[0], n.nodes[1]
		one.keep(prefix, one.name)
		two.keep(prefix, one.name)
		n.until(time.Minute, "the address is on the first node", func() bool { _, there := one.has(prefix); return there })
		a, _ := one.has(prefix)
		if a.Valid < 6 || a.Valid > 8 || a.Preferred > a.Valid {
			t.Errorf("its lifetime is %+v, want at most 8 s with a TTL of %v", a, ttl)
		}
		if _, there := two.has(prefix); there {
			t.Error("it is on the second node too")
		}
		if name := n.who(address); name != one.name {
			t.Errorf("%s answers", name)
		}
		if mac := n.neighbour(address); mac != one.mac() {
			t.Errorf("the switch remembers %s, want %s", mac, one.mac())
		}

		// The key moves. Nobody asks anything meanwhile, and the switch knows all the same.
		began := time.Now()
		one.tell("key " + two.name)
		two.tell("key " + two.name)
		n.until(2*time.Second, "the switch remembers the second node", func() bool { return n.neighbour(address) == two.mac() })
		t.Logf("%v from the key's move until a neighbour that hadn't asked knew", time.Since(began).Round(time.Millisecond))
		if _, there := one.has(prefix); there {
			t.Error("it is on the first node still")
		}
		if name := n.who(address); name != two.name {
			t.Errorf("%s answers", name)
		}
		for _, v := range n.nodes {
			if strings.Contains(v.log.String(), "level=ERROR") || strings.Contains(v.log.String(), "level=WARN") {
				t.Errorf("%s has something to complain of:\n%s", v.name, v.log.String())
			}
		}
		two.quit()
		if _, there := two.has(prefix); there {
			t.Error("it is still there after a stop")
		}
	})
}

// TestStandsStill: a node whose program is stopped or killed loses the address by itself, within the TTL; the other one
// complains for as long as both have it.
func TestStandsStill(t *testing.T) {
	for _, end := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		t.Run(end.String(), func(t *testing.T) {
			both(t, func(t *testing.T, n *network, prefix, address string) {
				one, two := n.nodes[0], n.nodes[1]
				one.keep(prefix, one.name)
				two.keep(prefix, one.name)
				n.until(time.Minute, "the address is on the first node", func() bool { _, there := one.has(prefix); return there })
				if err := one.process.Process.Signal(end); err != nil {
					t.Fatal(err)
				}
				if end == syscall.SIGKILL {
					one.kill()
				}
				two.tell("key " + two.name)
				n.until(2*time.Second, "the address is on the second node", func() bool { _, there := two.has(prefix); return there })
				both := time.Now()
				if _, there := one.has(prefix); !there {
					t.Fatal("the first node has lost it too soon for this test")
				}
				n.until(5*time.Second, "the second node tells of the other holder", func() bool {
					return strings.Contains(two.log.String(), one.mac()+" has the virtual address "+prefix+" too")
				})
				n.until(ttl, "the first node has lost the address", func() bool { _, there := one.has(prefix); return !there })
				t.Logf("both had it for %.1f s, the TTL is %v", time.Since(both).Seconds(), ttl)
				if name := n.who(address); name != two.name {
					t.Errorf("%s answers", name)
				}
				if end != syscall.SIGSTOP {
					return
				}
				// It wakes up with what it knew when it fell asleep, and hears the truth a moment later.
				one.tell("key " + two.name)
				if err := one.process.Process.Signal(syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
				n.until(5*time.Second, "the first node notices", func() bool {
					return strings.Contains(one.log.String(), "its time was over")
				})
				n.until(5*time.Second, "it isn't back", func() bool { _, there := one.has(prefix); return !there })
			})
		})
	}
}

// TestHandOver: a successor takes over what was handed over, and the address is there all the time.
func TestHandOver(t *testing.T) {
	both(t, func(t *testing.T, n *network, prefix, _ string) {
		one := n.nodes[0]
		one.keep(prefix, one.name)
		n.until(time.Minute, "the address is there", func() bool { _, there := one.has(prefix); return there })
		one.tell("hand over")
		one.quit()
		if _, there := one.has(prefix); !there {
			t.Fatal("it is gone")
		}
		// What is left shrinks by a second before the successor comes, so that its renewal can be seen.
		n.until(4*time.Second, "the rest shrinks", func() bool { a, _ := one.has(prefix); return a.Valid < 6 })
		one.keep(prefix, one.name)
		n.until(4*time.Second, "it is renewed", func() bool {
			a, there := one.has(prefix)
			if !there {
				t.Fatal("it is gone")
			}
			return a.Valid > 6
		})
	})
}

// TestWithout: what is missing is said, and mended when it is there.
func TestWithout(t *testing.T) {
	t.Parallel()
	t.Run("interface", func(t *testing.T) {
		t.Parallel()
		n := newNetwork(t)
		one := n.nodes[0]
		one.keep("10.10.10.3/24", one.name, "VIP_INTERFACE=eth7")
		n.until(time.Minute, "it is said", func() bool {
			return strings.Contains(one.log.String(), "there is no network interface eth7")
		})
		n.in(one.space, "link set eth0 down")
		n.in(one.space, "link set eth0 name eth7")
		n.in(one.space, "link set eth7 up")
		n.until(time.Minute, "it is bound", func() bool {
			return strings.Contains(one.log.String(), "is on eth7 now")
		})
	})
	t.Run("capability", func(t *testing.T) {
		t.Parallel()
		n := newNetwork(t)
		one := n.nodes[0]
		one.keepWrapped([]string{"setpriv", "--bounding-set", "-net_admin,-net_raw"}, "10.10.10.3/24", one.name)
		n.until(time.Minute, "it is said", func() bool {
			return strings.Contains(one.log.String(), "pgporter lacks CAP_NET_ADMIN and CAP_NET_RAW")
		})
		if name := n.who("10.10.10.11"); name != one.name {
			t.Errorf("%s answers: the rest doesn't go on", name)
		}
	})
}
