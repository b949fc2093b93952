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

	// again is how long after a fault everybody serves again who is well: three passes (`rise`), and while answers are dear the time
	// between two questions may be twice `inter`; before the first a question may be under way whose packets were dropped (the kernel
	// sends the third after 3 s); a second for a busy machine.
	again = 3*2*inter + 3*time.Second + time.Second
	// steady is how long that has to stay so. What tips over does it within some rounds.
	steady = window
)

// budget is how many questions a member may get in a window: from each node twice as many as in quiet (one per inter), and one more,
// since a question that waited to be accepted comes late.
func budget(inter time.Duration) int { return nodes * (int(2*window/inter) + 1) }

const inventory = `pg-test:
  hosts:
    %[1]s.11: { pg_seq: 1, pg_role: primary }
    %[1]s.12: { pg_seq: 2, pg_role: replica }
    %[1]s.13: { pg_seq: 3, pg_role: replica, pg_offline_query: true }
  vars:
    pg_cluster: pg-test
    pg_rto: fast
    pg_service_provider: doors
    pg_services:
      - { name: reports, port: 5439, check: '/replica?lag=100MB', selector: '[]' }
doors:
  hosts:
    %[1]s.21:
    %[1]s.22:
    %[1]s.23:
    %[1]s.24:
`

// Checks must not be what keeps a cluster down. Each question costs a replica as much as a real one in trouble, so that four nodes
// that ask for each path, more often while something is wrong, and give up what takes long, ask for more than it can do: then every
// answer comes too late, for as long as they go on.
//
// PGPORTER=FILE has another program tried.
func TestChecksTipNothingOver(t *testing.T) {
	s := newScene(t)
	one, two, three := s.cluster.Members[0], s.cluster.Members[1], s.cluster.Members[2]
	s.serveAgain("the start")

	// An election: nobody leads for a while, clients wait, and all replicas are dear. Who led comes back as a replica.
	s.cluster.Unlock()
	s.be(Down, one)
	s.last(8 * time.Second)
	s.cluster.Lead(two)
	s.be(Well, one)
	s.serveAgain("an election of 8 s")

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

// scene is the cluster, nodes before it and clients.
type scene struct {
	*testing.T
	cluster *Cluster
	nodes   []api.Client
}

// newScene starts everything, which ends with the test; that is when the counts are judged.
func newScene(t *testing.T) *scene {
	pid := os.Getpid()
	prefix := fmt.Sprintf("127.%d.%d", 64+pid>>8%128, pid%256)
	var addresses []netip.Addr
	for i := range members {
		addresses = append(addresses, netip.MustParseAddr(fmt.Sprintf("%s.%d", prefix, 11+i)))
	}
	cluster, err := Start(addresses...)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, cluster: cluster}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(s.judge)

	dir := t.TempDir()
	binary := os.Getenv("PGPORTER")
	if binary == "" {
		binary = filepath.Join(dir, "pgporter")
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/pgporter").CombinedOutput(); err != nil {
			t.Fatalf("building pgporter: %v\n%s", err, out)
		}
	}
	path := filepath.Join(dir, "inventory.yml")
	if err := os.WriteFile(path, fmt.Appendf(nil, inventory, prefix), 0o600); err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for i := range nodes {
		host := fmt.Sprintf("%s.%d", prefix, 21+i)
		hosts = append(hosts, host)
		log := filepath.Join(dir, host+".log")
		p, err := subject.Start(exec.Command(binary, "run", "--inventory", path, "--node", host, "--bind", host), log, syscall.SIGTERM)
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
		at := net.JoinHostPort(hosts[i%nodes], []string{"5433", "5436"}[i/nodes%2])
		all.Go(func() { stay(ctx, at) })
	}
	t.Cleanup(func() {
		cancel()
		all.Wait()
	})
	return s
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
func (s *scene) last(d time.Duration) {
	select {
	case <-s.Context().Done():
	case <-time.After(d):
	}
}

// serveAgain waits until everybody serves who is well, and notes what was asked meanwhile.
func (s *scene) serveAgain(after string) {
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
			if now.Sub(began) > again {
				s.Errorf("after %s not all serve within %s and for %s:\n%v", after, again, steady, missing)
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
		if most := Most(c.Questions, window); most > budget(inter) {
			s.Errorf("%s was asked %d times in %s, more than %d", m.Name, most, window, budget(inter))
		}
		if c.Most > nodes {
			s.Errorf("%s had %d questions under way at once, from %d nodes that have one each at most", m.Name, c.Most, nodes)
		}
	}
}
