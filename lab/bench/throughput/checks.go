package throughput

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/bench/subject"
	"github.com/pgporter/pgporter/lab/fakepatroni"
)

// crowds are how many clusters are checked at a time.
var crowds = []int{1, 100, 300, 1000}

const (
	// checkRounds is enough for what goes by a clock.
	checkRounds = 3
	// checkWarmUp is what a proxy gets when all members have been asked, before it counts: those that answer no are down by then, and ports that
	// answer are probed as seldom as they will be.
	checkWarmUp = 15 * time.Second
	// checkWindow is how long is counted; idleWindow is that of a single cluster, which takes little.
	checkWindow = 10 * time.Second
	idleWindow  = 30 * time.Second
	// idleMost is what a node with one cluster and no clients may take, in hundredths of a core.
	idleMost = 0.5
)

// A cluster has four services, whose ports follow one another from crowdFirst on: below those that connections come from.
const (
	crowdServices = 4
	crowdFirst    = 10000
)

// descriptors is how many open files a proxy may have for so many clusters: a listener for each service, and a check under way at each of the
// eleven servers of a cluster at worst.
func descriptors(clusters int) int { return 500 + 15*clusters }

// allow raises the limit of open files, which what is started inherits, to this many if it is lower.
func allow(files int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	n := uint64(files)
	if limit.Cur >= n {
		return nil
	}
	raised := syscall.Rlimit{Cur: n, Max: max(n, limit.Max)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
		return fmt.Errorf("%d open files, where the limit is %d (ulimit -Hn): %w", files, limit.Max, err)
	}
	return nil
}

// checks measures what it takes to check the members of clusters that have no clients.
func checks(c Config) []measure {
	all := []measure{checked(1, false, idleWindow), checked(1, true, idleWindow)}
	for _, n := range crowds[1:] {
		if err := allow(descriptors(n)); err != nil {
			fmt.Fprintf(c.Progress, "checks: %d clusters are left out, which take %v\n", n, err)
			continue
		}
		all = append(all, checked(n, false, checkWindow))
	}
	return all
}

func checked(clusters int, etcd bool, lasts time.Duration) measure {
	name := "1 cluster"
	if clusters > 1 {
		name = thousands(strconv.Itoa(clusters)) + " clusters"
	}
	if etcd {
		name += ", etcd watched"
	}
	idle := goal{}
	if clusters == 1 {
		idle = atMost(idleMost)
	}
	return measure{
		name: name, indirect: true,
		quantities: []quantity{
			{name: "questions/s a member", digits: 2, goal: atMost(0.5)},
			{name: "the same, of the one that is asked most", digits: 2},
			{name: "connections/s to the ports of a member", digits: 2},
			{name: "CPU, % of a core", digits: 2, goal: atMost(1), own: idle},
			{name: "memory, MB", digits: 1, goal: atMost(2)},
		},
		run: func(ctx context.Context, s *stage, w route) ([]float64, error) {
			return s.checked(ctx, w, clusters, etcd, lasts)
		},
	}
}

// checked starts the members and a proxy that has just them to check, and counts what the members are asked and what it takes.
func (s *stage) checked(ctx context.Context, w route, clusters int, etcd bool, lasts time.Duration) ([]float64, error) {
	s.fresh++
	dir := filepath.Join(s.dir, fmt.Sprintf("checks-%d", s.fresh))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	inventory := filepath.Join(dir, "inventory.yml")
	if err := os.WriteFile(inventory, crowdInventory(s.addresses[direct], clusters), 0o600); err != nil {
		return nil, err
	}
	crowd, err := s.startCrowd(ctx, clusters)
	if err != nil {
		return nil, err
	}
	defer crowd.stop()
	watched := "none"
	if etcd {
		keys, err := startKeys(ctx, dir, s.config.Prefix+".51")
		if err != nil {
			return nil, err
		}
		defer keys.stop()
		watched = keys.address
	}
	p, err := s.checker(ctx, w, inventory, dir, watched, clusters)
	if err != nil {
		return nil, err
	}
	defer p.Stop()
	err = p.Await(ctx, time.Minute, func(context.Context) error {
		counts, err := crowd.counts()
		if err == nil && slices.Contains(counts.Asked, 0) {
			err = errors.New("a member hasn't been asked anything")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, checkWarmUp); err != nil {
		return nil, err
	}
	var counts [2]fakepatroni.Counts
	var spent [2]cost
	var at [2]time.Time
	for i := range counts {
		if counts[i], err = crowd.counts(); err != nil {
			return nil, err
		}
		if spent[i], err = treeCost(p.PID()); err != nil {
			return nil, err
		}
		at[i] = time.Now()
		if i == 0 {
			if err := pause(ctx, lasts); err != nil {
				return nil, err
			}
		}
	}
	took := at[1].Sub(at[0]).Seconds()
	asked, most := rate(counts[0].Asked, counts[1].Asked, took)
	knocked, _ := rate(counts[0].Knocked, counts[1].Knocked, took)
	return []float64{asked, most, knocked, 100 * (spent[1].processor - spent[0].processor).Seconds() / took, float64(spent[1].resident()) / 1e6}, nil
}

// rate gives what was added to all counts within so many seconds, as the mean and the greatest a second.
func rate(before, after []int64, seconds float64) (mean, most float64) {
	for i := range before {
		one := float64(after[i]-before[i]) / seconds
		mean += one / float64(len(before))
		most = math.Max(most, one)
	}
	return mean, most
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// checker starts a proxy for the services of so many clusters, and waits until it listens.
func (s *stage) checker(ctx context.Context, w route, inventory, dir, etcd string, clusters int) (*subject.Process, error) {
	node, address := s.addresses[direct], s.addresses[w]
	ports := []int{crowdFirst, crowdFirst + crowdServices*clusters - 1}
	if w == haproxy {
		return subject.HAProxy{Pgporter: s.config.Binary, Inventory: inventory, Node: node, Address: address, Ports: ports, Master: true, Dir: filepath.Join(dir, "haproxy")}.Start(ctx)
	}
	p, err := subject.Start(exec.Command(s.binary(w), "run", "--inventory", inventory, "--node", node, "--bind", address, "--etcd", etcd), filepath.Join(dir, "pgporter.log"), syscall.SIGTERM)
	if err != nil {
		return nil, err
	}
	err = p.Await(ctx, time.Minute, func(ctx context.Context) error {
		var all error
		for _, port := range ports {
			all = errors.Join(all, subject.Listens(ctx, net.JoinHostPort(address, strconv.Itoa(port))))
		}
		return all
	})
	if err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

// crowdInventory declares so many clusters, whose services a node carries that is none of their members. They are Pigsty's four, and so
// are their options, but for ports of their own, since one node has them all.
func crowdInventory(node string, clusters int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "all:\n  vars: { patroni_port: %d, pg_port: %d, pgbouncer_port: %d, pg_service_provider: proxy }\n  children:\n    proxy: { hosts: { %s: {} } }\n",
		crowdPatroni, crowdPostgres, crowdPgBouncer, node)
	for i := range clusters {
		name := fakepatroni.ClusterName(i)
		fmt.Fprintf(&b, "    %s:\n      hosts:\n", name)
		for m := range fakepatroni.MembersOfCluster {
			role := "replica"
			if m == 0 {
				role = "primary"
			}
			fmt.Fprintf(&b, "        %s: { pg_seq: %d, pg_role: %s }\n", fakepatroni.Address(i, m), m+1, role)
		}
		port := crowdFirst + crowdServices*i
		fmt.Fprintf(&b, "      vars:\n        pg_cluster: %s\n        pg_default_services:\n", name)
		fmt.Fprintf(&b, "          - { name: primary, port: %d, dest: default, check: /primary, selector: '[]' }\n", port)
		fmt.Fprintf(&b, "          - { name: replica, port: %d, dest: default, check: /read-only, selector: '[]', backup: '[? pg_role == `primary` || pg_role == `offline` ]' }\n", port+1)
		fmt.Fprintf(&b, "          - { name: default, port: %d, dest: postgres, check: /primary, selector: '[]' }\n", port+2)
		fmt.Fprintf(&b, "          - { name: offline, port: %d, dest: postgres, check: /replica, selector: '[? pg_role == `offline` || pg_offline_query ]', backup: '[? pg_role == `replica` && !pg_offline_query]' }\n", port+3)
	}
	return []byte(b.String())
}
