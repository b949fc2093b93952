package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/control"
	"github.com/pgporter/pgporter/internal/config/intake"
)

// pretended are control addresses that pretend to be nodes of a cluster: what is sent to them is kept.
type pretended struct {
	t      *testing.T
	files  control.Files
	port   string
	mu     sync.Mutex
	orders map[string][]intake.Order
	dryRun []bool
}

// answerer is what a pretended node does with an order.
type answerer func(o intake.Order, dryRun bool) (api.Taken, error)

func takesAll(o intake.Order, dryRun bool) (api.Taken, error) {
	return api.Taken{Node: o.Plan.Node, Generation: 2, DryRun: dryRun, Changes: api.Changes{
		Clusters: []api.ClusterChange{{Cluster: "pg-test", Kind: api.Changed, What: []string{"ttl 30 → 20"}}},
		Services: []api.ServiceChange{
			{Service: "pg-test-more", Listen: "*:5440", Kind: api.Added, ServersAdded: []string{"pg-test-1", "pg-test-2"}},
			{Service: "pg-test-replica", Listen: "*:5434", Kind: api.Changed, What: []string{"check / → /replica"}, ServersAdded: []string{"pg-test-4"},
				ServersRemoved: []string{"pg-test-3"}, ServersChanged: []string{"pg-test-2: weight 100 → 50"}},
			{Service: "pg-test-old", Listen: "*:5441", Kind: api.Removed, ServersRemoved: []string{"pg-test-1"}},
		},
	}}, nil
}

// startNodes pretends to be these hosts, each serving as itself with the native engine unless who says otherwise.
func startNodes(t *testing.T, take map[string]answerer, who map[string]api.Node) *pretended {
	t.Helper()
	n := &pretended{t: t, orders: map[string][]intake.Order{}}
	steering := map[string]control.Steering{}
	for host, answer := range take {
		self, other := who[host]
		if !other {
			self = api.Node{Node: host, Engine: api.EngineNative, Generation: 1}
		}
		steering[host] = control.Steering{Node: func() api.Node { return self }, Take: func(_ context.Context, o intake.Order, _ string, dryRun bool) (api.Taken, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.orders[host] = append(n.orders[host], o)
			n.dryRun = append(n.dryRun, dryRun)
			return answer(o, dryRun)
		}}
	}
	n.serve(steering)
	return n
}

// serve has hosts answer at a control address each, until the test ends.
func (n *pretended) serve(steering map[string]control.Steering) {
	t := n.t
	t.Helper()
	var hosts []string
	for host := range steering {
		hosts = append(hosts, host)
	}
	var err error
	if n.files, err = control.MakeCredentials(t.TempDir(), hosts, time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	credentials, err := control.LoadCredentials(n.files)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	t.Cleanup(func() {
		stop()
		serving.Wait()
	})
	for host, does := range steering {
		// All nodes have one port; a loopback address of its own each makes it free for all as a rule.
		listener, err := net.Listen("tcp", net.JoinHostPort(host, cmp.Or(n.port, "0")))
		if err != nil {
			t.Fatal(err)
		}
		n.port = strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
		server := control.Server{Credentials: credentials, Logger: slog.New(slog.DiscardHandler), Steering: does}
		serving.Go(func() {
			if err := server.Serve(ctx, listener); err != nil {
				t.Error(err)
			}
		})
	}
}

// reload runs the command for an inventory's text.
func (n *pretended) reload(inventory string, args ...string) (status int, stdout, stderr string) {
	n.t.Helper()
	path := filepath.Join(n.t.TempDir(), "pigsty.yml")
	if err := os.WriteFile(path, []byte(inventory), 0o600); err != nil {
		n.t.Fatal(err)
	}
	var out, problems bytes.Buffer
	args = append([]string{"reload", "-i", path, "--port", n.port, "--token-file", n.files.Token, "--ca", n.files.Certificate}, args...)
	status = Main(args, strings.NewReader(""), &out, &problems)
	return status, out.String(), problems.String()
}

const trio = `pg-test:
  hosts:
    127.0.62.51: { pg_seq: 1, pg_role: primary }
    127.0.62.52: { pg_seq: 2, pg_role: replica }
    127.0.62.53: { pg_seq: 3, pg_role: replica, pg_offline_query: true }
  vars: { pg_cluster: pg-test }
`

func TestReloadSendsEachNodeItsPlan(t *testing.T) {
	n := startNodes(t, map[string]answerer{"127.0.62.51": takesAll, "127.0.62.52": takesAll, "127.0.62.53": takesAll}, nil)
	for _, dryRun := range []bool{true, false} {
		args := []string{"pg-test"}
		if dryRun {
			args = append(args, "--dry-run")
		}
		n.orders, n.dryRun = map[string][]intake.Order{}, nil
		status, out, problems := n.reload(trio, args...)
		if status != 0 || problems != "" {
			t.Fatalf("status %d\n%s%s", status, out, problems)
		}
		for host, orders := range n.orders {
			if len(orders) != 1 || orders[0].Plan.Node != host || len(orders[0].Plan.Clusters[0].Definitions) != 4 || !strings.Contains(orders[0].Sender, "@") || !strings.HasSuffix(orders[0].Source, "/pigsty.yml") {
				t.Errorf("%s got %+v", host, orders)
			}
		}
		if len(n.orders) != 3 || len(n.dryRun) != 3 || n.dryRun[0] != dryRun {
			t.Errorf("orders for %d nodes, dry run %v", len(n.orders), n.dryRun)
		}
		verb := "runs configuration 2"
		if dryRun {
			verb = "runs configuration 2, and with this one"
		}
		want := verb + `:
  ~ cluster pg-test: ttl 30 → 20
  + pg-test-more *:5440 on pg-test-1,pg-test-2
  ~ pg-test-replica *:5434
      check / → /replica
      + server pg-test-4
      - server pg-test-3
      ~ server pg-test-2: weight 100 → 50
  - pg-test-old *:5441
`
		if !strings.Contains(out, want) || strings.Count(out, "+ pg-test-more") != 1 || strings.Count(out, verb+", the same changes as on 127.0.62.5") != 2 {
			t.Errorf("printed\n%s", out)
		}
	}
}

func TestReloadNamesThoseThatFail(t *testing.T) {
	refuses := func(intake.Order, bool) (api.Taken, error) {
		return api.Taken{}, errors.New("service pg-test-more: port 5440 is taken")
	}
	nothing := func(o intake.Order, dryRun bool) (api.Taken, error) {
		return api.Taken{Node: o.Plan.Node, Generation: 4, DryRun: dryRun}, nil
	}
	n := startNodes(t, map[string]answerer{"127.0.62.61": nothing, "127.0.62.62": refuses, "127.0.62.63": nothing},
		map[string]api.Node{"127.0.62.63": {Node: "127.0.62.99", Engine: api.EngineNative}})
	inventory := strings.ReplaceAll(trio, "127.0.62.5", "127.0.62.6")
	status, out, problems := n.reload(inventory, "pg-test")
	if status != 1 || out != "127.0.62.61: runs configuration 4, nothing changes\n" {
		t.Errorf("status %d\n%s", status, out)
	}
	for _, want := range []string{
		"127.0.62.62: goes on with what it ran: refused: service pg-test-more: port 5440 is taken\n",
		"127.0.62.63: goes on with what it ran: the pgporter at 127.0.62.63:" + n.port + " serves as 127.0.62.99 of its inventory, not as 127.0.62.63\n",
		"pgporter: 2 of 3 nodes of pg-test failed: 127.0.62.62, 127.0.62.63\n",
	} {
		if !strings.Contains(problems, want) {
			t.Errorf("no %q in\n%s", want, problems)
		}
	}
	if len(n.orders["127.0.62.63"]) != 0 {
		t.Error("an order went to a node that serves as another")
	}

	// Named ones only.
	n.orders = map[string][]intake.Order{}
	if status, out, problems := n.reload(inventory, "pg-test", "127.0.62.61", "127.0.62.61"); status != 0 || len(n.orders) != 1 || len(n.orders["127.0.62.61"]) != 1 {
		t.Errorf("status %d, orders %v\n%s%s", status, n.orders, out, problems)
	}

	// For scripts.
	status, out, _ = n.reload(inventory, "pg-test", "127.0.62.61", "127.0.62.62", "-o", "json")
	var answers []reloaded
	if err := json.Unmarshal([]byte(out), &answers); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if status != 1 || len(answers) != 2 || answers[0].Taken == nil || answers[0].Taken.Generation != 4 || answers[1].Taken != nil || !strings.Contains(answers[1].Error, "port 5440 is taken") {
		t.Errorf("status %d\n%s", status, out)
	}
}

// TestReloadPlansForTheNodesEngine has one node of each engine: what only HAProxy can do goes to the one that runs it.
func TestReloadPlansForTheNodesEngine(t *testing.T) {
	n := startNodes(t, map[string]answerer{"127.0.62.71": takesAll, "127.0.62.72": takesAll, "127.0.62.73": takesAll}, map[string]api.Node{
		"127.0.62.72": {Node: "127.0.62.72", Engine: api.EngineHAProxy},
		"127.0.62.73": {Node: "127.0.62.73", Engine: "express"},
	})
	inventory := strings.Replace(strings.ReplaceAll(trio, "127.0.62.5", "127.0.62.7"), "pg_cluster: pg-test",
		"pg_cluster: pg-test, haproxy_services: [ { name: web, port: 8080, servers: [ { name: a, ip: 10.0.0.1, port: 80 } ] } ]", 1)
	status, _, problems := n.reload(inventory, "pg-test")
	if status != 1 || !strings.Contains(problems, `127.0.62.73: goes on with what it ran: its services are carried by "express", which this version doesn't know`) {
		t.Errorf("status %d\n%s", status, problems)
	}
	for _, node := range []string{"127.0.62.71", "127.0.62.72"} {
		if got := n.orders[node][0].Plan.TCPServices; len(got) != 1 || got[0].Name != "web" {
			t.Errorf("%s got %+v", node, got)
		}
	}

	// What the native engine can't do is said with its position, and nobody gets anything.
	n.orders = map[string][]intake.Order{}
	status, out, problems := n.reload(strings.Replace(inventory, "pg_cluster: pg-test",
		"pg_cluster: pg-test, pg_services: [ { name: x, port: 5440, selector: '[]', balance: static-rr } ]", 1), "pg-test", "127.0.62.71", "127.0.62.72")
	if status != 2 || out != "" || !strings.Contains(problems, "pigsty.yml:6:") || !strings.Contains(problems, "balance static-rr is not supported by the native engine") || len(n.orders) != 0 {
		t.Errorf("status %d, orders %v\n%s%s", status, n.orders, out, problems)
	}
}

// TestReloadOfADelegatedCluster goes to those who carry its services, and to a member only if it is named.
func TestReloadOfADelegatedCluster(t *testing.T) {
	n := startNodes(t, map[string]answerer{"127.0.62.91": takesAll, "127.0.62.92": takesAll, "127.0.62.93": takesAll, "127.0.62.94": takesAll}, nil)
	inventory := strings.Replace(strings.ReplaceAll(trio, "127.0.62.5", "127.0.62.9"), "pg_cluster: pg-test", "pg_cluster: pg-test, pg_service_provider: proxy", 1) +
		"proxy:\n  hosts: { 127.0.62.94: }\n"
	status, out, problems := n.reload(inventory, "pg-test")
	if status != 0 || len(n.orders) != 1 || len(n.orders["127.0.62.94"]) != 1 || len(n.orders["127.0.62.94"][0].Plan.Clusters[0].Definitions) != 4 {
		t.Errorf("status %d, orders %v\n%s%s", status, n.orders, out, problems)
	}
	n.orders = map[string][]intake.Order{}
	status, out, problems = n.reload(inventory, "pg-test", "127.0.62.92")
	if status != 0 || len(n.orders) != 1 || len(n.orders["127.0.62.92"]) != 1 {
		t.Fatalf("status %d, orders %v\n%s%s", status, n.orders, out, problems)
	}
	for _, c := range n.orders["127.0.62.92"][0].Plan.Clusters {
		if len(c.Definitions) != 0 {
			t.Errorf("the member is sent, to carry, %+v", c.Definitions)
		}
	}
	if _, _, problems = n.reload(inventory, "pg-test", "127.0.62.99"); !strings.Contains(problems, "there are: 127.0.62.94, 127.0.62.91, 127.0.62.92, 127.0.62.93") {
		t.Errorf("a stranger: %s", problems)
	}
}

// record pretends to be these hosts, as startNodes does, and keeps every byte of what they are asked and sent.
func record(t *testing.T, engines map[string]string) (*pretended, *bytes.Buffer) {
	t.Helper()
	n := &pretended{t: t}
	var wire bytes.Buffer
	var err error
	if n.files, err = control.MakeCredentials(t.TempDir(), slices.Collect(maps.Keys(engines)), time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(n.files.Certificate, n.files.Key)
	if err != nil {
		t.Fatal(err)
	}
	for host, engine := range engines {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			whole, err := httputil.DumpRequest(r, true)
			if err != nil {
				t.Error(err)
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			wire.Write(whole)
			if r.Method == http.MethodGet {
				fmt.Fprintf(w, `{"node":%q,"engine":%q,"generation":1}`, host, engine)
			} else {
				fmt.Fprintf(w, `{"node":%q,"generation":2,"changes":{"clusters":[],"services":[]}}`, host)
			}
		}))
		server.Listener.Close()
		if server.Listener, err = net.Listen("tcp", net.JoinHostPort(host, cmp.Or(n.port, "0"))); err != nil {
			t.Fatal(err)
		}
		n.port = strconv.Itoa(server.Listener.Addr().(*net.TCPAddr).Port)
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		server.StartTLS()
		t.Cleanup(server.Close)
	}
	return n, &wire
}

// TestNoSecretLeaves sends the plans of an inventory that is full of secrets.
func TestNoSecretLeaves(t *testing.T) {
	n, wire := record(t, map[string]string{"127.0.62.81": api.EngineNative, "127.0.62.82": api.EngineHAProxy, "127.0.62.83": api.EngineNative})
	secrets := []string{}
	secret := func() string {
		s := fmt.Sprintf("S3cr3t.%04d", len(secrets))
		secrets = append(secrets, s)
		return s
	}
	var vars strings.Builder
	for _, name := range []string{
		"pg_admin_password", "pg_dbsu_password", "pg_monitor_password", "pg_replication_password", "patroni_password", "grafana_admin_password",
		"haproxy_admin_password", "minio_secret_key", "api_token", "vault_credentials", "ansible_ssh_pass", "tls_private_key",
	} {
		fmt.Fprintf(&vars, "    %s: %s\n", name, secret())
	}
	fmt.Fprintf(&vars, "    pg_users: [ { name: test, password: %s } ]\n", secret())
	fmt.Fprintf(&vars, "    pgbackrest_repo: { minio: { s3_key: k, s3_key_secret: %s, cipher_pass: %s } }\n", secret(), secret())
	// One selector looks at every variable that there is, another into a list that holds secrets beside what it looks for.
	fmt.Fprint(&vars, `    pg_services:
      - { name: every, port: 5440, selector: "[? keys(@) && to_string(@) != 'x']" }
      - { name: some, port: 5441, selector: "[? pgbackrest_repo.minio.s3_key == 'k']", check: /primary }
      - { name: plain, port: 5442, selector: "[? pg_offline_query]" }
`)
	inventory := strings.Replace(strings.ReplaceAll(trio, "127.0.62.5", "127.0.62.8"), "  vars: { pg_cluster: pg-test }\n", "  vars:\n    pg_cluster: pg-test\n"+vars.String(), 1)

	// A selector that asks for a secret is refused on this side.
	status, _, problems := n.reload(inventory, "pg-test")
	if status != 2 || !strings.Contains(problems, "looks like a secret and isn't handed on") || strings.Contains(wire.String(), "pg-test-") {
		t.Fatalf("status %d, sent\n%s\n%s", status, wire.String(), problems)
	}
	hidesNothing(t, problems, secrets)
	whole := inventory
	inventory = strings.Replace(inventory, `      - { name: some, port: 5441, selector: "[? pgbackrest_repo.minio.s3_key == 'k']", check: /primary }`+"\n", "", 1)
	if inventory == whole {
		t.Fatal("the selector is still there")
	}
	wire.Reset()
	status, out, problems := n.reload(inventory, "pg-test")
	if status != 0 || strings.Count(out, "nothing changes") != 3 || strings.Count(wire.String(), `"full_name":"pg-test-every"`) != 3 {
		t.Fatalf("status %d, sent\n%s\n%s%s", status, wire.String(), out, problems)
	}
	hidesNothing(t, wire.String()+out+problems, secrets)
}

func hidesNothing(t *testing.T, text string, secrets []string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(text, s) {
			t.Errorf("%s is in\n%s", s, text)
		}
	}
	if len(secrets) < 10 {
		t.Errorf("only %d secrets", len(secrets))
	}
}

// TestReloadSendsNamesToThoseWhoTellThem has one node that tells names: its plan has those of every cluster.
func TestReloadSendsNamesToThoseWhoTellThem(t *testing.T) {
	n := startNodes(t, map[string]answerer{"127.0.62.91": takesAll, "127.0.62.92": takesAll, "127.0.62.93": takesAll}, map[string]api.Node{
		"127.0.62.92": {Node: "127.0.62.92", Engine: api.EngineNative, Names: true},
	})
	inventory := strings.ReplaceAll(trio, "127.0.62.5", "127.0.62.9") + "pg-far:\n  hosts: { 127.0.62.99: { pg_seq: 1, pg_role: primary } }\n  vars: { pg_cluster: pg-far, pg_dns_suffix: .db }\n"
	if status, out, problems := n.reload(inventory, "pg-test"); status != 0 {
		t.Fatalf("status %d\n%s%s", status, out, problems)
	}
	for host, want := range map[string]string{"127.0.62.91": "0 0", "127.0.62.92": "2 1", "127.0.62.93": "0 0"} {
		p := n.orders[host][0].Plan
		if got := fmt.Sprint(len(p.Names), len(p.Elsewhere)); got != want {
			t.Errorf("%s got names and clusters elsewhere: %s, want %s", host, got, want)
		}
	}
	n.orders = map[string][]intake.Order{}
	status, _, problems := n.reload(strings.Replace(inventory, "pg_dns_suffix: .db", "pg_dns_suffix: ..db", 1), "pg-test")
	if status != 2 || !strings.Contains(problems, `"pg-far..db" can't be a name of the DNS`) || len(n.orders) != 0 {
		t.Errorf("status %d\n%s", status, problems)
	}
}
