// Package netns makes a small Ethernet inside this machine: nodes that each have a network namespace of their own, and a
// switch between them that can be set to lose frames. What runs on a node sees a network as on a machine of its own: real
// ARP, an interface whose cable can be pulled, addresses that nobody else has.
//
// Everything is in namespaces, the switch too. The root namespace gets no interface, no address and no route, so that
// nothing sent inside a LAN can leave it, and nothing outside can reach into it; who wants to talk to a node has to step into
// a namespace (Do, Dial, Enter). Several LANs may have the same addresses.
//
// What it owns: the named namespaces <LAN's name>-<node> in /run/netns, where `ip netns exec` finds them, and
// /etc/netns/<namespace>/resolv.conf. Remove takes both away by the LAN's name alone. The processes on the nodes are their
// starters'.
//
// Linux and root only (CAP_SYS_ADMIN and CAP_NET_ADMIN); cuts need nf_tables for bridges in the kernel (NF_TABLES_BRIDGE).
// Nothing else is needed: no program is run.
package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Interface is what every node's interface is called: the documents' pg_vip_interface.
const Interface = "eth1"

// switchNode is the name of the namespace that the switch is in.
const switchNode = "switch"

// Node is a host on the LAN.
type Node struct {
	// Name is also its port's on the switch: at most 15 bytes (IFNAMSIZ, netdevice(7)).
	Name string
	// Address is its own, with the length of the network's prefix.
	Address netip.Prefix
}

// LAN describes one; nothing is made before Up.
type LAN struct {
	// Name is letters and digits; it tells the LANs of a machine apart.
	Name  string
	Nodes []Node
	// Resolver is the DNS server that programs started by Start and Enter ask; the zero Addr leaves the machine's.
	Resolver netip.Addr
}

// Cut is a direction in which frames vanish on the switch.
type Cut struct {
	From string `json:"from"`
	To   string `json:"to"`
}

func (c Cut) String() string { return c.From + " > " + c.To }

// Faults are what is wrong with the LAN by order.
type Faults struct {
	Cuts []Cut `json:"cuts,omitempty"`
	// Unplugged are the nodes without a link.
	Unplugged []string `json:"unplugged,omitempty"`
}

// String tells each fault in a line of its own.
func (f Faults) String() string {
	if len(f.Cuts)+len(f.Unplugged) == 0 {
		return "the network is whole\n"
	}
	var b strings.Builder
	for _, c := range f.Cuts {
		fmt.Fprintf(&b, "lost: %s\n", c)
	}
	for _, node := range f.Unplugged {
		fmt.Fprintf(&b, "unplugged: %s\n", node)
	}
	return b.String()
}

// Namespace is the name of a node's namespace, for `ip netns exec`.
func (l LAN) Namespace(node string) string { return l.Name + "-" + node }

var (
	lanName  = regexp.MustCompile(`^[a-z0-9]{1,32}$`)
	nodeName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,14}$`)
)

// check refuses names that the kernel or Remove couldn't work with.
func (l LAN) check() error {
	if !lanName.MatchString(l.Name) {
		return fmt.Errorf("lan %q: a name is of lower-case letters and digits, 32 at most", l.Name)
	}
	seen := map[string]bool{switchNode: true}
	for _, n := range l.Nodes {
		if !nodeName.MatchString(n.Name) || seen[n.Name] {
			return fmt.Errorf("lan %s: node %q: a name of its own, of at most 15 lower-case letters, digits and hyphens", l.Name, n.Name)
		}
		if !n.Address.IsValid() || n.Address.Addr().IsLoopback() {
			return fmt.Errorf("lan %s: node %s: address %s: one with a prefix length, and no loopback address", l.Name, n.Name, n.Address)
		}
		seen[n.Name] = true
	}
	return nil
}

// node finds one by name.
func (l LAN) node(name string) (Node, error) {
	var names []string
	for _, n := range l.Nodes {
		if n.Name == name {
			return n, nil
		}
		names = append(names, n.Name)
	}
	return Node{}, fmt.Errorf("%w: %q; there are: %s", ErrNoNode, name, strings.Join(names, ", "))
}

// At gives the node that has an address; ok is false if none has.
func (l LAN) At(address netip.Addr) (name string, ok bool) {
	for _, n := range l.Nodes {
		if n.Address.Addr() == address {
			return n.Name, true
		}
	}
	return "", false
}

// ErrNoNode is what naming a node that isn't on the LAN gives.
var ErrNoNode = errors.New("no such node on the LAN")

// cutsBetween are those that separate a node from others (from all if none is named), in one direction or in both.
func (l LAN) cutsBetween(node string, others []string, oneWay bool) ([]Cut, error) {
	if _, err := l.node(node); err != nil {
		return nil, err
	}
	if len(others) == 0 {
		for _, n := range l.Nodes {
			if n.Name != node {
				others = append(others, n.Name)
			}
		}
	}
	var cuts []Cut
	for _, other := range others {
		if _, err := l.node(other); err != nil {
			return nil, err
		}
		if other == node {
			return nil, fmt.Errorf("%s can't be cut off from itself", node)
		}
		cuts = append(cuts, Cut{node, other})
		if !oneWay {
			cuts = append(cuts, Cut{other, node})
		}
	}
	return cuts, nil
}

// merged adds cuts to those that are there, each once.
func merged(present, more []Cut) []Cut {
	all := slices.Clone(present)
	for _, c := range more {
		if !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}
