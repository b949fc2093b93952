package metrics

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// metric is one of ours. docs/metrics.md has all of them, and a test that nothing is missing there.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// ours are all metrics of this file, in the order in which they are declared below.
var ours []*prometheus.Desc

func declare(kind prometheus.ValueType, name, help string, labels []string) metric {
	m := metric{prometheus.NewDesc("pgporter_"+name, help, labels, nil), kind}
	ours = append(ours, m.desc)
	return m
}

func gauge(name, help string, labels ...string) metric {
	return declare(prometheus.GaugeValue, name, help, labels)
}

func counter(name, help string, labels ...string) metric {
	return declare(prometheus.CounterValue, name, help, labels)
}

// histogram's kind isn't looked at.
func histogram(name, help string, labels ...string) metric {
	return declare(prometheus.UntypedValue, name, help, labels)
}

// The labels are a cluster's name, a service's full name and a member's, as the configuration has them, besides words of a fixed list. So
// the number of series is bounded by the configuration: for each service 39 and for each of its servers 3 or 4, for each
// member 23, for each cluster 18, and 40 of the process.
//
// What HAProxy has a name for (bytes, rates, retries, checks of a server) isn't here again, but for what says whether a service is well.
var (
	buildInfo       = gauge("build_info", "Always 1; the labels say what runs.", "version", "engine")
	startTime       = gauge("start_timestamp_seconds", "When the process started, in seconds since 1970.")
	goroutines      = gauge("goroutines", "Goroutines of the process.")
	memory          = gauge("memory_bytes", "Memory that the process has of the system.")
	connections     = gauge("connections", "Clients' connections that are open.")
	connectionLimit = gauge("connections_limit", "How many connections clients may have at all services together.")
	openFiles       = gauge("open_files", "File descriptors that are open.")
	openFilesLimit  = gauge("open_files_limit", "How many file descriptors there may be.")
	handOvers       = counter("hand_overs_total", "Upgrades: how often one process took over from another since the first of them started.")
	handOverFailed  = gauge("hand_over_failed", "1 while the last thing known of upgrades is that this process couldn't hand over.")
	logDropped      = counter("log_lines_dropped_total", "Lines of the log that nobody read in time.")
	sessionsDropped = counter("session_log_lines_dropped_total", "Lines of the sessions' log that nobody read in time.")
	stalledLoops    = gauge("stalled_loops", "Loops that don't go round.")

	generation      = gauge("config_generation", "How many configurations were taken since the start.")
	refusals        = counter("config_refusals_total", "Configurations that weren't taken.")
	lastTaken       = gauge("config_last_reload_successful", "1 if the last configuration that came was taken, 0 if the one before it still runs.")
	loadedTime      = gauge("config_loaded_timestamp_seconds", "When the running configuration was loaded: after a restart, the time of that.")
	acceptedTime    = gauge("config_accepted_timestamp_seconds", "When this node accepted the plan that it runs from; a restart leaves it as it was.")
	unkept          = gauge("config_unkept", "1 while the running plan couldn't be kept for the next start.")
	controlExpires  = gauge("control_certificate_expiry_timestamp_seconds", "When the certificate of the control address expires.")
	clusterContest  = gauge("cluster_contested", "1 while several members claim to lead.", "cluster")
	clusterHeld     = gauge("cluster_held", "1 while new clients of the leader are kept waiting for a switchover.", "cluster")
	outageDuration  = histogram("cluster_outage_duration_seconds", "Times without a leader that serves, that have ended.", "cluster")
	outageNow       = gauge("cluster_current_outage_seconds", "How long the cluster has had no leader that serves; 0 while it has one.", "cluster")
	etcdUp          = gauge("cluster_etcd_up", "1 while etcd says who holds the leader key.", "cluster")
	leaderKeyHeld   = gauge("cluster_leader_key_held", "1 while somebody is known to hold the leader key.", "cluster")
	vipHere         = gauge("vip_here", "1 while this node has the cluster's virtual address.", "cluster", "address")
	vipOthers       = gauge("vip_others", "How many others were heard in the last 30 s that have the virtual address, too.", "cluster", "address")
	vipProblem      = gauge("vip_problem", "1 while something about the virtual address has to be mended.", "cluster", "address")
	memberRole      = gauge("member_role", "Always 1; the label says what the member is now.", "cluster", "member", "role")
	memberState     = gauge("member_state", "Always 1; the label is Patroni's word for the member's PostgreSQL.", "cluster", "member", "state")
	memberTimeline  = gauge("member_timeline", "The member's timeline.", "cluster", "member")
	memberLag       = gauge("member_lag_bytes", "How far the member's WAL is behind the leader's.", "cluster", "member")
	memberAnswered  = gauge("member_last_answer_timestamp_seconds", "When the member's Patroni answered last.", "cluster", "member")
	checkDuration   = histogram("member_check_duration_seconds", "How long the member's Patroni took to answer.", "cluster", "member")
	questions       = counter("member_questions_total", "Questions to the member's Patroni.", "cluster", "member")
	outOfTurn       = counter("member_questions_out_of_turn_total", "Those of the questions that were sooner than the quiet rhythm.", "cluster", "member")
	heldBack        = counter("member_questions_held_back_total", "Questions that were wanted and not put: the budget was used up.", "cluster", "member")
	lateAnswers     = counter("member_late_answers_total", "Answers that came when the member was already taken for silent.", "cluster", "member")
	serviceUp       = gauge("service_up", "1 while a client that comes now is connected to a server.", "cluster", "service")
	serviceOutage   = gauge("service_current_outage_seconds", "How long the service has had no server, after it had one; 0 while it has one.", "cluster", "service")
	serviceOutages  = counter("service_outages_total", "How often the service lost its last server.", "cluster", "service")
	serviceDown     = counter("service_down_seconds_total", "How long the service has had no server in all.", "cluster", "service")
	serviceShadow   = gauge("service_shadow", "1 while nobody is accepted for the service here: its other series say what would be.", "cluster", "service")
	serviceServers  = gauge("service_servers", "Servers of the service.", "cluster", "service")
	serviceServing  = gauge("service_serving_servers", "Servers that new clients are connected to.", "cluster", "service")
	serviceClients  = gauge("service_clients", "Connections that were accepted and are open: with a server, or without one yet.", "cluster", "service")
	clientLimit     = gauge("service_clients_limit", "How many connections the service may have (maxconn); absent if any number.", "cluster", "service")
	serviceSessions = gauge("service_sessions", "Clients that are connected to a server.", "cluster", "service")
	waiting         = gauge("service_waiting_clients", "Clients that wait for a server.", "cluster", "service")
	oldestWait      = gauge("service_oldest_wait_seconds", "How long the client waits that waits longest; 0 while nobody does.", "cluster", "service")
	accepted        = counter("service_accepted_total", "Clients that were accepted.", "cluster", "service")
	denied          = counter("service_denied_total", "Clients that were closed unheard: their address isn't allowed.", "cluster", "service")
	refused         = counter("service_refused_total", "Clients that found no server in time.", "cluster", "service")
	sessionsBegun   = counter("service_sessions_total", "Clients that were connected to a server.", "cluster", "service")
	sessionsEnded   = counter("service_sessions_ended_total", "Sessions that have ended, by why.", "cluster", "service", "reason")
	connectDuration = histogram("service_connect_duration_seconds", "How long connecting to a server took.", "cluster", "service")
	connectFailures = counter("service_connect_failures_total", "Attempts to connect to a server that were in vain.", "cluster", "service")
	cancels         = counter("service_cancel_requests_total", "Cancel requests that came.", "cluster", "service")
	cancelsSent     = counter("service_cancel_requests_sent_total", "Requests to servers that they became.", "cluster", "service")
	serverUp        = gauge("server_up", "1 while the server may take clients.", "cluster", "service", "member")
	serverServing   = gauge("server_serving", "1 while new clients are connected to the server.", "cluster", "service", "member")
	serverDowns     = counter("server_downs_total", "How often the server went down.", "cluster", "service", "member")
	serverOrdered   = gauge("server_order_timestamp_seconds", "When an operator ordered the server's state or weight; absent if nobody did.", "cluster", "service", "member", "state")
	poolUp          = gauge("pool_up", "1 while the PgBouncer answers and does what it is told.", "pool")
	poolPaused      = gauge("pool_paused", "1 while the PgBouncer's database is paused, or is about to be: transactions under way end, others wait.", "pool", "database", "cluster")
	poolActive      = gauge("pool_active", "Server connections of the PgBouncer's database that clients have.", "pool", "database", "cluster")
	poolWaiting     = gauge("pool_waiting", "Clients of the PgBouncer's database that wait for a server connection.", "pool", "database", "cluster")
	names           = gauge("names", "Names that have an answer.")
	nameQuestions   = counter("name_questions_total", "Questions for names that were answered, those below among them.")
	namesRefused    = counter("name_questions_refused_total", "Questions for names that aren't of clusters.")
	namesUnknown    = counter("name_questions_unknown_total", "Questions for names below those of clusters that don't exist.")
	namesMalformed  = counter("name_questions_malformed_total", "Packets that were no questions.")
	namesRejected   = counter("name_connections_rejected_total", "TCP connections for names that were too many.")
	shadowAsked     = counter("shadow_questions_total", "Questions to the HAProxy that is compared with.")
	shadowUnheard   = counter("shadow_questions_unanswered_total", "Those of them that brought nothing.")
	shadowStanding  = gauge("shadow_disagreements", "Disagreements with HAProxy that last.")
	shadowOver      = counter("shadow_disagreements_ended_total", "Disagreements with HAProxy that are over, by who was right.", "right")
	shadowBoth      = gauge("shadow_doubled_services", "Services that were taken from HAProxy and that it listens for, too.")
)

// endings are the words by which sessions end (api.Service): each has a series before its first session, so that increase() sees that.
var endings = []string{"client", "down", "error", "idle", "killed", "server", "stop"}

// states are Patroni's words for a PostgreSQL (patroni/postgresql/misc.py, PostgresqlState). They come over the network: whatever else
// it says is `other`, so that no member makes series without end.
var states = []string{
	"initdb", "initdb failed", "initializing new cluster", "custom bootstrap", "running custom bootstrap script", "custom bootstrap failed",
	"starting after custom bootstrap", "creating replica", "running", "starting", "bootstrap starting", "start failed", "restarting", "restart failed",
	"stopping", "stopped", "stop failed", "crashed", "in archive recovery", "streaming",
}

func describePGPorter(descs chan<- *prometheus.Desc) {
	for _, d := range ours {
		descs <- d
	}
}

// writer sends series on.
type writer chan<- prometheus.Metric

func (w writer) number(m metric, value float64, labels ...string) {
	w <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
}

func (w writer) count(m metric, value uint64, labels ...string) {
	w.number(m, float64(value), labels...)
}

func (w writer) is(m metric, value bool, labels ...string) {
	if value {
		w.number(m, 1, labels...)
		return
	}
	w.number(m, 0, labels...)
}

// moment leaves out what has never been.
func (w writer) moment(m metric, at *time.Time, labels ...string) {
	if at != nil && !at.IsZero() {
		w.number(m, float64(at.UnixMilli())/1000, labels...)
	}
}

// since is 0 where nothing lasts.
func (w writer) since(m metric, from *time.Time, now time.Time, labels ...string) {
	seconds := 0.0
	if from != nil {
		seconds = max(0, now.Sub(*from).Seconds())
	}
	w.number(m, seconds, labels...)
}

// durations adds up what api.Histogram counts apart: Prometheus' buckets have all that is at most their bound.
func (w writer) durations(m metric, h api.Histogram, labels ...string) {
	buckets, all := make(map[float64]uint64, len(h.Bounds)), uint64(0)
	for i, n := range h.Counts {
		all += n
		if i < len(h.Bounds) {
			buckets[h.Bounds[i]] = all
		}
	}
	w <- prometheus.MustNewConstHistogram(m.desc, all, h.Sum, buckets, labels...)
}

func collectPGPorter(s *api.Status, series chan<- prometheus.Metric) {
	w := writer(series)
	w.process(s)
	w.configuration(&s.Config)
	for i := range s.Clusters {
		c := &s.Clusters[i]
		w.cluster(c, s.Now)
		for i := range c.Services {
			w.service(c.Name, &c.Services[i], s.Now)
		}
	}
	for i := range s.TCPServices {
		w.service("", &s.TCPServices[i], s.Now)
	}
	for _, p := range s.Pools {
		w.is(poolUp, p.Problem == "", p.Address)
		for _, d := range p.Databases {
			w.is(poolPaused, d.State != api.PoolRunning, p.Address, d.Name, d.Cluster)
			w.number(poolActive, float64(d.Active), p.Address, d.Name, d.Cluster)
			w.number(poolWaiting, float64(d.Waiting), p.Address, d.Name, d.Cluster)
		}
	}
	if n := s.Names; n != nil {
		w.number(names, float64(n.Names))
		w.count(nameQuestions, n.Questions)
		w.count(namesRefused, n.Refused)
		w.count(namesUnknown, n.Unknown)
		w.count(namesMalformed, n.Malformed)
		w.count(namesRejected, n.Rejected)
	}
	if d := s.Shadow; d != nil {
		w.count(shadowAsked, d.Asked)
		w.count(shadowUnheard, d.Unanswered)
		w.number(shadowStanding, float64(len(d.Standing)))
		w.number(shadowOver, float64(d.Right.PGPorter), "pgporter")
		w.number(shadowOver, float64(d.Right.HAProxy), "haproxy")
		w.number(shadowOver, float64(d.Right.Unknown), "unknown")
		w.number(shadowBoth, float64(len(d.Both)))
	}
}

func (w writer) process(s *api.Status) {
	engine := s.Engine
	if s.Shadow != nil {
		engine = "shadow"
	}
	w.number(buildInfo, 1, s.Version, engine)
	w.moment(startTime, &s.Started)
	w.number(goroutines, float64(s.Goroutines))
	w.count(memory, s.Process.MemoryBytes)
	w.number(connections, float64(s.Process.Connections))
	w.number(connectionLimit, float64(s.Process.ConnectionLimit))
	w.number(openFiles, float64(s.Process.OpenFiles))
	w.count(openFilesLimit, s.Process.Files)
	w.number(handOvers, float64(s.Process.HandOvers))
	w.is(handOverFailed, s.Upgrade != nil && s.Upgrade.Problem != "")
	w.count(logDropped, s.LogDropped)
	w.count(sessionsDropped, s.SessionLogDropped)
	w.number(stalledLoops, float64(len(s.Stalled)))
}

func (w writer) configuration(c *api.Config) {
	w.number(generation, float64(c.Generation))
	w.number(refusals, float64(c.Refusals))
	w.is(lastTaken, c.Refused == "")
	w.moment(loadedTime, &c.Loaded)
	if c.Plan != nil {
		w.moment(acceptedTime, &c.Plan.Accepted)
		w.is(unkept, c.Plan.Unkept != "")
	}
	w.moment(controlExpires, c.ControlExpires)
}

func (w writer) cluster(c *api.Cluster, now time.Time) {
	w.is(clusterContest, c.Contested != "", c.Name)
	w.is(clusterHeld, c.Hold != nil, c.Name)
	w.durations(outageDuration, c.Outages, c.Name)
	w.since(outageNow, c.OutageSince, now, c.Name)
	if c.LeaderKey != nil {
		w.is(etcdUp, c.LeaderKey.Lost == "", c.Name)
		w.is(leaderKeyHeld, c.LeaderKey.Holder != "", c.Name)
	}
	if v := c.VIP; v != nil {
		w.is(vipHere, v.Here, c.Name, v.Address)
		w.number(vipOthers, float64(len(v.Others)), c.Name, v.Address)
		w.is(vipProblem, v.Problem != "", c.Name, v.Address)
	}
	for i := range c.Members {
		m := &c.Members[i]
		w.number(memberRole, 1, c.Name, m.Name, m.Role)
		if m.State != "" {
			w.number(memberState, 1, c.Name, m.Name, stateWord(m.State))
		}
		if m.Timeline > 0 {
			w.number(memberTimeline, float64(m.Timeline), c.Name, m.Name)
		}
		if m.Lag != nil {
			w.number(memberLag, float64(*m.Lag), c.Name, m.Name)
		}
		w.moment(memberAnswered, m.Answered, c.Name, m.Name)
		w.durations(checkDuration, m.Answering, c.Name, m.Name)
		w.count(questions, m.Questions.Asked, c.Name, m.Name)
		w.count(outOfTurn, m.Questions.OutOfTurn, c.Name, m.Name)
		w.count(heldBack, m.Questions.HeldBack, c.Name, m.Name)
		w.count(lateAnswers, m.Questions.Late, c.Name, m.Name)
	}
}

func stateWord(state string) string {
	if state = strings.ToLower(state); slices.Contains(states, state) {
		return state
	}
	return "other"
}

func (w writer) service(cluster string, s *api.Service, now time.Time) {
	serving := 0
	for i := range s.Servers {
		if s.Servers[i].Serving {
			serving++
		}
		w.server(cluster, s.FullName, &s.Servers[i])
	}
	w.is(serviceUp, s.Up, cluster, s.FullName)
	// A service that never had a server may be meant so: one of standbys in a cluster that has none.
	var lost *time.Time
	if !s.Up && s.Downs > 0 {
		lost = &s.Since
	}
	w.since(serviceOutage, lost, now, cluster, s.FullName)
	w.count(serviceOutages, s.Downs, cluster, s.FullName)
	w.number(serviceDown, s.DownSeconds, cluster, s.FullName)
	w.is(serviceShadow, s.Shadow, cluster, s.FullName)
	w.number(serviceServers, float64(len(s.Servers)), cluster, s.FullName)
	w.number(serviceServing, float64(serving), cluster, s.FullName)
	w.number(serviceClients, float64(s.Clients), cluster, s.FullName)
	if s.Limit > 0 {
		w.number(clientLimit, float64(s.Limit), cluster, s.FullName)
	}
	w.number(serviceSessions, float64(s.Sessions), cluster, s.FullName)
	w.number(waiting, float64(s.Queued), cluster, s.FullName)
	w.since(oldestWait, s.Waiting, now, cluster, s.FullName)
	w.count(accepted, s.Accepted, cluster, s.FullName)
	w.count(denied, s.Denied, cluster, s.FullName)
	w.count(refused, s.Refused, cluster, s.FullName)
	w.count(sessionsBegun, s.Total, cluster, s.FullName)
	for _, why := range endings {
		w.count(sessionsEnded, s.Ended[why], cluster, s.FullName, why)
	}
	w.durations(connectDuration, s.Connecting, cluster, s.FullName)
	w.count(connectFailures, s.ConnectFailures, cluster, s.FullName)
	w.count(cancels, s.Cancels, cluster, s.FullName)
	w.count(cancelsSent, s.CancelsSent, cluster, s.FullName)
}

func (w writer) server(cluster, service string, s *api.Server) {
	w.is(serverUp, s.Up, cluster, service, s.Member)
	w.is(serverServing, s.Serving, cluster, service, s.Member)
	w.count(serverDowns, s.Downs, cluster, service, s.Member)
	if s.Order != nil {
		w.moment(serverOrdered, &s.Order.Since, cluster, service, s.Member, string(s.Order.State))
	}
}
