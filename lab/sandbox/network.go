package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/pgporter/pgporter/lab/sandbox/netns"
)

// Client is the node of the documents' network that belongs to no cluster: from where clients come.
const Client = "client"

// Last octets of what the documents' network has beside members.
const (
	clientHost = 100
	// A cluster's virtual address.
	metaVIP, mainVIP, standbyVIP = 2, 3, 4
)

// lan is the network of Config.Netns. Its name follows from the directory, so that whatever is left of it can be found.
func (l layout) lan() netns.LAN {
	name := "pgporter"
	if l.config.Dir != DefaultDir() {
		sum := sha256.Sum256([]byte(l.config.Dir))
		name += hex.EncodeToString(sum[:4])
	}
	at := func(host int) netip.Prefix {
		address, err := netip.ParseAddr(l.address(host))
		if err != nil {
			return netip.Prefix{} // Up refuses it
		}
		return netip.PrefixFrom(address, 24)
	}
	network := netns.LAN{Name: name, Resolver: at(metaHost).Addr()}
	for _, m := range l.members {
		address, err := netip.ParseAddr(m.Address)
		if err == nil {
			network.Nodes = append(network.Nodes, netns.Node{Name: m.Name, Address: netip.PrefixFrom(address, 24)})
		}
	}
	network.Nodes = append(network.Nodes, netns.Node{Name: Client, Address: at(clientHost)})
	return network
}

// vip is a cluster's virtual address with its mask; empty on loopback addresses.
func (l layout) vip(cluster string) string {
	host := map[string]int{metaCluster: metaVIP, mainCluster: mainVIP, standbyCluster: standbyVIP}[cluster]
	if !l.config.Netns || host == 0 {
		return ""
	}
	return l.address(host) + "/24"
}

// node names the node that a part runs on: etcd shares the first one, as in the documents.
func (l layout) node(p part) string {
	if p.kind == etcdKind {
		return l.members[0].Name
	}
	return p.member.Name
}

// on runs f where a part's addresses are.
func (s *Sandbox) on(p part, f func() error) error {
	if !s.layout.config.Netns {
		return f()
	}
	return s.layout.lan().Do(s.layout.node(p), f)
}

// dial connects to an address of the sandbox. To a node it does so on that very node, as if sitting before it: what the sandbox
// asks and orders comes through whatever is cut.
func (s *Sandbox) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if !s.layout.config.Netns {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	node := Client
	if to, err := netip.ParseAddrPort(address); err == nil {
		if name, ok := s.layout.lan().At(to.Addr()); ok {
			node = name
		}
	}
	return s.layout.lan().Dial(ctx, node, network, address)
}

// resolver asks what the client's programs ask.
func (s *Sandbox) resolver() *net.Resolver {
	network := s.layout.lan()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, protocol, _ string) (net.Conn, error) {
		return network.Dial(ctx, Client, protocol, net.JoinHostPort(network.Resolver.String(), "53"))
	}}
}

// errNoNetwork is what operations on the network give where there is none.
var errNoNetwork = refused{errors.New("this sandbox is on loopback addresses: only one that was started with --netns has nodes and a network")}

// nodeName gives the node that a person means: client, etcd, a member by name, number or address.
func (s *Sandbox) nodeName(what string) (string, error) {
	if !s.layout.config.Netns {
		return "", errNoNetwork
	}
	switch what {
	case Client:
		return Client, nil
	case string(etcdKind):
		return s.layout.node(part{kind: etcdKind}), nil
	}
	m, err := s.layout.member(what)
	if err != nil {
		return "", inputErrorf("the sandbox has no node %q; there are: %s, %s", what, strings.Join(s.layout.memberNames(), ", "), Client)
	}
	return m.Name, nil
}

func (s *Sandbox) nodeNames(whats []string) ([]string, error) {
	var names []string
	for _, what := range whats {
		name, err := s.nodeName(what)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// HasNetwork says whether the sandbox is on the documents' network, in namespaces.
func (s *Sandbox) HasNetwork() bool { return s.layout.config.Netns }

// PasswordFile is a file for PGPASSFILE with the documents' users, on the documents' network: their URLs have no password.
func (s *Sandbox) PasswordFile() string { return s.layout.passwords() }

// Namespace is the name of a node's network namespace, for `ip netns exec`.
func (s *Sandbox) Namespace(node string) (string, error) {
	name, err := s.nodeName(node)
	if err != nil {
		return "", err
	}
	return s.layout.lan().Namespace(name), nil
}

// On runs f on a thread whose network is the node's: the sockets that f opens are on that node. f returns, and doesn't end
// its goroutine otherwise.
func (s *Sandbox) On(node string, f func() error) error {
	name, err := s.nodeName(node)
	if err != nil {
		return err
	}
	return s.layout.lan().Do(name, f)
}

// Dial connects from a node to a numeric address.
func (s *Sandbox) Dial(ctx context.Context, node, network, address string) (net.Conn, error) {
	name, err := s.nodeName(node)
	if err != nil {
		return nil, err
	}
	return s.layout.lan().Dial(ctx, name, network, address)
}

// Resolve asks the names' server for the addresses of a name, from the client. An address resolves to itself.
func (s *Sandbox) Resolve(ctx context.Context, name string) ([]string, error) {
	if !s.layout.config.Netns {
		return nil, errNoNetwork
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return []string{name}, nil
	}
	return s.resolver().LookupHost(ctx, strings.TrimSuffix(name, ".")+".")
}

// StartOn starts a program on a node, with the node's resolver.
func (s *Sandbox) StartOn(node string, cmd *exec.Cmd) error {
	name, err := s.nodeName(node)
	if err != nil {
		return err
	}
	return s.layout.lan().Start(name, cmd)
}

// Enter puts the calling thread, which the caller has locked, on a node for good.
func (s *Sandbox) Enter(node string) error {
	name, err := s.nodeName(node)
	if err != nil {
		return err
	}
	return s.layout.lan().Enter(name)
}

// Addresses are those that a node's interface has at the moment, virtual ones included.
func (s *Sandbox) Addresses(node string) ([]netip.Prefix, error) {
	name, err := s.nodeName(node)
	if err != nil {
		return nil, err
	}
	return s.layout.lan().Addresses(name)
}

// Cut has every frame vanish between a node and others, or all others if none is named; oneWay only those that it sends. The
// sandbox's own operations still reach every node.
func (s *Sandbox) Cut(oneWay bool, node string, others ...string) error {
	name, err := s.nodeName(node)
	if err != nil {
		return err
	}
	names, err := s.nodeNames(others)
	if err != nil {
		return err
	}
	if slices.Contains(names, name) {
		return inputErrorf("%s can't be cut off from itself", name)
	}
	return s.layout.lan().Cut(oneWay, name, names...)
}

// Unplug pulls the cables of nodes: their interfaces lose the carrier.
func (s *Sandbox) Unplug(nodes ...string) error {
	names, err := s.nodeNames(nodes)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.layout.lan().Unplug(name); err != nil {
			return err
		}
	}
	return nil
}

// Heal ends all cuts and plugs every cable in. What was killed stays so: Start starts it.
func (s *Sandbox) Heal() error {
	if !s.layout.config.Netns {
		return errNoNetwork
	}
	return s.layout.lan().Heal()
}

// Faults are what is cut and unplugged now.
func (s *Sandbox) Faults() (netns.Faults, error) {
	if !s.layout.config.Netns {
		return netns.Faults{}, errNoNetwork
	}
	return s.layout.lan().Faults()
}

// Lose is a member's machine without power: its link goes, all that runs on it is killed (etcd too on the node that has it),
// and addresses that it had taken are gone. Heal and Start bring it back.
func (s *Sandbox) Lose(ctx context.Context, node string) error {
	name, err := s.nodeName(node)
	if err != nil {
		return err
	}
	if name == Client {
		return inputErrorf("nothing of the sandbox runs on %s that could be lost; cut or unplug it", Client)
	}
	if err := s.layout.lan().Unplug(name); err != nil {
		return err
	}
	r, err := s.current()
	if err != nil {
		return err
	}
	// Together, as power goes: nobody may see another's end and still act on it. Patroni comes first, which would start
	// PostgreSQL anew; PostgreSQL's backends are found by their directory.
	var all []Process
	for _, p := range s.layout.parts() {
		if s.layout.node(p) != name {
			continue
		}
		if process, running := s.find(r, p); running {
			all = append(all, process)
		}
		if p.kind == postgresKind {
			all = append(all, postgresProcesses(s.layout.data(p.member))...)
		}
	}
	for _, process := range all {
		if err := process.signal(syscall.SIGKILL); err != nil && !errors.Is(err, errEnded) {
			return err
		}
	}
	for _, process := range all {
		if !process.wait(ctx, patienceKill) {
			return fmt.Errorf("process %d of %s hasn't ended within %s of being killed", process.PID, name, patienceKill)
		}
	}
	s.say("%s is lost: no link, %d processes killed", name, len(all))
	return s.layout.lan().Reset(name)
}
