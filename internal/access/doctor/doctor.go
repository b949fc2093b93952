// Package doctor opens every endpoint of a cluster as a client would, and says of each whether the right server answers.
//
// Probe opens one endpoint and reports what happened (Outcome): names looked up, addresses dialled, who answered. Judge makes of
// an Outcome what is wrong and what to do about it (Verdict); it is pure. Examine does both for many endpoints, several at a time
// and for a bounded time in all. AskPatronis says what makes checks of the members dear. Nothing is written anywhere: a probe asks one question and leaves. No password is in
// anything that the package returns.
package doctor

import (
	"cmp"
	"context"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgporter/pgporter/internal/access/connstr"
	"github.com/pgporter/pgporter/internal/config/model"
)

// atOnce is how many endpoints are tried at the same time: enough that waiting ones don't add up, few enough for a small server.
const atOnce = 8

// Config says how endpoints are tried.
type Config struct {
	// Timeout bounds each host of an endpoint, Total all of them.
	Timeout, Total time.Duration
	// Resolver looks names up.
	Resolver *net.Resolver
	// OwnPassword says that what the client has itself (PGPASSWORD, .pgpass) comes before an endpoint's password.
	OwnPassword bool
	// Members are the cluster's, by which it is found out who answered.
	Members []model.Member
}

// Result is one endpoint with what became of it.
type Result struct {
	Endpoint connstr.Endpoint
	Outcome  Outcome
	// Member is who answered; empty if nobody did, or if that can't be found out.
	Member  string
	Verdict Verdict
}

// Examine tries endpoints and judges each. Those that there was no time for are results too. It ends with the context.
func Examine(ctx context.Context, endpoints []connstr.Endpoint, cfg Config) []Result {
	ctx, cancel := context.WithTimeout(ctx, cfg.Total)
	defer cancel()
	results := make([]Result, len(endpoints))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, w := range endpoints {
		group.Go(func() error {
			results[i] = Result{Endpoint: w, Outcome: Probe(ctx, w, cfg)}
			return nil
		})
	}
	// No probe returns an error: what fails is its outcome.
	_ = group.Wait()
	who := identify(results, cfg.Members)
	system := commonSystem(results)
	for i := range results {
		r := &results[i]
		if a := r.Outcome.Answer; a != nil {
			r.Member = who(a)
		}
		r.Verdict = Judge(r.Endpoint, r.Outcome, Facts{Member: r.Member, System: system, Members: cfg.Members})
	}
	return results
}

// identify tells members by their addresses, or, where a PgBouncer has come over a local socket and the server knows no
// address, by when the server was started: those of the instances' own ports are known.
func identify(results []Result, members []model.Member) func(*Answer) string {
	byStart := map[string]string{}
	for _, r := range results {
		if a := r.Outcome.Answer; a != nil && r.Endpoint.Service == connstr.Postgres && r.Endpoint.By == connstr.ByIP {
			byStart[a.Started] = r.Endpoint.Instance
		}
	}
	return func(a *Answer) string {
		for _, m := range members {
			if a.Host != "" && a.Host == m.Host && a.Port == m.PostgresPort {
				return m.Name
			}
		}
		return cmp.Or(byStart[a.Started], hostPort(a))
	}
}

// hostPort is where a server that is no member says that it is; empty for one that doesn't know.
func hostPort(a *Answer) string {
	if a.Host == "" {
		return ""
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(a.Port))
}

// commonSystem is the system identifier that most answers have.
func commonSystem(results []Result) string {
	count := map[string]int{}
	for _, r := range results {
		if a := r.Outcome.Answer; a != nil && a.System != "" {
			count[a.System]++
		}
	}
	most := ""
	for _, system := range slices.Sorted(maps.Keys(count)) {
		if count[system] > count[most] {
			most = system
		}
	}
	return most
}
