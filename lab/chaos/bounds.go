package chaos

import "time"

// What the bounds after the last fault are made of. Those of Patroni are of the sandbox's configuration (ttl 20, loop_wait 2,
// retry_timeout 3), those of checks of `pg_rto: fast` (inter 1s, downinter 1s, rise 3, fall 3); docs/reliability.md has them as a
// table.
const (
	// keyExpires: a leader that doesn't come back keeps its key for the TTL, and so does every one whose etcd has been restarted, which
	// counts leases from its start on. etcd looks for expired ones twice a second.
	keyExpires = ttl + time.Second
	// loop and retries are Patroni's: it may have begun a round while it couldn't reach etcd.
	loop, retries = 2 * time.Second, 3 * time.Second
	// elects is the race for a free key: each candidate asks the others (2 s), and one that lost it tries again a loop later.
	elects = 2*time.Second + loop
	// promotes is a promotion, or the crash recovery of one that leads already.
	promotes = 5 * time.Second
	// starts is a member from its Patroni's start to its PostgreSQL's first answer: Python, a look at etcd, crash recovery.
	starts = 8 * time.Second
	// rewinds is what a member needs beyond that which has to leave its own timeline: pg_rewind or a new copy of its small database.
	rewinds = 10 * time.Second
	// poolTries is PgBouncer's server_login_retry.
	poolTries = time.Second

	// pace is the time between two questions in peace (inter); what it varies by and the answer take half a second more.
	pace = time.Second + 500*time.Millisecond
	// longestRest is for how long a Patroni is left alone at most that has just been slow.
	longestRest = 5 * time.Second
	// swallowed is how long a question is waited for that gets no answer any more, since an API hung or a network was cut: nothing else is
	// asked meanwhile.
	swallowed = 10 * time.Second
	// rise is how many passes in a row bring back a server that was down; on a leader's path it is one.
	rise = 3
)

const (
	// leaderCarries and replicaCarries are how long a member may be well, in the role, until a node's pgporter has it carry a service: a
	// question may just have been answered slowly, and then there have to be passes. A port that was refused is tried again no more
	// seldom than Patroni is asked.
	leaderCarries  = longestRest + pace + pace
	replicaCarries = longestRest + rise*pace + pace

	// leads is until somebody leads who can take writes.
	leads = keyExpires + loop + retries + elects + promotes
)

// carriesWithin is the bound for a member that is well: how long until its server is up in a service, on every node.
func carriesWithin(port int) time.Duration {
	if forPrimary(port) {
		return leaderCarries
	}
	return replicaCarries
}

// answersWithin bounds how long after the last fault a service may be away, whatever the members need for themselves until then.
func answersWithin(port int) time.Duration {
	switch {
	case port == pooledPort, port == doorPort:
		return leads + poolTries + leaderCarries
	case port == directPort:
		return leads + leaderCarries
	case excludesPrimary(port):
		// The only replicas may be members that have to follow a new leader first.
		return leads + rewinds + replicaCarries
	case port == syncPort:
		// Its last resort is the primary.
		return leads + replicaCarries
	}
	// A replica needs no leader to serve reads, and a primary is there as the last resort.
	return starts + loop + retries + poolTries + replicaCarries
}

// The default services' ports, and that of the synchronous standby's. readersPort is the test's own.
const (
	pooledPort  = 5433
	replicaPort = 5434
	syncPort    = 5435
	directPort  = 5436
	offlinePort = 5438
	// doorPort is that of the PgBouncer before each pgporter, whose clients are led to direct's service.
	doorPort = 6433
)

// forPrimary says whether a service connects to the primary only: those whose check is /primary.
func forPrimary(port int) bool { return port == pooledPort || port == directPort || port == doorPort }
