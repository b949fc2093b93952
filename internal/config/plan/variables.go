package plan

import (
	"regexp"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
)

// Ansible takes any variable, and roles pass over those that they don't know: one that is misspelt, or that had its name in an older
// Pigsty, is as good as none.

// readVariables are all that a plan, or what is rendered beside it, depends on.
var readVariables = []string{
	"pg_cluster", "pg_seq", "pg_role", "pg_port", "pgbouncer_port", "patroni_port", "pg_weight", "patroni_ssl_enabled", "pg_offline_query",
	"pg_default_services", "pg_services", "pg_default_service_dest", "pg_rto", "pg_rto_plan", "pg_service_provider",
	"pgbouncer_enabled", "patroni_enabled", "pg_upstream", "pg_exporters", "pg_exporter_url", "pg_instances",
	"pg_vip_enabled", "pg_vip_address", "pg_vip_interface", "vip_enabled", "vip_address", "pg_dns_suffix", "pg_dns_target",
	"pg_namespace", "pg_mode", "pg_shard", "pg_group", "pg_etcd_password", "etcd_port", "node_id_from_pg", "nodename",
	"haproxy_enabled", "haproxy_services", "haproxy_client_timeout", "haproxy_server_timeout", "haproxy_exporter_port", "exporter_metrics_path",
	"haproxy_auth_enabled", "haproxy_admin_username", "haproxy_admin_password",
	"pg_users", "pg_databases", "pg_admin_username", "pg_admin_password", "patroni_username", "patroni_password",
	"pgporter_roles", "pgporter_trust", "pgporter_hold", "pgporter_vip_on_dcs_loss", "pgporter_member", "pgporter_scope", "pgporter_ttl", "pgporter_etcd_endpoints",
	"pgporter_etcd_ca_file", "pgporter_etcd_cert_file", "pgporter_etcd_key_file", "pgporter_etcd_user",
	"pgporter_page_actions", "pgporter_door_port", "pgporter_door_settings",
	"pg_max_conn", "pgbouncer_poolmode", "pgbouncer_auth_query", "pgbouncer_ignore_param",
}

// namesakes are Pigsty's own variables that are near one of readVariables.
var namesakes = []string{"pg_rpo", "gp_role", "gp_cluster"}

// olderVariables are those by which earlier Pigsty versions called what plans depend on, with what stands for them today (the notes of
// its releases 0.8 and 2.0).
var olderVariables = map[string]string{
	"pg_services_extra":          "pg_services",
	"pg_sindex":                  "pg_group",
	"pg_hostname":                "node_id_from_pg",
	"vip_mode":                   "pg_vip_enabled: true with pg_vip_address and pg_vip_interface",
	"vip_cidrmask":               "the length behind pg_vip_address, as in 10.10.10.2/24",
	"dns_mode":                   "pg_dns_target",
	"dns_selector":               "pg_dns_target",
	"dcs_servers":                "a group etcd with its hosts",
	"haproxy_admin_auth_enabled": "haproxy_auth_enabled",
	"haproxy_policy":             "balance of each service",
	"haproxy_weight":             "pg_weight",
	"haproxy_weight_fallback":    "backup of the service",
	"haproxy_primary_port":       "port of the service primary",
	"haproxy_replica_port":       "port of the service replica",
	"haproxy_backend_port":       "dest of each service",
	"haproxy_check_port":         "patroni_port",
}

// olderServiceKeys are those of a service up to Pigsty 1.5, with what they are called today. One that is empty has nothing to say any
// more.
var olderServiceKeys = map[string]string{
	"src_ip": "ip", "src_port": "port", "dst_port": "dest", "check_url": "check", "selector_backup": "backup",
	"check_method": "", "check_port": "", "check_code": "",
	"haproxy": "maxconn, balance and options (its default_server_options) of the service itself",
}

// surveyVariables tells of variables of a host that nobody reads, though their names are near one that is read, or were it once. What is
// written for many hosts is looked at once.
func (p *planner) surveyVariables(h *inventory.Host) {
	for _, vars := range h.Written() {
		if vars.Kind() != inventory.Map || p.surveyedVars[vars.Pos()] {
			continue
		}
		p.surveyedVars[vars.Pos()] = true
		entries := vars.Entries()
		if !p.spend(vars.Pos(), len(entries)) {
			return
		}
		for _, e := range entries {
			p.surveyVariable(e)
		}
	}
}

// itemKeys are the keys of users and databases that are read.
var itemKeys = map[string][]string{
	"pg_users":     {"name", "password", "roles", "pgbouncer", "login", "state", "pool_mode", "pool_connlimit"},
	"pg_databases": {"name", "owner", "pgbouncer", "state", "pool_auth_user", "pool_mode", "pool_size", "pool_size_min", "pool_reserve", "pool_connlimit"},
}

// surveyItems tells of keys of users and databases that nobody reads, though they are near one that is read.
func (p *planner) surveyItems(e inventory.Entry) {
	known := itemKeys[e.Name]
	if known == nil || !p.spend(e.Key.Pos(), len(e.Value.Items())) {
		return
	}
	for _, item := range e.Value.Items() {
		for _, key := range item.Entries() {
			if near := nearOf(key.Name, known); near != "" && near != key.Name && key.Key.Quotable() && !p.mentioned(key.Name) {
				p.problems.Warnf(diag.VariableMisspelt, key.Key.Pos(), "did you mean "+near, "nobody reads a key %s of %s", key.Name, e.Name)
			}
		}
	}
}

func (p *planner) surveyVariable(e inventory.Entry) {
	p.surveyItems(e)
	if slices.Contains(readVariables, e.Name) || !e.Key.Quotable() {
		return
	}
	if today, older := olderVariables[e.Name]; older {
		// No address and no name: that is how it is without, too.
		if text, _ := e.Value.Text(); text != "none" && e.Value.Kind() != inventory.Null {
			p.problems.Warnf(diag.OlderName, e.Key.Pos(), today, "%s is a variable of older Pigsty versions, and nobody reads it today", e.Name)
		}
		return
	}
	near := nearVariable(e.Name)
	switch {
	case near != "" && !p.mentioned(e.Name):
		p.problems.Warnf(diag.VariableMisspelt, e.Key.Pos(), "did you mean "+near, "nobody reads a variable %s", e.Name)
	case near == "" && strings.HasPrefix(e.Name, "pgporter_"):
		p.problems.Warnf(diag.VariableMisspelt, e.Key.Pos(), suggestion("", ownVariables()), "pgporter reads no variable %s", e.Name)
	}
}

// ownVariables are this program's own.
func ownVariables() []string {
	return slices.DeleteFunc(slices.Clone(readVariables), func(name string) bool { return !strings.HasPrefix(name, "pgporter_") })
}

// longName is how long a name has to be for two letters to be a slip: pg_host isn't pg_port. beginning is how much of a name has to be
// there for the rest to be forgotten.
const longName, beginning = 9, 10

// nearVariable is the variable that a name is probably meant to be; empty if there is none.
func nearVariable(name string) string {
	if slices.Contains(namesakes, name) {
		return ""
	}
	if near := nearOf(name, readVariables); near != "" {
		return near
	}
	if plain := strings.ReplaceAll(strings.ToLower(name), "-", "_"); len(plain) >= beginning {
		for _, read := range readVariables {
			if strings.HasPrefix(read, plain) && len(plain)*10 >= len(read)*6 {
				return read
			}
		}
	}
	return ""
}

// nearOf is the one of some names that another is but for a slip; empty if there is none.
func nearOf(name string, known []string) string {
	plain := strings.ReplaceAll(strings.ToLower(name), "-", "_")
	if slices.Contains(known, plain) {
		return plain
	}
	if near := diag.Nearest(plain, known); near != "" && (len(near) >= longName || diag.Distance(plain, near) == 1 || anagram(plain, near)) {
		return near
	}
	return ""
}

// anagram tells whether two words have the same letters, as those have of which two are swapped.
func anagram(a, b string) bool {
	sorted := func(word string) []byte {
		letters := []byte(word)
		slices.Sort(letters)
		return letters
	}
	return slices.Equal(sorted(a), sorted(b))
}

// word is a variable as templates and selectors name it.
var word = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)

// mentioned tells whether a template or a selector anywhere names a variable: then it is somebody's own.
func (p *planner) mentioned(name string) bool {
	if p.mentions == nil {
		p.mentions = map[string]bool{}
		done := map[diag.Position]bool{}
		for _, h := range p.inv.Hosts() {
			for _, vars := range h.Written() {
				if pos := vars.Pos(); !done[pos] {
					done[pos] = true
					p.mention(vars)
				}
			}
		}
	}
	return p.mentions[name]
}

func (p *planner) mention(v inventory.Value) {
	if !p.spend(v.Pos(), len(v.Items())+len(v.Entries())) {
		return
	}
	if text, _ := v.Text(); strings.Contains(text, "{{") || strings.Contains(text, "{%") || strings.Contains(text, "[?") {
		if p.spend(v.Pos(), len(text)/textWork) {
			for _, w := range word.FindAllString(text, -1) {
				p.mentions[w] = true
			}
		}
	}
	for _, item := range v.Items() {
		p.mention(item)
	}
	for _, e := range v.Entries() {
		p.mention(e.Value)
	}
}
