package metrics

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// told is the status that the table of statistics is tested with.
func told(t testing.TB) api.Status {
	t.Helper()
	content, err := os.ReadFile("../statistics/testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	var s api.Status
	if err := json.Unmarshal(content, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// allSeries are all series of a status, by the name of their metric.
func allSeries(t testing.TB, s api.Status) map[string]*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := New(registry, func() api.Status { return s }); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*dto.MetricFamily{}
	for _, f := range families {
		all[f.GetName()] = f
	}
	return all
}

func TestHAProxyGolden(t *testing.T) {
	s := told(t)
	w := httptest.NewRecorder()
	Handler(func() api.Status { return s }).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if got := w.Header().Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=0.0.4") {
		t.Errorf("it is %s", got)
	}
	var ours bytes.Buffer
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "), "haproxy_") {
			ours.WriteString(line)
		}
	}
	const golden = "testdata/haproxy.txt"
	if *update {
		if err := os.WriteFile(golden, ours.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours.Bytes(), want) {
		t.Error("the exporter's answer isn't as it was; -update writes it anew")
	}
}

// Every metric that Pigsty's dashboards and rules ask of HAProxy's exporter has a series that they don't leave out. Of theirs
// haproxy_server_limit_session_rate is missing, which no HAProxy has, and haproxy_up, which is a rule of Pigsty's.
func TestDashboardsFindWhatTheyAskFor(t *testing.T) {
	content, err := os.ReadFile("testdata/dashboards.txt")
	if err != nil {
		t.Fatal(err)
	}
	all, asked := allSeries(t, told(t)), 0
	for line := range strings.Lines(string(content)) {
		of, names, _ := strings.Cut(line, ":")
		for _, name := range strings.Fields(names) {
			asked++
			if full := "haproxy_" + of + "_" + name; len(all[full].GetMetric()) == 0 {
				t.Errorf("there is no %s", full)
			}
		}
	}
	if asked != 95 {
		t.Errorf("they ask for %d metrics", asked)
	}
	if all["haproxy_up"] != nil {
		t.Error("haproxy_up would double what the rule of that name makes")
	}
}

// Labels that a scraper gives its targets would be renamed, and a state has all its series.
func TestHAProxyLabels(t *testing.T) {
	for name, f := range allSeries(t, told(t)) {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				switch l.GetName() {
				case "ip", "ins", "cls", "job", "instance":
					t.Errorf("%s has the label %s", name, l.GetName())
				}
			}
		}
	}
	states := map[string]string{}
	for _, m := range allSeries(t, told(t))["haproxy_server_status"].GetMetric() {
		of := map[string]string{}
		for _, l := range m.GetLabel() {
			of[l.GetName()] = l.GetValue()
		}
		key := of["proxy"] + "/" + of["server"]
		states[key] += fmt.Sprintf(" %s=%v", of["state"], m.GetGauge().GetValue())
	}
	if got := states["pg-test-replica/pg-test-3"]; got != " DOWN=0 DRAIN=1 MAINT=0 NOLB=0 UP=0" {
		t.Errorf("a drained server is%s", got)
	}
}

// What promlint has against HAProxy's names: they are HAProxy's, and these are all of them.
func TestHAProxyLint(t *testing.T) {
	known := map[string]bool{
		`haproxy_process_failed_resolutions: counter metrics should have "_total" suffix`: true,
	}
	registry := prometheus.NewRegistry()
	s := told(t)
	if err := New(registry, func() api.Status { return s }); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if text := p.Metric + ": " + p.Text; !known[text] {
			t.Error(text)
		} else {
			delete(known, text)
		}
	}
	for text := range known {
		t.Errorf("not said any more: %s", text)
	}
}

// many is the status of a node with so many services of three servers each.
func many(services int) api.Status {
	s := api.Status{Version: "1.2.3", Started: time.Unix(1000, 0), Now: time.Unix(2000, 0), Engine: api.EngineNative}
	for i := range services / 4 {
		c := api.Cluster{Name: fmt.Sprintf("pg-%d", i)}
		for _, name := range []string{"primary", "replica", "default", "offline"} {
			service := api.Service{Name: name, FullName: c.Name + "-" + name, Up: true, Limit: 5000}
			for member := range 3 {
				service.Servers = append(service.Servers, api.Server{Member: fmt.Sprintf("%s-%d", c.Name, member+1), Weight: 100, Up: true, Serving: true,
					LastCheck: &api.ServerCheck{Status: "L7OK", Code: 200, Rise: 1, Fall: 2, Health: 2}})
			}
			c.Services = append(c.Services, service)
		}
		s.Clusters = append(s.Clusters, c)
	}
	return s
}

// BenchmarkScrape is a scrape of a node that has 600 services: made, checked and written as text.
func BenchmarkScrape(b *testing.B) {
	s := many(600)
	handler := Handler(func() api.Status { return s })
	request := httptest.NewRequest("GET", "/metrics", nil)
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, request)
		if w.Code != 200 {
			b.Fatal(w.Body.String())
		}
		size = w.Body.Len()
	}
	b.ReportMetric(float64(size)/1e6, "MB/scrape")
}
