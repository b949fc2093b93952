// Package stamp marks rendered files as pgporter's, so that a later rendering removes exactly the files that an earlier one
// made and nothing else.
//
// The mark is the first line of the file, a comment in each of the formats that are rendered: HAProxy's, dnsmasq's hosts,
// YAML and libpq's service file all take # for one, PgBouncer's list of users takes a semicolon alone. It names the file itself: a copy under another name, and anything that
// another program wrote, isn't ours. The package is pure.
package stamp

import (
	"regexp"
	"strings"
)

// Kind is what program a file is for, by the names that `render --only` takes.
type Kind string

// The kinds, in the order in which messages list them.
const (
	HAProxy    Kind = "haproxy"
	DNSMasq    Kind = "dnsmasq"
	VIPManager Kind = "vip-manager"
	PGService  Kind = "pg-service"
	PgBouncer  Kind = "pgbouncer"
)

// Kinds are all of them.
var Kinds = []Kind{HAProxy, DNSMasq, VIPManager, PGService, PgBouncer}

// Stamp says whose a file is.
type Stamp struct {
	Kind Kind
	// Cluster is the one that the file belongs to; empty for a file of its host: a TCP service, haproxy.cfg, a list of
	// all services.
	Cluster string
	// File is the name of the file, without a directory.
	File string
}

// Line is the file's first line, with its end. The parts hold no blank: they are names that were checked.
func (s Stamp) Line() string {
	comment := "#"
	if s.Kind == PgBouncer {
		comment = ";"
	}
	text := comment + " pgporter made this for " + string(s.Kind) + ": " + s.File
	if s.Cluster != "" {
		text += " of " + s.Cluster
	}
	return text + ". Edits are lost: change the inventory.\n"
}

var form = regexp.MustCompile(`^[#;] pgporter made this for (\S+): (\S+?)(?: of (\S+))?\. Edits are lost`)

// Of reads the stamp of a file from its text, or from as much of its beginning as holds the first line. False if the file
// has none, or one of a file by another name.
func Of(file, text string) (Stamp, bool) {
	first, _, _ := strings.Cut(text, "\n")
	match := form.FindStringSubmatch(first)
	if match == nil || match[2] != file {
		return Stamp{}, false
	}
	return Stamp{Kind: Kind(match[1]), File: match[2], Cluster: match[3]}, true
}
