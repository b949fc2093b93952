package inventory

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory/ownfile"
)

const plainFile = `pgporter: 1
defaults: { pgbouncer_port: 6432 }
clusters:
  shop:
    members:
      a: { host: 10.10.10.11, tags: { zone: x } }
      b: { host: 10.10.10.12, role: primary }
    nodes: [10.10.10.20]
    vip: { address: 10.10.10.2/24 }
  audit:
    members:
      c: { host: 10.10.10.13 }
`

// A pgporter.yml is hosts and groups with the variables that its keys stand for, each at its position.
func TestOwnFile(t *testing.T) {
	inv, problems := Parse("f.yml", []byte(plainFile))
	if len(problems) > 0 || !inv.Own() {
		t.Fatalf("own %t, %v", inv.Own(), problems)
	}
	for _, want := range []struct{ host, variable, value, at string }{
		{"10.10.10.11", "pg_cluster", "shop", "f.yml:4:3"},
		{"10.10.10.11", "pgporter_member", "a", "f.yml:6:7"},
		{"10.10.10.11", "pg_role", "replica", "f.yml:6:18"},
		{"10.10.10.11", "zone", "x", "f.yml:6:45"},
		{"10.10.10.12", "pg_role", "primary", "f.yml:7:37"},
		{"10.10.10.12", "pgbouncer_port", "6432", "f.yml:2:29"},
		{"10.10.10.12", "pg_vip_address", "10.10.10.2/24", "f.yml:9:21"},
		{"10.10.10.12", "pg_service_provider", "clusters.shop.nodes", "f.yml:8:12"},
		{"10.10.10.12", "pg_namespace", "/service", "f.yml"},
		{"10.10.10.13", "pg_role", "primary", "f.yml:12:18"},
		{"10.10.10.13", "pg_vip_address", "", ""},
		{"10.10.10.13", "pg_dns_target", "none", "f.yml"},
		{"10.10.10.20", "pg_cluster", "", ""},
	} {
		h, known := inv.Host(want.host)
		if !known {
			t.Fatalf("there is no host %s", want.host)
		}
		v, set := h.Var(want.variable)
		value, _ := v.Name()
		if value != want.value || set != (want.at != "") || set && v.Pos().String() != want.at {
			t.Errorf("%s of %s is %q at %s, want %q at %s", want.variable, want.host, value, v.Pos(), want.value, want.at)
		}
	}
	if owners := inv.OwnersOf(diag.Position{File: "f.yml", Line: 12, Column: 18}); len(owners) != 1 || owners[0].Name != "10.10.10.13" {
		t.Errorf("what is written of c is about %v", owners)
	}
}

// What makes a pgporter.yml is what it says, not what the file is called; a group may be called pgporter.
func TestOwnFileIsTold(t *testing.T) {
	for text, want := range map[string]bool{
		"pgporter: 1\nclusters: { a: { members: { b: { host: 10.0.0.1 } } } }": true,
		"pgporter: { hosts: { 10.0.0.1: } }":                                   false,
		"pgporter:\nclusters: { hosts: { 10.0.0.1: } }":                        false,
	} {
		inv, problems := Parse("pgporter.yml", []byte(text))
		if problems.Err() != nil || inv.Own() != want {
			t.Errorf("%q: %v, %v", text, inv.Own(), problems)
		}
	}
}

// The variables of a directory are an inventory's.
func TestOwnFileStandsAlone(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"pgporter.yml": plainFile, "group_vars/all.yml": "pgbouncer_port: 1\n"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inv, problems := Read(filepath.Join(dir, "pgporter.yml"))
	h, _ := inv.Host("10.10.10.11")
	if v, _ := h.Var("pgbouncer_port"); len(problems) > 0 || v.Pos().Line != 2 {
		t.Errorf("pgbouncer_port is at %s, %v", v.Pos(), problems)
	}
	if err := os.WriteFile(filepath.Join(dir, "another.yml"), []byte("all: { hosts: { 10.10.10.1: } }"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, problems := Read(dir); !strings.Contains(problems.Error(), "a pgporter.yml goes with no other file") {
		t.Errorf("beside an inventory: %v", problems)
	}
}

// FuzzOwnFile looks for a pgporter.yml that makes the reader panic, that is taken with members that share a place, or whose problems are
// said of nothing.
func FuzzOwnFile(f *testing.F) {
	f.Add([]byte(plainFile))
	f.Fuzz(func(t *testing.T, text []byte) {
		inv, problems := Parse("f.yml", slices.Concat([]byte("pgporter: 1\n"), text))
		for _, p := range problems {
			if p.Pos.File != "f.yml" || p.What == "" {
				t.Errorf("a problem of nothing: %+v", p)
			}
		}
		// A second key of the name may make a group of it.
		if inv == nil || problems.Err() != nil || !inv.Own() {
			return
		}
		for _, h := range inv.Hosts() {
			_, isMember := h.Var("pgporter_member")
			_, hasRole := h.Var("pg_role")
			clusters := slices.DeleteFunc(slices.Clone(h.direct), func(g *Group) bool { return strings.HasSuffix(g.Name, ".nodes") })
			if isMember && (len(clusters) != 1 || h.Name == "") || !isMember && len(clusters) > 0 {
				t.Errorf("%s, a member %t with a role %t, is of %d clusters", h.Name, isMember, hasRole, len(clusters))
			}
			for _, name := range h.Names() {
				if v, _ := h.Var(name); v.hasTemplate() {
					t.Errorf("%s of %s has a template", name, h.Name)
				}
			}
		}
	})
}

// Each variable that a key stands for is one key's on a level.
func TestVariablesStandForOneKey(t *testing.T) {
	for _, keys := range [][]ownfile.Key{ownfile.Cluster(), ownfile.Member(), ownfile.Services} {
		seen := map[string]string{}
		for _, k := range keys {
			if other := seen[k.Variable]; k.Variable != "" && other != "" {
				t.Errorf("%s is %s and %s", k.Variable, other, k.Name)
			}
			seen[k.Variable] = k.Name
		}
	}
}
