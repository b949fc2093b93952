package overload

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// What a member's one core is kept busy with, Patroni's and PostgreSQL's share together, as measured on both releases.
const (
	// costKnown is of a question that asks PostgreSQL, where the leader's timeline is known: 2 to 5 ms.
	costKnown = 3 * time.Millisecond
	// costDear is of one where it isn't: a replica opens a replication connection to its own PostgreSQL for each. 35 ms if that is refused,
	// 48 to 54 ms if it isn't.
	costDear = 50 * time.Millisecond
	// costWithout is of a question that doesn't ask PostgreSQL.
	costWithout = time.Millisecond
	// costBackend is of a connection to PostgreSQL, be it only knocked: a fork. PgBouncer's costs nothing to speak of.
	costBackend = 25 * time.Millisecond
)

// backlog is Python's request_queue_size, which Patroni leaves as it is.
const backlog = 5

// Trouble is what is wrong with a member.
type Trouble int

const (
	// Well: nothing.
	Well Trouble = iota
	// Down: the machine is up and nothing runs on it.
	Down
	// Refuses: nobody listens at the API's port.
	Refuses
	// Halted: Patroni is stopped (SIGSTOP) and goes on later with what came meanwhile.
	Halted
	// Hangs: the backend that Patroni asks is stopped. Questions without SQL are answered.
	Hangs
)

// Counts are what a member has seen since it was made.
type Counts struct {
	// Questions are when one was read from its connection, and Knocks when a connection to PostgreSQL ended without a session; both in order.
	Questions, Knocks []time.Time
	// Threads are those of the API now, Most the most that there were.
	Threads, Most int
	// Left are answers that nobody waited for any more.
	Left int
}

// Member is a machine with one core, a Patroni, a PostgreSQL and a PgBouncer.
type Member struct {
	Name    string
	Address netip.Addr
	cluster *Cluster
	// core is had by who computes, in turn: PostgreSQL has it for one backend at a time, so that many who knock take no more than
	// half of it from the API.
	core, forks sync.Mutex

	// The cluster's mutex guards what follows.
	trouble Trouble
	// refused says that PostgreSQL doesn't let Patroni have replication connections.
	refused bool
	// came are the questions to PostgreSQL that have come, done those that are done.
	came, done int
	counts     Counts
	listeners  map[int]net.Listener
	conns      map[net.Conn]int
}

func newMember(c *Cluster, number int, address netip.Addr) *Member {
	return &Member{Name: fmt.Sprintf("%s-%d", Name, number), Address: address, cluster: c, listeners: map[int]net.Listener{}, conns: map[net.Conn]int{}}
}

// Counts gives what was seen so far.
func (m *Member) Counts() Counts {
	m.cluster.mu.Lock()
	defer m.cluster.mu.Unlock()
	counts := m.counts
	counts.Questions, counts.Knocks = append([]time.Time(nil), counts.Questions...), append([]time.Time(nil), counts.Knocks...)
	return counts
}

// RefuseReplication has the member's PostgreSQL refuse Patroni's replication connections, as where pg_hba.conf forgets them: its
// Patroni never knows the timeline, and tries again for each question.
func (m *Member) RefuseReplication() { m.cluster.change(func() { m.refused = true }) }

// Be changes what is wrong with the member.
func (m *Member) Be(trouble Trouble) error {
	m.cluster.change(func() { m.trouble = trouble })
	for _, port := range m.closedPorts() {
		if err := m.close(port); err != nil {
			return err
		}
	}
	return m.open()
}

// closedPorts are those at which nobody listens.
func (m *Member) closedPorts() []int {
	m.cluster.mu.Lock()
	defer m.cluster.mu.Unlock()
	switch {
	case m.trouble == Down || m.cluster.closed:
		return []int{PatroniPort, PostgresPort, PgBouncerPort}
	case m.trouble == Refuses:
		return []int{PatroniPort}
	}
	return nil
}

// open listens at all ports that aren't to be closed.
func (m *Member) open() error {
	closed := map[int]bool{}
	for _, port := range m.closedPorts() {
		closed[port] = true
	}
	for port, attend := range map[int]func(net.Conn){PatroniPort: m.api, PostgresPort: m.postgres, PgBouncerPort: m.pgbouncer} {
		m.cluster.mu.Lock()
		open := m.listeners[port] != nil
		m.cluster.mu.Unlock()
		if open || closed[port] {
			continue
		}
		listener, err := net.Listen("tcp4", net.JoinHostPort(m.Address.String(), strconv.Itoa(port)))
		if err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		m.cluster.mu.Lock()
		m.listeners[port] = listener
		m.cluster.mu.Unlock()
		if port == PatroniPort {
			if err := shorten(listener); err != nil {
				return fmt.Errorf("%s: the API's backlog: %w", m.Name, err)
			}
		}
		m.cluster.running.Go(func() { m.accept(listener, port, attend) })
	}
	return nil
}

// shorten gives a listener the backlog of a Patroni. listen(2) may be called again for that.
func shorten(listener net.Listener) error {
	raw, err := listener.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = syscall.Listen(int(fd), backlog) }); err != nil {
		return err
	}
	return failed
}

// accept takes connections until the listener is closed.
func (m *Member) accept(listener net.Listener, port int, attend func(net.Conn)) {
	c := m.cluster
	for {
		if port == PatroniPort {
			c.mu.Lock()
			c.await(func() bool { return m.trouble != Halted })
			c.mu.Unlock()
		}
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		current := m.listeners[port] == listener
		if current {
			m.conns[conn] = port
		}
		c.mu.Unlock()
		if !current {
			_ = conn.Close()
			return
		}
		c.running.Go(func() {
			attend(conn)
			_ = conn.Close()
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(m.conns, conn)
		})
	}
}

// close closes a port and all connections to it.
func (m *Member) close(port int) error {
	m.cluster.mu.Lock()
	defer m.cluster.mu.Unlock()
	listener := m.listeners[port]
	if listener == nil {
		return nil
	}
	delete(m.listeners, port)
	for conn, to := range m.conns {
		if to == port {
			_ = conn.Close()
		}
	}
	return listener.Close()
}

// shut closes everything.
func (m *Member) shut() error {
	for _, port := range []int{PatroniPort, PostgresPort, PgBouncerPort} {
		if err := m.close(port); err != nil {
			return err
		}
	}
	return nil
}

// work keeps the core busy, for nobody else at the same time.
func (m *Member) work(cost time.Duration) {
	m.core.Lock()
	defer m.core.Unlock()
	time.Sleep(cost)
}
