package who

import (
	"fmt"
	"net/netip"
)

// Filter chooses rows; what is empty chooses all.
type Filter struct {
	// Client holds the addresses of true clients.
	Client netip.Prefix
	PID    int
	// Member, Service (in full, or without the cluster), Node, Database and User are names.
	Member, Service, Node, Database, User string
	Cluster                               string
}

// ParseClient reads an address or a network (CIDR).
func ParseClient(text string) (netip.Prefix, error) {
	if network, err := netip.ParsePrefix(text); err == nil {
		return network.Masked(), nil
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q: an address such as 10.0.0.7, or a network such as 10.0.0.0/24", text)
	}
	address = address.Unmap().WithZone("")
	return netip.PrefixFrom(address, address.BitLen()), nil
}

// Empty says that it chooses all.
func (f Filter) Empty() bool {
	f.Cluster = ""
	return f == Filter{}
}

// Chooses says whether a row is among those chosen.
func (f Filter) Chooses(r Row) bool {
	if f.Client.IsValid() {
		client, err := netip.ParseAddrPort(r.Client)
		if err != nil || !f.Client.Contains(plain(client).Addr()) {
			return false
		}
	}
	return (f.PID == 0 || r.PID == f.PID) && matches(f.Member, r.Member) && matches(f.Node, r.Node) && matches(f.Database, r.Database) && matches(f.User, r.User) &&
		(f.Service == "" || r.Service != "" && (r.Service == f.Service || r.Service == f.Cluster+"-"+f.Service))
}

func matches(want, is string) bool { return want == "" || want == is }
