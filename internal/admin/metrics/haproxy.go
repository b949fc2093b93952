package metrics

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/statistics"
)

// named is a metric that is a column of the table of statistics, or a line of what is told of the process.
type named struct {
	// name is what follows haproxy_process_, haproxy_frontend_ and so on, of says by which name the table has it.
	name, of string
	counter  bool
	help     string
	// seconds says that the table has milliseconds. optional ones have no series where the table has no value; others have NaN, as in HAProxy.
	seconds, optional bool
	// zero is where HAProxy has nothing to tell of such a row, and 0 is true.
	zero bool

	desc   *prometheus.Desc
	column *statistics.Column
}

// Metrics as HAProxy's own exporter has them (addons/promex) for a proxy in mode tcp. Two are here that it has for mode http alone, since
// dashboards ask for them: the HTTP requests of frontends and backends, which are 0.
//
// haproxy_up is none of them: it is a rule of Pigsty's over the scraper's own `up`, and one from here would double it.
var (
	ofProcess = []named{
		{name: "nbthread", of: "Nbthread", help: "Processors that may be used at once."},
		{name: "nbproc", of: "Nbproc", help: "Processes that share the work; always 1."},
		{name: "relative_process_id", of: "Process_num", help: "The process's number among them; always 1."},
		{name: "uptime_seconds", of: "Uptime_sec", help: "How long ago the process started."},
		{name: "start_time_seconds", of: "Start_time_sec", help: "When the process started, in seconds since 1970."},
		{name: "max_memory_bytes", of: "Memmax_bytes", help: "Limit of memory; 0 is none."},
		{name: "pool_allocated_bytes", of: "PoolAlloc_bytes", help: "Memory that the runtime has of the system."},
		{name: "pool_used_bytes", of: "PoolUsed_bytes", help: "Memory of it that is in use."},
		{name: "pool_failures_total", of: "PoolFailed", counter: true, help: "How often memory wasn't to be had."},
		{name: "max_fds", of: "Ulimit-n", help: "Limit of open files."},
		{name: "max_sockets", of: "Maxsock", help: "Limit of sockets."},
		{name: "max_connections", of: "Maxconn", help: "How many clients there may be at once."},
		{name: "hard_max_connections", of: "Hard_maxconn", help: "How many clients there may be at once, at most."},
		{name: "current_connections", of: "CurrConns", help: "Clients that are connected."},
		{name: "connections_total", of: "CumConns", counter: true, help: "Connections of clients that were accepted."},
		{name: "requests_total", of: "CumReq", counter: true, help: "The same: a connection is one request where nothing is HTTP."},
		{name: "max_ssl_connections", of: "MaxSslConns", help: "TLS connections that there may be; TLS is passed through, so 0."},
		{name: "current_ssl_connections", of: "CurrSslConns", help: "TLS connections; TLS is passed through, so 0."},
		{name: "ssl_connections_total", of: "CumSslConns", counter: true, help: "TLS connections so far; TLS is passed through, so 0."},
		{name: "max_pipes", of: "Maxpipes", help: "Limit of pipes; 0 is none but that of files."},
		{name: "pipes_used_total", of: "PipesUsed", counter: true, help: "Pipes in use now. It is called a counter, and isn't one, for HAProxy's sake."},
		{name: "pipes_free_total", of: "PipesFree", counter: true, help: "Pipes kept for use now. It is called a counter, and isn't one, for HAProxy's sake."},
		{name: "current_connection_rate", of: "ConnRate", help: "Connections accepted in the last second."},
		{name: "limit_connection_rate", of: "ConnRateLimit", help: "Limit of connections a second; 0 is none."},
		{name: "max_connection_rate", of: "MaxConnRate", help: "Most connections accepted in a second."},
		{name: "current_session_rate", of: "SessRate", help: "Sessions begun in the last second."},
		{name: "limit_session_rate", of: "SessRateLimit", help: "Limit of sessions a second; 0 is none."},
		{name: "max_session_rate", of: "MaxSessRate", help: "Most sessions begun in a second."},
		{name: "current_ssl_rate", of: "SslRate", help: "TLS sessions begun in the last second; always 0."},
		{name: "limit_ssl_rate", of: "SslRateLimit", help: "Limit of TLS sessions a second; always 0."},
		{name: "max_ssl_rate", of: "MaxSslRate", help: "Most TLS sessions begun in a second; always 0."},
		{name: "current_frontend_ssl_key_rate", of: "SslFrontendKeyRate", help: "TLS keys made for clients in the last second; always 0."},
		{name: "max_frontend_ssl_key_rate", of: "SslFrontendMaxKeyRate", help: "Most TLS keys made for clients in a second; always 0."},
		{name: "frontend_ssl_reuse", of: "SslFrontendSessionReuse_pct", help: "Share of TLS sessions that were resumed, in percent; always 0."},
		{name: "current_backend_ssl_key_rate", of: "SslBackendKeyRate", help: "TLS keys made for servers in the last second; always 0."},
		{name: "max_backend_ssl_key_rate", of: "SslBackendMaxKeyRate", help: "Most TLS keys made for servers in a second; always 0."},
		{name: "ssl_cache_lookups_total", of: "SslCacheLookups", counter: true, help: "Look-ups of TLS sessions; always 0."},
		{name: "ssl_cache_misses_total", of: "SslCacheMisses", counter: true, help: "Look-ups of TLS sessions in vain; always 0."},
		{name: "http_comp_bytes_in_total", of: "CompressBpsIn", counter: true, help: "Bytes before compression; always 0."},
		{name: "http_comp_bytes_out_total", of: "CompressBpsOut", counter: true, help: "Bytes after compression; always 0."},
		{name: "limit_http_comp", of: "CompressBpsRateLim", help: "Limit of compression; always 0."},
		{name: "current_zlib_memory", help: "Memory for compression; there is none."},
		{name: "max_zlib_memory", help: "Limit of memory for compression; there is none."},
		{name: "current_tasks", of: "Tasks", help: "Goroutines."},
		{name: "current_run_queue", of: "Run_queue", help: "Goroutines that wait for a processor."},
		{name: "idle_time_percent", of: "Idle_pct", help: "Share of the last second in which nothing was done, in percent."},
		{name: "stopping", of: "Stopping", help: "1 while the process stops."},
		{name: "jobs", of: "Jobs", help: "Listeners and clients."},
		{name: "unstoppable_jobs", of: "Unstoppable Jobs", help: "Those of them that a stop doesn't wait for; always 0."},
		{name: "listeners", of: "Listeners", help: "Addresses at which clients are accepted."},
		{name: "active_peers", of: "ActivePeers", help: "Peers; there are none."},
		{name: "connected_peers", of: "ConnectedPeers", help: "Peers that are connected; there are none."},
		{name: "dropped_logs_total", of: "DroppedLogs", counter: true, help: "Lines of the log that were dropped because nobody read them in time."},
		{name: "busy_polling_enabled", of: "BusyPolling", help: "Whether it waits busily; always 0."},
		{name: "failed_resolutions", of: "FailedResolutions", counter: true, help: "Look-ups of names in vain; always 0."},
		{name: "bytes_out_total", of: "TotalBytesOut", counter: true, help: "Bytes passed on to clients."},
		{name: "spliced_bytes_out_total", of: "TotalSplicdedBytesOut", counter: true, help: "Bytes that the kernel moved without a copy."},
		{name: "bytes_out_rate", of: "BytesOutRate", help: "Bytes passed on to clients in the last second."},
		{name: "recv_logs_total", of: "CumRecvLogs", counter: true, help: "Lines of others' logs that were taken; always 0."},
	}
	ofFrontends = []named{
		{name: "current_sessions", of: "scur", help: "Clients that are connected."},
		{name: "max_sessions", of: "smax", help: "Most clients that were connected at once."},
		{name: "limit_sessions", of: "slim", help: "How many clients there may be at once."},
		{name: "sessions_total", of: "stot", counter: true, help: "Clients so far."},
		{name: "bytes_in_total", of: "bin", counter: true, help: "Bytes from clients."},
		{name: "bytes_out_total", of: "bout", counter: true, help: "Bytes to clients."},
		{name: "requests_denied_total", of: "dreq", counter: true, help: "Requests denied by rules; there are none."},
		{name: "responses_denied_total", of: "dresp", counter: true, help: "Answers denied by rules; there are none."},
		{name: "request_errors_total", of: "ereq", counter: true, help: "Requests in error; there are none."},
		{name: "limit_session_rate", of: "rate_lim", help: "Limit of new sessions a second; 0 is none."},
		{name: "max_session_rate", of: "rate_max", help: "Most sessions begun in a second."},
		{name: "http_requests_total", of: "req_tot", counter: true, help: "HTTP requests; there are none."},
		{name: "connections_rate_max", of: "conn_rate_max", help: "Most connections accepted in a second."},
		{name: "connections_total", of: "conn_tot", counter: true, help: "Connections that were accepted."},
		{name: "denied_connections_total", of: "dcon", counter: true, help: "Connections closed because their address isn't allowed."},
		{name: "denied_sessions_total", of: "dses", counter: true, help: "Sessions denied by rules; there are none."},
		{name: "failed_header_rewriting_total", of: "wrew", counter: true, help: "HTTP headers that couldn't be rewritten; there are none."},
		{name: "internal_errors_total", of: "eint", counter: true, help: "Errors of the proxy's own making; none is told so."},
	}
	ofBackends = []named{
		{name: "current_queue", of: "qcur", help: "Clients that wait for a server."},
		{name: "max_queue", of: "qmax", help: "Most clients that waited at once."},
		{name: "current_sessions", of: "scur", help: "Clients that are connected."},
		{name: "max_sessions", of: "smax", help: "Most clients that were connected at once."},
		{name: "limit_sessions", of: "slim", help: "A tenth of how many clients there may be: HAProxy's fullconn."},
		{name: "sessions_total", of: "stot", counter: true, help: "Clients so far."},
		{name: "bytes_in_total", of: "bin", counter: true, help: "Bytes to servers."},
		{name: "bytes_out_total", of: "bout", counter: true, help: "Bytes from servers."},
		{name: "requests_denied_total", of: "dreq", counter: true, help: "Requests denied by rules; there are none."},
		{name: "responses_denied_total", of: "dresp", counter: true, help: "Answers denied by rules; there are none."},
		{name: "connection_errors_total", of: "econ", counter: true, help: "Connects in vain, and clients refused because no server took them."},
		{name: "response_errors_total", of: "eresp", counter: true, help: "Sessions that a server broke off."},
		{name: "retry_warnings_total", of: "wretr", counter: true, help: "Connects tried again at the same server."},
		{name: "redispatch_warnings_total", of: "wredis", counter: true, help: "Connects tried again at another server."},
		{name: "weight", of: "weight", help: "Weight of all servers that take clients."},
		{name: "active_servers", of: "act", help: "Servers that take clients, without backups."},
		{name: "backup_servers", of: "bck", help: "Backups that could take clients."},
		{name: "check_up_down_total", of: "chkdown", counter: true, help: "How often the last server was lost."},
		{name: "check_last_change_seconds", of: "lastchg", help: "How long ago it last lost its last server or had one again."},
		{name: "downtime_seconds_total", of: "downtime", counter: true, help: "How long it had no server in all."},
		{name: "loadbalanced_total", of: "lbtot", counter: true, help: "How often a server was chosen for a client."},
		{name: "max_session_rate", of: "rate_max", help: "Most sessions begun in a second."},
		{name: "http_requests_total", of: "req_tot", counter: true, zero: true, help: "HTTP requests; there are none."},
		{name: "client_aborts_total", of: "cli_abrt", counter: true, help: "Sessions that the client broke off."},
		{name: "server_aborts_total", of: "srv_abrt", counter: true, help: "Sessions that the server broke off."},
		{name: "last_session_seconds", of: "lastsess", help: "How long ago the last session began; -1 before the first."},
		{name: "queue_time_average_seconds", of: "qtime", seconds: true, help: "How long the latest 1,024 sessions waited, on average."},
		{name: "connect_time_average_seconds", of: "ctime", seconds: true, help: "How long connecting took for the latest 1,024 sessions, on average."},
		{name: "response_time_average_seconds", of: "rtime", seconds: true, help: "Time to an HTTP answer; there is none."},
		{name: "total_time_average_seconds", of: "ttime", seconds: true, help: "How long the latest 1,024 sessions were, on average."},
		{name: "failed_header_rewriting_total", of: "wrew", counter: true, help: "HTTP headers that couldn't be rewritten; there are none."},
		{name: "connection_attempts_total", of: "connect", counter: true, help: "Connects tried."},
		{name: "connection_reuses_total", of: "reuse", counter: true, help: "Connections used again; none are."},
		{name: "max_queue_time_seconds", of: "qtime_max", seconds: true, help: "Longest wait of a session."},
		{name: "max_connect_time_seconds", of: "ctime_max", seconds: true, help: "Longest time that a connect took."},
		{name: "max_response_time_seconds", of: "rtime_max", seconds: true, help: "Longest time to an HTTP answer; there is none."},
		{name: "max_total_time_seconds", of: "ttime_max", seconds: true, help: "Longest session."},
		{name: "internal_errors_total", of: "eint", counter: true, help: "Errors of the proxy's own making; none is told so."},
		{name: "uweight", of: "uweight", help: "Weight of all servers that take clients, as it was set."},
	}
	ofServers = []named{
		{name: "current_queue", of: "qcur", help: "Clients that wait for it."},
		{name: "max_queue", of: "qmax", help: "Most clients that waited for it at once."},
		{name: "current_sessions", of: "scur", help: "Sessions that it has."},
		{name: "max_sessions", of: "smax", help: "Most sessions that it had at once."},
		{name: "limit_sessions", of: "slim", help: "How many sessions it may have at once; NaN for any number."},
		{name: "sessions_total", of: "stot", counter: true, help: "Sessions so far."},
		{name: "bytes_in_total", of: "bin", counter: true, help: "Bytes to it."},
		{name: "bytes_out_total", of: "bout", counter: true, help: "Bytes from it."},
		{name: "responses_denied_total", of: "dresp", counter: true, help: "Answers denied by rules; there are none."},
		{name: "connection_errors_total", of: "econ", counter: true, help: "Connects in vain."},
		{name: "response_errors_total", of: "eresp", counter: true, help: "Sessions that it broke off."},
		{name: "retry_warnings_total", of: "wretr", counter: true, help: "Connects tried again at it."},
		{name: "redispatch_warnings_total", of: "wredis", counter: true, help: "Connects of clients that another server hadn't taken."},
		{name: "weight", of: "weight", help: "Its weight, less while it starts slowly."},
		{name: "check_failures_total", of: "chkfail", counter: true, help: "Checks in vain while it was up."},
		{name: "check_up_down_total", of: "chkdown", counter: true, help: "How often it went down."},
		{name: "check_last_change_seconds", of: "lastchg", help: "How long ago it last went up or down."},
		{name: "downtime_seconds_total", of: "downtime", counter: true, help: "How long it was down in all."},
		{name: "queue_limit", of: "qlimit", help: "How many clients may wait for it; NaN for any number."},
		{name: "current_throttle", of: "throttle", help: "Share of its weight that it has in its slow start, in percent; NaN while it has all."},
		{name: "loadbalanced_total", of: "lbtot", counter: true, help: "How often it was chosen for a client."},
		{name: "max_session_rate", of: "rate_max", help: "Most sessions begun in a second."},
		{name: "check_code", of: "check_code", optional: true, help: "HTTP status of the last check's answer; 0 without one."},
		{name: "check_duration_seconds", of: "check_duration", seconds: true, optional: true, help: "How long the last check took."},
		{name: "client_aborts_total", of: "cli_abrt", counter: true, help: "Sessions that the client broke off."},
		{name: "server_aborts_total", of: "srv_abrt", counter: true, help: "Sessions that it broke off."},
		{name: "last_session_seconds", of: "lastsess", help: "How long ago its last session began; -1 before the first."},
		{name: "queue_time_average_seconds", of: "qtime", seconds: true, help: "How long its latest 1,024 sessions waited, on average."},
		{name: "connect_time_average_seconds", of: "ctime", seconds: true, help: "How long connecting took for its latest 1,024 sessions, on average."},
		{name: "response_time_average_seconds", of: "rtime", seconds: true, help: "Time to an HTTP answer; there is none."},
		{name: "total_time_average_seconds", of: "ttime", seconds: true, help: "How long its latest 1,024 sessions were, on average."},
		{name: "failed_header_rewriting_total", of: "wrew", counter: true, help: "HTTP headers that couldn't be rewritten; there are none."},
		{name: "connection_attempts_total", of: "connect", counter: true, help: "Connects tried."},
		{name: "connection_reuses_total", of: "reuse", counter: true, help: "Connections used again; none are."},
		{name: "idle_connections_current", of: "srv_icur", help: "Idle connections kept; none are."},
		{name: "idle_connections_limit", of: "src_ilim", help: "How many idle connections may be kept; NaN for any number, and none are."},
		{name: "max_queue_time_seconds", of: "qtime_max", seconds: true, help: "Longest wait of a session."},
		{name: "max_connect_time_seconds", of: "ctime_max", seconds: true, help: "Longest time that a connect took."},
		{name: "max_response_time_seconds", of: "rtime_max", seconds: true, help: "Longest time to an HTTP answer; there is none."},
		{name: "max_total_time_seconds", of: "ttime_max", seconds: true, help: "Longest session."},
		{name: "internal_errors_total", of: "eint", counter: true, help: "Errors of the proxy's own making; none is told so."},
		{name: "unsafe_idle_connections_current", of: "idle_conn_cur", help: "Idle connections kept; none are."},
		{name: "safe_idle_connections_current", of: "safe_conn_cur", help: "Idle connections kept; none are."},
		{name: "used_connections_current", of: "used_conn_cur", help: "Connections in use."},
		{name: "need_connections_current", of: "need_conn_est", help: "Connections that are needed."},
		{name: "uweight", of: "uweight", help: "Its weight as it was set."},
	}
)

// Metrics with a series for each state, of which one is 1, and counts of servers by their state.
var (
	frontendStatus = prometheus.NewDesc("haproxy_frontend_status", "1 for the state that the frontend is in.", []string{"proxy", "state"}, nil)
	backendStatus  = prometheus.NewDesc("haproxy_backend_status", "1 for the state that the backend is in: UP while a server takes clients.", []string{"proxy", "state"}, nil)
	serverStatus   = prometheus.NewDesc("haproxy_server_status", "1 for the state that the server is in.", []string{"proxy", "server", "state"}, nil)
	checkStatus    = prometheus.NewDesc("haproxy_server_check_status", "1 for the result of the server's last check.", []string{"proxy", "server", "state"}, nil)
	aggregated     = prometheus.NewDesc("haproxy_backend_agg_server_status", "How many servers are in the state.", []string{"proxy", "state"}, nil)
	// HAProxy has the count by this name, too, for those who used it before it was renamed.
	aggregatedOld    = prometheus.NewDesc("haproxy_backend_agg_server_check_status", "How many servers are in the state; the older name of it.", []string{"proxy", "state"}, nil)
	aggregatedChecks = prometheus.NewDesc("haproxy_backend_agg_check_status", "How many servers have the result in their last check.", []string{"proxy", "state"}, nil)
	haproxyBuild     = prometheus.NewDesc("haproxy_process_build_info", "Always 1; the version is in its label: whose words these are, and pgporter's own.", []string{"version"}, nil)
)

// byKind are the metrics of each kind of row.
var byKind = [...][]named{
	statistics.Frontend: made("haproxy_frontend_", ofFrontends, "proxy"),
	statistics.Backend:  made("haproxy_backend_", ofBackends, "proxy"),
	statistics.Server:   made("haproxy_server_", ofServers, "proxy", "server"),
}

var process = made("haproxy_process_", ofProcess)

func made(prefix string, all []named, with ...string) []named {
	for i := range all {
		m := &all[i]
		m.desc, m.column = prometheus.NewDesc(prefix+m.name, m.help, with, nil), statistics.Named(m.of)
	}
	return all
}

func describeHAProxy(descs chan<- *prometheus.Desc) {
	for _, all := range append(byKind[:], process) {
		for i := range all {
			descs <- all[i].desc
		}
	}
	for _, desc := range []*prometheus.Desc{frontendStatus, backendStatus, serverStatus, checkStatus, aggregated, aggregatedOld, aggregatedChecks, haproxyBuild} {
		descs <- desc
	}
}

func collectHAProxy(s *api.Status, out chan<- prometheus.Metric) {
	collectProcess(s, out)
	rows := statistics.Rows(s)
	states, checks := map[statistics.State]int{}, map[string]int{}
	for i := range rows {
		r := &rows[i]
		shared := labels("proxy", r.Proxy)
		if r.Kind == statistics.Server {
			shared = labels("proxy", r.Proxy, "server", r.Name)
		}
		metrics := byKind[r.Kind]
		for m := range metrics {
			metric := &metrics[m]
			v := metric.column.Of(r)
			if metric.column == lastDuration {
				// It is told of a server in maintenance, too, where the table has nothing of its checks.
				v = r.CheckDuration()
			}
			value := float64(v.Number)
			switch {
			case v.Type == "" && metric.optional:
				continue
			case v.Type == "" && !metric.zero:
				value = math.NaN()
			case metric.seconds:
				value /= 1000
			}
			out <- &series{desc: metric.desc, labels: shared, counter: metric.counter, value: value}
		}
		each := func(desc *prometheus.Desc, state string, value float64) {
			out <- &series{desc: desc, labels: append(shared[:len(shared):len(shared)], labels("state", state)...), value: value}
		}
		switch r.Kind {
		case statistics.Frontend:
			clear(states)
			clear(checks)
			upOrDown(frontendStatus, r.Open(), each)
		case statistics.Server:
			state := r.State()
			states[state]++
			for _, s := range statistics.States {
				each(serverStatus, string(s), one(s == state))
			}
			if c := r.Server.LastCheck; c != nil {
				checks[c.Status]++
			}
			if v := lastCheck.Of(r); v.Type != "" {
				for _, code := range statistics.CheckCodes {
					each(checkStatus, code, one(code == v.Text))
				}
			}
		case statistics.Backend:
			upOrDown(backendStatus, r.Service.Up, each)
			for _, s := range statistics.States {
				each(aggregated, string(s), float64(states[s]))
				each(aggregatedOld, string(s), float64(states[s]))
			}
			for _, code := range statistics.CheckCodes {
				each(aggregatedChecks, code, float64(checks[code]))
			}
		}
	}
}

var lastCheck, lastDuration = statistics.Named("check_status"), statistics.Named("check_duration")

func upOrDown(desc *prometheus.Desc, up bool, each func(*prometheus.Desc, string, float64)) {
	each(desc, "DOWN", one(!up))
	each(desc, "UP", one(up))
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func collectProcess(s *api.Status, out chan<- prometheus.Metric) {
	told := map[string]statistics.Info{}
	for _, line := range statistics.Process(s) {
		told[line.Name] = line
	}
	for i := range process {
		value := math.NaN()
		if line, ok := told[process[i].of]; ok {
			value = line.Number()
		}
		out <- &series{desc: process[i].desc, counter: process[i].counter, value: value}
	}
	out <- &series{desc: haproxyBuild, labels: labels("version", statistics.Version(s)), value: 1}
}
