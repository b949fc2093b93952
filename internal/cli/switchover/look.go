package switchover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// findings are what a look brought.
type findings struct {
	from, to string
	// standby says that the cluster follows another one: its leader is in recovery, and that is well.
	standby bool
	// login is how long it took to log in at the leader and to look at its transactions.
	login time.Duration
	// pools has the databases that a node has to pause, by its name; leading the services of the leader.
	pools   map[string]int
	leading map[string]bool
}

// leads says whether an answer is the word of a leader that takes clients.
func (f *findings) leads(a patroni.Answer) bool {
	role := patroni.RolePrimary
	if f.standby {
		role = patroni.RoleStandbyLeader
	}
	return a.Role == role && a.State == patroni.StateRunning
}

// pausedFor says whether a hold pauses a pool's database, or would: the PgBouncer stands in front of a service of the leader, or behind it.
func (f *findings) pausedFor(d api.PoolDatabase) bool {
	return d.Member == f.from && d.Member != "" || f.leading[d.Service]
}

func (r *run) lookText() string {
	to := r.To
	if to == "" {
		to = "any member"
	}
	return fmt.Sprintf("who leads %s, whether %s can, and whether %s can be told", r.Cluster, to, command.Plural(len(r.Nodes), "node"))
}

// look finds out who leads and whether the other one can, and that every node may be told. All that is in the way is said at once.
func (r *run) look(ctx context.Context) error {
	cluster, err := within(ctx, r.Look, r.Patroni.Cluster)
	if err != nil {
		return err
	}
	config, err := within(ctx, r.Look, r.Patroni.Config)
	if err != nil {
		return err
	}
	r.found.standby = config.Standby
	if err := r.choose(cluster, config); err != nil {
		return err
	}
	if cluster.Pause {
		r.say("the cluster is in maintenance (Patroni's pause): it switches over to a named member, and nobody takes over if that one fails")
	}
	if config.Standby {
		r.say("%s is a standby cluster: %s follows another one, and so will %s", r.Cluster, r.found.from, r.found.to)
	}
	problems := make([]error, 3)
	var looking sync.WaitGroup
	for i, part := range []func(context.Context, patroni.Config) error{r.lookAtMembers, r.lookAtServers, r.lookAtNodes} {
		looking.Go(func() { problems[i] = part(ctx, config) })
	}
	looking.Wait()
	if err := listed(problems); err != nil {
		return err
	}
	r.say("%s leads, %s is to lead", r.found.from, r.found.to)
	return nil
}

// choose settles who leads and who is to, by what Patroni says of the cluster.
func (r *run) choose(c patroni.Cluster, config patroni.Config) error {
	var leader *patroni.ClusterMember
	var names []string
	for i, m := range c.Members {
		names = append(names, m.Name)
		if m.Role == patroni.RoleLeader || m.Role == patroni.RoleStandbyLeader {
			leader = &c.Members[i]
		}
	}
	if leader == nil {
		return fmt.Errorf("nobody leads %s: there is nothing to switch over from (patronictl failover is for that)", r.Cluster)
	}
	r.found.from = leader.Name
	var others []patroni.ClusterMember
	for _, m := range c.Members {
		if m.Name != leader.Name {
			others = append(others, m)
		}
	}
	if r.To == "" {
		slices.SortStableFunc(others, func(a, b patroni.ClusterMember) int {
			return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Lag, b.Lag), cmp.Compare(a.Name, b.Name))
		})
		var reasons []error
		for _, m := range others {
			why := unfit(m, *leader, config)
			if why == nil {
				r.found.to = m.Name
				return nil
			}
			reasons = append(reasons, why)
		}
		if len(reasons) == 0 {
			return fmt.Errorf("%s has no member but its leader", r.Cluster)
		}
		return fmt.Errorf("no member can lead: %w", listed(reasons))
	}
	r.found.to = r.To
	if r.To == leader.Name {
		return fmt.Errorf("%s leads already", r.To)
	}
	for _, m := range others {
		if m.Name == r.To {
			return unfit(m, *leader, config)
		}
	}
	return Unknown("member", r.To, names)
}

// Unknown says that there is nothing of a kind with a name, and what may have been meant.
func Unknown(kind, name string, known []string) error {
	if near := diag.Nearest(name, known); near != "" {
		return fmt.Errorf("there is no %s %q; did you mean %s", kind, name, near)
	}
	return fmt.Errorf("there is no %s %q; there are: %s", kind, name, strings.Join(known, ", "))
}

// rank puts those first whose promotion loses nothing.
func rank(m patroni.ClusterMember) int {
	if m.Role == patroni.RoleSyncStandby || m.Role == patroni.RoleQuorumStandby {
		return 0
	}
	return 1
}

// unfit says why a member can't lead next, by what Patroni says of the cluster; nil if it can.
func unfit(m, leader patroni.ClusterMember, config patroni.Config) error {
	var why []string
	switch m.State {
	case patroni.StateRunning, "streaming", "in archive recovery":
	default:
		why = append(why, fmt.Sprintf("it is %q", m.State))
	}
	if t := m.Tags["nofailover"]; t == "true" {
		why = append(why, "it has the tag nofailover")
	}
	if p := m.Tags["failover_priority"]; p != "" && (p == "0" || p[0] == '-') {
		why = append(why, "its failover_priority is "+p)
	}
	if m.Timeline != 0 && leader.Timeline != 0 && m.Timeline != leader.Timeline {
		why = append(why, fmt.Sprintf("it is on timeline %d and the leader on %d", m.Timeline, leader.Timeline))
	}
	if m.Lag > config.MaximumLag {
		why = append(why, fmt.Sprintf("it lags by %d bytes, more than maximum_lag_on_failover (%d)", m.Lag, config.MaximumLag))
	}
	if config.Synchronous && rank(m) > 0 {
		why = append(why, "it isn't a synchronous standby, and commits wait for one (synchronous_mode)")
	}
	if len(why) == 0 {
		return nil
	}
	return fmt.Errorf("%s can't lead: %s", m.Name, strings.Join(why, ", "))
}

// lookAtMembers hears both members' own words.
func (r *run) lookAtMembers(ctx context.Context, config patroni.Config) error {
	word := func(name string) (patroni.Answer, error) {
		return within(ctx, r.Look, func(ctx context.Context) (patroni.Answer, error) { return r.Patroni.Member(ctx, name) })
	}
	old, oldErr := word(r.found.from)
	next, nextErr := word(r.found.to)
	var problems []error
	switch {
	case oldErr != nil:
		problems = append(problems, fmt.Errorf("%s: its Patroni: %w", r.found.from, oldErr))
	case !r.found.leads(old):
		problems = append(problems, fmt.Errorf("%s is said to lead and says of itself: %s %s", r.found.from, old.Role, old.State))
	}
	switch {
	case nextErr != nil:
		problems = append(problems, fmt.Errorf("%s: its Patroni: %w", r.found.to, nextErr))
	case next.Role != patroni.RoleReplica || next.State != patroni.StateRunning:
		problems = append(problems, fmt.Errorf("%s says of itself: %s %s", r.found.to, next.Role, next.State))
	case oldErr == nil:
		if next.ReplayPaused {
			problems = append(problems, fmt.Errorf("%s doesn't replay: that was paused by hand (select pg_wal_replay_resume())", r.found.to))
		}
		received, replayed := old.Location-max(next.Received, next.Replayed), old.Location-next.Replayed
		if old.Location > 0 && received > config.MaximumLag {
			problems = append(problems, fmt.Errorf("%s lags by %d bytes, more than maximum_lag_on_failover (%d)", r.found.to, received, config.MaximumLag))
		} else if old.Location > 0 && replayed > config.MaximumLag {
			r.say("%s has received all but has %d bytes to replay: its promotion takes that much longer", r.found.to, replayed)
		}
		if next.PendingRestart {
			r.say("%s has settings that want a restart (pending_restart)", r.found.to)
		}
	}
	return listed(problems)
}

// lookAtServers has the next leader's ports answer, and finds out whether there is an account.
func (r *run) lookAtServers(ctx context.Context, _ patroni.Config) error {
	var problems []error
	probe := func(ask func(context.Context, string) error) error {
		ctx, cancel := context.WithTimeout(ctx, r.Look)
		defer cancel()
		return ask(ctx, r.found.to)
	}
	if err := probe(r.Servers.Postgres); err != nil {
		problems = append(problems, fmt.Errorf("%s: its PostgreSQL: %w", r.found.to, err))
	}
	if err := probe(r.Servers.Pooler); err != nil {
		problems = append(problems, fmt.Errorf("%s: its PgBouncer, to which services lead: %w", r.found.to, err))
	}
	began := time.Now()
	_, err := within(ctx, r.Look, func(ctx context.Context) ([]Transaction, error) { return r.Servers.Transactions(ctx, r.found.from) })
	r.found.login = time.Since(began)
	if err != nil {
		if r.Cancel {
			problems = append(problems, fmt.Errorf("--cancel takes an account of PostgreSQL's: %s: %w", r.found.from, err))
		} else {
			r.skip("transactions on "+r.found.from, err)
		}
	}
	return listed(problems)
}

// lookAtNodes has every node say that it can be told.
func (r *run) lookAtNodes(ctx context.Context, _ patroni.Config) error {
	statuses := make([]*api.Status, len(r.Nodes))
	numbered := make([]int, len(r.Nodes))
	for i := range numbered {
		numbered[i] = i
	}
	err := together(numbered, func(i int) string { return "node " + r.Nodes[i].Called() }, func(i int) error {
		var err error
		if statuses[i], err = within(ctx, r.Look, r.Nodes[i].Status); err != nil {
			return err
		}
		return r.unfitNode(statuses[i])
	})
	r.found.pools, r.found.leading = map[string]int{}, map[string]bool{}
	for _, status := range statuses {
		for _, c := range clusterOf(status, r.Cluster) {
			for _, s := range c.Services {
				r.found.leading[s.FullName] = health.KindOf(s.Check).OfLeader()
			}
		}
	}
	for i, status := range statuses {
		if status == nil {
			continue
		}
		name := r.Nodes[i].Called()
		for _, p := range status.Pools {
			if p.Problem != "" {
				r.say("node %s: its PgBouncer at %s isn't paused, so that its clients notice: %s", name, p.Address, p.Problem)
			}
			for _, d := range p.Databases {
				if d.Cluster == r.Cluster && r.found.pausedFor(d) {
					r.found.pools[name]++
				}
			}
		}
		if status.Shadow != nil {
			r.say("node %s is a shadow: HAProxy has its clients, and doesn't hold them", name)
		}
		for _, c := range clusterOf(status, r.Cluster) {
			for _, m := range c.Members {
				if m.Role == roleLeads && m.Name != r.found.from {
					r.say("node %s has %s lead", name, m.Name)
				}
			}
			if c.LeaderKey != nil && c.LeaderKey.Lost != "" {
				r.say("node %s can't ask etcd (%s): it follows by its checks, a little later", name, c.LeaderKey.Lost)
			}
		}
	}
	return err
}

// roleLeads is a leader's role in a node's status, be its cluster a standby cluster or not.
const roleLeads = patroni.RolePrimary

// unfitNode says why a node can't be told; nil if it can.
func (r *run) unfitNode(s *api.Status) error {
	clusters := clusterOf(s, r.Cluster)
	if len(clusters) == 0 {
		var names []string
		for _, c := range s.Clusters {
			names = append(names, c.Name)
		}
		return fmt.Errorf("it doesn't carry %s (it has %s)", r.Cluster, cmp.Or(strings.Join(names, ", "), "no cluster"))
	}
	c := clusters[0]
	if h := c.Hold; h != nil {
		return fmt.Errorf("a switchover is under way: clients wait since %s for %s (%s)", h.Since.UTC().Format("15:04:05Z"), cmp.Or(h.To, "who leads next"), h.By)
	}
	if s.Engine != "" && s.Engine != api.EngineNative && s.Shadow == nil {
		return errors.New("HAProxy has its clients, and doesn't hold them")
	}
	if !slices.ContainsFunc(c.Members, func(m api.Member) bool { return m.Name == r.found.to }) {
		return fmt.Errorf("it doesn't know %s", r.found.to)
	}
	return nil
}

// clusterOf is a cluster in a node's status: one, or none.
func clusterOf(s *api.Status, name string) []api.Cluster {
	if s == nil {
		return nil
	}
	if i := slices.IndexFunc(s.Clusters, func(c api.Cluster) bool { return c.Name == name }); i >= 0 {
		return s.Clusters[i : i+1]
	}
	return nil
}
