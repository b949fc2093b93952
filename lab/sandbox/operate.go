package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox/netns"
)

// SetProgress has the operations that follow tell what they do, a line at a time.
func (s *Sandbox) SetProgress(w io.Writer) { s.progress = newSteps(w) }

// ProcessStatus is one process of the sandbox as it is now.
type ProcessStatus struct {
	// What is its name in Kill and Start.
	What string `json:"what"`
	// State is running, stopped (by SIGSTOP) or ended.
	State   string    `json:"state"`
	PID     int       `json:"pid,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Listens []string  `json:"listens"`
	Log     string    `json:"log"`
}

// MemberStatus is a member as Patroni sees it now.
type MemberStatus struct {
	Member
	// LiveRole is Patroni's word: leader, replica, sync_standby, standby_leader; empty if its cluster doesn't list it.
	LiveRole string `json:"live_role,omitempty"`
	// State is Patroni's word for PostgreSQL (running, starting, stopped …), or why it isn't known.
	State    string `json:"state"`
	Timeline int    `json:"timeline,omitempty"`
	// Lag is how many bytes the member is behind the leader; absent if that isn't known or it leads.
	Lag *int64 `json:"lag,omitempty"`
}

// Status is the sandbox as it is now.
type Status struct {
	Dir       string `json:"dir"`
	Inventory string `json:"inventory"`
	// Phase is starting, up, stopping or failed. Up says that it once was complete, not that every process still runs.
	Phase     string          `json:"phase"`
	User      string          `json:"user"`
	UpSince   time.Time       `json:"up_since,omitzero"`
	Processes []ProcessStatus `json:"processes"`
	Members   []MemberStatus  `json:"members"`
	// Network tells what is cut and unplugged; absent on loopback addresses.
	Network *netns.Faults `json:"network,omitempty"`
	// NetworkProblem says why Network isn't known.
	NetworkProblem string `json:"network_problem,omitempty"`
}

// Status asks the kernel and Patroni.
func (s *Sandbox) Status(ctx context.Context) (Status, error) {
	r, err := s.current()
	if err != nil {
		return Status{}, err
	}
	status := Status{Dir: s.layout.config.Dir, Inventory: s.layout.inventory(), Phase: r.Phase, User: r.User, UpSince: r.UpAt}
	for _, p := range s.layout.parts() {
		one := ProcessStatus{What: p.String(), State: "ended", Listens: s.layout.ports(p), Log: s.layout.log(p)}
		if process, ok := s.find(r, p); ok {
			one.State, one.PID, one.Since = "running", process.PID, process.startedAt()
			if process.stopped() {
				one.State = "stopped"
			}
		}
		status.Processes = append(status.Processes, one)
	}
	status.Members = s.Members(ctx)
	if s.layout.config.Netns && r.Phase == phaseUp {
		if faults, err := s.Faults(); err != nil {
			status.NetworkProblem = err.Error()
		} else {
			status.Network = &faults
		}
	}
	return status, nil
}

// Members tells every member's role and state as Patroni lists them: any one that answers is asked, cluster by cluster.
func (s *Sandbox) Members(ctx context.Context) []MemberStatus {
	var all []MemberStatus
	for _, cluster := range s.layout.clusters() {
		listed, err := s.clusterView(ctx, cluster)
		for _, m := range s.layout.of(cluster) {
			one := MemberStatus{Member: m, State: "not listed by Patroni"}
			if err != nil {
				one.State = "unknown: no Patroni answers"
			}
			for _, seen := range listed {
				if seen.Name != m.Name {
					continue
				}
				one.LiveRole, one.State, one.Timeline = seen.Role, seen.State, seen.Timeline
				if bytes, ok := seen.Lag.(float64); ok && !isLeaderRole(seen.Role) {
					lag := int64(bytes)
					one.Lag = &lag
				}
			}
			all = append(all, one)
		}
	}
	return all
}

func (s *Sandbox) clusterView(ctx context.Context, cluster string) ([]clusterMember, error) {
	var failed error
	for _, m := range s.layout.of(cluster) {
		listed, err := s.viewOf(ctx, m)
		if err == nil {
			return listed, nil
		}
		failed = err
	}
	return nil, fmt.Errorf("no Patroni of %s answers: %w", cluster, failed)
}

// leader gives the member that leads a cluster by Patroni's list.
func (s *Sandbox) leader(ctx context.Context, cluster string) (Member, error) {
	listed, err := s.clusterView(ctx, cluster)
	if err != nil {
		return Member{}, err
	}
	for _, seen := range listed {
		if isLeaderRole(seen.Role) {
			return s.layout.member(seen.Name)
		}
	}
	return Member{}, fmt.Errorf("%s has no leader now", cluster)
}

// Leader names the member that leads pg-test.
func (s *Sandbox) Leader(ctx context.Context) (Member, error) { return s.leader(ctx, mainCluster) }

// AwaitFollowing returns when the cluster of the leader that it finds is complete: all members run, and all others stream
// from it.
func (s *Sandbox) AwaitFollowing(ctx context.Context, cluster string) (Member, error) {
	var found Member
	err := s.await(ctx, cluster+" is complete", func(ctx context.Context) error {
		leader, err := s.leader(ctx, cluster)
		if err != nil {
			return err
		}
		found = leader
		return s.following(ctx, leader)
	})
	return found, err
}

// Switched is how a switchover went. The times count from its request.
type Switched struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Leads is when the new leader took writes, Followed when all others streamed from it.
	Leads    time.Duration `json:"leads_ns"`
	Followed time.Duration `json:"followed_ns"`
}

// switchTimeout bounds a switchover.
const switchTimeout = time.Minute

// Switchover has Patroni hand leadership over, to a member (by name or number) or, if that is empty, to one that Patroni
// chooses among pg-test's. It returns when the new leader runs and all others follow it.
func (s *Sandbox) Switchover(ctx context.Context, to string) (Switched, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, switchTimeout, fmt.Errorf("not done within %s", switchTimeout))
	defer cancel()
	cluster := mainCluster
	var candidate Member
	if to != "" {
		var err error
		if candidate, err = s.layout.member(to); err != nil {
			return Switched{}, err
		}
		cluster = candidate.Cluster
	}
	from, err := s.leader(ctx, cluster)
	if err != nil {
		return Switched{}, err
	}
	if from == candidate {
		return Switched{}, inputErrorf("%s leads %s already", from.Name, cluster)
	}
	request := map[string]string{"leader": from.Name}
	if to != "" {
		request["candidate"] = candidate.Name
	}
	started := time.Now()
	status, said, err := s.order(ctx, from, "/switchover", request, switchTimeout)
	if err != nil {
		return Switched{}, fmt.Errorf("switchover of %s: %w", cluster, err)
	}
	if status != http.StatusOK && status != http.StatusAccepted {
		return Switched{}, fmt.Errorf("switchover of %s: Patroni of %s refuses (%d): %s", cluster, from.Name, status, said)
	}
	s.say("Patroni: %s", said)
	done := Switched{From: from.Name}
	var leader Member
	leads := func(ctx context.Context) error {
		now, err := s.leader(ctx, cluster)
		if err != nil {
			return err
		}
		if now == from {
			return fmt.Errorf("%s still leads", from.Name)
		}
		leader = now
		_, err = s.leading(ctx, now)
		return err
	}
	if err := s.await(ctx, "a new leader runs", leads); err != nil {
		return done, err
	}
	done.To, done.Leads = leader.Name, time.Since(started)
	follow := func(ctx context.Context) error { return s.following(ctx, leader) }
	if err := s.await(ctx, "all others follow "+leader.Name, follow); err != nil {
		return done, err
	}
	done.Followed = time.Since(started)
	return done, nil
}

// Kill sends a signal to processes, in the order in which they are named and without a pause between: etcd, a member's
// pg-test-1/postgres (the server's main process), …/patroni, …/pgbouncer, …/pgporter; 1/postgres for short. They are all
// found before the first is signalled. After SIGKILL it returns when they have ended.
func (s *Sandbox) Kill(ctx context.Context, sig syscall.Signal, whats ...string) error {
	if err := s.checkOwner(); err != nil {
		return err
	}
	r, err := s.current()
	if err != nil {
		return err
	}
	type target struct {
		part    part
		process Process
	}
	var targets []target
	var missing []error
	for _, what := range whats {
		p, err := s.layout.part(what)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		process, running := s.find(r, p)
		if !running {
			missing = append(missing, fmt.Errorf("%s: %w", p, errEnded))
			continue
		}
		targets = append(targets, target{p, process})
	}
	if len(missing) > 0 {
		return errors.Join(missing...)
	}
	for _, t := range targets {
		if err := t.process.signal(sig); err != nil {
			return fmt.Errorf("%s: %w", t.part, err)
		}
		s.say("%s (process %d): %s", t.part, t.process.PID, signalName(sig))
	}
	if sig != syscall.SIGKILL {
		return nil
	}
	for _, t := range targets {
		if !t.process.wait(ctx, patienceKill) {
			return fmt.Errorf("%s (process %d) hasn't ended within %s of being killed", t.part, t.process.PID, patienceKill)
		}
	}
	return nil
}

// startTimeout bounds how long Start waits for one process to answer.
const startTimeout = 30 * time.Second

// Start starts processes that have ended, in the order in which they are named, and returns when they answer. PostgreSQL is
// Patroni's to start: Start asks it to.
func (s *Sandbox) Start(ctx context.Context, whats ...string) error {
	if err := s.checkOwner(); err != nil {
		return err
	}
	var parts []part
	var unknown []error
	for _, what := range whats {
		p, err := s.layout.part(what)
		unknown = append(unknown, err)
		parts = append(parts, p)
	}
	if err := errors.Join(unknown...); err != nil {
		return err
	}
	t, err := findTools()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("it took longer than %s", startTimeout))
	defer cancel()
	lock, err := lockDir(ctx, s.layout.config.Dir)
	if err != nil {
		return err
	}
	defer lock.release()
	for _, p := range parts {
		if err := s.startPart(ctx, p, t); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sandbox) startPart(ctx context.Context, p part, t tools) error {
	r, err := s.current()
	if err != nil {
		return err
	}
	if r.Phase != phaseUp {
		return fmt.Errorf("%s can't be started: the sandbox is %s", p, r.Phase)
	}
	if process, running := s.find(r, p); running {
		if process.stopped() {
			s.say("%s was halted: it goes on", p)
			return process.signal(syscall.SIGCONT)
		}
		return fmt.Errorf("%s is running already (process %d)", p, process.PID)
	}
	if p.kind == postgresKind {
		return s.restartPostgres(ctx, r, p)
	}
	free := func() error {
		for _, address := range s.layout.ports(p) {
			if err := tryPort(address); err != nil {
				return fmt.Errorf("%s can't be started: %w", p, err)
			}
		}
		return nil
	}
	// The first thread of one that was killed can be over while others still hold its sockets.
	var taken error
	freed, cancel := context.WithTimeout(ctx, patienceKill)
	defer cancel()
	if !poll(freed, pollEvery, func() bool { taken = s.on(p, free); return taken == nil }) {
		return taken
	}
	if err := s.launch(p, t); err != nil {
		return err
	}
	check := s.answers(p)
	return s.await(ctx, p.String()+" answers", check, p)
}

// answers says what shows that a part serves.
func (s *Sandbox) answers(p part) func(context.Context) error {
	switch p.kind {
	case etcdKind:
		return s.etcdHealthy
	case patroniKind:
		return func(ctx context.Context) error {
			status, err := s.patroni(ctx, p.member)
			if err == nil && status.State != "running" {
				err = fmt.Errorf("PostgreSQL of %s is %s", p.member.Name, status.State)
			}
			return err
		}
	case pgbouncerKind, doorKind:
		return func(context.Context) error { return s.anybodyListens(p) }
	case restproxyKind:
		// It listens only while its Patroni does.
		return func(ctx context.Context) error {
			_, err := s.restproxy(p.member).Order(ctx)
			return err
		}
	}
	return func(context.Context) error { return s.anybodyListens(p) }
}

// anybodyListens says which of a part's addresses nobody listens on yet.
func (s *Sandbox) anybodyListens(p part) error {
	return s.on(p, func() error {
		for _, address := range s.layout.ports(p) {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			if len(listeners(at)) == 0 {
				return fmt.Errorf("nobody listens on %s", address)
			}
		}
		return nil
	})
}

// restartPostgres has a member's Patroni start its PostgreSQL.
func (s *Sandbox) restartPostgres(ctx context.Context, r record, p part) error {
	patroni := part{patroniKind, p.member}
	if _, running := s.find(r, patroni); !running {
		return fmt.Errorf("%s is started by its Patroni, which isn't running: pgporter-lab start %s", p, patroni)
	}
	// Patroni does so by itself within a loop; asking it only makes that sooner. It refuses where it is at it already.
	status, said, err := s.order(ctx, p.member, "/restart", map[string]any{}, startTimeout)
	if err != nil {
		s.say("Patroni of %s: %v", p.member.Name, err)
	} else {
		s.say("Patroni of %s (%d): %s", p.member.Name, status, said)
	}
	return s.await(ctx, p.String()+" runs", s.answers(patroni), patroni)
}
