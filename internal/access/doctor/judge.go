package doctor

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/access/connstr"
	"github.com/pgporter/pgporter/internal/config/model"
)

// Kind is what is wrong with an endpoint.
type Kind string

// Kinds. OK, Substitute, Vacant and Follower are no trouble: with Substitute a backup answers, with Vacant nobody is declared to, and
// Follower is where a declared standby cluster takes no writes.
const (
	OK             Kind = "ok"
	Substitute     Kind = "stand-in"
	Vacant         Kind = "nobody"
	NoTime         Kind = "not tried"
	NoName         Kind = "name unknown"
	NoRoute        Kind = "no route"
	NoAnswer       Kind = "timeout"
	NobodyListens  Kind = "refused"
	HungUp         Kind = "closed"
	NoServer       Kind = "no server up"
	NotReady       Kind = "not ready"
	Full           Kind = "full"
	BadLogin       Kind = "authentication"
	NotAllowed     Kind = "not allowed"
	NoDatabase     Kind = "no database"
	NoPoolDatabase Kind = "not in pool"
	PoolStuck      Kind = "pool stuck"
	WrongRole      Kind = "wrong role"
	WrongInstance  Kind = "wrong instance"
	OtherCluster   Kind = "other cluster"
	StaleStandby   Kind = "stale standby"
	Follower       Kind = "standby cluster"
	Unknown        Kind = "error"
)

// Verdict is what is wrong with an endpoint, and what to do about it. Both are empty for OK.
type Verdict struct {
	Kind   Kind
	What   string
	Advice string
}

// Broken tells whether something has to be done.
func (v Verdict) Broken() bool {
	return v.Kind != OK && v.Kind != Substitute && v.Kind != Vacant && v.Kind != Follower
}

// InStandbyCluster judges anew what wants a primary in a cluster that has none, since its leader (a member's name) follows another
// cluster. upstream is where that is if the cluster is declared to be such; then this is no trouble.
func (r *Result) InStandbyCluster(leader, upstream string) {
	if r.Endpoint.Want != connstr.Primary || r.Verdict.Kind != NoServer && r.Verdict.Kind != WrongRole {
		return
	}
	kind, to := Follower, upstream
	if upstream == "" {
		kind, to = r.Verdict.Kind, "standby_cluster in patronictl show-config; pg_upstream of its primary would say so in the inventory"
	}
	r.Verdict = Verdict{kind, leader + " leads a standby cluster: nothing is down, but nobody in it takes writes",
		fmt.Sprintf("write to the cluster that it follows (%s), or make this one a cluster of its own: patronictl edit-config, without standby_cluster", to)}
}

// Facts are what is known beside an endpoint and its outcome.
type Facts struct {
	// Member is who answered; empty if nobody did, or if that can't be found out.
	Member string
	// System is the cluster's system identifier; empty if nobody said it.
	System  string
	Members []model.Member
}

// Judge says what an outcome means.
func Judge(w connstr.Endpoint, o Outcome, f Facts) Verdict {
	switch {
	case o.Stage == NotTried:
		return Verdict{NoTime, "there was no time left for it", "try fewer ways (--service, --by), or give it more time with --deadline"}
	case o.Stage == Resolving:
		return unresolved(o)
	case o.Fault == Unfit:
		return Verdict{WrongRole, "none of " + strings.Join(w.Hosts, ", ") + " is a primary that can be reached",
			"see who leads: pgporter status; while nobody does, Patroni's log on the members says why"}
	case o.Answer == nil:
		return failed(w, o, f)
	}
	return answered(w, *o.Answer, f)
}

// unresolved judges a name that has no address. It isn't in the text: many endpoints have the same trouble.
func unresolved(o Outcome) Verdict {
	switch o.Fault {
	case TimedOut:
		return Verdict{NoName, "the name server doesn't answer", "see which one is asked (/etc/resolv.conf, or --dns here), that it runs, and that it can be reached"}
	case Refused:
		return Verdict{NoName, "nobody listens at the name server's address", "see which one is asked (/etc/resolv.conf, or --dns here), and that it runs"}
	case NoSuchName:
		return Verdict{NoName, "the name server doesn't know the name",
			"have the resolver ask a pgporter that runs with --dns, or the dnsmasq that has the cluster's names; --dns ADDRESS tries one here"}
	}
	return Verdict{NoName, "the name server refuses the name, or has trouble itself: " + o.Text,
		"have the resolver ask a pgporter that runs with --dns, or the dnsmasq that has the cluster's names; --dns ADDRESS tries one here"}
}

// whose names the program at an endpoint's end, and what to look at for it.
func whose(w connstr.Endpoint, o Outcome, f Facts) (program, look string) {
	host, _, err := net.SplitHostPort(o.Address)
	if err != nil {
		host = o.Address
	}
	at := host
	if i := slices.IndexFunc(f.Members, func(m model.Member) bool { return m.Host == host }); i >= 0 {
		at = f.Members[i].Name
	}
	switch {
	case w.Door:
		return "the PgBouncer at the door of " + at, "that it runs there: systemctl status pgporter-door"
	case w.Through:
		return "the pgporter of " + at, "that it runs there and carries the service: systemctl status pgporter, pgporter status --admin " + host
	case w.Pooled:
		return "the PgBouncer of " + at, "that it runs there: systemctl status pgbouncer"
	}
	return "the PostgreSQL of " + at, "that it runs there: systemctl status patroni, patronictl list"
}

// failed judges what ended before anybody answered.
func failed(w connstr.Endpoint, o Outcome, f Facts) Verdict {
	program, look := whose(w, o, f)
	switch o.Fault {
	case Refused:
		return Verdict{NobodyListens, "nobody listens there: " + program + " doesn't run", "see " + look}
	case Unreachable:
		return Verdict{NoRoute, "there is no route to " + o.Address, "see the network between here and there: ip route get, the node's interfaces, and whether the address is on any node"}
	case Closed:
		return Verdict{HungUp, program + " hung up", "its log says why; see " + look}
	case TimedOut:
		switch {
		case o.Stage == Dialling:
			return Verdict{NoAnswer, o.Address + " doesn't answer at all",
				"the node is down, a firewall drops the packets, or the program is stopped and its queue is full; see " + look}
		case o.Stage == Asking && w.Pooled:
			return poolStuck(w, program)
		}
		return Verdict{NoAnswer, program + " takes the connection, but says nothing",
			"it is stopped (state T in ps), overloaded, or waits for what is behind it; see " + look}
	case BySQL:
		return refusedBySQL(w, o, program)
	}
	return Verdict{Unknown, fmt.Sprintf("%s: %s", program, o.Text), "see " + look}
}

func poolStuck(w connstr.Endpoint, program string) Verdict {
	if w.Through && !w.Door {
		program = "the PgBouncer behind " + w.FullName
	}
	return Verdict{PoolStuck, program + " lets clients in, but has no server for them",
		"its PostgreSQL is down, or its pool is used up: SHOW SERVERS and SHOW POOLS in PgBouncer's console, patronictl list"}
}

// said is a server's own words.
func said(o Outcome) string {
	text := fmt.Sprintf("%s (%s)", o.Message, o.Code)
	if o.Detail != "" {
		text += ": " + o.Detail
	}
	return text
}

// refusedBySQL judges an error that a server, a PgBouncer or a pgporter sent (PostgreSQL's manual, appendix A). PgBouncer has
// 08P01 for all of its own.
func refusedBySQL(w connstr.Endpoint, o Outcome, program string) Verdict {
	poolers := o.Code == "08P01" && w.Pooled
	message := strings.ToLower(o.Message)
	switch {
	case o.Code == "57P03" && w.Vacant:
		return Verdict{Vacant, "the service selects no member, so nobody serves it: " + said(o), ""}
	case o.Code == "57P03" && w.Through && strings.HasPrefix(o.Message, "service "):
		return Verdict{NoServer, said(o),
			"what it says of each server is why: start what is down, or wait for the failover to end; pgporter status --watch shows it"}
	case o.Code == "57P03":
		return Verdict{NotReady, fmt.Sprintf("%s: %s", program, said(o)), "wait until it has started; if it doesn't, its log says why"}
	case o.Code == "53300":
		return Verdict{Full, fmt.Sprintf("%s: %s", program, said(o)), "find who keeps the connections (pg_stat_activity, SHOW CLIENTS in PgBouncer's console), or raise the limit"}
	case poolers && (strings.Contains(message, "no such database") || strings.Contains(message, "no_such_database")):
		return Verdict{NoPoolDatabase, fmt.Sprintf("PgBouncer has no database %q", w.Database),
			"add it to pg_databases (without pgbouncer: false) and have PgBouncer's databases written again, or name one that it has with --db"}
	case poolers && (strings.Contains(message, "no such user") || strings.Contains(message, "authentication failed")),
		o.Code == "28P01":
		what := fmt.Sprintf("%q can't log in: %s", w.User, said(o))
		if w.Password == "" {
			return Verdict{BadLogin, what, "the inventory has no password for it: give one with --password-file, PGPASSWORD or ~/.pgpass"}
		}
		advice := "the password that is tried isn't the server's: compare pg_users of the inventory with the server, or give another with --user and --password-file"
		if w.Pooled {
			advice += "; PgBouncer has its own list of users and passwords (userlist.txt), to which pgbouncer: true adds them"
		}
		return Verdict{BadLogin, what, advice}
	case poolers && (strings.Contains(message, "server") || strings.Contains(message, "query_wait_timeout") || strings.Contains(message, "pgbouncer cannot connect")):
		v := poolStuck(w, program)
		v.What += ": " + said(o)
		return v
	case o.Code == "3D000":
		return Verdict{NoDatabase, fmt.Sprintf("there is no database %q", w.Database), "create it, or name another with --db"}
	case o.Code == "28000":
		return Verdict{NotAllowed, fmt.Sprintf("%q isn't let in: %s", w.User, said(o)), "see pg_hba.conf (pg_hba_rules, pgb_hba_rules of the inventory) for this user, database and address"}
	case o.Code == "42501":
		return Verdict{NotAllowed, fmt.Sprintf("%q isn't let in: %s", w.User, said(o)), "grant it CONNECT on the database, or come as another with --user"}
	}
	return Verdict{Unknown, fmt.Sprintf("%s: %s", program, said(o)), "its log says more"}
}

// answered judges who answered.
func answered(w connstr.Endpoint, a Answer, f Facts) Verdict {
	who := f.Member
	if who == "" {
		who = "the server"
	}
	switch {
	case f.System != "" && a.System != "" && a.System != f.System:
		return Verdict{OtherCluster, fmt.Sprintf("%s is of another cluster: its system identifier is %s, not %s", who, a.System, f.System),
			"an address or a name leads to the wrong machine, or a member was set up anew by itself: patronictl list"}
	case w.Instance != "" && !w.Through && f.Member != "" && f.Member != w.Instance:
		return Verdict{WrongInstance, fmt.Sprintf("%s answers for %s", who, w.Instance),
			"the name has an old address (dig), or PgBouncer's own configuration leads to another server: SHOW DATABASES in its console"}
	case a.Reported == "on" && !a.Recovery, a.Reported == "off" && a.Recovery:
		return Verdict{StaleStandby, fmt.Sprintf("in_hot_standby is reported as %s, but %s says pg_is_in_recovery() = %t", a.Reported, who, a.Recovery),
			"PgBouncer remembers what its server was: clients with target_session_attrs choose wrongly until RECONNECT in its console, or its restart; use the services instead"}
	case w.Want == connstr.Primary && a.Recovery:
		return Verdict{WrongRole, who + ", a standby, answers where the primary should", wrongTurn(w)}
	case w.Want == connstr.Primary && a.ReadOnly:
		return Verdict{WrongRole, who + ", the primary, takes no writes: transaction_read_only is on",
			fmt.Sprintf("see who set default_transaction_read_only: for %q, for the database, or for the server (pg_db_role_setting, pg_settings)", w.User)}
	case w.Want == connstr.Standby && !a.Recovery && w.Fallback:
		return Verdict{Substitute, who + ", the primary, stands in", ""}
	case w.Want == connstr.Standby && !a.Recovery:
		return Verdict{WrongRole, who + ", the primary, answers where a standby should", wrongTurn(w)}
	}
	return Verdict{Kind: OK}
}

// wrongTurn says where to look for what makes clients meet the wrong role.
func wrongTurn(w connstr.Endpoint) string {
	switch {
	case w.Through:
		return "pgporter status shows what pgporter takes the members for, and why; a pgporter or HAProxy that doesn't see the roles change leads here"
	case w.By == connstr.ByVIP:
		return "the virtual address isn't on the primary's node: pgporter status, or vip-manager's log, says why"
	}
	return "the name leads to a node whose member isn't the primary any more: dig it, and see that what answers follows the roles (pgporter run --dns, or --dnsmasq-dir)"
}
