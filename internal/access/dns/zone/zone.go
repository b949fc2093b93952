// Package zone is what the clusters are called: which names there are (Catalog), what they resolve to at a moment (Live, from
// each View of a cluster), and what is answered to a question (Answers), byte for byte.
//
// It also renders names as files in the format of /etc/hosts, which dnsmasq reads from its `hostsdir` and follows without
// being signalled. All of it is pure: sockets, files and clusters that change are the business of package dns.
//
// The names of a cluster pg-test with pg_dns_suffix .db.example:
//
//	pg-test, pg-test.db.example            what pg_dns_target says: the live primary, a fixed address, or nothing
//	pg-test-1, pg-test-1.db.example        an instance
//	primary.pg-test[.db.example]           the members that take the service's clients now (any declared service)
//	_postgresql._tcp.primary.pg-test[…]    the same as SRV: instances with the service's port
//	11.10.10.10.in-addr.arpa               the instance at an address
//	pgporter.pg-test                       the name server, as SOA and NS name it
//
// While nobody takes a service's clients its name keeps the addresses of who did last: a client that connects there is queued
// until somebody does. Each name of a cluster or an instance is a zone of its own, so that nothing besides is claimed:
// questions for other names are refused, and there is no recursion.
package zone

import (
	"fmt"
	"net/netip"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// Hosts renders one name as the file of that name. cluster is whose it is.
func Hosts(cluster, file string, r model.Record) (string, error) {
	address, err := netip.ParseAddr(r.Address)
	if err != nil || address.Zone() != "" {
		return "", fmt.Errorf("name %q: %q is no address", r.Name, r.Address)
	}
	if !model.IsHostName(r.Name) {
		return "", fmt.Errorf("%q can't be a name of the DNS", r.Name)
	}
	return stamp.Stamp{Kind: stamp.DNSMasq, Cluster: cluster, File: file}.Line() + address.String() + " " + r.Name + "\n", nil
}

// HostsFile is the file of one name, as Hosts renders it.
type HostsFile struct{ Name, Text string }

// HostsFiles renders a cluster's names as `pgporter render` does from the inventory, but for the primary, which is the live
// one: a file for each instance, and one for the cluster's own name if it resolves to anything.
func (c *Catalog) HostsFiles(cluster int, live *Live) ([]HostsFile, error) {
	one := c.clusters[cluster]
	var files []HostsFile
	add := func(file string, r model.Record) error {
		text, err := Hosts(one.Name, file, r)
		files = append(files, HostsFile{file, text})
		return err
	}
	for _, m := range one.Members {
		if address, has := one.addresses[m.Name]; has {
			if err := add(m.Name, model.Record{Name: m.Name, Address: address.String()}); err != nil {
				return nil, err
			}
		}
	}
	for _, address := range one.own(live) {
		if err := add(one.Name, model.Record{Name: one.Name + one.naming.Suffix, Address: address.String()}); err != nil {
			return nil, err
		}
	}
	return files, nil
}
