// Package dns renders names as files in the format of /etc/hosts, which dnsmasq reads from its `hostsdir` and follows
// without being told. Rendering is pure; where the names come from is none of its business.
package dns

import (
	"fmt"
	"net/netip"
	"regexp"

	"github.com/pgporter/pgporter/internal/service"
	"github.com/pgporter/pgporter/internal/stamp"
)

// nameForm is a host name (RFC 1123, with the underscore that dnsmasq takes too), of a length that the DNS can carry.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?$`)

// Hosts renders one name as the file of that name. cluster is whose it is.
func Hosts(cluster, file string, r service.Record) (string, error) {
	address, err := netip.ParseAddr(r.Address)
	if err != nil || address.Zone() != "" {
		return "", fmt.Errorf("name %q: %q is no address", r.Name, r.Address)
	}
	if !nameForm.MatchString(r.Name) {
		return "", fmt.Errorf("%q can't be a name of the DNS", r.Name)
	}
	return stamp.Stamp{Kind: stamp.DNSMasq, Cluster: cluster, File: file}.Line() + address.String() + " " + r.Name + "\n", nil
}
