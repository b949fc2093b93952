package cluster

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/jmespath"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// norm is Pigsty's default for services.
const norm = "inter 2s fastinter 1s downinter 2s rise 3 fall 3 on-marked-down shutdown-sessions"

func definition(name string, port int, check, selector, backup string) model.Definition {
	options, problems := model.ParseOptions(norm)
	if len(problems) > 0 {
		panic(problems)
	}
	return model.Definition{Name: name, FullName: "pg-test-" + name, IP: "*", Port: port, Check: check, Selector: jmespath.Read(selector), Backup: jmespath.Read(backup),
		Dest: model.Dest{Kind: model.ToPostgres}, MaxConn: 5000, Balance: model.RoundRobin, Options: options}
}

// defaults are Pigsty's four services.
func defaults() []model.Definition {
	return []model.Definition{
		definition("primary", 5433, "/primary", "[]", ""),
		definition("replica", 5434, "/read-only", "[]", "[? pg_role == `primary` || pg_role == `offline` ]"),
		definition("default", 5436, "/primary", "[]", ""),
		definition("offline", 5438, "/replica", "[? pg_role == `offline` || pg_offline_query ]", "[? pg_role == `replica` && !pg_offline_query]"),
	}
}

// instance makes the n-th member of pg-test.
func instance(n int, role model.Role, tagged bool) model.Member {
	return model.Member{Name: fmt.Sprintf("pg-test-%d", n), Host: fmt.Sprintf("10.10.10.1%d", n), Role: role, PostgresPort: 5432, PgBouncerPort: 6432,
		PatroniPort: 8008, Weight: 100, Vars: map[string]any{"pg_role": string(role), "pg_offline_query": tagged}}
}

// declared are the clusters that transcripts name.
func declared(name string) (model.Cluster, bool) {
	c := model.Cluster{Name: "pg-test", TTL: 20, Definitions: defaults()}
	switch name {
	case "single":
		c.Members = []model.Member{instance(1, model.Primary, false)}
	case "pair", "pair-holdless": // one primary, one replica with pg_offline_query
		c.Members = []model.Member{instance(1, model.Primary, false), instance(2, model.Replica, true)}
	case "trio", "trio-static", "trio-check", "trio-options", "trio-moved", "trio-paths", "trio-few", "trio-back", "trio-backups", "trio-pooled": // 3 has pg_offline_query
		c.Members = []model.Member{instance(1, model.Primary, false), instance(2, model.Replica, false), instance(3, model.Replica, true)}
	case "dedicated": // 3 is pg_role: offline
		c.Members = []model.Member{instance(1, model.Primary, false), instance(2, model.Replica, false), instance(3, model.Offline, false)}
	case "broken":
		c.Members = []model.Member{instance(1, model.Primary, false)}
		c.Definitions = append(c.Definitions, definition("broken", 5439, "/", "[].pg_role", ""))
	case "unselected": // 2 carries nothing
		c.Members = []model.Member{instance(1, model.Primary, false), instance(2, model.Delayed, false)}
		c.Definitions = []model.Definition{definition("primary", 5433, "/primary", "[? pg_role == `primary`]", ""), definition("live", 5440, "/liveness", "[]", "")}
	default:
		return c, false
	}
	switch name {
	case "trio-static":
		c.StaticRoles = true
	case "trio-check": // silence counts, whatever the leader key says
		c.TrustCheck = true
	case "trio-options": // other options, the same servers
		for i := range c.Definitions {
			c.Definitions[i].Options, _ = model.ParseOptions("inter 5s fall 5 on-marked-down shutdown-sessions")
		}
	case "trio-back": // a regular server that comes up takes the sessions of backups away; 2 has no weight
		for i := range c.Definitions {
			c.Definitions[i].Options, _ = model.ParseOptions(norm + " on-marked-up shutdown-backup-sessions slowstart 30s")
		}
		c.Members[1].Weight = 0
	case "trio-backups": // every server is a backup
		for i := range c.Definitions {
			c.Definitions[i].Options, _ = model.ParseOptions(norm + " backup")
		}
	case "trio-moved": // 2 has another address
		c.Members[1].Host = "10.10.10.99"
	case "trio-paths": // the default service is checked by another path
		c.Definitions[2].Check = "/read-write"
	case "trio-pooled": // the primary and the replica service go to PgBouncer
		c.Definitions[0].Dest.Kind, c.Definitions[1].Dest.Kind = model.ToPgBouncer, model.ToPgBouncer
	case "trio-few": // no offline service, one more of the same check
		c.Definitions = append(c.Definitions[:3], definition("more", 5441, "/primary", "[]", ""))
	}
	return c, true
}

// scripted is what a member's Patroni is to say.
type scripted struct {
	// lock says that it holds the leader key.
	lock, unlocked, failsafe, standbyCluster, lagging, noLoadBalance, noFailover, paused bool
	role, state, system                                                                  string
	timeline                                                                             int
	silence                                                                              string
	// nonsense is a status that comes without a body; notAsked has the silence be this node's own.
	nonsense int
	notAsked bool
}

// script reads `[lock] [unlocked] [failsafe] [standby-cluster] [lagging] [noloadbalance] [nofailover] [paused] [system=ID] [timeline=N] ROLE STATE…` or
// `silent REASON…`, `nonsense STATUS`, `not asked REASON…`.
func script(words []string) scripted {
	s := scripted{timeline: 1}
	if words[0] == "silent" {
		s.silence = strings.Join(words[1:], " ")
		return s
	}
	switch words[0] {
	case "nonsense":
		s.nonsense, _ = strconv.Atoi(words[1])
		return s
	case "not":
		s.silence, s.notAsked = strings.Join(words[2:], " "), true
		return s
	}
	flags := map[string]*bool{"lock": &s.lock, "unlocked": &s.unlocked, "failsafe": &s.failsafe, "standby-cluster": &s.standbyCluster,
		"lagging": &s.lagging, "noloadbalance": &s.noLoadBalance, "nofailover": &s.noFailover, "paused": &s.paused}
	for len(words) > 0 {
		name, value, valued := strings.Cut(words[0], "=")
		switch {
		case flags[name] != nil:
			*flags[name] = true
		case valued && name == "system":
			s.system = value
		case valued && name == "timeline":
			s.timeline, _ = strconv.Atoi(value)
		default:
			s.role, s.state = words[0], strings.Join(words[1:], " ")
			return s
		}
		words = words[1:]
	}
	return s
}

// on is the outcome on a path, by the rules that Patroni's REST API documentation gives.
func (s scripted) on(path string) health.Outcome {
	if s.silence != "" {
		return health.Outcome{Silence: s.silence, Dead: strings.Contains(s.silence, "refused"), NotAsked: s.notAsked}
	}
	if s.nonsense != 0 {
		return health.Outcome{Answer: patroni.Answer{Status: s.nonsense}}
	}
	replica := s.role == "replica" && s.state == "running" && !s.lagging && !s.noLoadBalance && !(s.lock && s.standbyCluster)
	primary := s.lock && !s.standbyCluster
	standbyLeader := s.lock && s.standbyCluster
	ok := map[string]bool{
		"/primary": primary, "/read-write": primary, "/leader": s.lock, "/standby-leader": standbyLeader, "/replica": replica,
		"/read-only": primary || standbyLeader || replica, "/liveness": true,
	}[path]
	o := health.Outcome{Answer: patroni.Answer{Status: 503}}
	if ok {
		o.Answer.Status = 200
	}
	if e := patroni.EndpointOf(path); e != patroni.EndpointReadiness && e != patroni.EndpointOther {
		o.Answer.Role, o.Answer.State, o.Answer.Timeline, o.Answer.SystemID = s.role, s.state, s.timeline, s.system
		o.Answer.TimelineNull = s.timeline < 0
		if s.noLoadBalance {
			o.Answer.Tags = map[string]string{"noloadbalance": "true"}
		}
		if s.noFailover {
			o.Answer.Tags = map[string]string{"nofailover": "true"}
		}
		if s.role == "replica" && s.lagging {
			// 100 MB behind what fixtures' leaders say.
			o.Answer.Replayed = 1
		}
		o.Answer.ClusterUnlocked, o.Answer.Failsafe, o.Answer.Pause = s.unlocked, s.failsafe, s.paused
	}
	return o
}
