package diff

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/jmespath"
	"github.com/pgporter/pgporter/internal/config/model"
)

// sample is a plan with every field of the model set.
func sample() model.Plan {
	options, problems := model.ParseOptions("inter 2s fall 3")
	if len(problems) > 0 {
		panic(problems)
	}
	weight := 10
	member := func(seq int, role model.Role) model.Member {
		return model.Member{
			Name: fmt.Sprintf("pg-test-%d", seq), Host: fmt.Sprintf("10.10.10.1%d", seq), Role: role, PostgresPort: 5432, PgBouncerPort: 6432,
			PatroniPort: 8008, PatroniTLS: true, Weight: 100, Vars: map[string]any{"pg_role": string(role), "pg_offline_query": false},
		}
	}
	definition := func(name string, port int) model.Definition {
		return model.Definition{
			Name: name, FullName: "pg-test-" + name, IP: "*", Port: port, Selector: jmespath.Read("[]"), Backup: jmespath.Read("[? pg_role == `primary`]"),
			Dest: model.Dest{Kind: model.ToPort, Port: 5432}, Check: "/", MaxConn: 5000, Balance: model.RoundRobin, Options: options,
		}
	}
	return model.Plan{
		Node: "10.10.10.11",
		Clusters: []model.Cluster{{
			Name: "pg-test", TTL: 30, StaticRoles: true,
			Members:     []model.Member{member(1, model.Primary), member(2, model.Replica), member(3, model.Replica)},
			Definitions: []model.Definition{definition("primary", 5433), definition("replica", 5434)},
		}},
		TCPServices: []model.TCPService{{
			Name: "etcd", IP: "10.10.10.11", Port: 2479, Protocol: "tcp", MaxConn: 100, Balance: "roundrobin", Options: []string{"option tcplog"}, Default: "inter 3s",
			Servers: []model.TCPServer{{Name: "etcd-1", Host: "10.10.10.10", Port: 2379, Backup: true, Weight: &weight, Options: "check"}},
		}},
	}
}

// between writes changes as text.
func between(t *testing.T, before, after model.Plan, live Roles) string {
	t.Helper()
	changes, err := Between(before, after, live)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, c := range changes.Clusters {
		fmt.Fprintf(&b, "%s %s %s\n", c.Kind, c.Cluster, strings.Join(c.What, "; "))
	}
	for _, s := range changes.Services {
		fmt.Fprintf(&b, "%s %s %s %s +%v -%v ~%s\n", s.Kind, s.Service, s.Listen, strings.Join(s.What, "; "), s.ServersAdded, s.ServersRemoved, strings.Join(s.ServersChanged, "; "))
	}
	return b.String()
}

func TestBetween(t *testing.T) {
	definitions := func(p *model.Plan) []model.Definition { return p.Clusters[0].Definitions }
	member := func(p *model.Plan, i int) *model.Member { return &p.Clusters[0].Members[i] }
	for _, test := range []struct {
		name string
		edit func(p *model.Plan)
		want string
	}{
		{"nothing", func(*model.Plan) {}, ""},
		{"a service more", func(p *model.Plan) {
			more := definitions(p)[0]
			more.Name, more.FullName, more.Port, more.IP, more.Backup = "more", "pg-test-more", 5440, "fd00::1", nil
			p.Clusters[0].Definitions = append(definitions(p), more)
		}, "added pg-test-more [fd00::1]:5440  +[pg-test-1 pg-test-2 pg-test-3] -[] ~\n"},
		{"who may come", func(p *model.Plan) {
			definitions(p)[0].Allow = model.Networks{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.1.7/32")}
		}, "changed pg-test-primary *:5433 allow (none) → [\"10.0.0.0/8\",\"192.168.1.7/32\"] +[] -[] ~\n"},
		{"how long clients wait", func(p *model.Plan) {
			definitions(p)[0].Hold, definitions(p)[1].Hold = &model.Hold{Failover: true}, &model.Hold{}
		}, "changed pg-test-primary *:5433 hold (none) → failover +[] -[] ~\nchanged pg-test-replica *:5434 hold (none) → 0 +[] -[] ~\n"},
		{"a service less", func(p *model.Plan) { p.Clusters[0].Definitions = definitions(p)[:1] },
			"removed pg-test-replica *:5434  +[] -[pg-test-1 pg-test-2 pg-test-3] ~\n"},
		{"definitions", func(p *model.Plan) {
			d := &definitions(p)[1]
			d.Port, d.Check, d.Dest, d.Backup = 5440, "/replica", model.Dest{Kind: model.ToPgBouncer}, nil
			d.Options, _ = model.ParseOptions("inter 1s")
		}, "changed pg-test-replica *:5440 backup \"[? pg_role == `primary`]\" → (none); check / → /replica; dest.kind port → pgbouncer; dest.port 5432 → (none); options \"inter 2s fall 3\" → \"inter 1s\"; port 5434 → 5440 +[] -[] ~pg-test-1: backup true → false; pg-test-1: port 5432 → 6432; pg-test-2: port 5432 → 6432; pg-test-3: port 5432 → 6432\n"},
		{"a weight", func(p *model.Plan) { member(p, 1).Weight = 50 },
			"changed pg-test member pg-test-2: weight 100 → 50\n" +
				"changed pg-test-primary *:5433  +[] -[] ~pg-test-2: weight 100 → 50\nchanged pg-test-replica *:5434  +[] -[] ~pg-test-2: weight 100 → 50\n"},
		{"a member more and one less", func(p *model.Plan) {
			m := *member(p, 2)
			m.Name, m.Host = "pg-test-4", "10.10.10.14"
			p.Clusters[0].Members[2] = m
			p.Clusters[0].Definitions = definitions(p)[:1]
		}, "changed pg-test member pg-test-4 is new; member pg-test-3 is gone\n" +
			"changed pg-test-primary *:5433  +[pg-test-4] -[pg-test-3] ~\nremoved pg-test-replica *:5434  +[] -[pg-test-1 pg-test-2 pg-test-3] ~\n"},
		{"a member more", func(p *model.Plan) {
			m := *member(p, 2)
			m.Name, m.Host = "pg-test-4", "10.10.10.14"
			p.Clusters[0].Members = append(p.Clusters[0].Members, m)
		}, "changed pg-test member pg-test-4 is new\n" +
			"changed pg-test-primary *:5433  +[pg-test-4] -[] ~\nchanged pg-test-replica *:5434  +[pg-test-4] -[] ~\n"},
		{"a member less", func(p *model.Plan) { p.Clusters[0].Members = p.Clusters[0].Members[:2] },
			"changed pg-test member pg-test-3 is gone\n" +
				"changed pg-test-primary *:5433  +[] -[pg-test-3] ~\nchanged pg-test-replica *:5434  +[] -[pg-test-3] ~\n"},
		{"a role is reported once", func(p *model.Plan) {
			member(p, 2).Role, member(p, 2).Vars = model.Offline, map[string]any{"pg_role": "offline", "pg_offline_query": false}
		}, "changed pg-test member pg-test-3: role replica → offline\n"},
		{"a variable that selects nobody yet", func(p *model.Plan) { member(p, 2).Vars["pg_offline_query"] = true },
			"changed pg-test member pg-test-3: pg_offline_query false → true\n"},
		{"the cluster as such", func(p *model.Plan) {
			p.Clusters[0].TTL, p.Clusters[0].StaticRoles, p.Clusters[0].TrustCheck = 20, false, true
		},
			"changed pg-test static_roles true → false; trust_check false → true; ttl 30 → 20\n"},
		{"the order of servers", func(p *model.Plan) {
			p.Clusters[0].Definitions = definitions(p)[:1]
			p.Clusters[0].Definitions[0].Selector = jmespath.Read("reverse(@)")
		}, "changed pg-test-primary *:5433 selector [] → reverse(@); the servers' order: pg-test-3, pg-test-2, pg-test-1 +[] -[] ~\n" +
			"removed pg-test-replica *:5434  +[] -[pg-test-1 pg-test-2 pg-test-3] ~\n"},
		{"another cluster", func(p *model.Plan) {
			p.Clusters[0].Name = "pg-new"
			p.Clusters[0].Definitions = []model.Definition{}
			p.Clusters[0].Members = p.Clusters[0].Members[:1]
		}, "added pg-new 1 member\nremoved pg-test \n" +
			"removed pg-test-primary *:5433  +[] -[pg-test-1 pg-test-2 pg-test-3] ~\nremoved pg-test-replica *:5434  +[] -[pg-test-1 pg-test-2 pg-test-3] ~\n"},
		{"a TCP service", func(p *model.Plan) { p.TCPServices[0].Servers[0].Weight = nil; p.TCPServices[0].Options = nil },
			"changed etcd 10.10.10.11:2479 options [\"option tcplog\"] → (none) +[] -[] ~etcd-1: weight 10 → (none)\n"},
		{"no TCP service", func(p *model.Plan) { p.TCPServices = nil }, "removed etcd 10.10.10.11:2479  +[] -[etcd-1] ~\n"},
		{"the order of services", func(p *model.Plan) { slices.Reverse(p.Clusters[0].Definitions) }, "changed the services in another order\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			after := sample()
			test.edit(&after)
			if got := between(t, sample(), after, nil); got != test.want {
				t.Errorf("got\n%swant\n%s", got, test.want)
			}
		})
	}
}

// TestNames has names and the clusters that are watched for them come, differ and go.
func TestNames(t *testing.T) {
	far := sample().Clusters[0]
	far.Name = "pg-far"
	both := func(edit func(p *model.Plan)) model.Plan {
		p := sample()
		p.Names = []model.Naming{{Cluster: "pg-test", Target: model.TargetPrimary}, {Cluster: "pg-far", Target: model.TargetPrimary}}
		p.Elsewhere = []model.Cluster{far}
		p.Elsewhere[0].Definitions = slices.Clone(far.Definitions)
		edit(&p)
		return p
	}
	asIs := both(func(*model.Plan) {})
	for _, test := range []struct {
		name          string
		before, after model.Plan
		want          string
	}{
		{"the same", asIs, asIs, ""},
		{"they come", sample(), asIs, "changed pg-test its names are told\nchanged pg-far its names are told; watched for its names: 3 members\n"},
		{"they go", asIs, sample(), "changed pg-far not watched for its names alone any more; its names aren't told any more\nchanged pg-test its names aren't told any more\n"},
		{"a suffix", asIs, both(func(p *model.Plan) { p.Names[1].Suffix = ".db" }), "changed pg-far names: suffix (none) → .db\n"},
		{"another order", asIs, both(func(p *model.Plan) { slices.Reverse(p.Names) }), "changed pg-far the names are in another order\n"},
		{"a port elsewhere", asIs, both(func(p *model.Plan) { p.Elsewhere[0].Definitions[0].Port = 6000 }), "changed pg-far service primary: port 5433 → 6000\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := between(t, test.before, test.after, nil); got != test.want {
				t.Errorf("got\n%swant\n%s", got, test.want)
			}
		})
	}
}

// TestLiveRoles has a switchover between the plans: it is nobody's change.
func TestLiveRoles(t *testing.T) {
	p := sample()
	p.Clusters[0].StaticRoles = false
	live := Roles{"pg-test": {"pg-test-1": model.Replica, "pg-test-2": model.Primary}}
	if got := between(t, p, p, live); got != "" {
		t.Errorf("the same plan after a switchover:\n%s", got)
	}
	after := sample()
	after.Clusters[0].StaticRoles = false
	after.Clusters[0].Definitions[1].Selector = jmespath.Read("[? pg_role == `replica`]")
	want := "changed pg-test-replica *:5434 selector [] → \"[? pg_role == `replica`]\"; the servers' order: pg-test-1, pg-test-3, pg-test-2 +[] -[] ~\n"
	if got := between(t, p, after, live); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestSelectorsThatFail(t *testing.T) {
	after := sample()
	after.Clusters[0].Definitions[0].Selector = jmespath.Read("[?")
	if _, err := Between(sample(), after, nil); err == nil || !strings.Contains(err.Error(), "cluster pg-test: service pg-test-primary") {
		t.Errorf("got %v", err)
	}
}

// TestNothingIsOverlooked alters each single value that the JSON of a plan has and expects it to be reported.
func TestNothingIsOverlooked(t *testing.T) {
	before := sample()
	before.Names = []model.Naming{{Cluster: "pg-test", Target: model.TargetPrimary}, {Cluster: "pg-far", Suffix: ".db", Target: "10.10.10.3", Delegated: true}}
	far := sample().Clusters[0]
	far.Name = "pg-far"
	before.Elsewhere = []model.Cluster{far}
	text, err := json.Marshal(before)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	// Whose plan it is doesn't matter to what it holds.
	delete(tree, "node")
	// The plan's own type must not gain a field without this being looked at.
	if fields := reflect.TypeFor[model.Plan]().NumField(); fields != 5 {
		t.Errorf("a plan has %d fields; does Between know them?", fields)
	}
	altered := 0
	alter(tree, "", func(path string) {
		changed, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		var after model.Plan
		if err := json.Unmarshal(changed, &after); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		changes, err := Between(before, after, nil)
		if err == nil && changes.None() {
			t.Errorf("%s is another, and that isn't reported", path)
		}
		altered++
	})
	if altered < 60 {
		t.Errorf("only %d values were altered", altered)
	}
}

// alter calls try with each value below v replaced by another of its kind, and puts it back.
func alter(v any, path string, try func(path string)) {
	each := func(value any, at string, set func(any)) {
		switch value := value.(type) {
		case bool:
			set(!value)
		case float64:
			set(value + 1)
		case string:
			switch {
			case strings.HasSuffix(at, ".options"):
				set("inter 7s")
			case strings.HasSuffix(at, ".selector"), strings.HasSuffix(at, ".backup"):
				set("[? pg_role == `delayed`]")
			default:
				set(value + "x")
			}
		default:
			alter(value, at, try)
			return
		}
		try(at)
		set(value)
	}
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			each(value, path+"."+name, func(other any) { v[name] = other })
		}
	case []any:
		for i, value := range v {
			each(value, fmt.Sprintf("%s[%d]", path, i), func(other any) { v[i] = other })
		}
	}
}

func TestJSONHasLists(t *testing.T) {
	changes, err := Between(sample(), sample(), nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(changes)
	if err != nil || string(text) != `{"clusters":[],"services":[]}` || !changes.None() {
		t.Errorf("got %s, %v", text, err)
	}
	if !reflect.DeepEqual(changes, api.Changes{Clusters: []api.ClusterChange{}, Services: []api.ServiceChange{}}) {
		t.Errorf("got %#v", changes)
	}
}
