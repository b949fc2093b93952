package zone

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	wire "github.com/miekg/dns"

	"github.com/pgporter/pgporter/internal/config/model"
)

// Catalog is every name that is served, and what each is the name of: a function of a configuration. What names resolve to now
// is in the Live of each cluster. It is immutable.
type Catalog struct {
	clusters []cluster
	// names has the owner of each name, pointers the names of each reverse one. Names are in lower case with the last dot.
	names    map[string]owner
	pointers map[string][]string
	// apexes are the names at which a zone of ours begins, with the cluster that they are of.
	apexes map[string]int
	// servers are the addresses of the name server itself, as far as they are known.
	servers []netip.Addr
}

// cluster is what answers need to know of one.
type cluster struct {
	model.Cluster
	naming model.Naming
	// fixed is the address that the cluster's own name resolves to; invalid where that is the primary or nothing.
	fixed     netip.Addr
	addresses map[string]netip.Addr
}

// kind is what a name is the name of.
type kind uint8

const (
	// between names have others below them and nothing of their own (RFC 8020).
	between kind = iota
	ownName
	instanceName
	serviceName
	locator
	serverName
	pointer
)

// owner says what a name is the name of.
type owner struct {
	kind    kind
	cluster int
	// item is the index of the member or of the definition.
	item int
	// suffix is what names in an answer end with: those below a name with a suffix have it too.
	suffix string
}

// serverLabel is the name server's below the apex of each cluster; no service is called so as a rule, and one that is
// keeps the name.
const serverLabel = "pgporter"

// NewCatalog names clusters. servers are the addresses of the name server, if they are known. warnings tell which of two
// things with one name keeps it; the error lists every name that the DNS can't carry.
func NewCatalog(clusters []model.Cluster, names []model.Naming, servers []netip.Addr) (c *Catalog, warnings []string, err error) {
	c = &Catalog{names: map[string]owner{}, pointers: map[string][]string{}, apexes: map[string]int{}, servers: servers}
	b := builder{catalog: c}
	index := make(map[string]int, len(clusters))
	for i, one := range clusters {
		index[one.Name] = i
	}
	for _, n := range names {
		i, known := index[n.Cluster]
		if !known {
			b.problems = append(b.problems, fmt.Errorf("names of cluster %s, of which nothing else is known", n.Cluster))
			continue
		}
		b.cluster(clusters[i], n)
	}
	return c, b.warnings, errors.Join(b.problems...)
}

// Clusters gives the names of the clusters, in the order of Live's index.
func (c *Catalog) Clusters() []string {
	all := make([]string, len(c.clusters))
	for i, one := range c.clusters {
		all[i] = one.Name
	}
	return all
}

// Names is how many names have an answer.
func (c *Catalog) Names() int { return len(c.names) + len(c.pointers) }

// builder fills a Catalog in.
type builder struct {
	catalog  *Catalog
	warnings []string
	problems []error
}

func (b *builder) cluster(declared model.Cluster, n model.Naming) {
	c := b.catalog
	one := cluster{Cluster: declared, naming: n, addresses: make(map[string]netip.Addr, len(declared.Members))}
	if n.Target != model.TargetPrimary && n.Target != model.TargetNone {
		var err error
		if one.fixed, err = netip.ParseAddr(n.Target); err != nil {
			b.problems = append(b.problems, fmt.Errorf("the name of cluster %s: its target is %q, which is no address", declared.Name, n.Target))
			return
		}
	}
	for _, m := range declared.Members {
		// A host that is no address has been warned of by who read it: the member has no name then.
		if address, err := netip.ParseAddr(m.Host); err == nil && address.Zone() == "" {
			one.addresses[m.Name] = address.Unmap()
		}
	}
	index := len(c.clusters)
	c.clusters = append(c.clusters, one)
	suffixes := []string{""}
	if n.Suffix != "" {
		suffixes = append(suffixes, n.Suffix)
	}
	for _, suffix := range suffixes {
		own := owner{cluster: index, suffix: suffix}
		for i, m := range declared.Members {
			if _, has := one.addresses[m.Name]; !has {
				continue
			}
			own.kind, own.item = instanceName, i
			if apex, ok := b.name(m.Name+suffix, own, "instance "+m.Name); ok {
				b.apex(apex, index)
			}
		}
		own.kind, own.item = ownName, 0
		apex, ok := b.name(declared.Name+suffix, own, "cluster "+declared.Name)
		if !ok {
			continue
		}
		b.apex(apex, index)
		for i, d := range declared.Definitions {
			own.item = i
			own.kind = serviceName
			b.name(d.Name+"."+apex, own, "service "+d.FullName)
			own.kind = locator
			b.name("_postgresql._tcp."+d.Name+"."+apex, own, "service "+d.FullName)
		}
		if _, taken := c.names[serverLabel+"."+apex]; !taken {
			c.names[serverLabel+"."+apex] = owner{kind: serverName, cluster: index, suffix: suffix}
		}
	}
	// The first name is what a member is known under elsewhere: one address has one name for each member on it.
	for _, m := range declared.Members {
		if address, has := one.addresses[m.Name]; has {
			b.pointer(address, m.Name, index)
		}
	}
	if one.fixed.IsValid() {
		b.pointer(one.fixed, declared.Name+n.Suffix, index)
	}
}

// name notes the owner of a name and gives it as it is looked up. False if it can't be a name. Of two owners the first keeps
// a name; what is below it may still be the other's.
func (b *builder) name(text string, o owner, what string) (string, bool) {
	name, err := lookedUp(text)
	if err != nil {
		b.problems = append(b.problems, fmt.Errorf("%s: %q can't be a name of the DNS: %w", what, strings.TrimSuffix(text, "."), err))
		return "", false
	}
	names := b.catalog.names
	if first, taken := names[name]; taken && first.kind != between && first.kind != serverName {
		b.warnings = append(b.warnings, fmt.Sprintf("the name %s of %s is the name of %s already, which keeps it", name, what, b.describe(first)))
		return name, true
	}
	names[name] = o
	// What is between the name and its apex exists (RFC 8020), though there is nothing to answer.
	for at := name; o.kind == serviceName || o.kind == locator; {
		_, at, _ = strings.Cut(at, ".")
		if _, there := names[at]; there || at == "" {
			break
		}
		names[at] = owner{kind: between, cluster: o.cluster}
	}
	return name, true
}

func (b *builder) describe(o owner) string {
	c := b.catalog.clusters[o.cluster]
	switch o.kind {
	case instanceName:
		return "instance " + c.Members[o.item].Name
	case serviceName, locator:
		return "service " + c.Definitions[o.item].FullName
	}
	return "cluster " + c.Name
}

// apex makes a name the beginning of a zone; the first cluster keeps it.
func (b *builder) apex(name string, cluster int) {
	if _, taken := b.catalog.apexes[name]; !taken {
		b.catalog.apexes[name] = cluster
	}
}

// pointer notes a name of an address. Several clusters may have members on one address.
func (b *builder) pointer(address netip.Addr, text string, cluster int) {
	name, err := lookedUp(text)
	reverse, errReverse := wire.ReverseAddr(address.String())
	if err != nil || errReverse != nil {
		return // the name was refused before
	}
	if !slices.Contains(b.catalog.pointers[reverse], name) {
		b.catalog.pointers[reverse] = append(b.catalog.pointers[reverse], name)
	}
	b.apex(reverse, cluster)
}

// lookedUp is a name as it is looked up: in lower case, with the last dot. The error says why the DNS can't carry it, or why
// nobody could ask for it: letters, digits, dashes and underscores are what host names and services are made of.
func lookedUp(text string) (string, error) {
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	if len(name) > model.MaxName {
		return "", errors.New("it is longer than 253 bytes")
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return "", errors.New("a label is empty")
		case len(label) > 63:
			return "", fmt.Errorf("the label %s is longer than 63 bytes", label)
		case strings.ContainsFunc(label, func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
		}):
			return "", fmt.Errorf("in %s there is something else than letters, digits, dashes and underscores", label)
		}
	}
	return name + ".", nil
}
