package fakepatroni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// MembersOfCluster is how many members each cluster of a Crowd has: a primary and replicas.
const MembersOfCluster = 3

// mostClusters is how many clusters fit into the addresses of a Crowd.
const mostClusters = 250 * 64

// Crowd pretends to be all members of many clusters at once, each at a loopback address of its own (Address): Patroni, PostgreSQL
// and PgBouncer. It needs three listening sockets, whatever the number of members, and answers at once; the first member of each
// cluster is the primary for good. It counts what it is asked, member by member.
type Crowd struct {
	asked, knocked []atomic.Int64
}

// Counts are how often members were asked since the Crowd was made, in the order of clusters and of members within them.
type Counts struct {
	// Asked are whole requests to Patroni, Knocked are connections to the ports of PostgreSQL and PgBouncer.
	Asked, Knocked []int64
}

// NewCrowd makes the members of so many clusters.
func NewCrowd(clusters int) (*Crowd, error) {
	if clusters < 1 || clusters > mostClusters {
		return nil, fmt.Errorf("%d clusters: 1 to %d", clusters, mostClusters)
	}
	n := clusters * MembersOfCluster
	return &Crowd{asked: make([]atomic.Int64, n), knocked: make([]atomic.Int64, n)}, nil
}

// Address is where a member is: clusters and members count from 0.
func Address(cluster, member int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(64 + cluster/250), byte(1 + cluster%250), byte(1 + member)})
}

// index is the inverse of Address, as the member's place in Counts; false for an address of nobody.
func (c *Crowd) index(at net.Addr) (int, bool) {
	tcp, ok := at.(*net.TCPAddr)
	if !ok {
		return 0, false
	}
	b := tcp.AddrPort().Addr().Unmap().As4()
	member := int(b[3]) - 1
	i := ((int(b[1])-64)*250+int(b[2])-1)*MembersOfCluster + member
	if b[0] != 127 || member < 0 || member >= MembersOfCluster || i < 0 || i >= len(c.asked) || Address(i/MembersOfCluster, member).As4() != b {
		return 0, false
	}
	return i, true
}

// Counts gives what was asked so far.
func (c *Crowd) Counts() Counts {
	read := func(all []atomic.Int64) []int64 {
		values := make([]int64, len(all))
		for i := range all {
			values[i] = all[i].Load()
		}
		return values
	}
	return Counts{Asked: read(c.asked), Knocked: read(c.knocked)}
}

// Serve answers whoever connects to a member at these listeners, which are for all addresses, until ctx ends, and closes them.
// Ports are PostgreSQL's and PgBouncer's, which are the same to it.
func (c *Crowd) Serve(ctx context.Context, patroni net.Listener, ports ...net.Listener) error {
	var serving, conns sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		patroni.Close()
		for _, p := range ports {
			p.Close()
		}
	})()
	failed := make([]error, 1+len(ports))
	accept := func(i int, l net.Listener, serve func(net.Conn, int)) {
		defer cancel()
		for {
			conn, err := l.Accept()
			if err != nil {
				if ctx.Err() == nil {
					failed[i] = err
				}
				return
			}
			conns.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				// Listeners for all addresses are open to other machines, and these addresses are nobody's there.
				if member, ok := c.index(conn.LocalAddr()); ok && conn.SetDeadline(time.Now().Add(longest)) == nil {
					serve(conn, member)
				}
			})
		}
	}
	serving.Go(func() { accept(0, patroni, c.answer) })
	for i, p := range ports {
		serving.Go(func() { accept(1+i, p, c.knock) })
	}
	serving.Wait()
	conns.Wait()
	return errors.Join(failed...)
}

// longest is how long a connection may last.
const longest = 10 * time.Second

// answer is Patroni's: one request a connection, in HTTP 1.0, with a body for GET alone.
func (c *Crowd) answer(conn net.Conn, member int) {
	var buffer [2048]byte
	n := 0
	for !bytes.Contains(buffer[:n], []byte("\r\n\r\n")) {
		more, err := conn.Read(buffer[n:])
		if n += more; err != nil || n == len(buffer) {
			return
		}
	}
	line, _, _ := strings.Cut(string(buffer[:n]), "\r\n")
	method, rest, _ := strings.Cut(line, " ")
	target, _, _ := strings.Cut(rest, " ")
	path, _, _ := strings.Cut(target, "?")
	status := "503 Service Unavailable"
	paths := replicaPaths
	if member%MembersOfCluster == 0 {
		paths = primaryPaths
	}
	if slices.Contains(paths, path) {
		status = "200 OK"
	}
	// As Python's BaseHTTPRequestHandler writes it.
	out := fmt.Appendf(make([]byte, 0, 1024), "HTTP/1.0 %s\r\nServer: BaseHTTP/0.6 Python/3.11.2\r\nDate: %s\r\nContent-Type: application/json\r\n\r\n", status, time.Now().UTC().Format(time.RFC1123))
	if method == "GET" {
		out = append(out, body(member)...)
	}
	// Whoever has the answer finds it counted.
	c.asked[member].Add(1)
	_, _ = conn.Write(out)
}

// The paths that Patroni answers with 200 (its REST API's documentation, "Health check endpoints").
var (
	primaryPaths = []string{"/", "/primary", "/master", "/leader", "/read-write", "/read-only", "/read-only-sync", "/health", "/patroni", "/liveness", "/readiness"}
	replicaPaths = []string{"/replica", "/read-only", "/async", "/asynchronous", "/health", "/patroni", "/liveness", "/readiness"}
)

// ClusterName is the name of a cluster, which counts from 0; SystemID is its database system identifier.
func ClusterName(cluster int) string { return fmt.Sprintf("pg-%04d", cluster+1) }

// SystemID is what PostgreSQL calls the system identifier of a cluster's database.
func SystemID(cluster int) string { return fmt.Sprintf("74%017d", cluster+1) }

// body is what a member says of itself: the fields and the length of a Patroni 4.0 whose cluster is well.
func body(member int) []byte {
	cluster, m := member/MembersOfCluster, member%MembersOfCluster
	name := ClusterName(cluster)
	out := fmt.Appendf(nil, `{"state": "running", "postmaster_start_time": "2026-01-02 03:04:05.678901+00:00", "role": "%s", "server_version": 170002, `, role(m))
	if m == 0 {
		out = append(out, `"xlog": {"location": 83886080}, "timeline": 1, "replication": [`...)
		for other := 1; other < MembersOfCluster; other++ {
			if other > 1 {
				out = append(out, ", "...)
			}
			out = fmt.Appendf(out, `{"usename": "replicator", "application_name": "%s-%d", "client_addr": "%s", "state": "streaming", "sync_state": "async", "sync_priority": 0}`, name, other+1, Address(cluster, other))
		}
		out = append(out, `], `...)
	} else {
		out = append(out, `"xlog": {"received_location": 83886080, "replayed_location": 83886080, "replayed_timestamp": "2026-01-02 03:05:06.789012+00:00", "paused": false}, "timeline": 1, "replication_state": "streaming", `...)
	}
	return fmt.Appendf(out, `"dcs_last_seen": %d, "database_system_identifier": "%s", "patroni": {"version": "4.0.4", "scope": "%s", "name": "%s-%d"}}`, time.Now().Unix(), SystemID(cluster), name, name, m+1)
}

func role(member int) string {
	if member == 0 {
		return "primary"
	}
	return "replica"
}

// knock is what PostgreSQL and PgBouncer without TLS say to an SSLRequest; nothing more comes of it.
func (c *Crowd) knock(conn net.Conn, member int) {
	c.knocked[member].Add(1)
	var request [8]byte
	for {
		n, err := conn.Read(request[:])
		if err != nil {
			return
		}
		if n == len(request) {
			if _, err := conn.Write([]byte("N")); err != nil {
				return
			}
		}
	}
}
