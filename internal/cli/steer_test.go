package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/control"
)

// steeredNode is a pretended node of pg-test with a replica's server that has sessions.
type steeredNode struct {
	mu       sync.Mutex
	sessions int
	// leaves is how many of them end with each look at the status.
	leaves int
	orders []api.Order
	ended  []api.EndSessions
}

func (n *steeredNode) steering(host string) control.Steering {
	lock := func() func() { n.mu.Lock(); return n.mu.Unlock }
	return control.Steering{
		Status: func() api.Status {
			defer lock()()
			n.sessions = max(0, n.sessions-n.leaves)
			return api.Status{Version: "1", Node: host, Config: api.Config{Generation: 1, Loaded: time.Date(2026, 5, 1, 12, 0, 0, 0, time.Local)}, Clusters: []api.Cluster{{Name: "pg-test", Services: []api.Service{{
				FullName: "pg-test-replica", Servers: []api.Server{{Member: "pg-test-2", Sessions: n.sessions}, {Member: "pg-test-3", Sessions: 100}}}}}}}
		},
		Order: func(_ context.Context, o api.Order) ([]api.OrderResult, error) {
			defer lock()()
			n.orders = append(n.orders, o)
			if o.Member == "pg-test-22" {
				return nil, errors.New(`there is no member "pg-test-22" here: the members are pg-test-1, pg-test-2, pg-test-3; did you mean pg-test-2`)
			}
			return []api.OrderResult{{Cluster: "pg-test", Service: "pg-test-replica", Member: "pg-test-2", Changed: true, Sessions: n.sessions,
				Effect: fmt.Sprintf("takes no new clients; its %d sessions go on; pg-test-3 takes them", n.sessions), Now: api.Ordered{State: o.State, Weight: o.Weight, By: o.By}}}, nil
		},
		Sessions: func(f api.SessionFilter) (api.Sessions, error) {
			began := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
			all := []api.Session{
				{ID: 7, Client: "10.0.0.7:4000", Service: "pg-test-replica", Member: "pg-test-2", Began: began, ToServer: 999, ToClient: 12_345_678},
				{ID: 8, Client: "10.0.0.8:4001\x1b[2J", Service: "pg-test-primary", Member: "pg-test-1", Began: began.Add(time.Hour), ToServer: 0, ToClient: 1000},
			}
			s := api.Sessions{Node: host, Now: began.Add(2*time.Hour + 5*time.Second)}
			for _, one := range all {
				if f.Member == "" || f.Member == one.Member {
					s.Sessions = append(s.Sessions, one)
				}
			}
			return s, nil
		},
		EndSessions: func(_ context.Context, e api.EndSessions, _ string) (api.SessionsEnded, error) {
			defer lock()()
			n.ended = append(n.ended, e)
			return api.SessionsEnded{Ended: n.sessions}, nil
		},
		Reread: func(context.Context, string) (api.Reread, error) {
			if host == "127.0.66.2" {
				return api.Reread{}, errors.New("pigsty.yml:1:1: error: it is no mapping\nsecond line")
			}
			return api.Reread{Node: host, Generation: 3, Source: "/etc/pgporter/plan.json"}, nil
		},
	}
}

// steer runs a command for nodes; a host that isn't pretended is one where nobody listens.
func (n *pretended) steer(args ...string) (status int, stdout, stderr string) {
	n.t.Helper()
	var out, problems bytes.Buffer
	args = append(args, "--port", n.port, "--token-file", n.files.Token, "--ca", n.files.Certificate)
	status = Main(args, strings.NewReader(""), &out, &problems)
	return status, out.String(), problems.String()
}

func startSteered(t *testing.T, sessions, leaves int) (*pretended, map[string]*steeredNode) {
	t.Helper()
	all, steering := map[string]*steeredNode{}, map[string]control.Steering{}
	for _, host := range []string{"127.0.66.1", "127.0.66.2"} {
		all[host] = &steeredNode{sessions: sessions, leaves: leaves}
		steering[host] = all[host].steering(host)
	}
	p := &pretended{t: t}
	p.serve(steering)
	return p, all
}

func TestSteerCommands(t *testing.T) {
	p, all := startSteered(t, 12, 0)
	const both, other = "127.0.66.1,127.0.66.2", "127.0.66.1,127.0.66.9"
	effect := "takes no new clients; its 12 sessions go on; pg-test-3 takes them"
	for _, test := range []struct {
		args           string
		status         int
		stdout, stderr string
	}{
		{"drain pg-test-2 --node " + both, 0, `NODE        SERVICE          SERVER     STATE  SESSIONS  EFFECT
127.0.66.1  pg-test-replica  pg-test-2  drain  12        ` + effect + `
127.0.66.2  pg-test-replica  pg-test-2  drain  12        ` + effect + `
`, ""},
		// One that fails is named, the other goes on.
		{"maint pg-test-2 --node " + other, 1, `NODE        SERVICE          SERVER     STATE  SESSIONS  EFFECT
127.0.66.1  pg-test-replica  pg-test-2  maint  12        ` + effect + `
`, "127.0.66.9: nobody listens at 127.0.66.9:PORT: its pgporter doesn't run, or not with --control there\npgporter: 1 of 2 nodes failed: 127.0.66.9\n"},
		{"drain pg-test-22 --node 127.0.66.1", 1, "", "127.0.66.1: refused: there is no member \"pg-test-22\" here: the members are pg-test-1, pg-test-2, pg-test-3; did you mean pg-test-2\n"},
		{"weight pg-test-2 50 --node 127.0.66.1 -o json", 0, `"weight": 50`, ""},
		{"weight pg-test-2 257 --node 127.0.66.1", 2, "", "pgporter: weight \"257\": 0 to 256, or declared\nsee: pgporter weight --help\n"},
		{"weight pg-test-2 --node 127.0.66.1", 2, "", "pgporter: accepts 2 arg(s), received 1\nsee: pgporter weight --help\n"},
		{"ready --node 127.0.66.1", 2, "", "pgporter: which server: MEMBER, or --service for all servers of one\nsee: pgporter ready --help\n"},
		{"drain x --wait 1s -n --node 127.0.66.1", 2, "", "pgporter: --wait and --dry-run: one of them\nsee: pgporter drain --help\n"},
		{"drain x --pid 1 --node 127.0.66.1", 2, "", "pgporter: --pid is about this machine's pgporter: it doesn't go with --node or --inventory\nsee: pgporter drain --help\n"},
		{"drain x --node 127.0.66.1:99999", 2, "", "pgporter: --node \"127.0.66.1:99999\": an address or address:port\nsee: pgporter drain --help\n"},
		{"drain x -i pigsty.yml", 2, "", "pgporter: --inventory: --cluster says which cluster's nodes\nsee: pgporter drain --help\n"},
		{"sessions --node 127.0.66.1", 0, `NODE        ID  CLIENT                  SERVICE          MEMBER     FOR    TO SERVER  TO CLIENT
127.0.66.1  7   10.0.0.7:4000           pg-test-replica  pg-test-2  2h00m  999 B      12 MB
127.0.66.1  8   10.0.0.8:4001\u001b[2J  pg-test-primary  pg-test-1  1h00m  0 B        1.0 kB
`, ""},
		{"sessions --node " + both + " --member pg-test-9", 0, "127.0.66.1 has none\n127.0.66.2 has none\n", ""},
		{"sessions --client ten --node 127.0.66.1", 2, "", "pgporter: --client \"ten\": an address or a network, such as 10.10.10.0/24\nsee: pgporter sessions --help\n"},
		{"kill-sessions --node 127.0.66.1", 2, "", "pgporter: which sessions: --client, --service, --member, --idle, --id, or --all for every session of the node\nsee: pgporter kill-sessions --help\n"},
		{"kill-sessions --node 127.0.66.1 --member pg-test-2", 2, "", "pgporter: nobody can be asked here whether it is meant: --yes says so, --dry-run shows how many there are\nsee: pgporter kill-sessions --help\n"},
		{"kill-sessions --node " + both + " --member pg-test-2 -n", 0, "127.0.66.1: 12 sessions would be ended\n127.0.66.2: 12 sessions would be ended\n", ""},
		{"kill-sessions --node " + other + " --member pg-test-2 --yes", 1, "127.0.66.1: 12 sessions ended\n", "127.0.66.9: nobody listens at 127.0.66.9:PORT: its pgporter doesn't run, or not with --control there\npgporter: 1 of 2 nodes failed: 127.0.66.9\n"},
		{"kill-sessions --node " + both + " --id 7 --yes", 2, "", "pgporter: --id is a session of one node: say which with --node\nsee: pgporter kill-sessions --help\n"},
		{"reread --node " + both, 1, "127.0.66.1: runs configuration 3 of /etc/pgporter/plan.json\n", "127.0.66.2: refused: pigsty.yml:1:1: error: it is no mapping\nsecond line\npgporter: 1 of 2 nodes failed: 127.0.66.2\n"},
	} {
		status, stdout, stderr := p.steer(strings.Fields(test.args)...)
		stderr = strings.ReplaceAll(stderr, ":"+p.port, ":PORT")
		if status != test.status || stdout != test.stdout && (!strings.Contains(test.args, "json") || !strings.Contains(stdout, test.stdout)) || stderr != test.stderr {
			t.Errorf("%s: status %d\n%s%s\nwant %d\n%s%s", test.args, status, stdout, stderr, test.status, test.stdout, test.stderr)
		}
	}
	var states []string
	for _, o := range all["127.0.66.1"].orders {
		states = append(states, fmt.Sprintf("%s %s %q", o.Member, o.State, o.By))
	}
	if got := strings.Join(states, ", "); got != `pg-test-2 drain "token at 127.0.0.1", pg-test-2 maint "token at 127.0.0.1", pg-test-22 drain "token at 127.0.0.1", pg-test-2  "token at 127.0.0.1"` {
		t.Errorf("ordered: %s", got)
	}
	if ended := all["127.0.66.1"].ended; len(ended) != 2 || !ended[0].DryRun || ended[1].DryRun || ended[1].Filter != (api.SessionFilter{Member: "pg-test-2"}) {
		t.Errorf("ended: %+v", ended)
	}
}

// TestDrainWaits has the sessions of a drained server end while the command waits, and not.
func TestDrainWaits(t *testing.T) {
	p, _ := startSteered(t, 2, 1)
	status, stdout, stderr := p.steer("drain", "pg-test-2", "--node", "127.0.66.1,127.0.66.2", "--wait", "1m")
	if status != 0 || !strings.Contains(stdout, "\nno session is left (after ") || stderr != "2 sessions left: 1 on 127.0.66.1, 1 on 127.0.66.2\n" {
		t.Errorf("status %d\n%s%s", status, stdout, stderr)
	}
	p, _ = startSteered(t, 2, 0)
	status, _, stderr = p.steer("drain", "pg-test-2", "--node", "127.0.66.1", "--wait", "10ms")
	if status != 1 || !strings.HasSuffix(stderr, "the order holds, pgporter kill-sessions ends them\n") {
		t.Errorf("status %d\n%s", status, stderr)
	}
}

func TestStatusOfNodes(t *testing.T) {
	p, _ := startSteered(t, 12, 0)
	status, stdout, stderr := p.steer("status", "--node", "127.0.66.1,127.0.66.2,127.0.66.9")
	stderr = strings.ReplaceAll(stderr, ":"+p.port, ":PORT")
	want := `NODE        VERSION  UP  CONFIGURATION  SESSIONS  WAITING  REMARK
127.0.66.1  1        0s  1 of 12:00:00  0         0        -
127.0.66.2  1        0s  1 of 12:00:00  0         0        -
127.0.66.9  -        -   -              -         -        no status

SERVICE          STATE  SERVER     ROLE  STATE  SESSIONS  WHY
pg-test-replica  down   pg-test-2  -     down   24        
                        pg-test-3  -     down   200       
`
	if status != 1 || stdout != want || stderr != "127.0.66.9: nobody listens at 127.0.66.9:PORT: its pgporter doesn't run, or not with --control there\npgporter: 1 of 3 nodes failed: 127.0.66.9\n" {
		t.Errorf("status %d\n%s%s", status, stdout, stderr)
	}
	if status, _, stderr := p.steer("status", "pg-tset", "--node", "127.0.66.1"); status != 1 || !strings.Contains(stderr, `no cluster "pg-tset" is served here; there are: pg-test`) {
		t.Errorf("status %d\n%s", status, stderr)
	}
	if status, stdout, _ := p.steer("status", "--node", "127.0.66.1", "-o", "json"); status != 0 || !strings.Contains(stdout, `"full_name": "pg-test-replica"`) {
		t.Errorf("status %d\n%s", status, stdout)
	}
}
