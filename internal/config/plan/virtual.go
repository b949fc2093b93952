package plan

import (
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

// ownAddress tells whether a virtual address is one that a node may take: nobody else's, as far as the inventory says.
func (p *planner) ownAddress(c *cluster, h *inventory.Host, prefix netip.Prefix) bool {
	address := prefix.Addr()
	const want = "an address of its own"
	v, _ := p.variable(h, "pg_vip_address")
	if prefix.Bits() == 0 || address.IsUnspecified() || address.IsLoopback() && !isLoopback(h.Name) || address.IsMulticast() || address.Zone() != "" {
		p.problems.Errorf(diag.VIPAddressInvalid, v.Pos(), "an address that a network interface can have, with the length of its network", "pg_vip_address is %s", v.Describe())
		return false
	}
	if p.virtuals == nil {
		p.virtuals = map[netip.Addr][]*cluster{}
		kept := p.problems
		for _, other := range p.clusters {
			if taken, _, ok := p.virtual(p.viewpoint(other)); ok {
				p.virtuals[taken.Addr()] = append(p.virtuals[taken.Addr()], other)
			}
		}
		p.problems = kept
	}
	for _, other := range p.virtuals[address] {
		if other == c {
			continue
		}
		if pos, _ := p.viewpoint(other).Position("pg_vip_address"); pos == v.Pos() {
			// Both have it from one place: that is one problem.
			one, two := min(c.name, other.name), max(c.name, other.name)
			p.problems.Errorf(diag.VIPUsedTwice, v.Pos(), "an address for each", "pg_vip_address %s is that of cluster %q and of cluster %q", address, one, two)
		} else {
			p.problems.Errorf(diag.VIPUsedTwice, v.Pos(), want, "pg_vip_address %s of cluster %q is that of cluster %q too%s", address, c.name, other.name, where(p.viewpoint(other), "pg_vip_address"))
		}
		return false
	}
	if p.addresses == nil {
		p.addresses = map[netip.Addr]*inventory.Host{}
		for _, host := range p.inv.Hosts() {
			if own, err := netip.ParseAddr(host.Name); err == nil && p.addresses[own] == nil {
				p.addresses[own] = host
			}
		}
	}
	if host := p.addresses[address]; host != nil {
		p.problems.Errorf(diag.VIPIsHost, v.Pos(), want, "pg_vip_address %s of cluster %q is the address of the host %s (%s)", address, c.name, host.Name, host.Pos)
		return false
	}
	return true
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}
