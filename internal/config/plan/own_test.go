package plan

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/inventory/ownfile"
	"github.com/pgporter/pgporter/internal/config/model"
)

// What a pgporter.yml declares of its keys is what is read here: the keys of services, and variables that plans depend on.
func TestOwnFileKeys(t *testing.T) {
	services, _ := ownfile.Find(ownfile.Services, "services")
	var read []string
	for i, k := range serviceKeys {
		declared, known := ownfile.Find(services.Keys, k.name)
		if read = append(read, k.name); !known || declared.Required != (i < requiredKeys) {
			t.Errorf("the key %s of services is declared as %+v", k.name, declared)
		}
	}
	if names := ownfile.Names(services.Keys); len(names) != len(read) {
		t.Errorf("services have %v, and %v are read", names, read)
	}
	seen := map[string]bool{}
	var look func(keys []ownfile.Key)
	look = func(keys []ownfile.Key) {
		for _, k := range keys {
			if k.Variable != "" && !slices.Contains(readVariables, k.Variable) {
				t.Errorf("%s is %s, which nobody reads", k.Name, k.Variable)
			}
			seen[k.Variable] = true
			look(k.Keys)
		}
	}
	look(ownfile.File)
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if name != "" && ownfile.IsTag(name) {
			t.Errorf("a tag may be called %s", name)
		}
	}
	for _, name := range readVariables {
		if ownfile.IsTag(name) {
			t.Errorf("a tag may be called %s", name)
		}
	}
}

// Messages about a pgporter.yml speak of its keys: no variable of an inventory is in the goldens, but where a selector or a service has
// it.
func TestOwnFileMessages(t *testing.T) {
	for _, dir := range []string{"bad", "warn"} {
		for _, path := range inventories(t, dir, 1) {
			if !strings.Contains(path, "pgporter-yml") {
				continue
			}
			for _, p := range everyProblem(t, path) {
				for _, name := range readVariables {
					if strings.Contains(p.What+p.Want, name) && !strings.Contains(p.What, `"`+name) && name != "pgbouncer_port" && name != "patroni_port" {
						t.Errorf("%s speaks of %s: %s", path, name, p)
					}
				}
			}
		}
	}
}

// Members that are discovered have the services of a file, in the words of a pgporter.yml.
func TestForDiscovered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services.yml")
	const text = `
ttl: 20
trust: check
services:
  - { name: near, port: 5440, selector: "[? zone == 'a']", backup: "[? zone != 'a']", dest: postgres }
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, problems := inventory.ReadServices(path)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	found := model.Cluster{Name: "shop", TTL: 30, Members: []model.Member{
		{Name: "a", Host: "10.10.10.11", Role: model.Primary, Vars: map[string]any{"zone": "a", "pg_role": "primary"}},
		{Name: "b", Host: "10.10.10.11", Role: model.Replica, Vars: map[string]any{"zone": "b", "pg_role": "replica"}},
	}}
	got, problems := ForDiscovered(inv, found)
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	var names []string
	for _, d := range got.Definitions {
		names = append(names, fmt.Sprintf("%s %d %s", d.FullName, d.Port, d.Dest.Kind))
	}
	const want = "shop-primary 5433 pgbouncer, shop-replica 5434 pgbouncer, shop-default 5436 postgres, shop-offline 5438 postgres, shop-near 5440 postgres"
	if strings.Join(names, ", ") != want || got.TTL != 20 || !got.TrustCheck || len(got.Members) != 2 {
		t.Errorf("%v, ttl %d, %+v", names, got.TTL, got)
	}
	// Nobody is left of a zone that a tag named.
	found.Members[0].Vars["zone"], found.Members[1].Vars["zone"] = 1.0, 1.0
	if _, problems := ForDiscovered(inv, found); problems.Err() != nil || !strings.Contains(problems.Error(), `service "shop-near": the selector matches no member; only backups are left`) {
		t.Errorf("without the zone: %v", problems)
	}
}
