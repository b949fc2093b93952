package model

import (
	"net/netip"
	"regexp"
	"strings"
)

// MaxName bounds names and hosts, in bytes: it is what the DNS can carry (RFC 1035, section 2.3.4: 255 octets with what
// frames them), and leaves room for an ending in what Linux takes for a file's name.
const MaxName = 253

var (
	clusterForm   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*$`)
	nameForm      = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	hostForm      = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)
	suffixForm    = regexp.MustCompile(`^[A-Za-z0-9_.-]*[A-Za-z0-9_]$`)
	keyForm       = regexp.MustCompile(`^(/[A-Za-z0-9_.-]+)+$`)
	interfaceForm = regexp.MustCompile(`^[^\s/:\x00-\x1f]{1,15}$`)
)

// IsClusterName tells whether a text can be a pg_cluster: letters, digits and dashes, and not root, as Pigsty has it. It
// begins full names, so it doesn't begin with a dash.
func IsClusterName(text string) bool {
	return clusterForm.MatchString(text) && text != "root" && len(text) <= MaxName
}

// IsName tells whether a text can be the name of a service, a member, a server or a node: HAProxy takes it for that of a proxy
// or a server (manual 2.6, section 4; less the colon), a file of the name isn't hidden, as HAProxy doesn't read those, and no
// program takes it for an option.
func IsName(text string) bool { return nameForm.MatchString(text) && len(text) <= MaxName }

// IsHostName tells whether a text can be the name of a host (RFC 1123, section 2.1; underscores occur all the same).
func IsHostName(text string) bool { return hostForm.MatchString(text) && len(text) <= MaxName }

// IsHost tells whether a text can stand for a host: an address, or a name.
func IsHost(text string) bool { return IsAddress(text) || IsHostName(text) }

// IsAddress tells whether a text is an IP address. One with a zone means something on one machine only, and isn't.
func IsAddress(text string) bool {
	address, err := netip.ParseAddr(text)
	return err == nil && address.Zone() == ""
}

// IsSuffix tells whether a text can be a pg_dns_suffix: what follows a cluster's name in the DNS, its dot included.
func IsSuffix(text string) bool { return suffixForm.MatchString(text) && len(text) <= MaxName }

// IsKeyPath tells whether a text can be where keys are in etcd, as in /pg/pg-test: a namespace, a scope and a group at most.
func IsKeyPath(text string) bool { return keyForm.MatchString(text) && len(text) <= 3*MaxName }

// IsInterface tells whether Linux takes a text for the name of a network interface (dev_valid_name: 15 bytes, no slash, colon
// or blank).
func IsInterface(text string) bool { return interfaceForm.MatchString(text) }

// IsCheckPath tells whether a text can be a Definition's Check: a path, with a query or not, that a request line holds as
// it is.
func IsCheckPath(text string) bool {
	return strings.HasPrefix(text, "/") && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '#' })
}
