package plan

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/inventory/ownfile"
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
