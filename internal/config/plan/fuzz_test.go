package plan

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// FuzzPlan looks for inventories that make planning panic, or whose plan is accepted though it breaks what everything
// downstream takes for granted.
func FuzzPlan(f *testing.F) {
	for _, dir := range []string{"bad", "warn", "good", "haproxy", "nodes"} {
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
		_, checked := Check(inv)
		for _, h := range inv.Hosts() {
			carried, problems := ForHAProxy(inv, h.Name)
			names := map[string]bool{}
			for _, g := range carried.TCPServices {
				if names[g.Name] || g.Port < 1 || g.Port > 65535 || g.Protocol != "tcp" && g.Protocol != "http" || g.Balance == "" || g.MaxConn < 1 {
					t.Fatalf("TCP service %+v is accepted", g)
				}
				names[g.Name] = true
			}
			for _, c := range carried.Clusters {
				for _, d := range c.Definitions {
					if names[d.FullName] {
						t.Fatalf("two services on %s have the full name %q; problems:\n%s", h.Name, d.FullName, problems.Error())
					}
					names[d.FullName] = true
				}
			}
		}
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
				if m.Role == model.Primary {
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
