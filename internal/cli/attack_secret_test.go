package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/intake"
)

// Secrets of the inventories below: a text, a number that could be a port, one that could be a weight, a path, an address. The last
// is under a name that says nothing.
const (
	secretText   = "hunter2zz"
	secretPort   = "53217"
	secretSmall  = "211"
	secretPath   = "/replica?lag=77123"
	secretIP     = "10.99.88.77"
	secretHidden = "swordfish9"
)

// leaky is an inventory with secrets in which a part, given by its key, is replaced.
func leaky(part, value string) string {
	parts := map[string]string{
		"vars": "", "host": "", "service": "", "tcp": "", "server": "", "user": "", "database": "", "whole": "[]",
		"service name": "extra", "service port": "5440", "service selector": `"[]"`,
		"tcp name": "other", "tcp port": "5500", "server name": "one", "server ip": "10.10.10.11", "server port": "8080", "servers": "",
		"seq": "1", "role": "primary", "cluster": "pg-test", "user name": "dbuser_app", "database name": "app",
	}
	if _, known := parts[part]; !known {
		panic(part)
	}
	parts[part] = value
	return fmt.Sprintf(`all:
  vars:
    pg_admin_password: &anchored %[1]s
    numeric_password: &number "%[2]s"
    small_secret: &small %[3]s
    path_token: &path "%[4]s"
    address_key: &address %[5]s
    memorable: %[6]s
    haproxy_admin_password: other-one
    innocent: "{{ pg_admin_password }}"
    further: "{{ 'x' ~ innocent }}"
    innocent_port: "{{ numeric_password | int + 0 }}"
    nested: { deeper: [ { word: "{{ pg_admin_password }}" } ] }
    accounts: [ { name: a, password: %[1]s }, { name: b, password: %[1]s } ]
    %[7]s
  children:
    pg-test:
      vars:
        pg_cluster: %[8]s
        pg_services:
          - { name: %[9]s, port: %[10]s, selector: %[11]s %[12]s }
        haproxy_services:
          - { name: %[13]s, port: %[14]s, servers: [ { name: %[15]s, ip: %[16]s, port: %[17]s %[18]s } ] %[19]s }
        pg_users:
          - { name: %[20]s, password: "{{ pg_admin_password }}" %[21]s }
        pg_databases:
          - { name: %[22]s %[23]s }
      hosts:
        127.0.62.61: { pg_seq: %[24]s, pg_role: %[25]s %[26]s }
`, secretText, secretPort, secretSmall, secretPath, secretIP, secretHidden, parts["vars"], parts["cluster"], parts["service name"], parts["service port"],
		parts["service selector"], parts["service"], parts["tcp name"], parts["tcp port"], parts["server name"], parts["server ip"], parts["server port"], parts["server"], parts["tcp"],
		parts["user name"], parts["user"], parts["database name"], parts["database"], parts["seq"], parts["role"], parts["host"])
}

// flows are ways by which the text among the secrets gets into another value.
var flows = []string{
	`"{{ pg_admin_password }}"`, `*anchored`, `"{{ innocent }}"`, `"{{ further }}"`, `"{{ pg_admin_password | upper }}"`, `"a-{{ pg_admin_password }}-b"`,
	`"{{ nosuch | default(pg_admin_password) }}"`, `"{{ hostvars['127.0.62.61'].pg_admin_password }}"`, `"{{ hostvars['127.0.62.61']['innocent'] }}"`,
	`"{{ vars['pg_admin_password'] }}"`, `"{{ nested.deeper[0].word }}"`, `"{{ accounts[0].password }}"`, `"{{ accounts | map(attribute='password') | first }}"`,
	`"{{ (accounts | selectattr('name', 'eq', 'b') | list)[0].password }}"`, `"{{ accounts[1].values() | last }}"`,
	`"{{ pg_admin_password | replace('zz', 'zz-1') }}"`, `"{{ [pg_admin_password, 'x'] | join('-') }}"`, `"{{ (pg_admin_password ~ '/x').split('/') | first }}"`,
	`"{% if true %}{{ pg_admin_password }}{% endif %}"`, `"{{ true | ternary(pg_admin_password, 'x') }}"`, `"{{ groups['pg-test'] | map('extract', hostvars, 'innocent') | first }}"`,
	`"{{ {'k': pg_admin_password}.k }}"`, `"{{ pg_users[0].password }}"`,
}

// places are parts of an inventory, as leaky knows them, with a %s for what flows there.
var places = []struct{ part, form string }{
	{"cluster", "%s"}, {"seq", "%s"}, {"role", "%s"}, {"service name", "%s"}, {"service port", "%s"}, {"service selector", "%s"}, {"service selector", `"[?pg_role == x]%.0s"`},
	{"service", ", ip: %s"}, {"service", ", dest: %s"}, {"service", ", check: %s"}, {"service", ", backup: %s"}, {"service", ", maxconn: %s"}, {"service", ", balance: %s"},
	{"service", ", options: %s"}, {"service", ", nosuch: %s"},
	{"tcp name", "%s"}, {"tcp port", "%s"}, {"server name", "%s"}, {"server ip", "%s"}, {"server port", "%s"}, {"server", ", weight: %s"}, {"server", ", options: %s"}, {"server", ", backup: %s"},
	{"tcp", ", ip: %s"}, {"tcp", ", protocol: %s"}, {"tcp", ", maxconn: %s"}, {"tcp", ", balance: %s"}, {"tcp", ", options: [ %s ]"}, {"tcp", ", options: %s"}, {"tcp", ", default: %s"},
	{"user name", "%s"}, {"user", ", roles: [ %s ]"}, {"user", ", state: %s"}, {"user", ", comment: %s"}, {"database name", "%s"}, {"database", ", owner: %s"},
	{"vars", "pg_default_services: %s"}, {"vars", "pg_default_services: [ %s ]"}, {"vars", "pg_default_service_dest: %s"}, {"vars", "pg_rto: %s"},
	{"vars", "pg_rto_plan: { norm: [ 30, 5, 10, 25, 5, 2s, 1s, 2s, 3, %s ] }"}, {"vars", "pg_rto_plan: { norm: [ %s ] }"}, {"vars", "pg_rto_plan: %s"},
	{"vars", "pg_service_provider: %s"}, {"vars", "pgporter_roles: %s"}, {"vars", "pgporter_trust: %s"}, {"vars", "pg_namespace: %s"}, {"vars", "pg_namespace: /%s"},
	{"vars", "pg_mode: citus\n    pg_shard: %s"}, {"vars", "pg_mode: citus\n    pg_group: %s"}, {"vars", "pg_dns_suffix: %s"}, {"vars", "pg_dns_target: %s"},
	{"vars", "pg_vip_enabled: %s"}, {"vars", "pg_vip_enabled: true\n    pg_vip_address: %s"}, {"vars", "pg_vip_enabled: true\n    pg_vip_address: 10.1.1.1/24\n    pg_vip_interface: %s"},
	{"vars", "pg_vip_enabled: true\n    pg_vip_address: 10.1.1.1/24\n    pgporter_vip_on_dcs_loss: %s"},
	{"vars", "haproxy_enabled: %s"}, {"vars", "haproxy_exporter_port: %s"}, {"vars", "exporter_metrics_path: %s"}, {"vars", "haproxy_auth_enabled: %s"}, {"vars", "haproxy_admin_username: %s"},
	{"vars", "haproxy_client_timeout: %s"}, {"vars", "nodename: %s"}, {"vars", "node_id_from_pg: %s"}, {"vars", "pgbouncer_enabled: %s"}, {"vars", "pg_admin_username: %s"}, {"vars", "etcd_port: %s"},
	{"host", ", pg_port: %s"}, {"host", ", pgbouncer_port: %s"}, {"host", ", patroni_port: %s"}, {"host", ", pg_weight: %s"}, {"host", ", patroni_ssl_enabled: %s"}, {"host", ", pg_offline_query: %s"},
	{"host", ", az: %s"}, {"host", ", zone: { az: %s }"}, {"host", ", zone: [ 1, { az: %s } ]"}, {"host", ", zone: [ 1, %s ]"},
}

// selectors look at members in ways that bring what they hold into a plan.
var selectors = []string{`"[?az == 'x']"`, `"[?zone.az == 'x']"`, `"[?contains(zone, 'x')]"`, `"[?zone[1] == 'x']"`, `"[?contains(to_string(@), 'x')]"`, `"[?length(zone) == az]"`, `"[?abs(az) == 'x']"`}

// commands are those that say something of an inventory, with what its problems are the same for in the first two.
var commands = []string{
	"check", "check --engine haproxy", "services --node 127.0.62.61 -o json", "services", "services -o yaml", "services --node 127.0.62.61 --engine haproxy",
	"services --engine haproxy -o json", "plan --node 127.0.62.61", "plan --node 127.0.62.61 --engine haproxy --names", "url pg-test --all", "url pg-test --format service", "render --base --keep-going --out rendered", "render --base --keep-going --diff --out none",
}

// said is everything that commands print and write about an inventory.
func said(t *testing.T, dir, inventory string, commands ...string) map[string]string {
	t.Helper()
	path := filepath.Join(dir, "pigsty.yml")
	if err := os.WriteFile(path, []byte(inventory), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	said := map[string]string{}
	for _, words := range commands {
		var out, problems bytes.Buffer
		Main(append(strings.Fields(words), "-i", path), strings.NewReader(""), &out, &problems)
		said[words], said[words+" (stderr)"] = out.String(), problems.String()
	}
	err := filepath.WalkDir("rendered", func(file string, entry fs.DirEntry, err error) error {
		if os.IsNotExist(err) || err == nil && entry.IsDir() {
			return nil
		}
		text, err := os.ReadFile(file)
		said["rendered "+entry.Name()] = string(text)
		return err
	})
	if err := errors.Join(err, os.RemoveAll("rendered")); err != nil {
		t.Fatal(err)
	}
	return said
}

// sent is what reload prints about an inventory and sends to its node.
func (n *pretended) sent(t *testing.T, inventory string) map[string]string {
	t.Helper()
	n.orders = map[string][]intake.Order{}
	_, out, problems := n.reload(inventory, "pg-test", "--dry-run")
	sent, err := json.Marshal(n.orders)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"reload": out, "reload (stderr)": problems, "reload (sent)": string(sent)}
}

// leaks are the outputs in which one of the texts is.
func leaks(said map[string]string, secrets ...string) []string {
	var found []string
	for what, text := range said {
		for _, secret := range secrets {
			if i := strings.Index(strings.ToLower(text), secret); i >= 0 {
				found = append(found, fmt.Sprintf("%s: …%s", what, text[max(0, i-120):min(len(text), i+40)]))
			}
		}
	}
	slices.Sort(found)
	return found
}

// A secret that a template, an alias or both bring into another value is in nothing that is printed, planned or sent.
func TestAttackSecretsThatFlow(t *testing.T) {
	dir := t.TempDir()
	n := startNodes(t, map[string]answerer{"127.0.62.61": takesAll}, nil)
	tried := 0
	try := func(inventory string) {
		t.Helper()
		all := said(t, dir, inventory, commands...)
		// A plan that is sent is the one that services prints; that it is so is seen now and then.
		if tried++; tried%25 == 1 {
			maps.Copy(all, n.sent(t, inventory))
		}
		if found := leaks(all, secretText, secretPort, "77123", secretIP, secretSmall); len(found) > 0 {
			t.Errorf("%s\n%s", inventory, strings.Join(found, "\n"))
		}
	}
	well := leaky("vars", "")
	if all := said(t, dir, well, commands...); !strings.Contains(all["services"], "pg-test-extra") || !strings.Contains(n.sent(t, well)["reload (sent)"], "pg-test-extra") {
		t.Fatalf("an inventory that is well isn't taken: %v", all)
	}
	try(well)
	for i, place := range places {
		// Every place meets secrets of several kinds and one of the flows; together they meet all of them.
		for _, value := range []string{flows[i%len(flows)], numbers[i%len(numbers)], numbers[(i+1)%len(numbers)], others[i%len(others)]} {
			inventory := leaky(place.part, fmt.Sprintf(place.form, value))
			if place.part == "host" {
				inventory = strings.Replace(inventory, `selector: "[]"`, "selector: "+selectors[i%len(selectors)], 1)
			}
			try(inventory)
		}
	}
	for i, flow := range flows {
		inventory := leaky("host", ", az: "+flow+", zone: [ 1, { az: "+flow+" } ]")
		try(strings.Replace(inventory, `selector: "[]"`, "selector: "+selectors[i%len(selectors)], 1))
	}
	for _, selector := range selectors {
		inventory := leaky("host", `, az: "{{ innocent }}", zone: [ 1, { az: *anchored } ]`)
		try(strings.Replace(inventory, `selector: "[]"`, "selector: "+selector, 1))
	}
	for _, selector := range []string{`"[?az == '{{ pg_admin_password }}']"`, `"[?az == '{{ nested.deeper[0].word }}' && ]"`, `"[{{ numeric_password }}]"`} {
		try(leaky("service selector", selector))
	}
}

// numbers are flows of secrets that may be ports and weights, others those of paths and addresses.
var (
	numbers = []string{`"{{ numeric_password }}"`, `"{{ innocent_port }}"`, "*number", `"{{ small_secret }}"`, "*small"}
	others  = []string{`"{{ path_token }}"`, "*path", `"{{ address_key ~ '' }}"`, "*address", "*anchored"}
)

// What a template makes isn't quoted where it can't be used, whatever it is made of.
func TestAttackMessagesDontQuoteTemplates(t *testing.T) {
	dir := t.TempDir()
	for _, place := range places {
		if usable(place.part, place.form) {
			continue
		}
		for _, value := range []string{
			`"{{ memorable }}"`, `"{{ memorable ~ ' x' }}"`, `"{{ 'inter ' ~ memorable }}"`, `"{{ 'option ' ~ memorable }}"`, `"{{ '[? ' ~ memorable }}"`, `"{{ [memorable] }}"`, `"{{ {memorable: 1} }}"`,
			`"{{ 'hdr(' ~ memorable ~ ' x)' }}"`, `"{{ '/' ~ memorable ~ ' ' }}"`, `"{{ 'fastinter ' ~ memorable }}"`, `"{{ '/../' ~ memorable ~ '!' }}"`,
		} {
			inventory := leaky(place.part, fmt.Sprintf(place.form, value))
			all := said(t, dir, inventory, "check", "check --engine haproxy", "url pg-test --all", "render --base --keep-going --out rendered")
			for what := range all {
				// A value that can be used is no secret by its name, and is shown where it is used.
				if !strings.HasSuffix(what, "(stderr)") {
					delete(all, what)
				}
			}
			if found := leaks(all, secretHidden); len(found) > 0 {
				t.Errorf("%s, as %s:\n%s", value, fmt.Sprintf(place.form, ""), strings.Join(found, "\n"))
			}
		}
	}
}

// usable are the places where the text without blanks is right, and so a name of something.
func usable(part, form string) bool {
	return strings.HasSuffix(part, "name") || part == "cluster" || strings.Contains(form, "username") || strings.Contains(form, "pg_dns_suffix")
}

// A password that YAML takes for something else isn't in the message that says so.
func TestAttackPasswordsThatYAMLMisreads(t *testing.T) {
	dir := t.TempDir()
	for _, written := range []string{
		"*hunter2zz", "!hunter2zz", "!hunter2zz x", "!!hunter2zz x", "&hunter2zz", "@hunter2zz", "%hunter2zz", "`hunter2zz", `"hunter2zz`, "'hunter2zz", "{hunter2zz", "{ hunter2zz }", "[hunter2zz", "|hunter2zz",
		">hunter2zz", "hunter2zz: x", "hunter2zz: x: y", `"\hunter2zz"`, "{ hunter2zz: 1, hunter2zz: 2 }", "{ hunter2zz: &a { b: *a } }", "? hunter2zz", "- hunter2zz", "{ <<: hunter2zz }", "&a [ *a, hunter2zz ]",
		"{{ hunter2zz }}", `{ ? [ hunter2zz ] : 1 }`, "!vault hunter2zz", "!unsafe hunter2zz", "\"hunter2zz\x01\"", "&hunter2zz [ *hunter2zz ]",
	} {
		for _, form := range []string{"haproxy_admin_password: %s", "pg_etcd_password: %s", "pg_users: [ { name: a, password: %s } ]", "pg_users:\n      - name: a\n        password: %s", "some_token: %s\n    pg_dns_suffix: \"{{ some_token }}\""} {
			inventory := leaky("vars", fmt.Sprintf(form, written))
			inventory = strings.ReplaceAll(strings.Replace(inventory, "pg_admin_password: &anchored "+secretText, "pg_admin_password: &anchored unused", 1), "password: "+secretText+" }", "password: unused }")
			all := said(t, dir, inventory, "check", "services --node 127.0.62.61 -o json", "url pg-test --all", "render --base --out rendered")
			for what := range all {
				if strings.HasSuffix(what, "haproxy.cfg") || strings.HasSuffix(what, "vip-manager.yml") {
					delete(all, what)
				}
			}
			if found := leaks(all, secretText); len(found) > 0 {
				t.Errorf("%s:\n%s", fmt.Sprintf(form, written), found[0])
			}
		}
	}
}
