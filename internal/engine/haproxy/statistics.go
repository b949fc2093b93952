package haproxy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/engine"
)

// The names under which HAProxy's statistics have what a service itself is: where it listens, and its servers together.
const (
	Frontend = "FRONTEND"
	Backend  = "BACKEND"
)

// Statistic is a line of HAProxy's statistics (management guide 2.6, section 9.1): a server of a service, or the service itself.
type Statistic struct {
	// Service is the proxy's name, Server the server's, Frontend or Backend.
	Service, Server string
	// Status begins with UP, DOWN, MAINT, DRAIN, NOLB, "no check", OPEN or STOP; `UP 1/3` is on its way down.
	Status string
	// Weight is that of now, Backup says that the server gets clients only while no other is up.
	Weight int
	Backup bool
	// Sessions are open now, TotalSessions all that there were. Failed are clients for whom no connection could be made, Retried the
	// attempts that were made again.
	Sessions        int
	TotalSessions   uint64
	Failed, Retried uint64
	// Counted is all that it counts of what every engine does. Averages are those that it has, LastSession is unset: Idle is for how many
	// seconds there was no session, -1 if there never was one.
	Counted engine.Counts
	Idle    int
	// Accepted are the connections of a Frontend, Rate those of the last second, RateMax the most of any, Denied those that were rejected
	// unheard. Limit is how many there may be.
	Accepted, Denied     uint64
	Rate, RateMax, Limit int
}

// TakesClients says that new clients are connected to the server, as far as no other goes before it.
func (s Statistic) TakesClients() bool {
	return s.Weight > 0 && (strings.HasPrefix(s.Status, "UP") || s.Status == "no check")
}

// Lives says that HAProxy leaves the sessions of the server alone: it is neither down nor in maintenance.
func (s Statistic) Lives() bool {
	return !strings.HasPrefix(s.Status, "DOWN") && !strings.HasPrefix(s.Status, "MAINT")
}

// ParseStatistics reads what HAProxy answers to `show stat`, and its page with `;csv` behind the path: a head that names the columns.
// No name in it can hold a comma or a quote.
func ParseStatistics(text string) ([]Statistic, error) {
	head, rest, _ := strings.Cut(text, "\n")
	column := map[string]int{}
	for i, name := range strings.Split(strings.TrimPrefix(strings.TrimSpace(head), "# "), ",") {
		column[name] = i
	}
	for _, name := range []string{"pxname", "svname", "status", "weight", "bck", "scur", "stot", "econ", "wretr"} {
		if _, there := column[name]; !there {
			return nil, fmt.Errorf("HAProxy's statistics have no column %s", name)
		}
	}
	var found []Statistic
	for line := range strings.Lines(rest) {
		fields := strings.Split(line, ",")
		if len(fields) < len(column) {
			continue
		}
		number := func(name string) uint64 {
			at, there := column[name]
			if !there {
				return 0 // of another release
			}
			n, _ := strconv.ParseUint(fields[at], 10, 64) // empty where a line has no such counter
			return n
		}
		milliseconds := func(name string) time.Duration {
			return time.Duration(min(number(name), math.MaxInt32)) * time.Millisecond
		}
		idle := -1
		if at, there := column["lastsess"]; there {
			if n, err := strconv.Atoi(fields[at]); err == nil {
				idle = n
			}
		}
		found = append(found, Statistic{
			Service: fields[column["pxname"]], Server: fields[column["svname"]], Status: fields[column["status"]],
			Weight: int(number("weight")), Backup: number("bck") > 0,
			Sessions: int(number("scur")), TotalSessions: number("stot"), Failed: number("econ"), Retried: number("wretr"),
			Counted: engine.Counts{Sessions: int(number("scur")), SessionsMax: int(number("smax")), TotalSessions: number("stot"),
				Queued: int(number("qcur")), QueuedMax: int(number("qmax")), SessionRate: int(number("rate")), SessionRateMax: int(number("rate_max")),
				ToServer: int64(number("bin")), ToClient: int64(number("bout")), Attempts: number("connect"), ConnectFailures: number("econ"),
				Retries: number("wretr") + number("wredis"), Redispatches: number("wredis"), ClientAborts: number("cli_abrt"), ServerAborts: number("srv_abrt"),
				QueueTime: milliseconds("qtime"), ConnectTime: milliseconds("ctime"), SessionTime: milliseconds("ttime"),
				QueueTimeMax: milliseconds("qtime_max"), ConnectTimeMax: milliseconds("ctime_max"), SessionTimeMax: milliseconds("ttime_max")},
			Idle: idle, Accepted: number("conn_tot"), Denied: number("dcon"), Rate: int(number("conn_rate")), RateMax: int(number("conn_rate_max")), Limit: int(number("slim")),
		})
	}
	return found, nil
}
