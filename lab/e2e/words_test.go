package e2e

import (
	"bufio"
	"context"
	wire "encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// A HAProxy and a pgporter carry the same services of three stand-ins, beside each other, and meet with the same: what the two tell of it is
// compared, series for series and column for column. The stand-ins say at once what they are told to say, so that both have met with it when
// they are asked; what becomes of a real cluster's states is the derivation's to show.

// standin is a member: its Patroni, and a server that speaks as much of PostgreSQL's protocol as proxies look at.
type standin struct {
	address string
	mu      sync.Mutex
	role    string
	// sick has its Patroni say of its PostgreSQL that it has stopped.
	sick bool
}

func (s *standin) set(role string, sick bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.role, s.sick = role, sick
}

func (s *standin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	role, sick := s.role, s.sick
	s.mu.Unlock()
	paths := []string{"/replica", "/read-only", "/health", "/liveness"}
	if role == "primary" {
		paths = []string{"/", "/primary", "/read-write", "/leader", "/read-only", "/health", "/liveness"}
	}
	status := http.StatusServiceUnavailable
	if slices.Contains(paths, r.URL.Path) && !sick {
		status = http.StatusOK
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		location := map[bool]string{true: `"location": 1000`, false: `"received_location": 1000, "replayed_location": 1000`}[role == "primary"]
		state := map[bool]string{true: "stopped", false: "running"}[sick]
		fmt.Fprintf(w, `{"state": %q, "role": %q, "server_version": 150000, "timeline": 1, "xlog": {%s}, "patroni": {"version": "3.0.2", "scope": "pg-words"}}`, state, role, location)
	}
}

// reply is what a stand-in answers each message with.
var reply = append([]byte{'D', 0, 0, 4, 0}, make([]byte, 1020)...)

// serve is a server's part of a connection.
func serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		var head [8]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		if code := wire.BigEndian.Uint32(head[4:]); code == 80877103 { // SSLRequest
			conn.Write([]byte{'N'})
			continue
		}
		if _, err := io.CopyN(io.Discard, in, int64(wire.BigEndian.Uint32(head[:4]))-8); err != nil {
			return
		}
		break
	}
	conn.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 0, 'Z', 0, 0, 0, 5, 'I'})
	for {
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); err != nil || head[0] == 'X' {
			return
		}
		if _, err := io.CopyN(io.Discard, in, int64(wire.BigEndian.Uint32(head[1:]))-4); err != nil {
			return
		}
		if _, err := conn.Write(reply); err != nil {
			return
		}
	}
}

// standins are three members at these addresses.
func standins(t *testing.T, addresses ...string) []*standin {
	t.Helper()
	var all []*standin
	for i, address := range addresses {
		s := &standin{address: address, role: map[bool]string{true: "primary", false: "replica"}[i == 0]}
		api, err := net.Listen("tcp", address+":8008")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
		var serving sync.WaitGroup
		serving.Go(func() { server.Serve(api) })
		port, err := net.Listen("tcp", address+":5432")
		if err != nil {
			t.Fatal(err)
		}
		serving.Go(func() {
			for {
				conn, err := port.Accept()
				if err != nil {
					return
				}
				serving.Go(func() { serve(conn) })
			}
		})
		t.Cleanup(func() {
			server.Close()
			port.Close()
			serving.Wait()
		})
		all = append(all, s)
	}
	return all
}

// talk is a client's session.
type talk struct {
	conn net.Conn
	in   *bufio.Reader
}

// begin connects and sends a startup packet; ready waits until the server lets it in.
func begin(t *testing.T, address string) *talk {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(2 * patience))
	body := "user\x00words\x00\x00"
	packet := wire.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	packet = wire.BigEndian.AppendUint32(packet, 3<<16)
	if _, err := conn.Write(append(packet, body...)); err != nil {
		t.Fatal(err)
	}
	return &talk{conn, bufio.NewReader(conn)}
}

func (k *talk) ready(t *testing.T) *talk {
	t.Helper()
	if _, err := io.ReadFull(k.in, make([]byte, 15)); err != nil {
		t.Fatalf("the session doesn't begin: %v", err)
	}
	return k
}

// say sends a message of so many bytes and reads the answer.
func (k *talk) say(t *testing.T, bytes int) {
	t.Helper()
	packet := wire.BigEndian.AppendUint32([]byte{'Q'}, uint32(bytes-1))
	if _, err := k.conn.Write(append(packet, make([]byte, bytes-5)...)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(k.in, make([]byte, len(reply))); err != nil {
		t.Fatal(err)
	}
}

// end leaves in order.
func (k *talk) end() {
	k.conn.Write([]byte{'X', 0, 0, 0, 4})
	io.Copy(io.Discard, k.in)
	k.conn.Close()
}

// side is one of the two that are compared.
type side struct {
	name, address, socket string
}

func (s side) scrape(t *testing.T) (map[string]*dto.MetricFamily, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.address+":9101/metrics", nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	return parser.TextToMetricFamilies(answer.Body)
}

// command gives the answer to a line.
func (s side) command(t *testing.T, line string) string {
	t.Helper()
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("%s: %s: %v", s.name, line, err)
	}
	return string(answer)
}

// rule says how a metric's or a column's values are compared: not at all with why (own), or as about equal.
type rule struct {
	about float64
	own   string
	// served says that a server isn't compared that was in maintenance: HAProxy counts that as an outage, and pgporter doesn't.
	served bool
	// unqueued says that a service isn't compared whose clients waited: HAProxy doesn't count the choice of a server for those.
	unqueued bool
}

// rules are for what isn't equal. Counters are compared by how much they have risen since both were settled.
var rules = map[string]rule{
	"process": {own: "each process is its own: its names, labels and types are compared, and that it has values"},

	"current_sessions":          {},
	"connection_errors_total":   {own: "a connect in vain counts each time; a refused client counts at the backend"},
	"request_errors_total":      {own: "HAProxy counts clients that leave while they wait; here they leave the queue"},
	"response_errors_total":     {own: "resets alone"},
	"client_aborts_total":       {own: "resets alone"},
	"server_aborts_total":       {own: "resets alone; HAProxy counts sessions that a marked-down server loses, too"},
	"check_failures_total":      {own: "one question serves all services"},
	"check_last_change_seconds": {own: "since when differs by when each was started and asked"},
	"loadbalanced_total":        {unqueued: true},
	"check_up_down_total":       {served: true},
	"downtime_seconds_total":    {about: 3, served: true},
	"last_session_seconds":      {about: 2},
	"max_session_rate":          {own: "HAProxy's second begins elsewhere"},
	"connections_rate_max":      {own: "HAProxy's second begins elsewhere"},
	"check_duration_seconds":    {about: 1},
	"used_connections_current":  {own: "HAProxy's are of its pools"},
	"need_connections_current":  {own: "HAProxy's is an estimate that falls slowly"},
	"uweight":                   {},
}

func init() {
	for _, what := range []string{"queue", "connect", "response", "total"} {
		rules[what+"_time_average_seconds"] = rule{own: "a mean of what was timed; HAProxy's begins with 1,024 zeros"}
		rules["max_"+what+"_time_seconds"] = rule{own: "what was timed"}
	}
}

// extra are metrics that HAProxy has for mode http alone.
var extra = []string{"haproxy_frontend_http_requests_total", "haproxy_backend_http_requests_total"}

// series are the samples of families that are about services, by name and labels; the page's proxy is left out.
func series(families map[string]*dto.MetricFamily) map[string]float64 {
	all := map[string]float64{}
	for name, f := range families {
		if !strings.HasPrefix(name, "haproxy_") {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			stats := false
			for _, l := range m.GetLabel() {
				stats = stats || l.GetName() == "proxy" && l.GetValue() == "stats"
				value := l.GetValue()
				if l.GetName() == "version" {
					value = "any"
				}
				labels = append(labels, l.GetName()+"="+value)
			}
			slices.Sort(labels)
			if !stats {
				all[name+"{"+strings.Join(labels, ",")+"}"] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return all
}

// what gives of a series its metric's kind of object and what it is of it: server, current_sessions.
func what(series string) (object, name string) {
	full, _, _ := strings.Cut(strings.TrimPrefix(series, "haproxy_"), "{")
	object, name, _ = strings.Cut(full, "_")
	return object, name
}

// comparison is a comparison under way.
type comparison struct {
	haproxy, pgporter side
	// settled are the series of both when it began.
	settled [2]map[string]float64
	// open says that there are sessions: HAProxy counts the bytes of one when it ends (without option contstats).
	open bool
	// maintained is a server that was in maintenance.
	maintained string
	// compared counts comparisons of values by metric, and those whose value was another than 0.
	compared, told map[string]int
}

// differences are what the two tell differently now.
func (c *comparison) differences(t *testing.T) []string {
	t.Helper()
	theirs, err := c.haproxy.scrape(t)
	if err != nil {
		return []string{err.Error()}
	}
	ours, err := c.pgporter.scrape(t)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for name, f := range theirs {
		switch {
		case !strings.HasPrefix(name, "haproxy_"), ours[name] == nil && httpAlone(f):
		case ours[name] == nil:
			found = append(found, name+" is missing")
		case ours[name].GetType() != f.GetType():
			found = append(found, fmt.Sprintf("%s is a %s, not a %s", name, ours[name].GetType(), f.GetType()))
		}
	}
	for name := range ours {
		if strings.HasPrefix(name, "haproxy_") && theirs[name] == nil {
			found = append(found, name+" isn't HAProxy's")
		}
	}
	is := [2]map[string]float64{series(theirs), series(ours)}
	for key := range is[1] {
		name, _, _ := strings.Cut(key, "{")
		if _, there := is[0][key]; !there && !slices.Contains(extra, name) {
			found = append(found, key+" isn't HAProxy's")
		}
	}
	for key, theirs := range is[0] {
		ours, there := is[1][key]
		if !there {
			found = append(found, key+" is missing")
			continue
		}
		object, name := what(key)
		r, listed := rules[name]
		if object == "process" {
			r, listed = rules["process"], true
		}
		if listed && r.served && c.maintained != "" && strings.HasSuffix(key, "server="+c.maintained+"}") {
			continue
		}
		if listed && r.unqueued && strings.Contains(key, "proxy=pg-words-narrow") {
			continue
		}
		if listed && r.own != "" || c.open && strings.HasPrefix(name, "bytes_") {
			continue
		}
		if strings.HasSuffix(name, "_total") && c.settled[0] != nil {
			theirs -= c.settled[0][key]
			ours -= c.settled[1][key]
		}
		c.compared[object+"_"+name]++
		if theirs != 0 && !math.IsNaN(theirs) {
			c.told[object+"_"+name]++
		}
		if math.IsNaN(theirs) != math.IsNaN(ours) || math.Abs(theirs-ours) > r.about {
			found = append(found, fmt.Sprintf("%s is %v, HAProxy's %v", key, ours, theirs))
		}
	}
	slices.Sort(found)
	return found
}

// httpAlone says that a metric has no series but of the page's proxy, which is HTTP's.
func httpAlone(f *dto.MetricFamily) bool {
	return !slices.ContainsFunc(f.GetMetric(), func(m *dto.Metric) bool {
		return !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == "proxy" && l.GetValue() == "stats" })
	})
}

// same waits until the two tell the same of what has just been done.
func (c *comparison) same(t *testing.T, after string) {
	t.Helper()
	eventually(t, patience, func(context.Context) error {
		if found := slices.Concat(c.differences(t), c.table(t), c.states(t)); len(found) > 0 {
			return fmt.Errorf("after %s:\n%s", after, strings.Join(found, "\n"))
		}
		return nil
	})
}

// rows are the table of `show stat`, by proxy and server, then by column.
func (s side) rows(t *testing.T) map[string]map[string]string {
	t.Helper()
	lines, err := csv.NewReader(strings.NewReader(strings.TrimRight(s.command(t, "show stat"), "\n"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]string{}
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, name := range lines[0] {
			row[strings.TrimPrefix(name, "# ")] = line[i]
		}
		if row["pxname"] != "stats" {
			all[row["pxname"]+"/"+row["svname"]] = row
		}
	}
	return all
}

// has waits until a side has so many sessions.
func (s side) has(t *testing.T, sessions int) {
	t.Helper()
	eventually(t, patience, func(context.Context) error {
		n := 0
		for of, row := range s.rows(t) {
			if strings.HasSuffix(of, "/FRONTEND") {
				scur, err := strconv.Atoi(row["scur"])
				if err != nil {
					return err
				}
				n += scur
			}
		}
		if n != sessions {
			return fmt.Errorf("%s has %d sessions, not %d", s.name, n, sessions)
		}
		return nil
	})
}

// own are columns whose values differ, as documented, or can't be equal.
var own = map[string]string{
	"econ": "as in the exporter", "ereq": "as in the exporter", "eresp": "as in the exporter", "cli_abrt": "as in the exporter", "srv_abrt": "as in the exporter",
	"chkfail": "as in the exporter", "chkdown": "HAProxy begins with servers that are up", "lastchg": "as in the exporter", "downtime": "as in the exporter",
	"check_duration": "as in the exporter", "last_chk": "words", "check_desc": "words", "lastsess": "compared in the exporter",
	"rate": "of the last second", "rate_max": "HAProxy's second begins elsewhere", "conn_rate": "of the last second", "conn_rate_max": "HAProxy's second begins elsewhere",
	"req_rate": "of the last second", "req_rate_max": "of HTTP", "req_tot": "HAProxy counts a connection as a request",
	"qtime": "as in the exporter", "ctime": "as in the exporter", "ttime": "as in the exporter", "qtime_max": "as in the exporter", "ctime_max": "as in the exporter", "ttime_max": "as in the exporter",
	"rtime": "as in the exporter", "rtime_max": "as in the exporter", "used_conn_cur": "as in the exporter", "need_conn_est": "as in the exporter",
	"iid": "numbers of proxies",
}

// table are the differences of the tables of `show stat`.
func (c *comparison) table(t *testing.T) (found []string) {
	t.Helper()
	differs := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	theirs, ours := c.haproxy.rows(t), c.pgporter.rows(t)
	for of, row := range theirs {
		if ours[of] == nil {
			differs("there is no row %s", of)
			continue
		}
		for name, value := range row {
			got, there := ours[of][name]
			switch {
			case own[name] != "", name == "", name == "-", strings.HasPrefix(name, "ssl_"), strings.HasPrefix(name, "h1_"), strings.HasPrefix(name, "h2_"), strings.HasPrefix(name, "h3_"), strings.HasPrefix(name, "quic_"):
			case !there:
				differs("there is no column %s", name)
			case name == "check_status" && strings.TrimPrefix(value, "* ") == got:
			case got != value && (got == "") == (value == "") && isTotal[name]:
				// Totals are compared in the exporter, by how much they have risen.
			case got != value:
				differs("%s of %s is %q, HAProxy's %q", name, of, got, value)
			}
		}
	}
	for of := range ours {
		if theirs[of] == nil {
			differs("the row %s isn't HAProxy's", of)
		}
	}
	return found
}

var isTotal = map[string]bool{"stot": true, "bin": true, "bout": true, "lbtot": true, "connect": true, "conn_tot": true, "wretr": true, "wredis": true}

// states are the lines of `show servers state`, without what is a time, a number of HAProxy's or a port that pgporter doesn't tell.
func (s side) states(t *testing.T) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(s.command(t, "show servers state")) {
		fields := strings.Fields(line)
		if len(fields) < 20 || fields[1] == "stats" || strings.HasPrefix(line, "#") {
			continue
		}
		for _, i := range []int{0, 9, 12, 13, 21, 24} {
			fields[i] = "-"
		}
		all = append(all, strings.Join(fields, " "))
	}
	slices.Sort(all)
	return all
}

func (c *comparison) states(t *testing.T) (found []string) {
	t.Helper()
	theirs, ours := c.haproxy.states(t), c.pgporter.states(t)
	for i := range max(len(theirs), len(ours)) {
		if i >= len(theirs) || i >= len(ours) || theirs[i] != ours[i] {
			found = append(found, fmt.Sprintf("the states of servers are\n%s\nHAProxy's\n%s", strings.Join(ours, "\n"), strings.Join(theirs, "\n")))
			break
		}
	}
	return found
}

// TestBesideHAProxy has both meet with the same and compares what they tell.
func TestBesideHAProxy(t *testing.T) {
	t.Parallel()
	const prefix = "127.0.96."
	members := standins(t, prefix+"11", prefix+"12", prefix+"13")
	inventory := filepath.Join(t.TempDir(), "pigsty.yml")
	if err := os.WriteFile(inventory, []byte(`pg-words:
  hosts:
    127.0.96.11: { pg_seq: 1, pg_role: primary }
    127.0.96.12: { pg_seq: 2, pg_role: replica }
    127.0.96.13: { pg_seq: 3, pg_role: replica }
  vars:
    pg_cluster: pg-words
    haproxy_exporter_port: 9101
    pg_default_services:
      - { name: primary, port: 5433, dest: postgres, check: /primary, selector: "[]", options: "inter 500ms fastinter 200ms downinter 200ms rise 2 fall 2 on-marked-down shutdown-sessions maxconn 3000 maxqueue 128 weight 100" }
      - { name: replica, port: 5434, dest: postgres, check: /read-only, selector: "[? pg_role == `+"`replica`"+` ]", backup: "[? pg_role == `+"`primary`"+` ]", maxconn: 40, options: "inter 500ms fastinter 200ms downinter 200ms rise 2 fall 2 on-marked-down shutdown-sessions maxconn 30 maxqueue 10 weight 60" }
      - { name: narrow, port: 5439, dest: postgres, check: /primary, selector: "[]", options: "inter 500ms fastinter 200ms downinter 200ms rise 2 fall 2 on-marked-down shutdown-sessions maxconn 1 maxqueue 10 weight 100" }
`), 0o644); err != nil {
		t.Fatal(err)
	}
	h := startBalancer(t, inventory, prefix+"11", prefix+"21")
	socket := filepath.Join(h.dir, "p")
	porter := startPorter(t, prefix+"22", "--inventory", inventory, "--node", prefix+"11", "--runtime-socket", socket)
	c := &comparison{haproxy: side{"HAProxy", prefix + "21", h.socket}, pgporter: side{"pgporter", prefix + "22", socket}, compared: map[string]int{}, told: map[string]int{}}
	both := func(do func(s side)) {
		do(c.haproxy)
		do(c.pgporter)
	}
	order := func(line string) {
		t.Helper()
		theirs, ours := c.haproxy.command(t, line), c.pgporter.command(t, line)
		if theirs != ours {
			t.Errorf("%s is answered %q, by HAProxy %q", line, ours, theirs)
		}
	}

	eventually(t, patience, func(context.Context) error {
		var lines []string
		both(func(s side) {
			for of, row := range s.rows(t) {
				if _, server, _ := strings.Cut(of, "/"); server != "FRONTEND" {
					lines = append(lines, of+" "+row["status"])
				}
			}
		})
		slices.Sort(lines)
		if len(slices.Compact(slices.Clone(lines)))*2 != len(lines) {
			return fmt.Errorf("they don't agree yet:\n%s", strings.Join(lines, "\n"))
		}
		return nil
	})
	theirs, err := c.haproxy.scrape(t)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := c.pgporter.scrape(t)
	if err != nil {
		t.Fatal(err)
	}
	c.settled = [2]map[string]float64{series(theirs), series(ours)}
	check := func(after string) {
		t.Helper()
		c.same(t, after)
	}
	check("nothing")

	// shown waits until both say that of a server or a service.
	shown := func(of, status string) {
		t.Helper()
		eventually(t, patience, func(context.Context) (err error) {
			both(func(s side) {
				if got := s.rows(t)["pg-words-"+of]["status"]; got != status {
					err = fmt.Errorf("%s: %s is %s, not %s", s.name, of, got, status)
				}
			})
			return err
		})
	}

	// Traffic: some who have gone, one after another, and two who stay.
	var open []*talk
	both(func(s side) {
		for i := range 5 {
			k := begin(t, s.address+":5433").ready(t)
			for range i + 1 {
				k.say(t, 100*(i+1))
			}
			k.end()
			s.has(t, 0)
		}
		for range 4 {
			begin(t, s.address+":5434").ready(t).end()
			s.has(t, 0)
		}
		for range 2 {
			k := begin(t, s.address+":5433").ready(t)
			k.say(t, 10)
			open = append(open, k)
		}
	})
	c.open = true
	check("traffic")

	members[1].set("replica", true)
	shown("replica/pg-words-2", "DOWN")
	check("a server that is down")
	members[1].set("replica", false)
	shown("replica/pg-words-2", "UP")
	check("a server that is up again")
	members[0].set("primary", true)
	shown("narrow/BACKEND", "DOWN")
	check("a service without a server")
	members[0].set("primary", false)
	shown("narrow/BACKEND", "UP")
	check("a service that has one again")

	order("set server pg-words-replica/pg-words-2 state drain")
	shown("replica/pg-words-2", "DRAIN")
	check("a drain")
	order("set server pg-words-replica/pg-words-3 state maint")
	c.maintained = "pg-words-3"
	shown("replica/pg-words-3", "MAINT")
	check("maintenance of the other one: the backup serves")
	both(func(s side) { begin(t, s.address+":5434").ready(t).end() })
	check("a session at the backup")
	members[1].set("replica", true)
	shown("replica/pg-words-2", "DOWN")
	check("a drained server that is down")
	members[1].set("replica", false)
	shown("replica/pg-words-2", "DRAIN")
	order("enable server pg-words-replica/pg-words-3")
	order("set server pg-words-replica/pg-words-2 state ready")
	shown("replica/pg-words-2", "UP")
	shown("replica/pg-words-3", "UP")
	check("both ready again")

	order("set weight pg-words-replica/pg-words-2 50%")
	order("get weight pg-words-replica/pg-words-2")
	check("half the weight")
	order("set weight pg-words-replica/pg-words-2 0")
	check("no weight")
	order("set weight pg-words-replica/pg-words-2 100%")
	order("get weight pg-words-replica/pg-words-2")
	check("the declared weight")

	// A queue: the server takes one, two wait.
	var first, waiting []*talk
	both(func(s side) {
		first = append(first, begin(t, s.address+":5439").ready(t))
		for n := range 2 {
			waiting = append(waiting, begin(t, s.address+":5439"))
			// Who came first is the first in the queue.
			eventually(t, patience, func(context.Context) error {
				if queued := s.rows(t)["pg-words-narrow/BACKEND"]["qcur"]; queued != strconv.Itoa(n+1) {
					return fmt.Errorf("%s: %s wait", s.name, queued)
				}
				return nil
			})
		}
	})
	check("two who wait")
	for _, k := range first {
		k.end()
	}
	// Who comes next is the one before the other.
	for _, k := range waiting {
		k.ready(t).end()
	}
	check("nobody who waits")

	order("shutdown sessions server pg-words-primary/pg-words-1")
	for _, k := range open {
		if _, err := k.in.ReadByte(); err == nil {
			t.Error("a session goes on")
		}
	}
	c.open = false
	check("sessions that were ended")

	// What isn't to be is refused in the same words.
	for _, line := range []string{
		"get weight x/y", "get weight pg-words-primary/y", "get weight pg-words-primary", "set weight pg-words-primary/pg-words-1", "set weight pg-words-primary/pg-words-1 300",
		"set weight pg-words-primary/pg-words-1 -5%", "set server pg-words-primary/pg-words-1 state off", "set server pg-words-primary/pg-words-1 agent up",
		"enable agent pg-words-primary/pg-words-1", "disable agent pg-words-primary/pg-words-1", "enable health pg-words-primary/pg-words-1", "disable server", "show servers state x", "show servers conn x", "show stat x 1 1",
		"shutdown session 0x1", "shutdown session", "shutdown sessions server x/y", "show sess 0x1", "show table", "show table x", "set maxconn frontend", "set maxconn frontend x 5",
		"set timeout cli", "set timeout cli x", "set timeout x", "set timeout cli 5m", "enable server x/y;disable server pg-words-primary/y", "", "show cli level",
	} {
		theirs, ours := c.haproxy.command(t, line), c.pgporter.command(t, line)
		if strings.HasPrefix(theirs, "Unknown command") {
			theirs, _, _ = strings.Cut(theirs, "\n")
			ours, _, _ = strings.Cut(ours, "\n")
		}
		if theirs != ours {
			t.Errorf("%q is answered %q, by HAProxy %q", line, ours, theirs)
		}
	}
	// `show info` has the same lines, and the typed ones the same numbers and types.
	for _, line := range []string{"show info", "show info typed", "show info typed float"} {
		theirs, ours := shape(c.haproxy.command(t, line)), shape(c.pgporter.command(t, line))
		if strings.HasSuffix(line, "float") {
			// HAProxy calls two gauges rates there.
			gauge := func(lines []string) {
				for i := range lines {
					lines[i] = strings.Replace(lines[i], ":MRP:", ":MGP:", 1)
				}
			}
			gauge(theirs)
			gauge(ours)
		}
		if !slices.Equal(theirs, ours) {
			t.Errorf("%s has\n%s\nHAProxy's\n%s", line, strings.Join(ours, "\n"), strings.Join(theirs, "\n"))
		}
	}

	t.Run("hatop", func(t *testing.T) { steerWithHatop(t, c.pgporter) })
	t.Run("an upgrade", func(t *testing.T) { keepsItsSocket(t, c.pgporter, porter) })

	// All that was compared had something to tell once, but for what is always 0 here.
	var silent []string
	for name := range c.compared {
		// Whole seconds, of times that may be shorter.
		if c.told[name] == 0 && name != "backend_downtime_seconds_total" {
			silent = append(silent, name)
		}
	}
	slices.Sort(silent)
	if want := slices.Sorted(slices.Values(alwaysNothing)); !slices.Equal(silent, want) {
		t.Errorf("always 0 were %q, not %q", silent, want)
	}
	t.Logf("%d metrics compared", len(c.compared))
}

// steerWithHatop has hatop, in a terminal of tmux, take a server out of service and put it back.
func steerWithHatop(t *testing.T, s side) {
	const server = "pg-words-2"
	tmux := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("tmux", append([]string{"-L", "pgporter-e2e-words", "-f", "/dev/null"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	tmux("new-session", "-d", "-x", "150", "-y", "45", "TERM=screen hatop -i 1 -s "+s.socket)
	t.Cleanup(func() {
		// hatop may have ended, and tmux with it.
		_ = exec.Command("tmux", "-L", "pgporter-e2e-words", "kill-server").Run()
	})
	screen := func() string { return tmux("capture-pane", "-p", "-e") }
	// chosen is the line that is shown in reverse, within the part of its service.
	chosen := regexp.MustCompile(`(?m)^(?:\x1b\[[0-9;]*m)*\x1b\[[0-9;]*7m(pg-words-\S+|BACKEND|FRONTEND) `)
	eventually(t, patience, func(context.Context) error {
		now := screen()
		if at := chosen.FindStringSubmatchIndex(now); at != nil && now[at[2]:at[3]] == server && strings.Contains(now[:at[0]], ">>> pg-words-replica") {
			return nil
		}
		tmux("send-keys", "Down")
		return fmt.Errorf("the server isn't chosen:\n%s", now)
	})
	for _, step := range [][2]string{{"F10", "MAINT"}, {"F9", "UP"}} {
		// Enter shows the menu of keys.
		tmux("send-keys", "Enter")
		tmux("send-keys", step[0])
		eventually(t, patience, func(context.Context) error {
			now := screen()
			if !regexp.MustCompile(server + ` +[0-9]+ ` + step[1] + ` `).MatchString(now) {
				return fmt.Errorf("after %s the screen is\n%s", step[0], now)
			}
			if got := s.rows(t)["pg-words-replica/"+server]["status"]; got != step[1] {
				return fmt.Errorf("after %s it is %s", step[0], got)
			}
			return nil
		})
	}
	for _, what := range []string{"pgporter", "127.0.96.11", "pg-words-narrow", "L7STS"} {
		if now := screen(); !strings.Contains(now, what) {
			t.Errorf("the screen has no %s:\n%s", what, now)
		}
	}
}

// keepsItsSocket has another process take over, which answers at the same file, as ordered as the one before, and removes it in the end.
func keepsItsSocket(t *testing.T, s side, p *porter) {
	pid := func() string {
		_, rest, _ := strings.Cut(s.command(t, "show info"), "\nPid: ")
		number, _, _ := strings.Cut(rest, "\n")
		return number
	}
	before := pid()
	s.command(t, "set server pg-words-replica/pg-words-3 state drain")
	over, asked := make(chan struct{}), make(chan struct{})
	go func() {
		// Somebody answers at any time.
		defer close(asked)
		for {
			select {
			case <-over:
				return
			default:
			}
			conn, err := net.Dial("unix", s.socket)
			if err != nil {
				t.Errorf("while a process takes over: %v", err)
				return
			}
			conn.Close()
			time.Sleep(time.Millisecond)
		}
	}()
	out, err := exec.Command(binary, "upgrade", "--admin", p.admin).CombinedOutput()
	close(over)
	<-asked
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var after string
	eventually(t, patience, func(context.Context) error {
		if after = pid(); after == before {
			return errors.New("the process before still answers")
		}
		return nil
	})
	number, err := strconv.Atoi(after)
	if err != nil {
		t.Fatal(err)
	}
	ended := false
	defer func() {
		if !ended {
			syscall.Kill(number, syscall.SIGKILL)
		}
	}()
	if got := s.rows(t)["pg-words-replica/pg-words-3"]["status"]; got != "DRAIN" {
		t.Errorf("a drained server is %s", got)
	}
	if info, err := os.Lstat(s.socket); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	syscall.Kill(number, syscall.SIGTERM)
	eventually(t, patience, func(context.Context) error {
		if left, err := filepath.Glob(s.socket + "*"); err != nil || len(left) > 0 {
			return fmt.Errorf("%q are left, %v", left, err)
		}
		ended = true
		return nil
	})
}

// shape leaves the values out of `show info`.
func shape(answer string) []string {
	var all []string
	for line := range strings.Lines(answer) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if typed := strings.Split(name, ":"); len(typed) > 3 {
			name = strings.Join(typed[:3], ":")
		}
		all = append(all, strings.TrimSuffix(name, ":"))
	}
	return all
}

// alwaysNothing are metrics of what neither has in mode tcp (rules, headers, idle connections), of what HAProxy has none of with these options
// (slow start), and what isn't met with here: the wait for one server and connects in vain, which each treats in its own way.
var alwaysNothing = strings.Fields(`backend_connection_reuses_total backend_failed_header_rewriting_total backend_internal_errors_total
	backend_redispatch_warnings_total backend_requests_denied_total backend_responses_denied_total backend_retry_warnings_total
	frontend_denied_connections_total frontend_denied_sessions_total frontend_failed_header_rewriting_total frontend_internal_errors_total
	frontend_limit_session_rate frontend_requests_denied_total frontend_responses_denied_total server_connection_reuses_total server_current_queue
	server_current_throttle server_failed_header_rewriting_total server_idle_connections_current server_idle_connections_limit
	server_internal_errors_total server_max_queue server_redispatch_warnings_total server_responses_denied_total server_retry_warnings_total
	server_safe_idle_connections_current server_unsafe_idle_connections_current`)
