package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// window is what functions of queries look back, in scrapes of a second, and scrapes how many each side of the swap has.
const (
	window  = "10s"
	scrapes = 14
)

// monitoring has a Prometheus scrape one port, at which first a real HAProxy answers and then pgporter, with targets labelled as Pigsty's
// are: whatever Pigsty's dashboards and rules ask has the same series before and after.
func (s shared) monitoring(t *testing.T) {
	node := s.prefix + ".38"
	inventory, one := s.Inventory(), s.member(1)
	h := startBalancer(t, inventory, one, node)
	m := startPrometheus(t, node)
	w := startWork(t, node)

	m.until(t, fmt.Sprintf("count_over_time(haproxy_process_nbproc[1m]) >= %d", scrapes))
	w.does(t)
	before := time.Now()
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", node+":9101")
		if err == nil {
			conn.Close()
			return errors.New("HAProxy still listens")
		}
		return nil
	})
	m.until(t, "haproxy_up == 0")
	p := startPorter(t, node, "--inventory", inventory, "--node", one,
		"--control", "*", "--control-token-file", s.token, "--control-tls-cert", s.ca, "--control-tls-key", filepath.Join(s.credentials, "control.key"))
	m.until(t, fmt.Sprintf("count_over_time(pgporter_build_info[1m]) >= %d", scrapes))
	w.does(t)
	after := time.Now()
	w.stop()

	t.Run("Pigsty's queries", func(t *testing.T) {
		asked := 0
		for _, q := range pigstyQueries(t, node) {
			was, is := m.ask(t, q.expr, before), m.ask(t, q.expr, after)
			asked++
			switch {
			case q.never && len(was)+len(is) > 0:
				t.Errorf("%s is said never to return anything, and did: %v, %v", q.expr, was, is)
			case q.never:
			case len(was) == 0 != q.http:
				t.Errorf("%s returns %v of HAProxy", q.expr, was)
			case len(is) == 0:
				t.Errorf("%s returns nothing of pgporter, and of HAProxy %v", q.expr, was)
			default:
				for _, series := range was {
					if !slices.Contains(is, series) && !strings.Contains(series, `"proxy":"stats"`) {
						t.Errorf("%s has lost %s; there are %v", q.expr, series, is)
					}
				}
			}
		}
		if asked < 500 {
			t.Errorf("only %d queries", asked)
		}
		t.Logf("%d queries", asked)
	})

	t.Run("our dashboard", func(t *testing.T) {
		queries := dashboardQueries(t)
		for _, q := range queries {
			is := m.ask(t, q.expr, after)
			if len(is) == 0 && !slices.Contains(emptyPanels, q.title) {
				t.Errorf("%s is empty: %s", q.title, q.expr)
			}
		}
		if len(queries) < 30 {
			t.Errorf("only %d queries", len(queries))
		}
	})

	t.Run("our alerts", func(t *testing.T) {
		var rules struct {
			Groups []struct {
				Name  string
				Rules []struct {
					Name, Type, Health, LastError, State string
				}
			}
		}
		m.get(t, "rules", nil, &rules)
		alerts := 0
		for _, group := range rules.Groups {
			for _, r := range group.Rules {
				if r.Health != "ok" {
					t.Errorf("%s: %s, %s", r.Name, r.Health, r.LastError)
				}
				if r.Type == "alerting" {
					// Patroni's answers are late where the machine is busy with other tests.
					if alerts++; r.State != "inactive" && r.Name != "PGPorterLateAnswers" {
						t.Errorf("%s is %s", r.Name, r.State)
					}
				}
			}
		}
		if alerts < 20 {
			t.Errorf("only %d alerts", alerts)
		}
	})

	t.Run("an order", func(t *testing.T) {
		for _, order := range []string{"drain", "ready"} {
			if out, err := exec.Command(binary, order, "pg-test-3", "--admin", p.admin).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", order, err, out)
			}
			if order == "drain" {
				m.until(t, `time() - pgporter_server_order_timestamp_seconds{service="pg-test-replica", member="pg-test-3", state="drain"} < 60`)
				m.until(t, `haproxy_server_status{proxy="pg-test-replica", server="pg-test-3", state="DRAIN"} == 1`)
				m.until(t, `pgporter_service_serving_servers{service="pg-test-replica"} == 1`)
			}
		}
		m.until(t, `haproxy_server_status{proxy="pg-test-replica", server="pg-test-3", state="UP"} == 1`)
	})

	t.Run("a switchover", func(t *testing.T) {
		s.t = t
		ends := s.hold(node, direct).watch(t)
		m.until(t, `pgporter_service_sessions{service="pg-test-default"} > 0`)
		if _, err := s.Switchover(t.Context(), "pg-test-2"); err != nil {
			t.Fatal(err)
		}
		ends.hasEnded(t, sessionsEnd)
		m.until(t, `pgporter_member_role{member="pg-test-2", role="primary"} unless on (cluster) pgporter_member_role{member!="pg-test-2", role="primary"}`)
		m.until(t, `pgporter_member_timeline{member="pg-test-2"} > 1`)
		m.until(t, `pgporter_service_sessions_ended_total{service="pg-test-default", reason="down"} > 0`)
		// It was an outage, and a short one.
		m.until(t, `pgporter_cluster_outage_duration_seconds_count{cluster="pg-test"} == 1`)
		m.until(t, `pgporter_cluster_outage_duration_seconds_sum{cluster="pg-test"} > 0 < 30`)
		m.until(t, `pgporter_cluster_current_outage_seconds{cluster="pg-test"} == 0`)
		m.until(t, `pgporter_service_outages_total{service="pg-test-primary"} == 1 and pgporter_service_down_seconds_total < 30`)
		m.until(t, `pgporter_service_current_outage_seconds{service="pg-test-primary"} == 0`)
		m.until(t, `increase(pgporter_server_downs_total{service="pg-test-primary", member="pg-test-1"}[1m]) > 0`)
	})
}

// query is an expression, and whether nothing ever comes of it, or nothing of HAProxy.
type query struct {
	expr        string
	never, http bool
}

// pigstyQueries reads testdata/pigsty-queries.txt, with the variables as a dashboard of this node has them.
func pigstyQueries(t *testing.T, node string) []query {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "pigsty-queries.txt"))
	if err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$cls", "pg-test", "$pg_cls", "pg-test", "$ins", "pg-test-1", "$svc", "pg-test-primary", "$ip", node, "$members", node, "$shard", "pg-test", "$job", "node")
	var all []query
	var metric string
	var functions, sums []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if rest, of, is := strings.Cut(line, " functions: "); is {
			taken, by, _ := strings.Cut(of, " by: ")
			list := func(text string) []string {
				return slices.DeleteFunc(strings.Fields(text), func(f string) bool { return f == "-" })
			}
			metric, functions, sums = rest, list(taken), list(by)
			continue
		}
		mark, matchers, _ := strings.Cut(line, "{")
		q := query{never: mark == "never ", http: mark == "http  "}
		add := func(form string, args ...any) {
			q.expr = fmt.Sprintf(form, args...)
			all = append(all, q)
		}
		series := metric + "{" + fill.Replace(matchers)
		add("%s", series)
		for _, f := range functions {
			add("%s(%s[%s])", f, series, window)
		}
		for _, by := range sums {
			add("sum by (%s) (%s)", by, series)
		}
	}
	return all
}

// emptyPanels show nothing where nothing is to be mended, and no address moves.
var emptyPanels = []string{"Trouble", "Virtual addresses"}

// shown is a query of a dashboard's panel.
type shown struct{ title, expr string }

// dashboardQueries are those of our own dashboard, with what Grafana puts in for variables.
func dashboardQueries(t *testing.T) []shown {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "contrib", "grafana", "pgporter.json"))
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$__rate_interval", window, "$__range", "1m", "$cluster", ".*", "$node", ".*")
	var all []shown
	for _, p := range board.Panels {
		for _, of := range p.Targets {
			all = append(all, shown{p.Title, fill.Replace(of.Expr)})
		}
	}
	return all
}

// prometheus is Debian's, which scrapes a node every second.
type prometheus struct{ address string }

// startPrometheus has it scrape port 9101 of an address, with the labels that Pigsty gives a node's targets, and evaluate Pigsty's rules
// and ours.
func startPrometheus(t *testing.T, node string) prometheus {
	t.Helper()
	dir := t.TempDir()
	rules := make([]string, 2)
	for i, path := range []string{"testdata/pigsty-rules.yml", "../../contrib/prometheus/pgporter.rules.yml"} {
		var err error
		if rules[i], err = filepath.Abs(path); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }
rule_files: [ %q, %q ]
scrape_configs:
  - job_name: node
    static_configs:
      - targets: [ %q ]
        labels: { ip: %q, ins: pg-test-1, cls: pg-test }
`, rules[0], rules[1], node+":9101", node), 0o644); err != nil {
		t.Fatal(err)
	}
	m := prometheus{net.JoinHostPort(node, "9090")}
	cmd := exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+m.address)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: it is Debian's prometheus, which scripts/prerequisites installs", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			cmd.Process.Kill()
			t.Errorf("Prometheus didn't stop: %v", <-ended)
		}
		if t.Failed() {
			t.Logf("Prometheus' log:\n%s", log.String())
		}
	})
	return m
}

// get asks the HTTP API.
func (m prometheus) get(t *testing.T, what string, parameters url.Values, into any) {
	t.Helper()
	if err := m.try(t.Context(), what, parameters, into); err != nil {
		t.Fatal(err)
	}
}

func (m prometheus) try(ctx context.Context, what string, parameters url.Values, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.address+"/api/v1/"+what+"?"+parameters.Encode(), nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var said struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(answer.Body).Decode(&said); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if said.Status != "success" {
		return fmt.Errorf("%s of %v: %s", what, parameters, said.Error)
	}
	return json.Unmarshal(said.Data, into)
}

// series gives the labels of what an expression returns, as text; the zero time is now.
func (m prometheus) series(ctx context.Context, expr string, at time.Time) ([]string, error) {
	parameters := url.Values{"query": {expr}}
	if !at.IsZero() {
		parameters.Set("time", strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64))
	}
	var data struct {
		Result []struct{ Metric map[string]string }
	}
	if err := m.try(ctx, "query", parameters, &data); err != nil {
		return nil, err
	}
	var all []string
	for _, r := range data.Result {
		// Maps are written in the order of their keys.
		text, err := json.Marshal(r.Metric)
		if err != nil {
			return nil, err
		}
		all = append(all, string(text))
	}
	return all, nil
}

func (m prometheus) ask(t *testing.T, expr string, at time.Time) []string {
	t.Helper()
	all, err := m.series(t.Context(), expr, at)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// until waits for an expression to return something.
func (m prometheus) until(t *testing.T, expr string) {
	t.Helper()
	eventually(t, 2*patience, func(ctx context.Context) error {
		found, err := m.series(ctx, expr, time.Time{})
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("nothing of %s yet", expr)
		}
		return err
	})
}

// work is a small load through all services of a node: sessions that come, ask and leave.
type work struct {
	stop func()
	done map[service]*atomic.Int64
}

func startWork(t *testing.T, node string) *work {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	w := &work{done: map[service]*atomic.Int64{}}
	w.stop = func() { cancel(); clients.Wait() }
	t.Cleanup(w.stop)
	for _, s := range []service{primary, replica, direct, offline} {
		count := &atomic.Int64{}
		w.done[s] = count
		clients.Go(func() {
			again := time.NewTicker(200 * time.Millisecond)
			defer again.Stop()
			for {
				// Nobody answers while the balancers change places.
				if _, err := ask(ctx, node, s); err == nil {
					count.Add(1)
				}
				select {
				case <-ctx.Done():
					return
				case <-again.C:
				}
			}
		})
	}
	return w
}

// does waits until each service has served somebody from now on.
func (w *work) does(t *testing.T) {
	t.Helper()
	for s, count := range w.done {
		from := count.Load()
		eventually(t, patience, func(context.Context) error {
			if count.Load() == from {
				return fmt.Errorf("nobody is served at port %d", s.port)
			}
			return nil
		})
	}
}
