package throughput

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/bench/subject"
	"github.com/pgporter/pgporter/lab/sandbox"
)

// The cluster's one member, and its services.
const (
	clusterName  = "pg-bench"
	postgresPort = 5432
	patroniPort  = 8008
	defaultPort  = 5436
	// trivialPort is the trivial server's, and that of the service that connects there.
	trivialPort = 5440
)

// inventory declares the cluster. Both services are of PostgreSQL, as all of a cluster's. The options are Pigsty's, but for
// the maxconn of the trivial one, which holds more sessions than those allow.
const inventory = `all:
  children:
    pg-bench:
      hosts:
        %s: { pg_seq: 1, pg_role: primary }
      vars:
        pg_cluster: pg-bench
        pg_default_services:
          - { name: default, port: 5436, dest: postgres, check: /primary, selector: "[]" }
        pg_services:
          - { name: trivial, port: 5440, dest: 5440, check: /primary, selector: "[]", maxconn: 9000,
              options: "inter 2s fastinter 1s downinter 2s rise 3 fall 3 on-marked-down shutdown-sessions slowstart 30s maxconn 9000 maxqueue 128 weight 100" }
`

// route is how a client gets to the server.
type route int

const (
	direct route = iota
	haproxy
	pgporter
	// before is another pgporter that this one is compared with: as a rule an earlier version.
	before
	routes
)

var routeNames = [routes]string{"direct", "HAProxy", "pgporter", "pgporter before"}

// stage is everything that takes part but the clients.
type stage struct {
	config    Config
	dir       string
	inventory string
	// addresses are where clients connect, by route.
	addresses [routes]string
	proxies   [routes]*subject.Process
	stops     []func()
	fresh     int
	// box is the cluster whose members are asked by the section that is about them; nil until it is needed.
	box *sandbox.Sandbox
}

// newStage makes one on which nothing has been started.
func newStage(c Config, dir string) *stage {
	return &stage{
		config: c, dir: dir, inventory: filepath.Join(dir, "inventory.yml"),
		addresses: [routes]string{c.Prefix + ".11", c.Prefix + ".21", c.Prefix + ".22", c.Prefix + ".23"},
	}
}

// start starts PostgreSQL, the trivial server, a fake Patroni and the proxies.
func (s *stage) start(ctx context.Context) error {
	fmt.Fprintf(s.config.Progress, "starting PostgreSQL, HAProxy and pgporter at %s.x\n", s.config.Prefix)
	member := s.addresses[direct]
	if err := os.WriteFile(s.inventory, fmt.Appendf(nil, inventory, member), 0o600); err != nil {
		return err
	}
	stop, err := servePatroni(ctx, member, patroniPort)
	if err != nil {
		return err
	}
	s.stops = append(s.stops, stop)
	database, err := startPostgres(ctx, s.dir, member, postgresPort)
	if err != nil {
		return err
	}
	s.stops = append(s.stops, database.Stop)
	trivial, err := subject.Start(s.ownProcess(context.Background(), "serve", net.JoinHostPort(member, strconv.Itoa(trivialPort))), filepath.Join(s.dir, "trivial.log"), syscall.SIGTERM)
	if err != nil {
		return err
	}
	s.stops = append(s.stops, trivial.Stop)
	if err := trivial.Await(ctx, 10*time.Second, func(ctx context.Context) error { return opens(ctx, member, trivialPort) }); err != nil {
		return err
	}
	for _, w := range s.config.order(0) {
		if w == direct {
			continue
		}
		p, err := s.proxy(ctx, w, s.addresses[w])
		if err != nil {
			return err
		}
		s.proxies[w] = p
		s.stops = append(s.stops, p.Stop)
	}
	return nil
}

// binary is the pgporter of a route.
func (s *stage) binary(w route) string {
	if w == before {
		return s.config.Before
	}
	return s.config.Binary
}

// close ends all that was started, the last first.
func (s *stage) close() {
	for i := len(s.stops) - 1; i >= 0; i-- {
		s.stops[i]()
	}
}

// proxy starts a proxy at an address and waits until sessions can be opened through both services.
func (s *stage) proxy(ctx context.Context, w route, address string) (*subject.Process, error) {
	s.fresh++
	dir := filepath.Join(s.dir, fmt.Sprintf("proxy-%d", s.fresh))
	var p *subject.Process
	var err error
	switch w {
	case haproxy:
		p, err = subject.HAProxy{Pgporter: s.config.Binary, Inventory: s.inventory, Node: s.addresses[direct], Address: address, Ports: []int{defaultPort, trivialPort}, Dir: dir}.Start(ctx)
	case pgporter, before:
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
		command := exec.Command(s.binary(w), "run", "--inventory", s.inventory, "--node", s.addresses[direct], "--bind", address)
		p, err = subject.Start(command, filepath.Join(dir, "pgporter.log"), syscall.SIGTERM)
	default:
		return nil, fmt.Errorf("%s is no proxy", routeNames[w])
	}
	if err != nil {
		return nil, err
	}
	err = p.Await(ctx, 20*time.Second, func(ctx context.Context) error {
		return errors.Join(opens(ctx, address, defaultPort), opens(ctx, address, trivialPort))
	})
	if err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

// opens says whether a session can be opened at an address: whether somebody answers a startup message with
// AuthenticationOk.
func opens(ctx context.Context, address string, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	name := databaseName
	if port == trivialPort {
		name = "idle"
	}
	if _, err := conn.Write(startup(databaseUser, name)); err != nil {
		return err
	}
	answer := make([]byte, 256)
	n, err := conn.Read(answer)
	if err != nil {
		return err
	}
	if want := welcome[:9]; n < len(want) || !bytes.Equal(answer[:len(want)], want) {
		return fmt.Errorf("%s:%d answers %q to a startup message", address, port, answer[:n])
	}
	_, err = conn.Write(terminate)
	return err
}
