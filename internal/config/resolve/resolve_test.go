package resolve

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/jmespath"
	"github.com/pgporter/pgporter/internal/config/model"
)

// The four default services, as Pigsty declares them.
var defaults = []model.Definition{
	{Name: "primary", FullName: "pg-test-primary", Port: 5433, Selector: jmespath.Read("[]"), Dest: model.Dest{Kind: model.ToPgBouncer}, Check: "/primary"},
	{Name: "replica", FullName: "pg-test-replica", Port: 5434, Selector: jmespath.Read("[]"), Backup: jmespath.Read("[? pg_role == `primary` || pg_role == `offline` ]"),
		Dest: model.Dest{Kind: model.ToPgBouncer}, Check: "/read-only"},
	{Name: "default", FullName: "pg-test-default", Port: 5436, Selector: jmespath.Read("[]"), Dest: model.Dest{Kind: model.ToPostgres}, Check: "/primary"},
	{Name: "offline", FullName: "pg-test-offline", Port: 5438, Selector: jmespath.Read("[? pg_role == `offline` || pg_offline_query ]"),
		Backup: jmespath.Read("[? pg_role == `replica` && !pg_offline_query]"), Dest: model.Dest{Kind: model.ToPostgres}, Check: "/replica"},
}

// instance makes the n-th member of pg-test.
func instance(n int, role model.Role, vars map[string]any) model.Member {
	all := map[string]any{"pg_role": string(role), "pg_seq": float64(n)}
	for k, v := range vars {
		all[k] = v
	}
	return model.Member{
		Name: fmt.Sprintf("pg-test-%d", n), Host: fmt.Sprintf("10.10.10.1%d", n), Role: role, PostgresPort: 5432, PgBouncerPort: 6432,
		PatroniPort: 8008, Weight: 100, Vars: all,
	}
}

var offlineQuery = map[string]any{"pg_offline_query": true}

// shown writes a service's servers as `1 2b`: members in order, b for backups.
func shown(s model.Service) string {
	var words []string
	for _, server := range s.Servers {
		word := strings.TrimPrefix(server.Member, "pg-test-")
		if server.Backup {
			word += "b"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// TestDefaultServices holds the member and backup lists of the four default services, by hand from the specification.
func TestDefaultServices(t *testing.T) {
	trio := []model.Member{instance(1, model.Primary, nil), instance(2, model.Replica, nil), instance(3, model.Replica, offlineQuery)}
	dedicated := []model.Member{instance(1, model.Primary, nil), instance(2, model.Replica, nil), instance(3, model.Offline, nil)}
	pair := []model.Member{instance(1, model.Primary, nil), instance(2, model.Replica, offlineQuery)}
	single := []model.Member{instance(1, model.Primary, nil)}
	for _, test := range []struct {
		name    string
		members []model.Member
		live    string
		static  bool
		// primary, replica, default, offline
		want [4]string
	}{
		{"the document's three", trio, "", false, [4]string{"1 2 3", "1b 2 3", "1 2 3", "3 2b"}},
		{"three after a switchover to the second", trio, "1 replica, 2 primary", false, [4]string{"1 2 3", "1 2b 3", "1 2 3", "3 1b"}},
		{"three after a switchover to the tagged one", trio, "1 replica, 3 primary", false, [4]string{"1 2 3", "1 2 3b", "1 2 3", "3 1b 2b"}},
		{"three without a primary", trio, "1 replica", false, [4]string{"1 2 3", "1 2 3", "1 2 3", "3 1b 2b"}},
		{"static roles", trio, "1 replica, 2 primary", true, [4]string{"1 2 3", "1b 2 3", "1 2 3", "3 2b"}},
		{"a dedicated offline replica", dedicated, "", false, [4]string{"1 2 3", "1b 2 3b", "1 2 3", "3 2b"}},
		{"the offline replica promoted", dedicated, "1 replica, 3 primary", false, [4]string{"1 2 3", "1 2 3b", "1 2 3", "1b 2b"}},
		{"a pair", pair, "", false, [4]string{"1 2", "1b 2", "1 2", "2"}},
		{"a pair after a switchover", pair, "1 replica, 2 primary", false, [4]string{"1 2", "1 2b", "1 2", "2 1b"}},
		{"a single instance", single, "", false, [4]string{"1", "1b", "1", ""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			live := map[string]model.Role{}
			for _, word := range strings.Split(test.live, ",") {
				if n, role, found := strings.Cut(strings.TrimSpace(word), " "); found {
					live["pg-test-"+n] = model.Role(role)
				}
			}
			set, err := Set(model.Cluster{Name: "pg-test", Members: test.members, Definitions: defaults, StaticRoles: test.static}, live)
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range test.want {
				if got := shown(set.Services[i]); got != want {
					t.Errorf("%s: servers %q, want %q", set.Services[i].FullName, got, want)
				}
			}
		})
	}
}

// TestServer: what a server takes from its member and its service.
func TestServer(t *testing.T) {
	first, second := instance(1, model.Primary, nil), instance(2, model.Replica, nil)
	second.Host, second.PostgresPort, second.PgBouncerPort, second.Weight = "db2.example", 5555, 6666, 0
	definitions := slices.Clone(defaults[:3])
	definitions[1].Dest = model.Dest{Kind: model.ToPort, Port: 7777}
	set, err := Set(model.Cluster{Name: "pg-test", Members: []model.Member{first, second}, Definitions: definitions}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]model.Server{
		{{Member: "pg-test-1", Host: "10.10.10.11", Port: 6432, Weight: 100}, {Member: "pg-test-2", Host: "db2.example", Port: 6666}},
		{{Member: "pg-test-1", Host: "10.10.10.11", Port: 7777, Weight: 100, Backup: true}, {Member: "pg-test-2", Host: "db2.example", Port: 7777}},
		{{Member: "pg-test-1", Host: "10.10.10.11", Port: 5432, Weight: 100}, {Member: "pg-test-2", Host: "db2.example", Port: 5555}},
	}
	for i, s := range set.Services {
		if !slices.Equal(s.Servers, want[i]) {
			t.Errorf("%s: servers\n %+v, want\n %+v", s.FullName, s.Servers, want[i])
		}
		if s.Cluster != "pg-test" || s.Definition.FullName != definitions[i].FullName || s.Port != definitions[i].Port {
			t.Errorf("service %+v isn't made of %+v", s, definitions[i])
		}
	}
	if set.Cluster != "pg-test" {
		t.Errorf("cluster %q", set.Cluster)
	}
}

// TestOrder: the selector's order is kept, and backups that it didn't pick come after.
func TestOrder(t *testing.T) {
	members := []model.Member{instance(1, model.Primary, nil), instance(2, model.Replica, nil), instance(3, model.Replica, nil), instance(4, model.Delayed, nil)}
	for _, test := range []struct{ selector, backup, want string }{
		{"reverse(@)", "", "4 3 2 1"},
		{"[? pg_role == `replica`]", "reverse(@)", "2b 3b 4b 1b"},
		{"[? pg_role == `replica`]", "[? pg_role != `delayed`]", "2b 3b 1b"},
		{"sort_by([? pg_seq > `1`], &pg_seq)", "[?pg_role == 'primary']", "2 3 4 1b"},
		{"[? pg_role == `delayed`]", "nothing", "4"},
		{"[? pg_role == `standby`]", "", ""},
	} {
		set, err := Set(model.Cluster{Name: "pg-test", Members: members, Definitions: []model.Definition{
			{Name: "x", FullName: "pg-test-x", Selector: jmespath.Read(test.selector), Backup: jmespath.Read(test.backup), Dest: model.Dest{Kind: model.ToPostgres}},
		}}, nil)
		if err != nil {
			t.Errorf("%s, backup %s: %v", test.selector, test.backup, err)
			continue
		}
		if got := shown(set.Services[0]); got != test.want {
			t.Errorf("%s, backup %s: servers %q, want %q", test.selector, test.backup, got, test.want)
		}
	}
}

// TestOptionBackup: with that word among its options all servers of a service are backups.
func TestOptionBackup(t *testing.T) {
	members := []model.Member{instance(1, model.Primary, nil), instance(2, model.Replica, offlineQuery), instance(3, model.Replica, nil)}
	definitions := slices.Clone(defaults)
	for i := range definitions {
		definitions[i].Options.Backup = i != 0
	}
	set, err := Set(model.Cluster{Name: "pg-test", Members: members, Definitions: definitions}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"1 2 3", "1b 2b 3b", "1b 2b 3b", "2b 3b"} {
		if got := shown(set.Services[i]); got != want {
			t.Errorf("%s: servers %q, want %q", set.Services[i].FullName, got, want)
		}
	}
}

// TestUntouched: resolving changes neither the members' variables nor the live roles.
func TestUntouched(t *testing.T) {
	m := instance(1, model.Primary, nil)
	bare := model.Member{Name: "pg-test-2", Role: model.Replica}
	r, err := New(model.Cluster{Name: "pg-test", Members: []model.Member{m, bare}, Definitions: defaults})
	if err != nil {
		t.Fatal(err)
	}
	live := map[string]model.Role{"pg-test-1": model.Replica, "pg-test-2": model.Primary}
	first, err := r.Set(live)
	if err != nil {
		t.Fatal(err)
	}
	if m.Vars["pg_role"] != "primary" || len(live) != 2 || bare.Vars != nil {
		t.Errorf("resolving changed what it was given: %v %v %v", m.Vars, live, bare.Vars)
	}
	if got := shown(first.Services[1]); got != "1 2b" {
		t.Errorf("with live roles: servers %q", got)
	}
	second, err := r.Set(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := shown(second.Services[1]); got != "1b 2" {
		t.Errorf("with declared roles: servers %q", got)
	}
}

// TestErrors: all expressions that can't be used are named, with their service.
func TestErrors(t *testing.T) {
	definition := func(name, selector, backup string) model.Definition {
		return model.Definition{Name: name, FullName: "pg-test-" + name, Selector: jmespath.Read(selector), Backup: jmespath.Read(backup)}
	}
	members := []model.Member{instance(1, model.Primary, nil)}
	_, err := New(model.Cluster{Name: "pg-test", Members: members, Definitions: []model.Definition{
		definition("a", "[?", ""), definition("b", "[]", "nofunc(@)"), definition("c", "[]", ""),
	}})
	if err == nil {
		t.Fatal("compiled")
	}
	for _, part := range []string{"service pg-test-a: selector: ", "service pg-test-b: backup: ", "nofunc"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q doesn't say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "pg-test-c") {
		t.Errorf("error %q names a service that is right", err)
	}
	_, err = Set(model.Cluster{Name: "pg-test", Members: members, Definitions: []model.Definition{
		definition("a", "[].pg_role", ""), definition("b", "[]", "length(@)"), definition("c", "[]", ""),
	}}, nil)
	if err == nil {
		t.Fatal("resolved")
	}
	for _, part := range []string{"service pg-test-a: selector: ", "service pg-test-b: backup: "} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q doesn't say %q", err, part)
		}
	}
}
