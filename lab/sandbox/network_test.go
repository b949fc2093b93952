package sandbox

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

func TestNodes(t *testing.T) {
	s := &Sandbox{layout: mustLayout(t, Config{Netns: true, Standby: true})}
	for what, want := range map[string]string{
		"client": "client", "etcd": "pg-meta-1", "pg-meta-1": "pg-meta-1", "2": "pg-test-2", "10.10.10.13": "pg-test-3", "pg-standby-2": "pg-standby-2",
	} {
		if got, err := s.nodeName(what); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", what, got, err, want)
		}
	}
	for _, what := range []string{"", "4", "switch", "2/postgres", "10.10.10.3"} {
		if _, err := s.nodeName(what); !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), "there are: pg-meta-1, pg-test-1, pg-test-2, pg-test-3, pg-standby-1, pg-standby-2, client") {
			t.Errorf("%q: %v, want a list of what there is", what, err)
		}
	}
	if err := s.Cut(false, "1", "pg-test-1"); !errors.Is(err, ErrInput) {
		t.Errorf("cut off from itself: %v", err)
	}
	if err := s.Lose(t.Context(), Client); !errors.Is(err, ErrInput) {
		t.Errorf("the client lost: %v", err)
	}
	network := s.layout.lan()
	for address, want := range map[string]string{"10.10.10.10": "pg-meta-1", "10.10.10.12": "pg-test-2", "10.10.10.22": "pg-standby-2", "10.10.10.100": Client, "10.10.10.3": ""} {
		if got, _ := network.At(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s is %q's, want %q", address, got, want)
		}
	}
}

// TestNetworkNames: sandboxes of different directories have different namespaces, and none begins as another's.
func TestNetworkNames(t *testing.T) {
	first := mustLayout(t, Config{Netns: true, Dir: DefaultDir()}).lan()
	second := mustLayout(t, Config{Netns: true, Dir: "/srv/second"}).lan()
	if got := first.Namespace(Client); got != "pgporter-client" {
		t.Errorf("the usual sandbox's client is in %s", got)
	}
	if strings.HasPrefix(second.Namespace(Client), first.Name+"-") || second.Name == mustLayout(t, Config{Netns: true, Dir: "/srv/third"}).lan().Name {
		t.Errorf("namespaces %s could be another sandbox's", second.Namespace(Client))
	}
}

func TestNoNetwork(t *testing.T) {
	s := &Sandbox{layout: mustLayout(t, Config{})}
	ran := false
	run := func() error { ran = true; return nil }
	_, namespace := s.Namespace("1")
	_, dial := s.Dial(t.Context(), "1", "tcp", "127.0.1.11:5432")
	_, resolve := s.Resolve(t.Context(), "pg-test")
	_, addresses := s.Addresses("1")
	_, faults := s.Faults()
	for what, err := range map[string]error{
		"Namespace": namespace, "Dial": dial, "Resolve": resolve, "Addresses": addresses, "Faults": faults,
		"On": s.On("1", run), "StartOn": s.StartOn("1", exec.Command("true")), "Enter": s.Enter("1"),
		"Cut": s.Cut(false, "1"), "Unplug": s.Unplug("1"), "Lose": s.Lose(t.Context(), "1"), "Heal": s.Heal(),
	} {
		if !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), "--netns") {
			t.Errorf("%s on loopback addresses: %v", what, err)
		}
	}
	if ran {
		t.Error("On ran its function")
	}
}
