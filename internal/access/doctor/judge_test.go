package doctor

import (
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/access/connstr"
	"github.com/pgporter/pgporter/internal/config/model"
)

var members = []model.Member{
	{Name: "pg-test-1", Host: "10.10.10.11", PostgresPort: 5432, PgBouncerPort: 6432},
	{Name: "pg-test-2", Host: "10.10.10.12", PostgresPort: 5432, PgBouncerPort: 6432},
}

// TestJudge has an outcome of each kind, and what the advice has to name.
func TestJudge(t *testing.T) {
	primary := connstr.Endpoint{By: connstr.ByIP, Service: "primary", FullName: "pg-test-primary", Hosts: []string{"10.10.10.12"}, Ports: []int{5433},
		User: "test", Database: "test", Password: "secret", Pooled: true, Through: true, Want: connstr.Primary}
	replica, strict, vacant := primary, primary, primary
	vacant.Vacant = true
	replica.Want, replica.Fallback = connstr.Standby, true
	strict.Want = connstr.Standby
	direct := connstr.Endpoint{By: connstr.ByInstance, Service: connstr.Postgres, Hosts: []string{"pg-test-1"}, Ports: []int{5432}, User: "test", Database: "test", Instance: "pg-test-1"}
	pool := direct
	pool.Service, pool.Pooled, pool.Password = connstr.PgBouncer, true, "secret"
	virtual, name := primary, primary
	virtual.By, virtual.Through = connstr.ByVIP, false
	name.By, name.Through = connstr.ByDNS, false
	smart := connstr.Endpoint{By: connstr.BySmart, Service: connstr.Postgres, Hosts: []string{"10.10.10.11", "10.10.10.12"}, Ports: []int{5432, 5432}, Session: "primary", Want: connstr.Primary}

	at := func(stage Stage, fault Fault) Outcome {
		return Outcome{Stage: stage, Fault: fault, Address: "10.10.10.12:5433"}
	}
	sql := func(code, message, detail string) Outcome {
		return Outcome{Stage: LoggingIn, Fault: BySQL, Address: "10.10.10.12:6432", Code: code, Message: message, Detail: detail}
	}
	says := func(a Answer) Outcome { return Outcome{Stage: Answered, Answer: &a} }
	one, two := Facts{Member: "pg-test-1", System: "7"}, Facts{Member: "pg-test-2", System: "7"}
	nobody := Facts{}

	for title, c := range map[string]struct {
		endpoint connstr.Endpoint
		outcome  Outcome
		facts    Facts
		kind     Kind
		what     string
		advice   string
	}{
		"well":                   {primary, says(Answer{System: "7"}), one, OK, "", ""},
		"well, reported":         {primary, says(Answer{Reported: "off"}), one, OK, "", ""},
		"replica":                {replica, says(Answer{Recovery: true, ReadOnly: true, Reported: "on"}), two, OK, "", ""},
		"backup":                 {replica, says(Answer{}), one, Substitute, "pg-test-1, the primary, stands in", ""},
		"no time":                {primary, at(NotTried, TimedOut), nobody, NoTime, "no time", "--deadline"},
		"unknown name":           {direct, at(Resolving, NoSuchName), nobody, NoName, "doesn't know the name", "--dns"},
		"silent name server":     {direct, at(Resolving, TimedOut), nobody, NoName, "doesn't answer", "resolv.conf"},
		"no name server":         {direct, at(Resolving, Refused), nobody, NoName, "nobody listens", "resolv.conf"},
		"broken name server":     {direct, Outcome{Stage: Resolving, Fault: Other, Text: "server misbehaving"}, nobody, NoName, "server misbehaving", "--dns"},
		"no route":               {primary, at(Dialling, Unreachable), nobody, NoRoute, "10.10.10.12:5433", "ip route get"},
		"no pgporter":            {primary, at(Dialling, Refused), nobody, NobodyListens, "the pgporter of pg-test-2", "pgporter status --admin 10.10.10.12"},
		"no PgBouncer":           {pool, at(Dialling, Refused), nobody, NobodyListens, "the PgBouncer of pg-test-2", "systemctl status pgbouncer"},
		"no PostgreSQL":          {direct, at(Dialling, Refused), nobody, NobodyListens, "the PostgreSQL of pg-test-2", "patronictl list"},
		"somebody else's":        {direct, Outcome{Stage: Dialling, Fault: Refused, Address: "[fd00::9]:5432"}, nobody, NobodyListens, "the PostgreSQL of fd00::9", "patronictl list"},
		"silent node":            {primary, at(Dialling, TimedOut), nobody, NoAnswer, "doesn't answer at all", "firewall"},
		"stopped program":        {pool, at(LoggingIn, TimedOut), nobody, NoAnswer, "takes the connection, but says nothing", "state T"},
		"pool without a server":  {pool, at(Asking, TimedOut), nobody, PoolStuck, "the PgBouncer of pg-test-2 lets clients in", "SHOW POOLS"},
		"the same behind":        {primary, at(Asking, TimedOut), nobody, PoolStuck, "the PgBouncer behind pg-test-primary", "SHOW POOLS"},
		"pool's server fails":    {pool, sql("08P01", "server login has been failing, try again later (server_login_retry)", ""), nobody, PoolStuck, "server_login_retry", "SHOW SERVERS"},
		"hung up":                {direct, at(LoggingIn, Closed), nobody, HungUp, "hung up", "log"},
		"no server up":           {primary, sql("57P03", "service pg-test-primary has no usable server", "pg-test-1: down: 503; pg-test-2: down: silent"), nobody, NoServer, "pg-test-1: down: 503; pg-test-2: down: silent", "pgporter status --watch"},
		"nobody declared":        {vacant, sql("57P03", "service pg-test-offline has no usable server", "its selector matches no member now"), nobody, Vacant, "selects no member", ""},
		"starting":               {direct, sql("57P03", "the database system is starting up", ""), nobody, NotReady, "starting up", "wait"},
		"starting, through":      {primary, sql("57P03", "the database system is starting up", ""), nobody, NotReady, "starting up", "wait"},
		"full":                   {direct, sql("53300", "too many connections", ""), nobody, Full, "too many", "pg_stat_activity"},
		"PgBouncer's database":   {primary, sql("08P01", "no such database: test", ""), nobody, NoPoolDatabase, `PgBouncer has no database "test"`, "pg_databases"},
		"PostgreSQL's database":  {direct, sql("3D000", `database "test" does not exist`, ""), nobody, NoDatabase, `no database "test"`, "--db"},
		"password, PostgreSQL":   {strict, sql("28P01", "password authentication failed", ""), nobody, BadLogin, "28P01", "--password-file"},
		"password, PgBouncer":    {pool, sql("08P01", "SASL authentication failed", ""), nobody, BadLogin, "08P01", "userlist.txt"},
		"no password":            {direct, sql("28P01", "password authentication failed", ""), nobody, BadLogin, `"test" can't log in`, "the inventory has no password"},
		"pg_hba.conf":            {direct, sql("28000", "no pg_hba.conf entry", ""), nobody, NotAllowed, "no pg_hba.conf entry", "pg_hba_rules"},
		"CONNECT":                {direct, sql("42501", "permission denied for database", ""), nobody, NotAllowed, "permission denied", "CONNECT"},
		"another error":          {direct, sql("XX000", "internal", ""), nobody, Unknown, "XX000", "log"},
		"protocol, no PgBouncer": {direct, sql("08P01", "no such database: test", ""), nobody, Unknown, "08P01", "log"},
		"TLS":                    {direct, Outcome{Stage: LoggingIn, Fault: Other, Address: "10.10.10.11:5432", Text: "there is no TLS"}, nobody, Unknown, "there is no TLS", "patroni"},
		"old primary, service":   {primary, says(Answer{Recovery: true}), two, WrongRole, "pg-test-2, a standby", "pgporter status"},
		"old primary, VIP":       {virtual, says(Answer{Recovery: true}), two, WrongRole, "a standby", "virtual address"},
		"old primary, name":      {name, says(Answer{Recovery: true}), two, WrongRole, "a standby", "dig"},
		"primary without writes": {primary, says(Answer{ReadOnly: true}), one, WrongRole, "transaction_read_only", "default_transaction_read_only"},
		"primary for a standby":  {strict, says(Answer{}), one, WrongRole, "pg-test-1, the primary", "pgporter status"},
		"no primary among many":  {smart, at(Answered, Unfit), nobody, WrongRole, "10.10.10.11, 10.10.10.12", "Patroni's log"},
		"another instance":       {direct, says(Answer{Recovery: true}), two, WrongInstance, "pg-test-2 answers for pg-test-1", "SHOW DATABASES"},
		"another cluster":        {direct, says(Answer{System: "8"}), one, OtherCluster, "8, not 7", "wrong machine"},
		"stale, promoted":        {pool, says(Answer{Reported: "on"}), one, StaleStandby, "reported as on, but pg-test-1 says pg_is_in_recovery() = false", "RECONNECT"},
		"stale, demoted":         {pool, says(Answer{Reported: "off", Recovery: true}), one, StaleStandby, "reported as off", "RECONNECT"},
	} {
		c.facts.Members = members
		v := Judge(c.endpoint, c.outcome, c.facts)
		if v.Kind != c.kind || !strings.Contains(v.What, c.what) || !strings.Contains(v.Advice, c.advice) {
			t.Errorf("%s: it is %q: %s; do: %s", title, v.Kind, v.What, v.Advice)
		}
		healthy := c.kind == OK || c.kind == Substitute || c.kind == Vacant
		if v.Broken() == healthy || v.Broken() != (v.Advice != "") {
			t.Errorf("%s: %q is broken: %t; do: %q", title, v.Kind, v.Broken(), v.Advice)
		}
		if strings.Contains(v.What+v.Advice, "secret") {
			t.Errorf("%s: it shows the password: %s %s", title, v.What, v.Advice)
		}
	}
}

// What a standby cluster can't do is no trouble where it is declared to be one, and never advised to be waited for.
func TestInStandbyCluster(t *testing.T) {
	primary := connstr.Endpoint{Want: connstr.Primary}
	down := Verdict{NoServer, "service pg-test-primary has no usable server", "start what is down, or wait for the failover to end"}
	wrong := Verdict{WrongRole, "pg-test-1, a standby, answers where the primary should", "pgporter status shows"}
	for title, c := range map[string]struct {
		endpoint connstr.Endpoint
		verdict  Verdict
		upstream string
		kind     Kind
		advice   string
	}{
		"declared":              {primary, down, "10.10.10.9", Follower, "write to the cluster that it follows (10.10.10.9)"},
		"declared, by name":     {primary, wrong, "10.10.10.9", Follower, "10.10.10.9"},
		"not declared":          {primary, down, "", NoServer, "write to the cluster that it follows (standby_cluster in patronictl show-config"},
		"wants a standby":       {connstr.Endpoint{Want: connstr.Standby}, down, "10.10.10.9", NoServer, "start what is down"},
		"another trouble":       {primary, Verdict{NobodyListens, "", "see that it runs"}, "10.10.10.9", NobodyListens, "see that it runs"},
		"nothing is the matter": {primary, Verdict{Kind: OK}, "", OK, ""},
	} {
		r := Result{Endpoint: c.endpoint, Verdict: c.verdict}
		r.InStandbyCluster("pg-test-1", c.upstream)
		if v := r.Verdict; v.Kind != c.kind || !strings.Contains(v.Advice, c.advice) || v.Broken() != (c.kind != Follower && c.kind != OK) {
			t.Errorf("%s: %+v", title, v)
		}
	}
}
