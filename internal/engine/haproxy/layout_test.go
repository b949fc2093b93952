package haproxy

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// steady are options with which a test doesn't see HAProxy's own checks decide: two have to pass, and none follows the first.
// brisk are some with which it does.
const (
	steady = "inter 1h fastinter 1h downinter 1h rise 2 fall 3 on-marked-down shutdown-sessions"
	brisk  = "inter 1s fastinter 500ms downinter 1s rise 2 fall 3 on-marked-down shutdown-sessions"
)

// clusterOf makes a cluster of three members with one service with these options, whose servers are those named: `2`, or `1b`
// for a backup.
func clusterOf(words string, host func(seq int) string, ports [3]int, port int, servers ...string) (model.Cluster, []model.Service) {
	c := model.Cluster{Name: "pg-test", TTL: 20}
	for seq := 1; seq <= 3; seq++ {
		c.Members = append(c.Members, model.Member{Name: "pg-test-" + string(rune('0'+seq)), Host: host(seq), Role: model.Replica,
			PostgresPort: ports[0], PgBouncerPort: ports[0], PatroniPort: ports[1], Weight: 100})
	}
	c.Members[0].Role = model.Primary
	options, _ := model.ParseOptions(words)
	s := model.Service{Cluster: c.Name, Definition: model.Definition{Name: "reads", FullName: "pg-test-reads", IP: "*", Port: port,
		Check: "/replica", MaxConn: 100, Balance: model.RoundRobin, Options: options}}
	for _, name := range servers {
		m := c.Members[name[0]-'1']
		s.Servers = append(s.Servers, model.Server{Member: m.Name, Host: m.Host, Port: m.PostgresPort, Weight: m.Weight, Backup: strings.HasSuffix(name, "b")})
	}
	c.Definitions = []model.Definition{s.Definition}
	return c, []model.Service{s}
}

func testHost(seq int) string { return "10.10.10.1" + string(rune('0'+seq)) }

func layoutOf(t *testing.T, servers ...string) *layout {
	t.Helper()
	c, services := clusterOf(brisk, testHost, [3]int{5432, 8008}, 5434, servers...)
	l, err := render("10.10.10.11", "127.0.0.9", material{clusters: []resolved{{c, services}}}, "", "")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestRenderBindsWhereTheNodeIs(t *testing.T) {
	l := layoutOf(t, "1b", "2")
	text := l.files[0].Text
	if !strings.Contains(text, "bind 127.0.0.9:5434\n") || strings.Contains(text, "*:") {
		t.Errorf("not on the address of --bind:\n%s", text)
	}
	if l.proxies[0].address() != "127.0.0.9:5434" || l.files[0].Path != "conf.d/pg-test-reads.cfg" {
		t.Errorf("got %+v", l.proxies[0])
	}
}

func TestRenderExtras(t *testing.T) {
	c, services := clusterOf(brisk, testHost, [3]int{5432, 8008}, 5434, "1")
	m := material{clusters: []resolved{{c, services}}, tcp: []model.TCPService{{Name: "web", IP: "*", Port: 80, Protocol: "tcp", MaxConn: 9,
		Balance: "roundrobin", Default: "inter 1s", Servers: []model.TCPServer{{Name: "a", Host: "10.0.0.1", Port: 80, Options: "check"}, {Name: "b", Host: "10.0.0.2", Port: 80}}}}}
	l, err := render("n", "", m, "    load-server-state-from-file global\n", "own\n")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, f := range l.files {
		texts[f.Path] = f.Text
	}
	if texts["conf.d/pgporter.cfg"] != "own\n" || len(texts) != 3 {
		t.Errorf("files %v", texts)
	}
	for _, name := range []string{"conf.d/pg-test-reads.cfg", "conf.d/web.cfg"} {
		if !strings.HasSuffix(texts[name], "    load-server-state-from-file global\n") {
			t.Errorf("%s has no state:\n%s", name, texts[name])
		}
	}
	if web := l.proxies[1]; !web.servers[0].checked || web.servers[1].checked || web.address() != "*:80" {
		t.Errorf("got %+v", web)
	}
}

func TestCommands(t *testing.T) {
	weighed := layoutOf(t, "1", "2", "3")
	for i := range weighed.proxies {
		weighed.proxies[i].servers[1].weight = 50
	}
	headed := layoutOf(t, "1", "2", "3")
	headed.proxies[0].head += "timeout client 1s\n"
	three := serverID{"pg-test-reads", "pg-test-3"}
	for _, test := range []struct {
		name           string
		loaded, wanted *layout
		parked         map[serverID]bool
		sent           []string
		parks          map[serverID]bool
		reload         bool
	}{
		{name: "nothing", loaded: layoutOf(t, "1", "2b"), wanted: layoutOf(t, "1", "2b")},
		{name: "a server leaves", loaded: layoutOf(t, "1", "2", "3"), wanted: layoutOf(t, "1", "2"),
			sent:  []string{"set server pg-test-reads/pg-test-3 state maint", "shutdown sessions server pg-test-reads/pg-test-3"},
			parks: map[serverID]bool{three: true}},
		{name: "it stays away", loaded: layoutOf(t, "1", "2", "3"), wanted: layoutOf(t, "1", "2"), parked: map[serverID]bool{three: true}, parks: map[serverID]bool{three: true}},
		{name: "it comes back, down", loaded: layoutOf(t, "1", "2", "3"), wanted: layoutOf(t, "1", "2", "3"), parked: map[serverID]bool{three: true},
			sent: []string{"set server pg-test-reads/pg-test-3 state drain", "set server pg-test-reads/pg-test-3 health down", "set server pg-test-reads/pg-test-3 state ready"}},
		{name: "a weight", loaded: layoutOf(t, "1", "2", "3"), wanted: weighed, sent: []string{"set server pg-test-reads/pg-test-2 weight 50"}},
		{name: "a backup", loaded: layoutOf(t, "1", "2"), wanted: layoutOf(t, "1", "2b"), reload: true},
		{name: "a server joins", loaded: layoutOf(t, "1", "2"), wanted: layoutOf(t, "1", "2", "3"), reload: true},
		{name: "the order", loaded: layoutOf(t, "1b", "2b"), wanted: layoutOf(t, "2b", "1b"), reload: true},
		{name: "an option", loaded: layoutOf(t, "1", "2", "3"), wanted: headed, reload: true},
		{name: "a service less", loaded: layoutOf(t, "1"), wanted: &layout{}, reload: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			commands, parks, ok := commands(test.loaded, test.wanted, test.parked)
			if ok == test.reload {
				t.Fatalf("a reload is needed: %v", !ok)
			}
			if test.parks == nil {
				test.parks = map[serverID]bool{}
			}
			if ok && (!reflect.DeepEqual(commands, test.sent) || !reflect.DeepEqual(parks, test.parks)) {
				t.Errorf("sent %q, parked %v", commands, parks)
			}
		})
	}
}

func TestStateFile(t *testing.T) {
	l := layoutOf(t, "1", "2", "3b")
	at := func(n string) serverID { return serverID{"pg-test-reads", "pg-test-" + n} }
	was := func(op, admin, weight, initial int) serverState {
		return serverState{Address: "10.10.10.11", Port: 5432, Op: op, Admin: admin, Weight: weight, Initial: initial, Since: 7}
	}
	for _, test := range []struct {
		name   string
		said   opinion
		before map[serverID]serverState
		parked bool
		// given is an operator's order on the Board.
		given view.Order
		// want are operational and administrative state, the weights and the time of the first server.
		want string
	}{
		{"nothing is known", unknown, nil, false, view.Order{}, "0 0 100 100 0"},
		{"the Board says up", up, nil, false, view.Order{}, "2 0 100 100 0"},
		{"the Board says down of one that is up", down, map[serverID]serverState{at("1"): was(opRunning, 0, 100, 100)}, false, view.Order{}, "0 0 100 100 0"},
		{"the Board says up of one that is down", up, map[serverID]serverState{at("1"): was(opStopped, 0, 100, 100)}, false, view.Order{}, "2 0 100 100 0"},
		{"the Board is silent, it was up", unknown, map[serverID]serverState{at("1"): was(opRunning, 0, 100, 100)}, false, view.Order{}, "2 0 100 100 7"},
		{"the Board is silent, it was warming up", unknown, map[serverID]serverState{at("1"): was(opStarting, 0, 100, 100)}, false, view.Order{}, "2 0 100 100 0"},
		{"the Board is silent, it was down", unknown, map[serverID]serverState{at("1"): was(opStopped, 0, 100, 100)}, false, view.Order{}, "0 0 100 100 7"},
		{"the Board is silent, it was on its way down", unknown, map[serverID]serverState{at("1"): was(opStopping, 0, 100, 100)}, false, view.Order{}, "0 0 100 100 0"},
		{"an operator's maintenance stays", up, map[serverID]serverState{at("1"): was(opRunning, adminMaintenance, 100, 100)}, false, view.Order{}, "2 1 100 100 7"},
		{"ours doesn't", up, map[serverID]serverState{at("1"): was(opRunning, adminMaintenance, 100, 100)}, true, view.Order{}, "2 0 100 100 7"},
		{"an operator's weight stays", up, map[serverID]serverState{at("1"): was(opRunning, 0, 10, 100)}, false, view.Order{}, "2 0 10 100 7"},
		{"a weight of an older file doesn't", up, map[serverID]serverState{at("1"): was(opRunning, 0, 10, 50)}, false, view.Order{}, "2 0 100 100 7"},
		{"an order on the Board of one that HAProxy never had", up, nil, false, view.Order{State: view.Drain}, "2 8 100 100 0"},
		{"one that HAProxy was parked with", up, map[serverID]serverState{at("1"): was(opRunning, adminMaintenance, 100, 100)}, true, view.Order{State: view.Maintenance, Weighed: true, Weight: 7}, "2 1 7 100 7"},
		{"another server of that name", unknown, map[serverID]serverState{at("1"): {Address: "10.10.10.99", Port: 5432, Op: opRunning}}, false, view.Order{}, "0 0 100 100 0"},
		{"another port", unknown, map[serverID]serverState{at("1"): {Address: "10.10.10.11", Port: 6432, Op: opRunning}}, false, view.Order{}, "0 0 100 100 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text, stopped := stateFile(l, map[serverID]opinion{at("1"): test.said}, map[serverID]view.Order{at("1"): test.given}, test.before, map[serverID]bool{at("1"): test.parked})
			lines := strings.Split(text, "\n")
			want := "2 pg-test-reads 1 pg-test-1 10.10.10.11 " + test.want + " 1 0 0 6 0 0 0 - 5432 -"
			if lines[0] != "1" || lines[2] != want {
				t.Errorf("got  %s\nwant %s", lines[2], want)
			}
			if slices.Contains(stopped, at("1")) != strings.HasPrefix(test.want, "0") {
				t.Errorf("stopped: %v", stopped)
			}
			if _, err := parseServers(text); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOpinions(t *testing.T) {
	_, services := clusterOf(brisk, testHost, [3]int{5432, 8008}, 5434, "1", "2", "3")
	v := &view.View{Members: []view.Member{
		{Member: model.Member{Name: "pg-test-1"}, Answer: "200 replica running"},
		{Member: model.Member{Name: "pg-test-2"}, Answer: "silent: connection refused"},
		{Member: model.Member{Name: "pg-test-3"}, Answer: view.NotChecked},
	}, Services: []view.Service{{Service: services[0], Health: []view.Health{{Up: true}, {Reason: "silent"}, {Reason: view.NotChecked}}}}}
	want := map[serverID]opinion{{"pg-test-reads", "pg-test-1"}: up, {"pg-test-reads", "pg-test-2"}: down, {"pg-test-reads", "pg-test-3"}: unknown}
	if got := opinions([]*view.View{v}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestSettingsOfTheSystem(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "haproxy.cfg")
	for _, test := range []struct{ name, text, master, extra, own, state, err string }{
		{name: "nothing is there", text: "global\n", master: "/m", extra: "    load-server-state-from-file global\n",
			own: "global\n    server-state-file " + dir + "/servers.state\n", state: dir + "/servers.state"},
		{name: "all is there", text: "global\n  server-state-file '/run/s'\n hard-stop-after 5m\ndefaults\n\tload-server-state-from-file global\n", state: "/run/s"},
		{name: "old workers can't be reached", text: "global\n  server-state-file /run/s\ndefaults\n\tload-server-state-from-file global\n",
			own: "global\n    hard-stop-after 60s\n", state: "/run/s"},
		{name: "a relative state file", text: "global\n  server-state-file s\n", err: "server-state-file s isn't an absolute path"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(base, []byte(test.text), 0o644); err != nil {
				t.Fatal(err)
			}
			s, err := Config{Dir: dir, System: true, Socket: "/s", Master: test.master, Binary: "/bin/true"}.settings()
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s.extra != test.extra || s.state != test.state || !strings.HasSuffix(s.own, test.own) || (test.own == "") != (s.own == "") {
				t.Errorf("got %+v", s)
			}
		})
	}
	long := "/" + strings.Repeat("x", 90)
	if _, err := (Config{Dir: long, Binary: "/bin/true"}).settings(); err == nil || !strings.Contains(err.Error(), "too long for a socket") {
		t.Errorf("a long directory: %v", err)
	}
}
