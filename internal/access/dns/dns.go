// Package dns serves the clusters' names: it answers questions over UDP and TCP, and keeps the files of a dnsmasq up to
// date. What the names are and what is answered is decided in package zone; which addresses they have comes from the Boards.
//
// A Server owns its sockets from New to Close and its goroutines for the time of Run. A configuration comes by Prepare, which
// does what can fail, and the function that it gives, which can't. One goroutine follows each cluster's Board, so that a
// question costs two look-ups and no computing.
//
// A flood of questions costs nobody else anything but this machine's time: as many goroutines as there are processors read
// datagrams, one after the other, and what they don't get to is dropped by the kernel; connections are bounded, in all and
// for each source, and each has little time to say something: see package gate.
package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/pgporter/pgporter/internal/access/dns/zone"
	"github.com/pgporter/pgporter/internal/access/gate"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// DefaultTTL is how long answers may be kept unless something else is said.
const DefaultTTL = 5 * time.Second

// Config says where names are served.
type Config struct {
	// Address is where questions are answered, host:port; an empty host is every address of this machine. Empty for nowhere.
	Address string
	// TCP and UDP are sockets of the address that are open already; both or none. They are the Server's from then on.
	TCP *net.TCPListener
	UDP *net.UDPConn
	// Connections is how many there may be at a time over TCP; 0 is 256. One source may have three quarters.
	Connections int
	// TTL is how long answers may be kept, to the second; 0 is DefaultTTL.
	TTL time.Duration
	// HostsDir is the directory that a dnsmasq has as its hostsdir; empty for none. It has to exist.
	HostsDir string
	Logger   *slog.Logger
	// retry is how long after a failure the files are tried again; 0 is retryFiles.
	retry time.Duration
}

// Server tells names.
type Server struct {
	cfg     Config
	log     *slog.Logger
	udp     *net.UDPConn
	tcp     *net.TCPListener
	current atomic.Pointer[published]
	// replaced has a token once current is another.
	replaced chan struct{}
	closing  sync.Once
	counts   counts
	// gate is tcp with its connections bounded.
	gate *gate.Listener
}

// published is a configuration whose names are served.
type published struct {
	catalog *zone.Catalog
	answers zone.Answers
	// boards and live are those of the catalog's clusters, by their index.
	boards []*view.Board
	live   []*atomic.Pointer[zone.Live]
	// stale has a token once a hosts file may not say any more what is so.
	stale chan struct{}
}

// New opens the sockets. Nothing is answered before Run.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.TTL == 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.retry == 0 {
		cfg.retry = retryFiles
	}
	s := &Server{cfg: cfg, log: cfg.Logger, replaced: make(chan struct{}, 1)}
	if cfg.HostsDir != "" {
		if err := usable(cfg.HostsDir); err != nil {
			return nil, err
		}
	}
	if cfg.Address == "" {
		return s, nil
	}
	if cfg.TCP != nil && cfg.UDP != nil {
		s.tcp, s.udp = cfg.TCP, cfg.UDP
		if err := noteDestination(s.udp); err != nil {
			s.Close()
			return nil, fmt.Errorf("DNS address %s: %w", cfg.Address, err)
		}
		return s, nil
	}
	var err error
	if s.tcp, s.udp, err = open(ctx, cfg.Address); err != nil {
		return nil, err
	}
	return s, nil
}

// Sockets are where questions are answered; nil for nowhere. They stay the Server's.
func (s *Server) Sockets() (*net.TCPListener, *net.UDPConn) { return s.tcp, s.udp }

// Address is where questions are answered; empty for nowhere.
func (s *Server) Address() string {
	if s.tcp == nil {
		return ""
	}
	return s.tcp.Addr().String()
}

// Close closes the sockets.
func (s *Server) Close() {
	s.closing.Do(func() {
		if s.tcp != nil {
			s.tcp.Close()
			s.udp.Close()
		}
	})
}

// hush takes no more questions. What was read is still answered.
func (s *Server) hush() {
	if s.tcp != nil {
		s.tcp.Close()
		_ = s.udp.SetReadDeadline(time.Unix(1, 0))
	}
}

// Prepare finds out whether an Offer's names can be served. What it gives makes them those that are. If the Offer's Node is an
// address, that is where the name server is found. A cluster that is Elsewhere, too, has the names that it has there.
func (s *Server) Prepare(o engine.Offer) (commit func(), err error) {
	var clusters []model.Cluster
	boards := map[string]*view.Board{}
	for _, c := range slices.Concat(o.Elsewhere, o.Clusters) {
		if _, again := boards[c.Name]; !again {
			clusters, boards[c.Name] = append(clusters, c.Cluster), c.Board
		}
	}
	catalog, warnings, err := zone.NewCatalog(clusters, o.Names, s.servers(o.Node))
	if err != nil {
		return nil, fmt.Errorf("the clusters' names: %w", err)
	}
	next := &published{catalog: catalog, stale: make(chan struct{}, 1)}
	for _, name := range catalog.Clusters() {
		next.boards = append(next.boards, boards[name])
		next.live = append(next.live, new(atomic.Pointer[zone.Live]))
	}
	next.answers = zone.Answers{Catalog: catalog, Live: func(i int) *zone.Live { return next.live[i].Load() }, TTL: uint32(s.cfg.TTL / time.Second)}
	next.begin(s.current.Load())
	if s.cfg.HostsDir != "" {
		files, err := s.hostsFiles(next)
		if err != nil {
			return nil, err
		}
		if _, err := compare(s.cfg.HostsDir, files); err != nil {
			return nil, fmt.Errorf("dnsmasq's names: %w", err)
		}
	}
	return func() {
		next.begin(s.current.Load())
		s.current.Store(next)
		select {
		case s.replaced <- struct{}{}:
		default:
		}
		for _, w := range warnings {
			s.log.Warn(w)
		}
	}, nil
}

// servers are the addresses under which the name server is found, as far as this is known.
func (s *Server) servers(node string) []netip.Addr {
	for _, text := range []string{s.Address(), net.JoinHostPort(node, "53")} {
		if at, err := netip.ParseAddrPort(text); err == nil && !at.Addr().IsUnspecified() && at.Addr().Zone() == "" {
			return []netip.Addr{at.Addr().Unmap()}
		}
	}
	return nil
}

// begin has names resolve to what the Boards show now, and to what they did before where these show nothing.
func (t *published) begin(before *published) {
	last := map[string]*zone.Live{}
	if before != nil {
		for i, name := range before.catalog.Clusters() {
			last[name] = before.live[i].Load()
		}
	}
	for i, name := range t.catalog.Clusters() {
		t.live[i].Store(zone.Follow(last[name], t.boards[i].View(), time.Now()))
	}
}

// Run tells names until ctx ends, and closes the sockets.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	group, ctx := errgroup.WithContext(ctx)
	stopped := context.AfterFunc(ctx, s.hush)
	defer stopped()
	if s.tcp != nil {
		s.gate = gate.New(s.tcp, gate.Of(cmp.Or(s.cfg.Connections, maxConnections)), func(netip.Addr) { s.counts.turnedAway.Add(1) })
		s.log.Info("names are told", "dns", s.Address(), "names", s.current.Load().catalog.Names(), "ttl", s.cfg.TTL)
		for range readers() {
			group.Go(func() error { return s.answerDatagrams(ctx) })
		}
		group.Go(func() error { return s.answerConnections(ctx) })
	}
	group.Go(func() error {
		s.follow(ctx)
		return nil
	})
	err := group.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// follow keeps what names resolve to at what the Boards show until ctx ends.
func (s *Server) follow(ctx context.Context) {
	for ctx.Err() == nil {
		t := s.current.Load()
		within, stop := context.WithCancel(ctx)
		var following sync.WaitGroup
		for i, name := range t.catalog.Clusters() {
			following.Go(func() { s.followCluster(within, t, i, name) })
		}
		if s.cfg.HostsDir != "" {
			following.Go(func() { s.keepHosts(within, t) })
		}
		select {
		case <-ctx.Done():
		case <-s.replaced:
		}
		stop()
		following.Wait()
	}
}

// followCluster keeps what a cluster's names resolve to at what its Board shows.
func (s *Server) followCluster(ctx context.Context, t *published, i int, name string) {
	for {
		view, replaced := t.boards[i].Watch()
		before := t.live[i].Load()
		if next := zone.Follow(before, view, time.Now()); next != before {
			t.live[i].Store(next)
			select {
			case t.stale <- struct{}{}:
			default:
			}
			s.report(name, before, next)
		}
		select {
		case <-ctx.Done():
			return
		case <-replaced:
		}
	}
}

// report logs what names lead elsewhere now.
func (s *Server) report(cluster string, before, next *zone.Live) {
	if before.Primary != next.Primary {
		s.log.Info("the primary's name leads elsewhere", "cluster", cluster, "from", before.Primary, "to", next.Primary)
	}
	for name, carriers := range next.Carriers {
		if was, is := members(before.Carriers[name]), members(carriers); was != is {
			s.log.Info("a service's name leads elsewhere", "cluster", cluster, "service", name, "from", was, "to", is)
		}
	}
}

func members(carriers []zone.Carrier) string {
	names := make([]string, len(carriers))
	for i, c := range carriers {
		names[i] = c.Member
	}
	return strings.Join(names, ",")
}
