package draft

import (
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// FuzzFile looks for words of a Patroni that become anything but words of the file: a scope, a name, a tag that ends its line, a
// comment that isn't one.
func FuzzFile(f *testing.F) {
	f.Add("shop", "shop-a", "10.10.10.11", "zone", "north", "4.0.4")
	f.Add("pg_prod.eu", "no", "db1.example", "on", "1e3", "x")
	f.Add("a: {b: c} #", "- x", "[::1]", "? y", "'\"#\\", "\" }")
	f.Add("root", "{{ x }}", "!vault", "<<", "*a", "# LOOK")
	f.Fuzz(func(t *testing.T, scope, name, host, tag, value, version string) {
		for _, word := range []string{scope, name, host, tag, value, version} {
			// What comes from the network has been made fit to be shown.
			if !safetext.Is(word) || len(word) > 200 {
				return
			}
		}
		m := Member{Member: model.Member{Name: name, Host: host, Role: model.Primary, PostgresPort: 5432, PatroniPort: 8008}, Tags: map[string]string{tag: value}}
		text := File([]Cluster{{Scope: scope, Members: []Member{m}, Version: version, At: value, Unread: tag, Standby: true, Upstream: host, Silent: []string{value}}})
		inv, problems := inventory.Parse("f.yml", []byte(text))
		for _, p := range problems {
			if p.Code == diag.SyntaxError || p.Code == diag.YAMLAlias || p.Code == diag.KeyTwice {
				t.Fatalf("%v\nin\n%s", p, text)
			}
		}
		if problems.Err() != nil {
			return
		}
		h, known := inv.Host(host)
		if !known || len(inv.Hosts()) != 1 {
			t.Fatalf("there is no host %q alone in\n%s", host, text)
		}
		if v, _ := h.Var("pgporter_member"); v.JSON() != name {
			t.Errorf("the member is called %v, not %q in\n%s", v.JSON(), name, text)
		}
		if got, is := h.Var(tag); is && strings.Contains(text, "tags: {") {
			if word, ok := got.Name(); ok && word != value {
				t.Errorf("the tag %q is %q, not %q in\n%s", tag, word, value, text)
			}
		}
	})
}
