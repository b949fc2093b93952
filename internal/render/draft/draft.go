// Package draft writes a first pgporter.yml of what living clusters tell of themselves, with comments on what they don't tell and what
// to look at. It is text from values: who asks clusters and who writes files is others' business.
package draft

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/inventory/ownfile"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Cluster is what one has told.
type Cluster struct {
	// Scope is Patroni's name of it.
	Scope   string
	Members []Member
	// Silent are members that have said no addresses yet.
	Silent []string
	// At is the Patroni that was asked, Version its version, empty if it isn't known.
	At, Version string
	// TTL is the leader key's in seconds, 0 if Patroni doesn't say it; Unread why its configuration couldn't be read, empty if it could.
	TTL    int
	Unread string
	// Standby says that the cluster follows another; Upstream is whom, if that is said.
	Standby  bool
	Upstream string
}

// Member is a model.Member with what isn't a part of that.
type Member struct {
	model.Member
	// Pooled says that a PgBouncer answers at PgBouncerPort.
	Pooled bool
	// Tags are Patroni's.
	Tags map[string]string
}

// notClusterName is what a scope may have and a cluster's name may not.
var notClusterName = regexp.MustCompile(`[^A-Za-z0-9-]+`)

// File gives the text.
func File(clusters []Cluster) string {
	var asked []string
	for _, c := range clusters {
		asked = append(asked, c.At)
	}
	w := &writer{}
	w.line("# Made by pgporter init of what Patroni says at %s.", remark(strings.Join(asked, ", ")))
	w.line("# Go through what is marked LOOK; `pgporter check` with this file then says what is wrong with it.")
	w.line("%s: %d", ownfile.Mark, ownfile.Version)
	w.line("")
	w.line("clusters:")
	names := map[string]bool{}
	for i, c := range clusters {
		if i > 0 {
			w.line("")
		}
		name := strings.Trim(notClusterName.ReplaceAllString(c.Scope, "-"), "-")
		if name == "" || name == "root" {
			name = "cluster" + name
		}
		for base, n := name, 2; names[name]; n++ {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		names[name] = true
		w.cluster(name, c)
		if i == 0 {
			w.hints()
		}
	}
	return w.text.String()
}

type writer struct{ text strings.Builder }

func (w *writer) line(format string, args ...any) { fmt.Fprintf(&w.text, format+"\n", args...) }

// remark is a text from the network as a comment may have it.
func remark(text string) string { return safetext.Line(text) }

// plainForm is what YAML takes for a text without quotes, whatever reads it.
var plainForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*$|^[0-9]+(\.[0-9]+){3}$`)

// notTexts are words that YAML takes for something else.
var notTexts = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null"}

// scalar writes a text as YAML has it.
func scalar(text string) string {
	if plainForm.MatchString(text) && !slices.Contains(notTexts, strings.ToLower(text)) {
		return text
	}
	quoted, _ := json.Marshal(text) //nolint:errchkjson // a text can always be written
	return string(quoted)
}

func (w *writer) cluster(name string, c Cluster) {
	w.line("  %s:", scalar(name))
	if c.Version != "" {
		w.line("    # Patroni %s", remark(c.Version))
	}
	if name != c.Scope {
		w.line("    scope: %s  # Patroni's; a cluster's name has letters, digits and dashes alone", scalar(c.Scope))
	}
	switch {
	case c.Unread != "":
		w.line("    # LOOK: Patroni's ttl couldn't be read (%s).", remark(c.Unread))
		w.line("    # ttl: 30")
	case c.TTL > 0:
		w.line("    ttl: %d", c.TTL)
	default:
		w.line("    ttl: 30  # Patroni says no other")
	}
	w.upstream(c)
	w.line("    members:")
	for _, m := range c.Members {
		w.member(m)
	}
	for _, silent := range c.Silent {
		w.line("      # LOOK: %s has said no addresses yet, and is left out.", remark(silent))
	}
	w.poolers(c)
	w.services(c)
}

// hints are what nobody can be asked, the same for all clusters.
func (w *writer) hints() {
	w.line("    # services:")
	w.line("    #   - { name: reports, port: 5440, check: '/replica?lag=10MB', selector: \"[]\" }")
	w.line("    # LOOK: Patroni doesn't say where its etcd is. Without it a switchover is seen with the next check, not at once.")
	w.line("    # etcd: { endpoints: [https://10.10.10.31:2379], ca_file: /etc/pgporter/etcd-ca.crt }")
	w.line("    # namespace: /service  # Patroni's, if it has another")
	w.line("    # LOOK: every member's machine carries the services. If others are to, proxy nodes:")
	w.line("    # nodes: [10.10.10.41, 10.10.10.42]")
	w.line("    # LOOK: a virtual address that follows the leader, for members that run with --vip, and names for nodes that run with --dns:")
	w.line("    # vip: { address: 10.10.10.2/24, interface: eth0 }")
	w.line("    # dns: { suffix: .db.example }")
}

func (w *writer) upstream(c Cluster) {
	switch {
	case c.Standby && c.Upstream != "":
		w.line("    upstream: %s  # a standby cluster: nobody takes writes here", scalar(c.Upstream))
	case c.Standby:
		w.line("    # LOOK: this is a standby cluster, and Patroni doesn't say of which: nobody takes writes here.")
		w.line("    # upstream: 10.10.20.11")
	}
}

func (w *writer) member(m Member) {
	fields := []string{"host: " + scalar(m.Host)}
	add := func(name string, value, otherwise any) {
		if value != otherwise {
			fields = append(fields, fmt.Sprintf("%s: %v", name, value))
		}
	}
	add("port", m.PostgresPort, 5432)
	add("patroni_port", m.PatroniPort, 8008)
	add("patroni_tls", m.PatroniTLS, false)
	if m.Pooled {
		add("pgbouncer_port", m.PgBouncerPort, 0)
	}
	add("role", m.Role, model.Replica)
	var tags, left []string
	for _, tag := range slices.Sorted(maps.Keys(m.Tags)) {
		if ownfile.IsTag(tag) && !safetext.IsSecret(tag) {
			tags = append(tags, scalar(tag)+": "+tagValue(m.Tags[tag]))
		} else {
			left = append(left, tag)
		}
	}
	if len(tags) > 0 {
		fields = append(fields, fmt.Sprintf("tags: { %s }", strings.Join(tags, ", ")))
	}
	comment := ""
	if m.Role == model.Primary {
		comment = "  # leads now; who leads is followed"
	}
	w.line("      %s: { %s }%s", scalar(m.Name), strings.Join(fields, ", "), comment)
	if len(left) > 0 {
		w.line("      # LOOK: tags of %s that can't be called so here: %s", remark(m.Name), remark(strings.Join(left, ", ")))
	}
}

// tagNumber is a number that YAML and JSON read alike.
var tagNumber = regexp.MustCompile(`^(0|[1-9][0-9]{0,15})$`)

// tagValue writes a tag's value, which was a text, a number or a boolean, as the one that it looks like.
func tagValue(text string) string {
	if text == "true" || text == "false" || tagNumber.MatchString(text) {
		return text
	}
	return scalar(text)
}

func (w *writer) poolers(c Cluster) {
	var without []string
	for _, m := range c.Members {
		if !m.Pooled {
			without = append(without, m.Name)
		}
	}
	switch {
	case len(without) == len(c.Members):
		w.line("    # LOOK: no PgBouncer answers on port %d of any member, so services lead to PostgreSQL. If there is one elsewhere:", poolerPort)
		w.line("    # pgbouncer_port: %d", poolerPort)
	case len(without) > 0:
		w.line("    # LOOK: a PgBouncer answers on port %d, but not at %s: services lead to PostgreSQL.", poolerPort, remark(strings.Join(without, ", ")))
		w.line("    dest: postgres")
	}
}

const poolerPort = 6432

func (w *writer) services(c Cluster) {
	taken := map[int]bool{}
	for _, m := range c.Members {
		taken[m.PostgresPort], taken[m.PatroniPort], taken[m.PgBouncerPort] = true, true, true
	}
	shift := 0
	defaults := plan.DefaultServices()
	for slices.ContainsFunc(defaults, func(d model.Definition) bool { return taken[d.Port+shift] }) {
		shift += 1000
	}
	if shift > 0 {
		w.line("    # LOOK: a member's own ports are those of the default services, which have others here therefore.")
		w.line("    default_services:")
		for _, d := range defaults {
			dest := ""
			if d.Dest.Kind != "" {
				dest = ", dest: " + string(d.Dest.Kind)
			}
			backup := ""
			if !d.Backup.None() {
				backup = ", backup: " + quoted(d.Backup.String())
			}
			w.line("      - { name: %s, port: %d%s, check: %s, selector: %s%s }", d.Name, d.Port+shift, dest, d.Check, quoted(d.Selector.String()), backup)
		}
	} else {
		var ports []string
		for _, d := range defaults {
			ports = append(ports, fmt.Sprintf("%s %d", d.Name, d.Port))
		}
		w.line("    # LOOK: the default services are there without a word (%s), others under services.", strings.Join(ports, ", "))
	}
}

func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
