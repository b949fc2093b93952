// Package duty is what is due at a PgBouncer while a cluster's leader changes: which of its databases lead where, and which of its
// commands is next for each.
//
// Everything here is a function of its arguments: what the PgBouncer says of a database (SHOW DATABASES, SHOW POOLS), what the node
// offers, the cluster's View, and the time. Package pool asks, takes a step (Step), and does what comes of it.
package duty

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
)

// Database is what a PgBouncer says of one of its databases.
type Database struct {
	Name string
	// Host and Port are where it connects. An empty Host, or a path, is a Unix socket's directory.
	Host string
	Port int
	// Paused says that PAUSE was ordered for it, by whomever. That of all databases at once doesn't show.
	Paused bool
	// Active are the connections to the server that a client has, Logins those that log in, Servers all. Waiting are the clients that
	// wait for one.
	Active, Logins, Servers, Waiting int
}

// Place is where a database leads. The zero Place is elsewhere: that database isn't touched.
type Place struct {
	Cluster string
	// Service is the full name of the one that it leads to: the PgBouncer stands in front of it. Member is the one on this node whose
	// PostgreSQL it leads to: the PgBouncer stands behind the services. One of the two.
	Service, Member string
}

// Node is the one that the PgBouncer is on.
type Node struct {
	// Host is the inventory host; empty where members were discovered.
	Host string
	// Bind is the address that "*" means for services; invalid for every one.
	Bind netip.Addr
	// Own are the machine's addresses.
	Own []netip.Addr
	// Clusters are those whose services the node offers, Elsewhere others that may have a member on it.
	Clusters, Elsewhere []model.Cluster
}

// console is the database of PgBouncer's own commands.
const console = "pgbouncer"

// Place says where a database leads: to an address at which a service of the node listens, or to the PostgreSQL of a member on it. Names
// are taken as they are written: one that isn't the inventory's leads elsewhere.
func (n *Node) Place(d Database) Place {
	if d.Name == console {
		return Place{}
	}
	for _, c := range n.Clusters {
		for _, s := range c.Definitions {
			if at, err := model.ListenAddrOf(s.IP, s.Port); err == nil && int(at.Port) == d.Port && n.reaches(d.Host, at) {
				return Place{Cluster: c.Name, Service: s.FullName}
			}
		}
	}
	for _, c := range slices.Concat(n.Clusters, n.Elsewhere) {
		for _, m := range c.Members {
			if m.PostgresPort == d.Port && n.has(m) && n.isOf(d.Host, m) {
				return Place{Cluster: c.Name, Member: m.Name}
			}
		}
	}
	return Place{}
}

// reaches tells whether who connects to a host comes to a service that listens at an address.
func (n *Node) reaches(host string, at model.ListenAddr) bool {
	if at.Every() {
		at.Addr = n.Bind
	}
	if socket(host) {
		return false
	}
	addr := address(host)
	if at.Every() || at.Addr.IsUnspecified() {
		return addr.IsLoopback() || slices.Contains(n.Own, addr) || host == n.Host && host != ""
	}
	return addr == at.Addr
}

// has tells whether a member is on the node. Of a node that was found without an inventory its addresses say that.
func (n *Node) has(m model.Member) bool {
	if n.Host != "" {
		return m.Host == n.Host
	}
	addr := address(m.Host)
	return addr.IsValid() && (addr == n.Bind || !addr.IsLoopback() && slices.Contains(n.Own, addr))
}

// isOf tells whether a host is a member's on this node. Where members have loopback addresses, several nodes share the machine, and each
// has its own.
func (n *Node) isOf(host string, m model.Member) bool {
	if socket(host) || host == m.Host {
		return true
	}
	addr, own := address(host), address(m.Host)
	return !own.IsLoopback() && (addr.IsLoopback() || slices.Contains(n.Own, addr)) || addr.IsValid() && addr == own
}

// socket tells whether a host is a Unix socket's directory.
func socket(host string) bool {
	return host == "" || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@")
}

// address reads a host; invalid if it is a name.
func address(host string) netip.Addr {
	if host == "localhost" {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}
