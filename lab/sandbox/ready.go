package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// steps writes progress a line at a time, each with the seconds since the start.
type steps struct {
	mu      sync.Mutex
	out     io.Writer
	started time.Time
}

func newSteps(out io.Writer) *steps { return &steps{out: out, started: time.Now()} }

// Write puts the time before a line; a failed write of progress is nobody's concern.
func (s *steps) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%5.1fs  %s", time.Since(s.started).Seconds(), line)
	return len(line), nil
}

func (s *Sandbox) say(format string, args ...any) { fmt.Fprintf(s.progress, format+"\n", args...) }

const (
	pollEvery = 100 * time.Millisecond
	// stillEvery is how often a wait says what it waits for.
	stillEvery = 5 * time.Second
)

// await asks until check is content and says so. It fails at once if one of the processes that it depends on has ended, and
// with check's last answer when ctx ends.
func (s *Sandbox) await(ctx context.Context, what string, check func(context.Context) error, depends ...part) error {
	var last error
	var dead error
	logged := time.Now()
	ok := poll(ctx, pollEvery, func() bool {
		if ctx.Err() != nil {
			return false
		}
		if err := check(ctx); err == nil {
			return true
		} else if ctx.Err() == nil || last == nil {
			last = err
		}
		r, err := s.current()
		if err != nil {
			dead = err
			return true
		}
		for _, p := range depends {
			if _, running := s.find(r, p); !running {
				dead = s.ended(r, p)
				return true
			}
		}
		if time.Since(logged) >= stillEvery {
			logged = time.Now()
			s.say("… waiting until %s: %v", what, last)
		}
		return false
	})
	if dead != nil {
		return fmt.Errorf("waiting until %s: %w", what, dead)
	}
	if !ok {
		err := fmt.Errorf("waiting until %s: %w", what, context.Cause(ctx))
		if last != nil {
			err = fmt.Errorf("%w; the last answer: %w", err, last)
		}
		for _, p := range depends {
			err = fmt.Errorf("%w\nthe end of %s:\n%s", err, s.layout.log(p), tail(s.layout.log(p)))
			if len(depends) > 3 {
				break
			}
		}
		return err
	}
	s.say("%s", what)
	return nil
}

// following says what is missing until a member leads its cluster and all others stream from it; nil is nothing.
func (s *Sandbox) following(ctx context.Context, leader Member) error {
	status, err := s.leading(ctx, leader)
	if err != nil {
		return err
	}
	streams := map[string]string{}
	for _, r := range status.Replication {
		streams[r.Name] = r.State
	}
	for _, m := range s.layout.of(leader.Cluster) {
		if m == leader {
			continue
		}
		replica, err := s.patroni(ctx, m)
		switch {
		case err != nil:
			return err
		case replica.State != "running" || replica.leads():
			return fmt.Errorf("%s is %s, %s", m.Name, replica.Role, replica.State)
		// A delayed member takes up a new leader's stream only once it has replayed, a minute late, what came before.
		case m.Role != "delayed" && streams[m.Name] != "streaming":
			return fmt.Errorf("%s doesn't stream from %s yet", m.Name, leader.Name)
		}
	}
	// Patroni's list of members is what others look at; it follows each member's own loop.
	seen, err := s.viewOf(ctx, leader)
	if err != nil {
		return err
	}
	running := map[string]string{}
	synchronous := false
	for _, m := range seen {
		running[m.Name] = m.State
		synchronous = synchronous || m.Role == "sync_standby" || m.Role == "quorum_standby"
	}
	for _, m := range s.layout.of(leader.Cluster) {
		if state := running[m.Name]; state != "running" && state != "streaming" {
			return fmt.Errorf("patroni's list has %s as %q", m.Name, state)
		}
	}
	if s.layout.config.Sync && leader.Cluster == mainCluster && !synchronous {
		return errors.New("no replica is synchronous yet")
	}
	return nil
}

func (s *Sandbox) awaitReplicas(ctx context.Context, cluster string) error {
	members := s.layout.of(cluster)
	what := fmt.Sprintf("%s has %d streaming replicas", cluster, len(members)-1)
	switch {
	case len(members) == 1:
		what = cluster + " is complete"
	case len(members) == 2:
		what = cluster + " has a streaming replica"
	case s.layout.config.Sync && cluster == mainCluster:
		what += ", one of them synchronous"
	}
	var depends []part
	for _, m := range members {
		depends = append(depends, part{patroniKind, m})
	}
	return s.await(ctx, what, func(ctx context.Context) error { return s.following(ctx, members[0]) }, depends...)
}

// awaitClients logs in as a client would: through each member's PgBouncer, and through each pgporter's services.
func (s *Sandbox) awaitClients(ctx context.Context) error {
	for _, m := range s.layout.members {
		pool := Access{Name: m.Name + "/pgbouncer", Host: m.Address, Port: pgbouncerPort, User: "test", Password: password("test"), Database: "test"}
		check := func(ctx context.Context) error {
			answer, err := s.query(ctx, pool)
			if err == nil && answer.address != m.Address {
				err = fmt.Errorf("it connects to %s", answer.address)
			}
			return err
		}
		if err := s.await(ctx, pool.Name+" connects to its member", check, part{pgbouncerKind, m}); err != nil {
			return err
		}
	}
	if s.layout.config.WithoutPgporter {
		return nil
	}
	for _, m := range s.layout.members {
		services := s.layout.servable(m.Cluster)
		check := func(ctx context.Context) error {
			for _, service := range services {
				answer, err := s.query(ctx, service.access(m))
				if err != nil {
					return fmt.Errorf("%s on port %d: %w", service.Name, service.Port, err)
				}
				if service.Writable && answer.inRecovery {
					return fmt.Errorf("%s on port %d connects to %s, which is in recovery", service.Name, service.Port, answer.address)
				}
			}
			return nil
		}
		what := fmt.Sprintf("%s/pgporter connects through %d services", m.Name, len(services))
		if err := s.await(ctx, what, check, part{pgporterKind, m}); err != nil {
			return err
		}
	}
	for _, door := range s.Doors(doorServices[0]) {
		check := func(ctx context.Context) error {
			answer, err := s.query(ctx, door)
			if err == nil && answer.inRecovery {
				err = fmt.Errorf("it connects to %s, which is in recovery", answer.address)
			}
			return err
		}
		m, err := s.layout.member(door.Node)
		if err != nil {
			return err
		}
		if err := s.await(ctx, part{doorKind, m}.String()+" connects to the primary", check, part{doorKind, m}); err != nil {
			return err
		}
	}
	if s.layout.config.Netns {
		if err := s.awaitVIPs(ctx); err != nil {
			return err
		}
		return s.awaitNames(ctx)
	}
	return nil
}

// awaitVIPs goes through the virtual addresses as the client of the documents' network does.
func (s *Sandbox) awaitVIPs(ctx context.Context) error {
	for _, cluster := range s.layout.clusters() {
		address, _, _ := strings.Cut(s.layout.vip(cluster), "/")
		through := Access{Host: address, Port: postgresPort, User: "test", Password: password("test"), Database: "test"}
		check := func(ctx context.Context) error {
			_, err := s.query(ctx, through)
			return err
		}
		if err := s.await(ctx, address+" connects to "+cluster, check, s.ofKind(pgporterKind, cluster)...); err != nil {
			return err
		}
	}
	return nil
}

// ofKind are a cluster's parts of one kind.
func (s *Sandbox) ofKind(k kind, cluster string) []part {
	var all []part
	for _, m := range s.layout.of(cluster) {
		all = append(all, part{k, m})
	}
	return all
}

// awaitNames resolves as the client of the documents' network does: each cluster's name and each member's.
func (s *Sandbox) awaitNames(ctx context.Context) error {
	want := map[string]string{}
	for _, cluster := range s.layout.clusters() {
		want[cluster], _, _ = strings.Cut(s.layout.vip(cluster), "/")
	}
	for _, m := range s.layout.members {
		want[m.Name] = m.Address
	}
	check := func(ctx context.Context) error {
		for name, address := range want {
			got, err := s.resolver().LookupHost(ctx, name+".")
			if err != nil {
				return err
			}
			if !slices.Equal(got, []string{address}) {
				return fmt.Errorf("%s resolves to %v, not %s", name, got, address)
			}
		}
		return nil
	}
	return s.await(ctx, s.layout.members[0].Name+" tells the names", check, part{pgporterKind, s.layout.members[0]})
}

type answer struct {
	address    string
	inRecovery bool
}

// query asks the instance behind an address who it is.
func (s *Sandbox) query(ctx context.Context, a Access) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	config, err := pgx.ParseConfig(a.URL() + "?sslmode=disable")
	if err != nil {
		return answer{}, err
	}
	// PgBouncer in transaction mode keeps no prepared statements.
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	config.DialFunc = s.dial
	connection, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return answer{}, err
	}
	defer connection.Close(ctx) //nolint:errcheck // the answer is in hand
	var got answer
	err = connection.QueryRow(ctx, "select host(inet_server_addr()), pg_is_in_recovery()").Scan(&got.address, &got.inRecovery)
	return got, err
}
