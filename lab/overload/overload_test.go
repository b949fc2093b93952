package overload

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/lab/bench/subject"
)

const (
	members, nodes, clients = 3, 4, 20

	// inter is that of `pg_rto: fast`, which has the least.
	inter = time.Second
	// window is over which questions are budgeted.
	window = 5 * time.Second

	// again is how long after a fault everybody serves again who is well: after an answer that came late a member may be left alone for
	// as long as questions are budgeted over; then three passes (`rise`), and while answers are dear the time between two questions may
	// be twice `inter`; a second for a busy machine.
	again = window + 3*2*inter + time.Second
	// steady is how long that has to stay so. What tips over does it within some rounds.
	steady = window
)

// budget is how many questions a member may get in a window: from each node twice as many as in quiet (one per inter), and one more,
// since a question that waited to be accepted comes late.
func budget(inter time.Duration) int { return nodes * (int(2*window/inter) + 1) }

const inventory = `pg-test:
  hosts:
    %s: { pg_seq: 1, pg_role: primary }
    %s: { pg_seq: 2, pg_role: replica }
    %s: { pg_seq: 3, pg_role: replica, pg_offline_query: true }
  vars:
    pg_cluster: pg-test
    pg_rto: fast
    pg_service_provider: doors
    pg_services:
      - { name: reports, port: 5439, check: '/replica?lag=100MB', selector: '[]' }
doors:
  hosts:
`

// Checks must not be what keeps a cluster down. Each question costs a replica as much as a real one in trouble, so that four nodes
// that ask for each path, more often while something is wrong, and give up what takes long, ask for more than it can do: then every
// answer comes too late, for as long as they go on.
//
// PGPORTER=FILE has another program tried.
func TestChecksTipNothingOver(t *testing.T) {
	binary := os.Getenv("PGPORTER")
	if binary == "" {
		binary = filepath.Join(t.TempDir(), "pgporter")
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/pgporter").CombinedOutput(); err != nil {
			t.Fatalf("building pgporter: %v\n%s", err, out)
		}
	}
	// The two cost little processor between them, and much time.
	t.Run("without etcd", func(t *testing.T) {
		t.Parallel()
		newScene(t, binary, 1, nil).play()
	})
	t.Run("with etcd", func(t *testing.T) {
		t.Parallel()
		newScene(t, binary, 2, startEtcd(t, 2)).play()
	})
}

// scene is the cluster, nodes before it and clients.
type scene struct {
	*testing.T
	cluster *Cluster
	nodes   []api.Client
	// etcd is nil where nodes know of none.
	etcd *etcd
}

// play has one fault after the other, and judges in the end.
func (s *scene) play() {
	defer s.judge()
	one, two, three := s.cluster.Members[0], s.cluster.Members[1], s.cluster.Members[2]
	// Eight processes start at once: how long that takes is no affair of checks.
	s.serveWithin(time.Minute, "the start")

	// An election: nobody leads for a while, clients wait, and all replicas are dear. Who led comes back as a replica.
	s.lead(nil)
	s.be(Down, one)
	s.last(8 * time.Second)
	s.lead(two)
	s.be(Well, one)
	s.serveAgain("an election of 8 s")

	if s.etcd != nil {
		s.cluster.Blind(true)
		s.etcd.signal(syscall.SIGSTOP)
		s.serveThroughout("8 s without etcd", 8*time.Second)
		s.etcd.signal(syscall.SIGCONT)
		s.cluster.Blind(false)
		s.serveAgain("8 s without etcd")
	}

	// From here on the replicas are dear for good, though all are well: their pg_hba.conf forgets Patroni's replication connections.
	one.RefuseReplication()
	three.RefuseReplication()
	s.serveAgain("timelines unknown for good")

	s.be(Halted, one, two, three)
	s.last(3 * time.Second)
	s.be(Well, one, two, three)
	s.serveAgain("all APIs halted for 3 s")

	s.be(Hangs, three)
	s.last(10 * time.Second)
	s.be(Well, three)
	s.serveAgain("a replica's API hanging for 10 s")
}

// address is one of a scene's, which are this process's own.
func address(scene, number int) string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 64+pid>>8%128, pid%256, scene<<6+number)
}

// newScene starts everything, which ends with the test.
func newScene(t *testing.T, binary string, number int, etcd *etcd) *scene {
	var at []any
	var addresses []netip.Addr
	for i := range members {
		at = append(at, address(number, i))
		addresses = append(addresses, netip.MustParseAddr(address(number, i)))
	}
	cluster, err := Start(addresses...)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, cluster: cluster, etcd: etcd}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	more := []string{"--etcd", "none"}
	if etcd != nil {
		etcd.lead(cluster.Members[0])
		more[1] = etcd.address
	}
	dir := t.TempDir()
	var doors strings.Builder
	for i := range nodes {
		fmt.Fprintf(&doors, "    %s:\n", address(number, members+i))
	}
	path := filepath.Join(dir, "inventory.yml")
	if err := os.WriteFile(path, fmt.Appendf(nil, inventory+doors.String(), at...), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		host := address(number, members+i)
		log := filepath.Join(dir, host+".log")
		p, err := subject.Start(exec.Command(binary, append([]string{"run", "--inventory", path, "--node", host, "--bind", host}, more...)...), log, syscall.SIGTERM)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			p.Stop()
			if text, err := os.ReadFile(log); t.Failed() && i == 0 {
				t.Logf("the log of %s (%v):\n%s", host, err, text)
			}
		})
		s.nodes = append(s.nodes, api.Client{Address: net.JoinHostPort(host, api.DefaultPort)})
	}
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for i := range clients {
		at := net.JoinHostPort(address(number, members+i%nodes), []string{"5433", "5436"}[i/nodes%2])
		all.Go(func() { stay(ctx, at) })
	}
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
	return s
}

// lead gives the leader key to a member; nil takes it away.
func (s *scene) lead(m *Member) {
	if m == nil {
		s.cluster.Unlock()
	} else {
		s.cluster.Lead(m)
	}
	if s.etcd != nil {
		s.etcd.lead(m)
	}
}

// stay is a client that always wants a session: without one it waits for one, and after it comes again.
func stay(ctx context.Context, at string) {
	body := "user\x00lab\x00database\x00lab\x00\x00"
	startup := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	startup = append(binary.BigEndian.AppendUint32(startup, 3<<16), body...)
	pause := time.NewTicker(100 * time.Millisecond)
	defer pause.Stop()
	for ctx.Err() == nil {
		var d net.Dialer
		if conn, err := d.DialContext(ctx, "tcp", at); err == nil {
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			if _, err := conn.Write(startup); err == nil {
				_, _ = io.Copy(io.Discard, conn)
			}
			stop()
			_ = conn.Close()
		}
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	}
}

func (s *scene) be(trouble Trouble, members ...*Member) {
	s.Helper()
	for _, m := range members {
		if err := m.Be(trouble); err != nil {
			s.Fatal(err)
		}
	}
}

// last lets a fault last.
func (s *scene) last(d time.Duration) { <-time.After(d) }

// serveThroughout lets a fault last that nobody may stop serving for.
func (s *scene) serveThroughout(fault string, d time.Duration) {
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for end := time.After(d); ; {
		if missing := s.missing(); missing != nil {
			s.Errorf("in %s not all go on serving:\n%v", fault, missing)
			<-end
			return
		}
		select {
		case <-end:
			return
		case <-look.C:
		}
	}
}

// serveAgain waits until everybody serves who is well.
func (s *scene) serveAgain(after string) { s.serveWithin(again, after) }

// serveWithin is the same with another bound. It notes what was asked so far.
func (s *scene) serveWithin(bound time.Duration, after string) {
	began := time.Now()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	var since time.Time
	for {
		missing := s.missing()
		now := time.Now()
		switch {
		case missing == nil && since.IsZero():
			since = now
		case missing == nil && now.Sub(since) >= steady:
			s.Logf("after %s all serve after %.1f s", after, since.Sub(began).Seconds())
			s.figures()
			return
		case missing != nil:
			since = time.Time{}
			if now.Sub(began) > bound {
				lines := strings.Split(missing.Error(), "\n")
				s.Errorf("after %s not all serve within %s and for %s: %d servers and services don't. Some of them:\n%s", after, bound, steady,
					len(lines), strings.Join(lines[:min(5, len(lines))], "\n"))
				s.figures()
				return
			}
		}
		select {
		case <-s.Context().Done():
			s.Fatal(s.Context().Err())
		case <-look.C:
		}
	}
}

// missing says by each node's status who doesn't serve and should: every replica in the services for reads, and someone in those of the
// leader.
func (s *scene) missing() error {
	leader := s.cluster.Leader()
	var missing []error
	for _, node := range s.nodes {
		status, err := node.Status(s.Context())
		if err != nil {
			missing = append(missing, err)
			continue
		}
		for _, service := range status.Clusters[0].Services {
			if !service.Up {
				missing = append(missing, fmt.Errorf("%s: %s is down", node.Address, service.FullName))
			}
			for _, server := range service.Servers {
				if service.Check != "/primary" && server.Member != leader.Name && !server.Up {
					missing = append(missing, fmt.Errorf("%s: %s, %s: %s", node.Address, service.FullName, server.Member, server.Reason))
				}
			}
		}
	}
	return errors.Join(missing...)
}

// figures are what members have counted so far.
func (s *scene) figures() {
	for _, m := range s.cluster.Members {
		c := m.Counts()
		s.Logf("  %s: %4d questions, at most %3d in 5 s, %3d threads at once, %3d askers that left; %3d knocks, at most %2d in 5 s",
			m.Name, len(c.Questions), Most(c.Questions, window), c.Most, c.Left, len(c.Knocks), Most(c.Knocks, window))
	}
}

// judge holds what each member was asked, from the start on, to what it may be asked.
func (s *scene) judge() {
	for _, m := range s.cluster.Members {
		c := m.Counts()
		if most := Most(c.Knocks, window); most > budget(inter) {
			s.Errorf("%s's PostgreSQL was knocked at %d times in %s, more than %d", m.Name, most, window, budget(inter))
		}
		if most := Most(c.Questions, window); most > budget(inter) {
			s.Errorf("%s was asked %d times in %s, more than %d", m.Name, most, window, budget(inter))
		}
		if c.Most > nodes {
			s.Errorf("%s had %d questions under way at once, from %d nodes that have one each at most", m.Name, c.Most, nodes)
		}
	}
}
