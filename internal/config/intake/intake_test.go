package intake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/jmespath"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/config/resolve"
)

// sample is an order with everything that a plan may hold.
func sample() Order {
	options, _ := model.ParseOptions("inter 2s fall 3 on-marked-down shutdown-sessions")
	weight := 0
	member := func(seq int, role model.Role) model.Member {
		return model.Member{
			Name: fmt.Sprintf("pg-test-%d", seq), Host: fmt.Sprintf("10.10.10.1%d", seq), Role: role, PostgresPort: 5432, PgBouncerPort: 6432,
			PatroniPort: 8008, Weight: 100, Vars: map[string]any{"pg_role": string(role), "pg_seq": float64(seq), "tags": []any{"a", nil, true}},
		}
	}
	return Order{
		Source: "pigsty.yml", Sender: "dba@infra",
		Plan: model.Plan{
			Node: "10.10.10.11",
			Clusters: []model.Cluster{{
				Name: "pg-test", TTL: 30, Members: []model.Member{member(1, model.Primary), member(2, model.Replica)},
				Definitions: []model.Definition{
					{Name: "primary", FullName: "pg-test-primary", IP: "*", Port: 5433, Selector: jmespath.Read("[]"), Dest: model.Dest{Kind: model.ToPgBouncer},
						Check: "/primary", MaxConn: 5000, Balance: model.RoundRobin, Options: options},
					{Name: "extra", FullName: "pg-test-extra", IP: "10.10.10.11", Port: 5440, Selector: jmespath.Read("[? pg_seq > `1`]"), Backup: jmespath.Read("[? pg_role == `primary`]"),
						Dest: model.Dest{Kind: model.ToPort, Port: 5433}, Check: "/replica?lag=10MB", MaxConn: 1, Balance: model.LeastConn, Options: options},
				},
				VIP: &model.VirtualIP{Address: netip.MustParsePrefix("10.10.10.3/24"), Interface: "eth0", Member: "pg-test-1", Host: "10.10.10.11", OnLoss: model.GraceOnLoss},
			}},
			TCPServices: []model.TCPService{{Name: "etcd", IP: "*", Port: 2479, Protocol: "tcp", MaxConn: 10, Balance: "source", Options: []string{"option tcplog"}, Default: "inter 3s",
				Servers: []model.TCPServer{{Name: "etcd-1", Host: "etcd.example", Port: 2379, Weight: &weight, Options: "check"}}}},
			Names: []model.Naming{{Cluster: "pg-test", Suffix: ".db.example", Target: model.TargetPrimary}, {Cluster: "pg-far", Target: "10.10.10.3", Delegated: true}},
			Elsewhere: []model.Cluster{{Name: "pg-far", TTL: 20, Members: []model.Member{member(3, model.Primary)}, Definitions: []model.Definition{
				{Name: "primary", FullName: "pg-far-primary", IP: "*", Port: 5433, Selector: jmespath.Read("[]"), Dest: model.Dest{Kind: model.ToPostgres},
					Check: "/primary", MaxConn: 5000, Balance: model.RoundRobin, Options: options}}}},
		},
	}
}

// atDoor gives the service extra of a sample a pool, which is sound.
func atDoor(o *Order) {
	d := &o.Plan.Clusters[0].Definitions[1]
	d.Pool, d.Dest, o.Plan.Clusters[0].DoorPort = model.Door, model.Dest{Kind: model.ToPostgres}, 6433
}

func TestDoorsAreSent(t *testing.T) {
	o := sample()
	atDoor(&o)
	text, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Decode(text); err != nil || got.Plan.Clusters[0].DoorPort != 6433 || got.Plan.Clusters[0].Definitions[1].Pool != model.Door {
		t.Errorf("%+v, %v", got.Plan.Clusters[0], err)
	}
}

func TestWhatIsSentArrives(t *testing.T) {
	text, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if want := sample(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestRefusals(t *testing.T) {
	cluster := func(o *Order) *model.Cluster { return &o.Plan.Clusters[0] }
	definition := func(o *Order, i int) *model.Definition { return &cluster(o).Definitions[i] }
	for _, test := range []struct {
		name string
		edit func(o *Order)
		want string
	}{
		{"for nobody", func(o *Order) { o.Plan.Node = "" }, `node is "": the inventory host that the plan is for`},
		{"a sender that writes on terminals", func(o *Order) { o.Sender = "\x1b[2J" }, "sender: printable text of at most 400 bytes"},
		{"a long source", func(o *Order) { o.Source = strings.Repeat("x", 401) }, "source: printable text of at most 400 bytes"},
		{"a cluster's name", func(o *Order) { cluster(o).Name = "pg test" }, `cluster "pg test": its name has to be letters`},
		{"root", func(o *Order) { cluster(o).Name = "root" }, `cluster "root": its name`},
		{"a cluster twice", func(o *Order) { o.Plan.Clusters = append(o.Plan.Clusters, o.Plan.Clusters[0]) }, "cluster pg-test is there twice"},
		{"no ttl", func(o *Order) { cluster(o).TTL = 0 }, "cluster pg-test: ttl is 0"},
		{"keys nowhere", func(o *Order) { cluster(o).KeyPath = "pg/pg test" }, `cluster pg-test: key_path is "pg/pg test": a path in etcd`},
		{"a member twice", func(o *Order) { cluster(o).Members[1].Name = "pg-test-1" }, "cluster pg-test: member pg-test-1 is there twice"},
		{"a member's name", func(o *Order) { cluster(o).Members[1].Name = "../x" }, `cluster pg-test: "../x" can't be a member's name`},
		{"two primaries", func(o *Order) { cluster(o).Members[1].Role = model.Primary }, "cluster pg-test: pg-test-2 is a second primary beside pg-test-1"},
		{"a role", func(o *Order) { cluster(o).Members[1].Role = "slave" }, `cluster pg-test: member pg-test-2: role is "slave": one of [primary`},
		{"a role that the variables deny", func(o *Order) { cluster(o).Members[1].Role = model.Offline }, "its variable pg_role is replica, its role offline"},
		{"a host", func(o *Order) { cluster(o).Members[1].Host = "10.10.10.12/24" }, `host is "10.10.10.12/24": an address or a host name`},
		{"a host with a zone", func(o *Order) { cluster(o).Members[1].Host = "fe80::1%eth0" }, `host is "fe80::1%eth0"`},
		{"ports of a member", func(o *Order) {
			cluster(o).Members[0].PostgresPort, cluster(o).Members[0].PgBouncerPort, cluster(o).Members[0].PatroniPort = 0, 65536, -1
		}, "cluster pg-test: member pg-test-1: postgres_port is 0: 1 to 65535\ncluster pg-test: member pg-test-1: pgbouncer_port is 65536: 1 to 65535\ncluster pg-test: member pg-test-1: patroni_port is -1: 1 to 65535"},
		{"a weight", func(o *Order) { cluster(o).Members[0].Weight = 257 }, "weight is 257: 0 to 256"},
		{"a full name", func(o *Order) { definition(o, 0).FullName = "pg-other-primary" }, `service "primary" has the full name "pg-other-primary"`},
		{"a service twice", func(o *Order) { definition(o, 1).Name, definition(o, 1).FullName = "primary", "pg-test-primary" }, "service pg-test-primary is there twice"},
		{"an address", func(o *Order) { definition(o, 0).IP = "everywhere" }, `service pg-test-primary: ip is "everywhere"`},
		{"a port", func(o *Order) { definition(o, 0).Port = 70000 }, "service pg-test-primary: port is 70000: 1 to 65535"},
		{"a port twice", func(o *Order) { definition(o, 1).Port = 5433 }, "service pg-test-extra: port 5433 is taken on the same node by service pg-test-primary"},
		{"a port that a TCP service has", func(o *Order) { o.Plan.TCPServices[0].Port = 5433 }, "service etcd: port 5433 is taken on the same node by service pg-test-primary"},
		{"a selector", func(o *Order) { definition(o, 0).Selector = jmespath.Read("[?") }, "service pg-test-primary: selector, column 3"},
		{"a backup", func(o *Order) { definition(o, 1).Backup = jmespath.Read("nope(") }, "service pg-test-extra: backup, column 6"},
		{"a destination", func(o *Order) { definition(o, 0).Dest.Kind = "" }, `service pg-test-primary: dest is ""`},
		{"a destination's port", func(o *Order) { definition(o, 1).Dest.Port = 0 }, "service pg-test-extra: dest is 0: 1 to 65535"},
		{"a port that means nothing", func(o *Order) { definition(o, 0).Dest.Port = 1 }, "service pg-test-primary: dest pgbouncer has a port of its own, 1"},
		{"a check", func(o *Order) { definition(o, 0).Check = "/primary HTTP/1.1\r\nX: y" }, "service pg-test-primary: check is"},
		{"no maxconn", func(o *Order) { definition(o, 0).MaxConn = 0 }, "service pg-test-primary: maxconn is 0"},
		{"a network with bits behind its mask", func(o *Order) { definition(o, 0).Allow = model.Networks{netip.MustParsePrefix("10.0.0.7/8")} }, "service pg-test-primary: allow: \"10.0.0.7/8\""},
		{"no network", func(o *Order) { o.Plan.TCPServices[0].Allow = model.Networks{{}} }, "service etcd: allow: \"invalid Prefix\""},
		{"too many networks", func(o *Order) { definition(o, 0).Allow = make(model.Networks, model.MaxNetworks+1) }, "service pg-test-primary: allow has 257 entries"},
		{"no balance", func(o *Order) { definition(o, 0).Balance = "" }, "service pg-test-primary: balance is missing"},
		{"a balance and more", func(o *Order) { definition(o, 0).Balance = "first\nbind *:1" }, "service pg-test-primary: balance:"},
		{"no options", func(o *Order) { definition(o, 0).Options = model.Options{Text: "inter 0s"} }, "option inter is \"0s\""},
		{"a TCP service's protocol", func(o *Order) { o.Plan.TCPServices[0].Protocol = "udp" }, `service etcd: protocol is "udp"`},
		{"a TCP service's line", func(o *Order) { o.Plan.TCPServices[0].Options[0] = "option tcplog\nlisten x" }, "service etcd: options:"},
		{"a TCP service's server", func(o *Order) { o.Plan.TCPServices[0].Servers[0].Port = 0 }, "service etcd: server etcd-1: port is 0"},
		{"a virtual address of nothing", func(o *Order) { cluster(o).VIP.Address = netip.Prefix{} }, "cluster pg-test: vip: address is"},
		{"a virtual address for all", func(o *Order) { cluster(o).VIP.Address = netip.MustParsePrefix("10.10.10.3/0") }, "cluster pg-test: vip: address is \"10.10.10.3/0\""},
		{"a virtual address's interface", func(o *Order) { cluster(o).VIP.Interface = "eth0/1" }, "cluster pg-test: vip: interface is \"eth0/1\""},
		{"a virtual address of a stranger", func(o *Order) { cluster(o).VIP.Member = "pg-test-9" }, "cluster pg-test: vip: \"pg-test-9\" isn't a member"},
		{"a virtual address's host", func(o *Order) { cluster(o).VIP.Host = "" }, "cluster pg-test: vip: host is \"\""},
		{"what becomes of a virtual address", func(o *Order) { cluster(o).VIP.OnLoss = "pray" }, "cluster pg-test: vip: on_dcs_loss is \"pray\": one of [grace keep drop]"},
		{"a virtual address that has no time", func(o *Order) { cluster(o).TTL = 9 }, "cluster pg-test: vip: the ttl of 9 s is too short: at least 10"},
		{"a cluster elsewhere", func(o *Order) { o.Plan.Elsewhere[0].Members[0].Host = "" }, "cluster pg-far: member pg-test-3: host is \"\""},
		{"a cluster elsewhere, twice", func(o *Order) { o.Plan.Elsewhere = append(o.Plan.Elsewhere, o.Plan.Elsewhere[0]) }, "cluster pg-far elsewhere is there twice"},
		{"a cluster elsewhere that can't be one", func(o *Order) { o.Plan.Elsewhere[0].Name = "a.b" }, "cluster \"a.b\" elsewhere: its name has to be"},
		{"names of nobody", func(o *Order) { o.Plan.Names[1].Cluster = "pg-none" }, "names of cluster \"pg-none\", of which nothing else is known"},
		{"names twice", func(o *Order) { o.Plan.Names[1].Cluster = "pg-test" }, "the names of cluster pg-test are there twice"},
		{"a suffix that isn't any", func(o *Order) { o.Plan.Names[0].Suffix = ".db\n10.0.0.1" }, "names of cluster pg-test: suffix is \".db\\n10.0.0.1\": letters"},
		{"a target that isn't any", func(o *Order) { o.Plan.Names[0].Target = "auto" }, "names of cluster pg-test: target is \"auto\": primary, none or an address"},
		{"a pool of another name", func(o *Order) { atDoor(o); definition(o, 1).Pool = "window" }, `service pg-test-extra: pool is "window": door, or none`},
		{"a pool before another", func(o *Order) { atDoor(o); definition(o, 1).Dest.Kind = model.ToPgBouncer }, "service pg-test-extra: pool door goes with dest postgres, and it is pgbouncer"},
		{"a door at no port", func(o *Order) { atDoor(o); cluster(o).DoorPort = 0 }, "cluster pg-test: door_port is 0: 1 to 65535"},
		{"a door before nothing", func(o *Order) { cluster(o).DoorPort = 6433 }, "cluster pg-test: door_port is 6433, and no service has a pool at the door"},
		{"a door where a service is", func(o *Order) { atDoor(o); cluster(o).DoorPort = 2479 }, "cluster pg-test: door_port: port 2479 is taken on the same node by service etcd"},
		{"two doors", func(o *Order) {
			atDoor(o)
			far := o.Plan.Elsewhere[0]
			far.Definitions = slices.Clone(far.Definitions)
			far.DoorPort, far.Definitions[0].Pool, far.Definitions[0].Port = 6434, model.Door, 5500
			o.Plan.Elsewhere, o.Plan.Names, o.Plan.Clusters = nil, nil, append(o.Plan.Clusters, far)
		}, "cluster pg-far: door_port is 6434, and that of another cluster 6433: a node has one door"},
		{"all at once", func(o *Order) { o.Plan.Node = "a b"; definition(o, 0).Port = 0; cluster(o).TTL = -1 },
			"node is \"a b\": the inventory host that the plan is for\ncluster pg-test: ttl is -1: 1 or more seconds\nservice pg-test-primary: port is 0: 1 to 65535"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := sample()
			test.edit(&o)
			text, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Decode(text); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v\nwant %s", err, test.want)
			}
			if _, err := o.Encode(); err == nil {
				t.Error("it can be sent")
			}
		})
	}
}

// TestSelectorsAsTheyAreSent: a selector has to be there, a backup needn't, and both are texts.
func TestSelectorsAsTheyAreSent(t *testing.T) {
	text, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ old, sent, want string }{
		{`"selector":"[]"`, `"selector":null`, "service pg-test-primary: selector, column 1: the expression is empty"},
		{`"selector":"[]"`, `"selector":""`, "service pg-test-primary: selector, column 1: the expression is empty"},
		{`"selector":"[]"`, `"selector":"[?"`, "service pg-test-primary: selector, column 3"},
		{`"selector":"[]"`, `"selector":5`, "selector is a number"},
		{`"selector":"[]"`, `"selector":"[]","backup":""`, ""},
		{`"selector":"[]"`, `"selector":"[]","backup":" "`, "service pg-test-primary: backup, column 1: the expression is empty"},
	} {
		got := ""
		if _, err := Decode([]byte(strings.Replace(string(text), test.old, test.sent, 1))); err != nil {
			got = err.Error()
		}
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", test.sent, got, test.want)
		}
	}
}

func TestWhatTheNativeEngineCanCarry(t *testing.T) {
	o := sample()
	if err := Native(o.Plan); err != nil {
		t.Errorf("a plan for it: %v", err)
	}
	o = sample()
	o.Plan.Clusters[0].Definitions[0].Balance = "static-rr"
	o.Plan.Clusters[0].Definitions[1].Options, _ = model.ParseOptions("inter 1s ssl")
	o.Plan.TCPServices[0].Protocol = "http"
	o.Plan.TCPServices[0].Options = append(o.Plan.TCPServices[0].Options, "option forwardfor")
	o.Plan.TCPServices[0].Default += " cookie a"
	o.Plan.TCPServices[0].Servers[0].Options += " minconn 3"
	if _, err := o.Encode(); err != nil {
		t.Errorf("HAProxy could: %v", err)
	}
	want := "service pg-test-primary: balance static-rr is not supported by the native engine\n" +
		"service pg-test-extra: option ssl isn't supported by the native engine\n" +
		"service etcd: protocol http isn't supported by the native engine; tcp; or HAProxy as the engine (--engine haproxy)\n" +
		"service etcd: options: option forwardfor isn't supported by the native engine; leave it out; or HAProxy as the engine (--engine haproxy)\n" +
		"service etcd: default: option cookie isn't supported by the native engine; leave it out: it is about HTTP; or HAProxy as the engine (--engine haproxy)\n" +
		"service etcd: server etcd-1: option minconn isn't supported by the native engine; maxconn; or HAProxy as the engine (--engine haproxy)"
	if err := Native(o.Plan); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// TestHoldsOfOrders: one that can't be read is refused, and HAProxy takes none; without any it takes what it can carry.
func TestHoldsOfOrders(t *testing.T) {
	o := sample()
	if err := HAProxy(o.Plan); err != nil {
		t.Errorf("a plan without: %v", err)
	}
	o.Plan.Clusters[0].Definitions[1].Hold = &model.Hold{Failover: true}
	want := "service pg-test-extra: hold failover: HAProxy keeps no client waiting for a failover; a plan for HAProxy has no hold"
	if err := HAProxy(o.Plan); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	text, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`"hold":"failover"`), []byte(`"hold":"2h"`), 1)
	if _, err := Decode(text); err == nil || !strings.Contains(err.Error(), `hold: "2h" isn't from 0 to 1h`) {
		t.Errorf("got %v", err)
	}
}

// TestPlansOfInventoriesAreAdmitted sends what planning makes of every sound inventory that it is tested with: both rooms
// have to agree on what a plan is, and nothing may be lost on the way.
func TestPlansOfInventoriesAreAdmitted(t *testing.T) {
	sent := 0
	for _, dir := range []string{"good", "warn", "haproxy"} {
		paths, err := filepath.Glob(filepath.Join("..", "plan", "testdata", dir, "*.yml"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %d inventories, %v", dir, len(paths), err)
		}
		for _, path := range paths {
			inv, problems := inventory.Read(path)
			if problems.Err() != nil {
				t.Fatal(problems)
			}
			for _, h := range inv.Hosts() {
				for engine, planned := range map[string]func(*inventory.Inventory, string) (model.Plan, diag.Problems){"native": plan.ForNode, "haproxy": plan.ForHAProxy} {
					p, problems := planned(inv, h.Name)
					if problems.Err() != nil {
						continue
					}
					text, err := Order{Plan: p, Source: path, Sender: "test"}.Encode()
					if err != nil {
						t.Errorf("%s, %s, %s: %v", path, h.Name, engine, err)
						continue
					}
					got, err := Decode(text)
					if err != nil || !reflect.DeepEqual(got.Plan, p) {
						t.Errorf("%s, %s, %s: sent it becomes another, %v\n%+v\n%+v", path, h.Name, engine, err, got.Plan, p)
					}
					carries := Native
					if engine == "haproxy" {
						carries = HAProxy
					}
					if err := carries(p); err != nil {
						t.Errorf("%s, %s: planned for %s, but %v", path, h.Name, engine, err)
					}
					sent++
				}
			}
		}
	}
	if sent < 20 {
		t.Errorf("only %d plans were tried", sent)
	}
}

func TestStrictReading(t *testing.T) {
	whole, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, text, want string }{
		{"nothing", "", "not an order that this version understands"},
		{"no JSON", "plan:", "at byte 1: invalid character"},
		{"null", "null", `node is ""`},
		{"another kind", "[]", "cannot unmarshal array"},
		{"a field from the future", strings.Replace(string(whole), `"port":5433`, `"port":5433,"colour":"red"`, 1), `unknown field "colour"`},
		{"a field of the wrong kind", strings.Replace(string(whole), `"port":5433`, `"port":"5433"`, 1), "plan.clusters.services.port is a string"},
		{"a second value", string(whole) + "{}", "something follows it"},
		{"an unclosed end", string(whole[:len(whole)-1]), "unexpected EOF"},
		{"options that aren't any", strings.Replace(string(whole), "inter 2s", "intre 2s", 1), "option intre isn't an option"},
		{"options left out", strings.Replace(string(whole), `,"options":"inter 2s fall 3 on-marked-down shutdown-sessions"`, "", 1), "service pg-test-primary: options are missing"},
		{"bytes that are no text", strings.Replace(string(whole), "dba@infra", "dba@\xff", 1), "the order isn't UTF-8"},
		{"too much", string(whole) + strings.Repeat(" ", MaxBytes), "too long: 16777216 at most"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.text == string(whole) {
				t.Fatal("the test doesn't alter the order")
			}
			if _, err := Decode([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"dba@infra":                       "dba@infra",
		"a\x1b[2J\nb\xff":                 "a\\u001b[2J\\nb\\xff",
		"/" + strings.Repeat("é", 300):    strings.Repeat("é", 200),
		strings.Repeat("x", 500) + "/end": strings.Repeat("x", 396) + "/end",
	} {
		if got := Printable(text); got != want {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestManyProblemsAreCut(t *testing.T) {
	o := sample()
	for range 200 {
		o.Plan.Clusters = append(o.Plan.Clusters, model.Cluster{Name: "!", TTL: 1})
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Decode(text)
	if err == nil || strings.Count(err.Error(), "\n") != 100 || !strings.HasSuffix(err.Error(), "\nand 299 more") {
		t.Errorf("got %v", err)
	}
}

// FuzzDecode looks for orders that make the reader panic, or that are admitted though they can't be worked with: resolved,
// and sent on as they are.
func FuzzDecode(f *testing.F) {
	o := sample()
	for _, edit := range []func(){
		func() {},
		func() { o.Plan.TCPServices = nil },
		func() { o.Plan.Clusters[0].StaticRoles, o.Plan.Clusters[0].TrustCheck = true, true },
		func() { o.Plan.Clusters[0].Definitions = nil },
		func() { o.Plan.Clusters = nil },
	} {
		edit()
		text, err := json.Marshal(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := Decode(text)
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Fatal("refused without a word")
			}
			return
		}
		for _, c := range o.Plan.Clusters {
			// A selector may still fail on these members; the daemon refuses it then.
			set, err := resolve.Set(c, nil)
			if err != nil {
				continue
			}
			for _, s := range set.Services {
				for _, server := range s.Servers {
					if s.Port < 1 || server.Port < 1 || server.Port > 65535 || server.Weight < 0 || server.Weight > 256 || server.Host == "" {
						t.Fatalf("service %+v with server %+v is admitted", s, server)
					}
				}
			}
		}
		again, err := o.Encode()
		if err != nil {
			t.Fatalf("it was read, but can't be sent: %v\n%s", err, text)
		}
		back, err := Decode(again)
		if err != nil || !reflect.DeepEqual(back, o) {
			t.Fatalf("sent on it becomes another: %v\n%s\n%s", err, text, again)
		}
	})
}
