package statistics

import (
	"strconv"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// Value is what a column has of a row. The zero Value is nothing.
type Value struct {
	// Type is HAProxy's word: str, u32, s32 or u64; empty for nothing.
	Type   string
	Number int64
	Text   string
}

// String is the value as the CSV has it.
func (v Value) String() string {
	switch v.Type {
	case "":
		return ""
	case "str":
		return v.Text
	}
	return strconv.FormatInt(v.Number, 10)
}

func text(s string) Value { return Value{Type: "str", Text: s} }
func u32[N int | int64](n N) Value {
	return Value{Type: "u32", Number: int64(n)}
}
func s32(n int64) Value { return Value{Type: "s32", Number: n} }
func u64[N int64 | uint64](n N) Value {
	return Value{Type: "u64", Number: int64(n)}
}

// ms is a time that is known in milliseconds.
func ms(t float64) Value { return u32(milliseconds(t)) }

// Column is a column of the table.
type Column struct {
	Name string
	// Position is where it stands, from 0.
	Position int
	// About says in words what it is.
	About string
	// of gives its value of a row, by kind; nil where such a row has none.
	of [3]func(*Row) Value
	// tags are HAProxy's three letters for what a value is (its guide, "Typed output format"), by kind.
	tags [3]string
}

// Of is the column's value of a row.
func (c *Column) Of(r *Row) Value {
	if of := c.of[r.Kind]; of != nil {
		return of(r)
	}
	return Value{}
}

// Columns are all columns in their order.
var Columns = columns()

// column finds a column by its name.
var byName = func() map[string]*Column {
	named := make(map[string]*Column, len(Columns))
	for i := range Columns {
		named[Columns[i].Name] = &Columns[i]
	}
	return named
}()

// Named is the column of a name; nil if there is none.
func Named(name string) *Column { return byName[name] }

// cell is one kind's part of a column.
type cell struct {
	tag string
	of  func(*Row) Value
}

// is joins a tag and where the value comes from.
func is(tag string, of func(*Row) Value) cell { return cell{tag, of} }

// none and nothing are counters of what there isn't here: HTTP, caches, compression, checks of answers.
func nothing(*Row) Value { return u64(uint64(0)) }
func zero(*Row) Value    { return u32(0) }

var (
	absent  cell
	never   = is("MCP", nothing)
	noGauge = is("MGP", zero)
	noLimit = is("CLP", zero)
	noRate  = is("MRP", zero)
	noMax   = is("MMP", zero)
)

// counted are cells that a server and a BACKEND have alike of their counts.
func counted(tag string, of func(*api.Counts) Value) cell {
	return is(tag, func(r *Row) Value { return of(r.counts()) })
}

// ifChecked is a cell of servers that are checked.
func ifChecked(tag string, of func(*Row, *api.ServerCheck) Value) cell {
	return is(tag, func(r *Row) Value {
		if !r.checked() {
			return Value{}
		}
		return of(r, r.Server.LastCheck)
	})
}

// ifShown is a cell of what the last check brought: none is made of a server in maintenance, so HAProxy tells none.
func ifShown(tag string, of func(*api.ServerCheck) Value) cell {
	return ifChecked(tag, func(r *Row, c *api.ServerCheck) Value {
		if r.State() == Maint {
			return Value{}
		}
		return of(c)
	})
}

func columns() []Column {
	var all []Column
	add := func(name, about string, frontend, server, backend cell) {
		c := Column{Name: name, About: about, Position: len(all)}
		for kind, cell := range [...]cell{Frontend: frontend, Backend: backend, Server: server} {
			c.of[kind], c.tags[kind] = cell.of, cell.tag
		}
		all = append(all, c)
	}
	// both has a server and a BACKEND alike.
	both := func(name, about string, c cell) { add(name, about, absent, c, c) }
	every := func(name, about string, c cell) { add(name, about, c, c, c) }

	every("pxname", "the service's full name", is("KNS", func(r *Row) Value { return text(r.Proxy) }))
	every("svname", "FRONTEND, BACKEND, or the server's name", is("KNS", func(r *Row) Value { return text(r.Name) }))
	add("qcur", "clients that wait now", absent,
		is("MGP", func(r *Row) Value { return u32(r.Server.Queued) }), is("MGP", func(r *Row) Value { return u32(r.Service.Queued) }))
	both("qmax", "most clients that waited at once", counted("MMP", func(c *api.Counts) Value { return u32(c.QueuedMax) }))
	add("scur", "sessions now", is("MGP", func(r *Row) Value { return u32(r.Service.Clients) }),
		is("MGP", func(r *Row) Value { return u32(r.Server.Sessions) }), is("MGP", func(r *Row) Value { return u32(r.Service.Clients) }))
	add("smax", "most sessions at once", is("MMP", func(r *Row) Value { return u32(r.Service.ClientsMax) }),
		is("MMP", func(r *Row) Value { return u32(r.Server.SessionsMax) }), is("MMP", func(r *Row) Value { return u32(r.Service.ClientsMax) }))
	add("slim", "how many sessions there may be (of a BACKEND a tenth, HAProxy's fullconn)", is("CLP", func(r *Row) Value { return u32(r.limit()) }),
		is("CLP", func(r *Row) Value { return unless0(r.Server.Limit) }), is("CLP", func(r *Row) Value { return u32((r.limit() + 9) / 10) }))
	add("stot", "sessions so far", is("MCP", func(r *Row) Value { return u64(less(r.Service.Accepted, r.Service.Denied)) }),
		is("MCP", func(r *Row) Value { return u64(r.Server.Total) }), is("MCP", func(r *Row) Value { return u64(less(r.Service.Accepted, r.Service.Denied)) }))
	every("bin", "bytes from clients", counted("MCP", func(c *api.Counts) Value { return u64(c.ToServer) }))
	every("bout", "bytes to clients", counted("MCP", func(c *api.Counts) Value { return u64(c.ToClient) }))
	add("dreq", "requests denied by rules", never, absent, never)
	add("dresp", "answers denied by rules", never, never, never)
	add("ereq", "requests in error", never, absent, absent)
	add("econ", "connects in vain", absent, counted("MCP", func(c *api.Counts) Value { return u64(c.ConnectFailures) }),
		is("MCP", func(r *Row) Value { return u64(r.Service.ConnectFailures + r.Service.Refused) }))
	both("eresp", "sessions that the server broke off", counted("MCP", func(c *api.Counts) Value { return u64(c.ServerAborts) }))
	both("wretr", "connects tried again at the same server", counted("MCP", func(c *api.Counts) Value { return u64(again(c)) }))
	both("wredis", "connects tried at another server", counted("MCP", func(c *api.Counts) Value { return u64(c.Redispatches) }))
	every("status", "OPEN or STOP of a FRONTEND, UP or DOWN of a BACKEND, UP, DOWN, MAINT, DRAIN or no check of a server", is("SGP", func(r *Row) Value { return text(r.status()) }))
	add("weight", "weight that counts now", absent,
		is("MaP", func(r *Row) Value { return u32(r.effectiveWeight()) }), is("MaP", func(r *Row) Value { return u32(r.weight) }))
	add("act", "servers that take clients; 1 of a server that is no backup", absent,
		is("SGP", func(r *Row) Value { return bit(!r.Server.Backup) }), is("MGP", func(r *Row) Value { return u32(r.active) }))
	add("bck", "backups that would take clients; 1 of a server that is one", absent,
		is("SGP", func(r *Row) Value { return bit(r.Server.Backup) }), is("MGP", func(r *Row) Value { return u32(r.backups) }))
	add("chkfail", "checks in vain while it was up", absent, ifChecked("MCP", func(r *Row, _ *api.ServerCheck) Value { return u64(r.Server.CheckFailures) }), absent)
	add("chkdown", "how often it went down", absent, ifChecked("MCP", func(r *Row, _ *api.ServerCheck) Value { return u64(r.Server.Downs) }),
		is("MCP", func(r *Row) Value { return u64(r.Service.Downs) }))
	add("lastchg", "seconds since it last went up or down", absent,
		is("MAP", func(r *Row) Value { return u32(r.ago(r.Server.Since)) }), is("MAP", func(r *Row) Value { return u32(r.ago(r.Service.Since)) }))
	add("downtime", "seconds for which it was down in all", absent,
		ifChecked("MCP", func(r *Row, _ *api.ServerCheck) Value { return u32(int64(r.Server.DownSeconds)) }),
		is("MCP", func(r *Row) Value { return u32(int64(r.Service.DownSeconds)) }))
	add("qlimit", "how many clients may wait for it", absent, is("CGS", func(r *Row) Value { return unless0(r.Server.QueueLimit) }), absent)
	every("pid", "always 1", is("KGP", func(*Row) Value { return u32(1) }))
	every("iid", "the proxy's number", is("KGS", func(r *Row) Value { return u32(r.ID) }))
	every("sid", "the server's number within it", is("KGS", func(r *Row) Value { return u32(r.ServerID) }))
	add("throttle", "share of its weight that it has in its slow start, in percent", absent, is("MaP", func(r *Row) Value {
		if r.Server.Throttle == nil || r.State() != Up {
			return Value{}
		}
		return u32(*r.Server.Throttle)
	}), absent)
	both("lbtot", "how often a server was chosen", is("MCP", func(r *Row) Value { return u64(r.selected()) }))
	every("tracked", "the server whose checks it goes by", absent)
	every("type", "0 of a FRONTEND, 1 of a BACKEND, 2 of a server", is("CGS", func(r *Row) Value { return u32(int(r.Kind)) }))
	add("rate", "sessions begun in the last second", is("MRP", func(r *Row) Value { return u32(r.Service.AcceptRate) }),
		is("MRP", func(r *Row) Value { return u32(r.Server.SessionRate) }), is("MGP", func(r *Row) Value { return u32(r.Service.AcceptRate) }))
	add("rate_lim", "how many sessions may begin in a second", noLimit, absent, absent)
	add("rate_max", "most sessions begun in a second", is("MMP", func(r *Row) Value { return u32(r.Service.AcceptRateMax) }),
		is("MMP", func(r *Row) Value { return u32(r.Server.SessionRateMax) }), is("MGP", func(r *Row) Value { return u32(r.Service.AcceptRateMax) }))
	add("check_status", "the last check's result as HAProxy's code", absent, ifShown("MOP", func(c *api.ServerCheck) Value { return text(c.Status) }), absent)
	add("check_code", "the HTTP status of the last check's answer", absent, ifShown("MOP", func(c *api.ServerCheck) Value { return unless0(c.Code) }), absent)
	add("check_duration", "how long the last check took, in milliseconds", absent, is("MDP", func(r *Row) Value {
		if r.State() == Maint {
			return Value{}
		}
		return r.CheckDuration()
	}), absent)
	for _, class := range []string{"1xx", "2xx", "3xx", "4xx", "5xx", "other"} {
		every("hrsp_"+class, "HTTP answers ("+class+"): nothing here is HTTP", absent)
	}
	every("hanafail", "failures seen by watching sessions: none are watched so", absent)
	add("req_rate", "HTTP requests in the last second", noRate, absent, absent)
	add("req_rate_max", "most HTTP requests in a second", noMax, absent, absent)
	add("req_tot", "HTTP requests so far", never, absent, absent)
	both("cli_abrt", "sessions that the client broke off", counted("MCP", func(c *api.Counts) Value { return u64(c.ClientAborts) }))
	both("srv_abrt", "sessions that the server broke off", counted("MCP", func(c *api.Counts) Value { return u64(c.ServerAborts) }))
	for _, what := range []string{"comp_in", "comp_out", "comp_byp", "comp_rsp"} {
		add(what, "HTTP compression: there is none", never, absent, never)
	}
	both("lastsess", "seconds since the last session began; -1 before the first", is("MAP", func(r *Row) Value { return s32(r.idle()) }))
	add("last_chk", "what the last check brought", absent, ifShown("MOP", func(c *api.ServerCheck) Value { return text(c.Text) }), absent)
	every("last_agt", "what the last check of an agent brought: there are none", absent)
	both("qtime", "average wait of the latest 1,024 sessions, in milliseconds", counted("MaP", func(c *api.Counts) Value { return ms(c.QueueTime) }))
	both("ctime", "average connect of the latest 1,024 sessions, in milliseconds", counted("MaP", func(c *api.Counts) Value { return ms(c.ConnectTime) }))
	both("rtime", "average time to an answer: HTTP's, so 0", is("MaP", zero))
	both("ttime", "average length of the latest 1,024 sessions, in milliseconds", counted("MaP", func(c *api.Counts) Value { return ms(c.SessionTime) }))
	every("agent_status", "of an agent: there are none", absent)
	every("agent_code", "of an agent: there are none", absent)
	every("agent_duration", "of an agent: there are none", absent)
	add("check_desc", "the last check's result in words", absent, ifShown("MOP", func(c *api.ServerCheck) Value { return text(described[c.Status]) }), absent)
	every("agent_desc", "of an agent: there are none", absent)
	add("check_rise", "passes in a row that bring it up", absent, ifShown("CGS", func(c *api.ServerCheck) Value { return u32(c.Rise) }), absent)
	add("check_fall", "failures in a row that put it down", absent, ifShown("CGS", func(c *api.ServerCheck) Value { return u32(c.Fall) }), absent)
	add("check_health", "0 for down, up to rise+fall-1 for up", absent, ifShown("CGS", func(c *api.ServerCheck) Value { return u32(c.Health) }), absent)
	every("agent_rise", "of an agent: there are none", absent)
	every("agent_fall", "of an agent: there are none", absent)
	every("agent_health", "of an agent: there are none", absent)
	add("addr", "the server's address and port", absent, is("CGS", func(r *Row) Value { return text(r.Server.Address) }), absent)
	every("cookie", "HTTP's: there is none", absent)
	every("mode", "always tcp", is("CGS", func(*Row) Value { return text("tcp") }))
	add("algo", "how clients are spread over servers", absent, absent, is("CGS", func(r *Row) Value {
		if r.Service.Balance == "" {
			return Value{}
		}
		return text(r.Service.Balance)
	}))
	add("conn_rate", "connections accepted in the last second", is("MRP", func(r *Row) Value { return u32(r.Service.AcceptRate) }), absent, absent)
	add("conn_rate_max", "most connections accepted in a second", is("MMP", func(r *Row) Value { return u32(r.Service.AcceptRateMax) }), absent, absent)
	add("conn_tot", "connections accepted so far", is("MCP", func(r *Row) Value { return u64(r.Service.Accepted) }), absent, absent)
	every("intercepted", "requests answered by the proxy itself: HTTP's", absent)
	add("dcon", "connections refused by their address", is("MCP", func(r *Row) Value { return u64(r.Service.Denied) }), absent, absent)
	add("dses", "sessions refused by rules", never, absent, absent)
	every("wrew", "HTTP headers that couldn't be rewritten", never)
	both("connect", "connects tried", counted("MCP", func(c *api.Counts) Value { return u64(c.Attempts) }))
	both("reuse", "connections used again: none are", never)
	every("cache_lookups", "of a cache: there is none", absent)
	every("cache_hits", "of a cache: there is none", absent)
	add("srv_icur", "idle connections kept: none are", absent, noGauge, absent)
	every("src_ilim", "how many idle connections may be kept", absent)
	both("qtime_max", "longest wait, in milliseconds", counted("MMP", func(c *api.Counts) Value { return ms(c.QueueTimeMax) }))
	both("ctime_max", "longest connect, in milliseconds", counted("MMP", func(c *api.Counts) Value { return ms(c.ConnectTimeMax) }))
	both("rtime_max", "longest time to an answer: HTTP's, so 0", is("MMP", zero))
	both("ttime_max", "longest session, in milliseconds", counted("MMP", func(c *api.Counts) Value { return ms(c.SessionTimeMax) }))
	every("eint", "errors of the proxy's own making", never)
	add("idle_conn_cur", "idle connections kept: none are", absent, noGauge, absent)
	add("safe_conn_cur", "idle connections kept: none are", absent, noGauge, absent)
	add("used_conn_cur", "connections in use", absent, is("MGP", func(r *Row) Value { return u32(r.Server.Sessions) }), absent)
	add("need_conn_est", "connections that are needed", absent, is("MGP", func(r *Row) Value { return u32(r.Server.Sessions) }), absent)
	add("uweight", "weight as it was set", absent,
		is("MaP", func(r *Row) Value { return u32(r.Server.Weight) }), is("MaP", func(r *Row) Value { return u32(r.userWeight) }))
	for _, what := range []string{"agg_server_status", "agg_server_check_status", "agg_check_status"} {
		add(what, "servers by their state: only the exporter tells it", absent, absent, noGauge)
	}
	return all
}

// CheckDuration is how long a server's last check took; nothing if there was none.
func (r *Row) CheckDuration() Value {
	if c := r.Server.LastCheck; c != nil && c.Status != "INI" {
		return u64(milliseconds(c.Seconds * 1000))
	}
	return Value{}
}

// unless0 is a limit, which is empty where there is none.
func unless0(n int) Value {
	if n == 0 {
		return Value{}
	}
	return u32(n)
}

func bit(b bool) Value {
	if b {
		return u32(1)
	}
	return u32(0)
}

func fraction(n, of int) string { return strconv.Itoa(n) + "/" + strconv.Itoa(of) }

// CheckCodes are the results that a check may have once it has ended, in HAProxy's order.
var CheckCodes = []string{"HANA", "SOCKERR", "L4OK", "L4TOUT", "L4CON", "L6OK", "L6TOUT", "L6RSP", "L7TOUT", "L7RSP", "L7OK", "L7OKC", "L7STS", "PROCERR", "PROCTOUT", "PROCOK"}

// described says in words what the codes are that pgporter has.
var described = map[string]string{
	"INI":     "Not checked yet",
	"SOCKERR": "This node could not ask",
	"L4OK":    "Connected",
	"L4TOUT":  "No connection in time",
	"L4CON":   "No connection",
	"L6OK":    "TLS works",
	"L6TOUT":  "No TLS in time",
	"L6RSP":   "TLS failed",
	"L7TOUT":  "No answer in time",
	"L7RSP":   "An answer that makes no sense",
	"L7OK":    "An answer that passes",
	"L7STS":   "An answer that does not pass",
}
