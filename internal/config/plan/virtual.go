package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// withVIP gives a node's clusters with the virtual address of its own, if it has one.
func (p *planner) withVIP(h *inventory.Host, clusters []model.Cluster) []model.Cluster {
	c, isMember := p.of[h]
	if !isMember {
		return clusters
	}
	i := slices.IndexFunc(clusters, func(seen model.Cluster) bool { return seen.Name == c.name })
	v := p.virtualIP(c, h)
	if i < 0 || v == nil {
		return clusters
	}
	if ttl := clusters[i].TTL; ttl < model.LeastVIPTTL {
		pos, _ := h.Position("pg_vip_enabled")
		p.problems.Errorf(diag.VIPTTLTooShort, pos, "a row of pg_rto_plan with a ttl of at least 10", "the virtual address of cluster %q can't follow a leader key with a ttl of %d s", c.name, ttl)
		return clusters
	}
	clusters = slices.Clone(clusters)
	clusters[i].VIP = v
	return clusters
}

// virtualIP reads what a member's node is to know of the virtual address; nil if there is none, or none that can be used.
func (p *planner) virtualIP(c *cluster, h *inventory.Host) *model.VirtualIP {
	address, _, ok := p.virtual(h)
	onLoss := p.onLoss(h)
	if !ok {
		return nil
	}
	device := p.text(h, "pg_vip_interface", "auto", "the name of a network interface, as in eth0", model.IsInterface)
	if device == "" || onLoss == "" || !p.ownAddress(c, h, address) {
		return nil
	}
	if strings.EqualFold(device, "auto") {
		device = ""
	}
	for _, m := range p.declared(c) {
		if m.host == h && !m.unsound["pg_seq"] {
			return &model.VirtualIP{Address: address, Interface: device, Member: m.Name, Host: m.Host, OnLoss: onLoss}
		}
	}
	return nil
}

// onLoss reads pgporter_vip_on_dcs_loss, this program's own variable. Empty if it can't be used.
func (p *planner) onLoss(h *inventory.Host) model.OnLoss {
	v, set := p.variable(h, "pgporter_vip_on_dcs_loss")
	if !set {
		return model.GraceOnLoss
	}
	text, _ := v.Text()
	if !slices.Contains(model.LossPolicies, model.OnLoss(text)) {
		p.problems.Errorf(diag.WordUnknown, v.Pos(), "grace, keep or drop", "pgporter_vip_on_dcs_loss is %s", v.Describe())
		return ""
	}
	return model.OnLoss(text)
}

// virtualUse is a virtual address as the inventory gives it to somebody.
type virtualUse struct {
	// cluster is whose it is; nil for a node's own, which keepalived has (vip_address).
	cluster *cluster
	host    *inventory.Host
	pos     diag.Position
}

func (u virtualUse) String() string {
	if u.cluster == nil {
		return "the vip_address of " + u.host.Name
	}
	return fmt.Sprintf("that of cluster %q", u.cluster.name)
}

// virtualKey is what makes two uses of an address one: the cluster, or for a node's own the place where it is written.
type virtualKey struct {
	address netip.Addr
	cluster *cluster
	pos     diag.Position
}

// virtualsAt gives who has an address for a virtual one.
func (p *planner) virtualsAt(address netip.Addr) []virtualUse {
	if p.virtuals == nil {
		p.virtuals = map[netip.Addr][]virtualUse{}
		// Each is noted once for a cluster, and once for what is written for several nodes.
		noted := map[virtualKey]bool{}
		take := func(address netip.Addr, u virtualUse) {
			key := virtualKey{address, u.cluster, u.pos}
			if u.cluster != nil {
				key.pos = diag.Position{}
			}
			if !noted[key] {
				noted[key] = true
				p.virtuals[address] = append(p.virtuals[address], u)
			}
		}
		kept := p.problems
		for _, h := range p.inv.Hosts() {
			if c := p.of[h]; c != nil {
				if taken, _, ok := p.virtual(h); ok {
					pos, _ := h.Position("pg_vip_address")
					take(taken.Addr(), virtualUse{c, h, pos})
				}
			}
			if p.flag(h, "vip_enabled", false) {
				v, _ := p.variable(h, "vip_address")
				text, _ := v.Text()
				if prefix, err := netip.ParsePrefix(text); err == nil {
					text = prefix.Addr().String()
				}
				if taken, err := netip.ParseAddr(text); err == nil {
					take(taken, virtualUse{nil, h, v.Pos()})
				}
			}
		}
		p.problems = kept
	}
	return p.virtuals[address]
}

// ownAddress tells whether a virtual address is one that a node may take: nobody else's, as far as the inventory says.
func (p *planner) ownAddress(c *cluster, h *inventory.Host, prefix netip.Prefix) bool {
	address := prefix.Addr()
	const want = "an address of its own"
	v, _ := p.variable(h, "pg_vip_address")
	if prefix.Bits() == 0 || address.IsUnspecified() || address.IsLoopback() && !isLoopback(h.Name) || address.IsMulticast() || address.Zone() != "" ||
		address.Is4() && reserved.Contains(address) || address.Is6() && address.IsLinkLocalUnicast() {
		p.problems.Errorf(diag.VIPAddressInvalid, v.Pos(), "an address that a network interface can have, with the length of its network", "pg_vip_address is %s", v.Describe())
		return false
	}
	if what := networksOwn(prefix); what != "" {
		p.problems.Errorf(diag.VIPAddressInvalid, v.Pos(), want, "pg_vip_address %s of cluster %q is %s of the network %s", address, c.name, what, prefix.Masked())
		return false
	}
	for _, other := range p.virtualsAt(address) {
		if other.cluster == c {
			continue
		}
		if other.cluster != nil && other.pos == v.Pos() {
			// Both have it from one place: that is one problem.
			one, two := min(c.name, other.cluster.name), max(c.name, other.cluster.name)
			p.problems.Errorf(diag.VIPUsedTwice, v.Pos(), "an address for each", "pg_vip_address %s is that of cluster %q and of cluster %q", address, one, two)
		} else {
			p.problems.Errorf(diag.VIPUsedTwice, v.Pos(), want, "pg_vip_address %s of cluster %q is %s too (%s)", address, c.name, other, other.pos)
		}
		return false
	}
	if host := p.hostAt(address); host != nil {
		p.problems.Errorf(diag.VIPIsHost, v.Pos(), want, "pg_vip_address %s of cluster %q is the address of the host %s (%s)", address, c.name, host.Name, host.Pos)
		return false
	}
	kept := p.problems
	first, _, ok := p.virtual(p.viewpoint(c))
	if p.problems = kept; ok && first.Addr() != address {
		p.problems.Warnf(diag.VIPDiffers, v.Pos(), "one address for all members", "pg_vip_address of %s is %s, but that of %s is %s: the address changes with the leader", h.Name, address, p.viewpoint(c).Name, first.Addr())
	}
	p.warnOfNetwork(c, v.Pos(), prefix)
	return true
}

// networksOwn says what an address is to its network that no host can have; empty for nothing. Networks of one or two addresses have
// no such.
func networksOwn(prefix netip.Prefix) string {
	address := prefix.Addr()
	if address.BitLen()-prefix.Bits() < 2 {
		return ""
	}
	if address == prefix.Masked().Addr() {
		return "the first address, which stands for all"
	}
	bytes := address.AsSlice()
	for i := prefix.Bits(); i < address.BitLen(); i++ {
		bytes[i/8] |= 0x80 >> (i % 8)
	}
	if last, _ := netip.AddrFromSlice(bytes); address.Is4() && address == last {
		return "the broadcast address"
	}
	return ""
}

// warnOfNetwork tells of members that aren't in the network of the virtual address: whoever looks for it there doesn't find it at them.
func (p *planner) warnOfNetwork(c *cluster, pos diag.Position, prefix netip.Prefix) {
	if prefix.IsSingleIP() || c.networks[prefix] {
		return
	}
	c.networks[prefix] = true
	var outside []string
	known := 0
	for _, h := range c.hosts {
		// One that is called by its address of the other family may have one of this as well.
		address, is := hostAddress(h)
		if !is || address.Is4() != prefix.Addr().Is4() {
			continue
		}
		known++
		if !prefix.Contains(address) {
			outside = append(outside, h.Name)
		}
	}
	who := strings.Join(outside, ", ")
	switch {
	case len(outside) == 0:
		return
	case len(outside) == known && known > 1:
		who = "none of the members is"
	case len(outside) > 1:
		who += " are not"
	default:
		who += " is not"
	}
	p.problems.Warnf(diag.VIPOutsideNetwork, pos, "an address of the members' network, or members that have an interface in it, named by pg_vip_interface",
		"pg_vip_address of cluster %q is in the network %s, and %s", c.name, prefix.Masked(), who)
}

// warnOfNodeVIPs tells of addresses of nodes' own (vip_address, keepalived's) that nodes have already.
func (p *planner) warnOfNodeVIPs() {
	p.virtualsAt(netip.Addr{})
	for address, uses := range p.virtuals {
		for _, u := range uses {
			if u.cluster != nil {
				continue
			}
			if host := p.hostAt(address); host != nil {
				p.problems.Warnf(diag.VIPIsHost, u.pos, "an address of its own", "vip_address %s is the address of the host %s (%s)", address, host.Name, host.Pos)
			}
			// The nodes of one group share theirs.
			if first := uses[0]; first.cluster == nil && !slices.ContainsFunc(u.host.GroupNames(), func(g string) bool { return slices.Contains(first.host.GroupNames(), g) }) {
				p.problems.Warnf(diag.VIPUsedTwice, u.pos, "an address of its own", "vip_address %s of %s is %s too (%s)", address, u.host.Name, first, first.pos)
			}
		}
	}
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}
