package plan

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgporter/pgporter/internal/inventory"
	"github.com/pgporter/pgporter/internal/service"
)

// FuzzPlan looks for inventories that make planning panic, or whose plan is accepted though it breaks what everything
// downstream takes for granted.
func FuzzPlan(f *testing.F) {
	for _, dir := range []string{"bad", "warn", "good"} {
		paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.yml"))
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		inv, problems := inventory.Parse("f.yml", data)
		if problems.Err() != nil || len(inv.Hosts()) > 50 {
			return
		}
		checked := Check(inv)
		all, problems := All(inv)
		if checked.Err() == nil && problems.Err() != nil {
			t.Fatalf("Check finds nothing, but All:\n%s", problems.Error())
		}
		if problems.Err() != nil {
			return
		}
		for _, c := range all.Clusters {
			names := map[string]bool{}
			primaries := 0
			for _, m := range c.Members {
				if names[m.Name] || m.PostgresPort < 1 || m.PgBouncerPort < 1 || m.PatroniPort < 1 || m.Weight < 0 || m.Vars["pg_role"] != string(m.Role) {
					t.Fatalf("member %+v is accepted", m)
				}
				names[m.Name] = true
				if m.Role == service.Primary {
					primaries++
				}
			}
			if primaries != 1 || c.TTL < 1 {
				t.Fatalf("cluster %q is accepted with %d primaries and a ttl of %d", c.Name, primaries, c.TTL)
			}
			clear(names)
			for _, d := range c.Definitions {
				if names[d.FullName] || d.Port < 1 || d.Port > 65535 || d.Check == "" || d.Dest.Kind == "" || d.MaxConn < 1 || d.Options.Inter <= 0 {
					t.Fatalf("service %+v is accepted", d)
				}
				names[d.FullName] = true
			}
		}
		if _, err := json.Marshal(all); err != nil {
			t.Fatal(err)
		}
	})
}
