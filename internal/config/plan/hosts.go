package plan

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// A host's name in the inventory is its address: Pigsty's files and ours have it on server lines, where programs listen, in etcd's
// list. Ansible itself looks at ansible_host, and takes anything for a name.

// survey tells what is written of a host and passed over in silence. It is done once for each.
func (p *planner) survey(h *inventory.Host) {
	if p.surveyed[h] || !p.spend(h.Pos, surveyWork) {
		return
	}
	p.surveyed[h] = true
	p.surveyAddress(h)
	p.surveyListings(h)
	p.surveyIdentity(h)
	p.surveyVariables(h)
}

// surveyAll does it for some.
func (p *planner) surveyAll(hosts []*inventory.Host) {
	for _, h := range hosts {
		p.survey(h)
	}
}

// served tells whether a host is one that clients, or pgporter itself, connect to.
func (p *planner) served(h *inventory.Host) bool {
	_, isMember := p.of[h]
	return isMember || slices.Contains(h.GroupNames(), "etcd") || len(p.delegatedTo(h)) > 0
}

// surveyAddress tells of a host whose name isn't the address that it has to be.
func (p *planner) surveyAddress(h *inventory.Host) {
	served := p.served(h)
	report := p.problems.Errorf
	if !served {
		report = p.problems.Warnf
	}
	if why, want := unaddressable(h.Name); why != "" {
		report(diag.HostNoAddress, h.Pos, want, "the host %q is no address: %s", h.Name, why)
		return
	}
	address, isAddress := hostAddress(h)
	if !served {
		return
	}
	for _, l := range h.Listings() {
		if slices.Contains(databasePorts, l.Port) {
			p.problems.Warnf(diag.HostPort, l.Pos, "the address alone, and pg_port for another port of PostgreSQL's",
				"%s is listed with the port %s, by which Ansible reaches its SSH: nobody else looks at it", h.Name, l.Port)
		}
	}
	if local := p.loopback(h); !isAddress && !local {
		p.nameForAddress(h)
	}
	if !isAddress {
		if at, set := p.ansibleHost(h); set {
			address = at
		}
	}
	if other := p.hostAt(address); other != nil && other != h && p.of[h] != nil && p.of[other] != nil {
		p.problems.Errorf(diag.HostTwice, h.Pos, "one of them, or another address", "%s is the same machine as the host %s (%s): both are %s", h.Name, other.Name, other.Pos, address)
	}
}

// databasePorts are those that nobody's SSH has.
var databasePorts = []string{"5432", "5433", "5434", "5436", "5438", "6432", "8008"}

// hostAddress is the address that a host's name is, in the one way to write it.
func hostAddress(h *inventory.Host) (netip.Addr, bool) {
	address, err := netip.ParseAddr(h.Name)
	return address.Unmap(), err == nil
}

// hostAt gives the first host with an address; nil for none.
func (p *planner) hostAt(address netip.Addr) *inventory.Host {
	if p.addresses == nil {
		p.addresses = map[netip.Addr]*inventory.Host{}
		for _, h := range p.inv.Hosts() {
			if own, is := hostAddress(h); is && p.addresses[own] == nil {
				p.addresses[own] = h
			}
		}
		// What is only Ansible's way to a host comes after what hosts are called.
		for _, h := range p.inv.Hosts() {
			if own, set := p.ansibleHost(h); set && p.addresses[own] == nil {
				if _, is := hostAddress(h); !is {
					p.addresses[own] = h
				}
			}
		}
	}
	return p.addresses[address]
}

// ansibleHost is the address by which Ansible reaches a host, if the inventory says it.
func (p *planner) ansibleHost(h *inventory.Host) (netip.Addr, bool) {
	v, set := p.templates.Var(h, "ansible_host")
	text, _ := v.Text()
	if !set || !v.Quotable() {
		return netip.Addr{}, false
	}
	address, err := netip.ParseAddr(text)
	return address.Unmap(), err == nil
}

// nameForAddress warns of a name that has to be looked up.
func (p *planner) nameForAddress(h *inventory.Host) {
	const what = "%s is a name and no address: every node has to look it up, and names of the DNS can't stand for it"
	if at, set := p.ansibleHost(h); set {
		p.problems.Warnf(diag.HostName, h.Pos, fmt.Sprintf("%s as the host's name", at), what+"; ansible_host (%s) is what Ansible alone connects to", h.Name, at)
		return
	}
	p.problems.Warnf(diag.HostName, h.Pos, "an address as the host's name", what, h.Name)
}

// loopback tells of a host that is the reader's own machine, wherever that is. Where all hosts are, one machine plays them: nothing
// is said then.
func (p *planner) loopback(h *inventory.Host) bool {
	isLocal := func(h *inventory.Host) bool { return isLoopback(h.Name) || h.Name == "localhost" }
	if !isLocal(h) {
		return false
	}
	abroad := func(of **bool, hosts []*inventory.Host) bool {
		if *of == nil {
			some := slices.ContainsFunc(hosts, func(other *inventory.Host) bool { return !isLocal(other) && p.served(other) })
			*of = &some
		}
		return **of
	}
	if !abroad(&p.abroad, p.inv.Hosts()) {
		return false
	}
	const want = "the address by which the others reach it"
	if c := p.of[h]; c != nil && abroad(&c.abroad, c.hosts) {
		p.problems.Errorf(diag.HostLoopback, h.Pos, want, "%s of cluster %q is each node's own machine: nobody else reaches this one there", h.Name, c.name)
		return true
	}
	p.problems.Warnf(diag.HostLoopback, h.Pos, want, "%s is each node's own machine: nobody else reaches this one there", h.Name)
	return true
}

var (
	digitsForm      = regexp.MustCompile(`^[0-9.]+$`)
	dashRangeForm   = regexp.MustCompile(`^([0-9]+\.[0-9]+\.[0-9]+\.)([0-9]+)-(?:[0-9]+\.[0-9]+\.[0-9]+\.)?([0-9]+)$`)
	fillInForm      = regexp.MustCompile(`[${}<>%]|^[Xx]+$`)
	stopGapForm     = regexp.MustCompile(`^([0-9]+|[a-z]|x{1,3}|y{1,3}|z{1,3}|n{1,3})$`)
	numberLabelForm = regexp.MustCompile(`^([0-9]+|0[xX][0-9a-fA-F]*)$`)
)

var reserved = netip.MustParsePrefix("240.0.0.0/4")

// unaddressable says why a host's name can be neither an address nor a name, and what would be right; empty if it can.
func unaddressable(name string) (why, want string) {
	want = "the host's address, as in 10.10.10.11"
	if address, err := netip.ParseAddr(name); err == nil {
		switch {
		case address.Zone() != "":
			return "the zone " + address.Zone() + " means something on one machine alone", want
		case address.Unmap().IsUnspecified():
			return "it stands for every address of a machine", want
		case address.Unmap().IsMulticast():
			return "it is a group's (multicast)", want
		case address.Unmap().Is4() && reserved.Contains(address.Unmap()):
			return "no host has one from 240.0.0.0 on, or the broadcast", want
		case address.Is6() && address.IsLinkLocalUnicast():
			return "it means something on one link alone", want
		case address.Is4In6():
			return "it is an IPv4 address written as one of IPv6", address.Unmap().String()
		}
		return "", ""
	}
	if prefix, err := netip.ParsePrefix(name); err == nil {
		return "it has the length of a network behind it", prefix.Addr().String()
	}
	labels := strings.Split(name, ".")
	if digitsForm.MatchString(name) {
		return misspeltAddress(labels)
	}
	if m := dashRangeForm.FindStringSubmatch(name); m != nil {
		return "Ansible doesn't take that for a range", fmt.Sprintf("%s[%s:%s]", m[1], m[2], m[3])
	}
	stopGap := len(labels) == 4
	for _, label := range labels {
		stopGap = stopGap && stopGapForm.MatchString(strings.ToLower(label))
	}
	switch {
	case stopGap, fillInForm.MatchString(name):
		return "it looks like a place that nobody has filled in", want
	case strings.Contains(name, ","):
		return "it has a comma in it", "an entry for each host"
	case !model.IsHostName(name) || slices.Contains(labels, ""):
		return "no name of a host has such characters either", want
	case numberLabelForm.MatchString(labels[len(labels)-1]):
		return "a name of a host that ends in a number is taken for one, too", want
	}
	return "", ""
}

// misspeltAddress says what is wrong with digits and dots.
func misspeltAddress(labels []string) (why, want string) {
	want = "four numbers from 0 to 255, as in 10.10.10.11"
	plain := make([]string, 0, len(labels))
	zeros := false
	for _, label := range labels {
		n, err := strconv.Atoi(label)
		switch {
		case label == "":
			return "a number is missing between the dots", want
		case err != nil || n > 255:
			return label + " is more than 255", want
		}
		zeros = zeros || len(label) > 1 && label[0] == '0'
		plain = append(plain, strconv.Itoa(n))
	}
	if len(labels) != 4 {
		return fmt.Sprintf("four numbers make one, and these are %d", len(labels)), want
	}
	if zeros {
		return "a number with a zero before it is octal for some programs and an error for others", strings.Join(plain, ".")
	}
	return "", ""
}

// surveyListings tells of a host that is listed several times, where only one of the entries counts.
func (p *planner) surveyListings(h *inventory.Host) {
	listings := h.Listings()
	if len(listings) < 2 {
		return
	}
	c := p.of[h]
	winner := slices.IndexFunc(listings, func(l inventory.Listing) bool { return c != nil && clusterOf(l) == c.name })
	seen := map[string]bool{}
	for _, l := range listings {
		lost := clusterOf(l)
		if winner < 0 || lost == "" || lost == c.name || seen[lost] {
			continue
		}
		seen[lost] = true
		w := listings[winner]
		p.problems.Warnf(diag.HostInTwoClusters, l.Pos, "one cluster for a host",
			"%s is listed in cluster %q here and in cluster %q at %s: a host has one pg_cluster, and Ansible takes that of group %q, so cluster %q has one member less than it lists",
			h.Name, lost, c.name, w.Pos, w.Group.Name, lost)
	}
	p.overwritten(h, listings, len(seen) > 0, c)
}

// clusterOf is the pg_cluster that an entry of a host stands for; empty for none, or one that a template makes.
func clusterOf(l inventory.Listing) string {
	v, set := l.Vars.Get("pg_cluster")
	if !set {
		v, _ = l.Group.Var("pg_cluster")
	}
	name, _ := v.Name()
	return name
}

// overwritten tells of variables of a host that two entries give different values: the last one counts, whichever group that is of.
// Of a host in several clusters it is enough to know it where the values are those of another cluster's entry.
func (p *planner) overwritten(h *inventory.Host, listings []inventory.Listing, several bool, c *cluster) {
	last := map[string]int{}
	for i, l := range listings {
		for _, e := range l.Vars.Entries() {
			if slices.Contains(readVariables, e.Name) {
				last[e.Name] = i
			}
		}
	}
	for i, l := range listings {
		for _, e := range l.Vars.Entries() {
			final, read := last[e.Name]
			if !read || final == i || e.Name == "pg_cluster" && several {
				continue
			}
			counts, _ := listings[final].Vars.Get(e.Name)
			if several && clusterOf(listings[final]) == c.name || alike(counts, e.Value) {
				continue
			}
			shown := ""
			if !safetext.IsSecret(e.Name) && e.Value.Quotable() && counts.Quotable() {
				shown = fmt.Sprintf(" (%s, not %s)", counts.Describe(), e.Value.Describe())
			}
			p.problems.Warnf(diag.VariableOverwritten, e.Value.Pos(), "one of them", "%s of %s stands here and at %s, and the last one that is written counts%s", e.Name, h.Name, counts.Pos(), shown)
		}
	}
}

// alike tells whether two values say the same, as far as they are easily compared.
func alike(a, b inventory.Value) bool {
	nested := func(v inventory.Value) bool { return v.Kind() == inventory.List || v.Kind() == inventory.Map }
	return a.Is(b) || !nested(a) && !nested(b) && a.JSON() == b.JSON()
}

// surveyIdentity tells of a host with a member's identity that is a member of nothing.
func (p *planner) surveyIdentity(h *inventory.Host) {
	if _, isMember := p.of[h]; isMember {
		return
	}
	if _, set := h.Position("pg_cluster"); set {
		return
	}
	seqPos, seq := h.Position("pg_seq")
	rolePos, role := h.Position("pg_role")
	const want = "pg_cluster among the variables of its group"
	switch {
	case seq && role:
		p.problems.Errorf(diag.IdentityMissing, h.Pos, want, "%s has a pg_seq and a pg_role, but no pg_cluster: it is a member of no cluster", h.Name)
	case seq:
		p.problems.Warnf(diag.IdentityMissing, seqPos, want, "pg_seq of %s has no effect without a pg_cluster", h.Name)
	case role:
		p.problems.Warnf(diag.IdentityMissing, rolePos, want, "pg_role of %s has no effect without a pg_cluster", h.Name)
	}
}

// watchedOnly tells whether hosts with a pg_cluster are no members, but what Pigsty only watches: none has all of an identity, and each
// says where its exporters look.
func watchedOnly(hosts []*inventory.Host) bool {
	return !slices.ContainsFunc(hosts, func(h *inventory.Host) bool {
		_, seq := h.Position("pg_seq")
		_, role := h.Position("pg_role")
		watched := slices.ContainsFunc([]string{"pg_exporters", "pg_exporter_url", "pg_instances"}, func(name string) bool {
			_, set := h.Position(name)
			return set
		})
		return seq && role || !watched
	})
}
