// Package etcd follows the keys that Patroni keeps of a cluster in etcd: who holds the leader key, what role and state the
// members have, whether a switchover has been asked for. It tells them a second or more before the next check would.
//
// It owns connections to etcd and nothing else: what a key means for a service is decided in cluster. A Watcher reads only, never
// writes, and keeps no lease; a Lease writes pgporter's own key, by which nodes are told to hold a cluster, and none of Patroni's. etcd's v3
// API is spoken (etcd 3.4 and later).
//
// # What is read
//
// Below a cluster's path (/pg/pg-test; a group of a Citus cluster has <namespace>/<shard>/<group>) Patroni has the keys
// config, failover, failsafe, history, initialize, leader, members/…, status and sync (dcs/__init__.py). One read of them all
// gives a consistent picture, and one watch from the revision after it gives every change. Of members, status and config only
// what Reading has is kept: what they write with each loop while clients write (WAL positions, slots) is no news by itself.
//
// # When etcd is slow, away or wrong
//
// A Watcher uses one connection to one of the addresses at a time. When that breaks the next address is tried at once. If
// that fails too, or an open one doesn't answer in time, the keys are Lost: nobody knows them now, and no former knowledge
// counts. Attempts go on for ever, with pauses of up to 5 s after each round through the addresses, and read the files of
// TLS and the password afresh.
//
// A watch can be open and dead (a stopped server, a cut network, a member without quorum), so the leader key is read again
// every second, through the quorum, and has to come within 2 s; one read is under way at a time, and a slow one delays the
// next. Confirm does the same at once. Every 30 s all keys are read that way, for a watch that is dead by itself. A watch
// whose revision has been compacted is begun anew after another read. Nothing of this blocks or is known to anybody but by
// Readings.
//
// # Whether the leader lives
//
// Patroni renews its lease in each loop, which changes no key. Where that is wanted (AskLease), each beat also asks how much
// time the lease has left, which tells when it was renewed. That this isn't answered is no loss of etcd.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultPort is etcd's port for clients.
const DefaultPort = "2379"

// Config says where etcd is and who asks.
type Config struct {
	// Endpoints are addresses of etcd's members: HOST, HOST:PORT, http://HOST:PORT or https://HOST:PORT. An address without
	// a scheme is spoken to with TLS if CAFile or CertFile is set.
	Endpoints []string
	// CAFile is the PEM file of the authority that signed etcd's certificates; empty is the system's authorities. The
	// certificate has to be for the address that is asked, as etcd's own clients want it.
	CAFile string
	// CertFile and KeyFile are the client's certificate, for an etcd that asks for one. Both or none.
	CertFile, KeyFile string
	// User is empty for an etcd without authentication.
	User string
	// Password gives the user's password, for each connection anew.
	Password func() (string, error)
}

// Etcd makes Watchers. It holds no connection itself.
type Etcd struct {
	cfg Config
	// hosts are host:port, in the order of Config.Endpoints.
	hosts []string
	tls   bool
}

// New checks a Config, its files included, and connects to nobody. The error lists every problem.
func New(cfg Config) (*Etcd, error) {
	e := &Etcd{cfg: cfg}
	var problems []error
	problem := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if len(cfg.Endpoints) == 0 {
		problem("no address of etcd")
	}
	files := cfg.CAFile != "" || cfg.CertFile != "" || cfg.KeyFile != ""
	schemes := map[string]string{}
	for _, endpoint := range cfg.Endpoints {
		scheme, host, err := parseEndpoint(endpoint)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		e.hosts = append(e.hosts, host)
		if scheme == "" && files {
			scheme = "https"
		}
		schemes[scheme] = endpoint
		switch {
		case scheme == "http" && files:
			problem("address %s is without TLS, but files for TLS are given", endpoint)
		case scheme == "https":
			e.tls = true
		}
	}
	if plain := schemes["http"] + schemes[""]; e.tls && plain != "" {
		problem("addresses %s and %s: all with TLS, or none", schemes["https"], plain)
	}
	if (cfg.CertFile == "") != (cfg.KeyFile == "") {
		problem("a client certificate needs its key, and a key its certificate")
	} else if e.tls {
		if _, err := e.tlsConfig(e.firstHost()); err != nil {
			problems = append(problems, err)
		}
	}
	switch {
	case cfg.User == "" && cfg.Password != nil:
		problem("a password needs its user")
	case cfg.User != "" && cfg.Password == nil:
		problem("user %s needs a password", cfg.User)
	case cfg.User != "":
		if _, err := e.password(); err != nil {
			problems = append(problems, err)
		}
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return e, nil
}

func (e *Etcd) firstHost() string {
	if len(e.hosts) == 0 {
		return ""
	}
	return e.hosts[0]
}

// password is the user's; it is never empty.
func (e *Etcd) password() (string, error) {
	password, err := e.cfg.Password()
	if err == nil && password == "" {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", fmt.Errorf("password of etcd's user %s: %w", e.cfg.User, err)
	}
	return password, nil
}

// parseEndpoint splits an address into its scheme, empty if it has none, and host:port.
func parseEndpoint(endpoint string) (scheme, hostPort string, err error) {
	bad := func(why string) (string, string, error) {
		return "", "", fmt.Errorf("address %q of etcd: %s; want HOST, HOST:PORT, http://HOST:PORT or https://HOST:PORT", endpoint, why)
	}
	rest := endpoint
	if before, after, found := strings.Cut(endpoint, "://"); found {
		scheme, rest = before, strings.TrimSuffix(after, "/")
		if scheme != "http" && scheme != "https" {
			return bad("unknown scheme " + scheme)
		}
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		host, port = rest, DefaultPort
		if inner, bracketed := strings.CutPrefix(rest, "["); bracketed && strings.HasSuffix(inner, "]") {
			host = strings.TrimSuffix(inner, "]")
		}
	}
	// A zone of IPv6 is the name of an interface.
	name, zone, zoned := strings.Cut(host, "%")
	if _, err := netip.ParseAddr(name); err != nil && (zoned || !hostName.MatchString(name)) || zoned && !hostName.MatchString(zone) {
		return bad("not an address")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return bad(fmt.Sprintf("port %q", port))
	}
	return scheme, net.JoinHostPort(host, port), nil
}

// hostName is what names of hosts and of interfaces are made of.
var hostName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// Watch makes the Watcher of a cluster's path: /pg/pg-test. Its Run has to be called for anything to happen.
func (e *Etcd) Watch(path string) *Watcher {
	return &Watcher{etcd: e, path: strings.TrimRight(path, "/"), confirm: make(chan struct{}, 1), pace: pace}
}

// Reading is what the keys say at one moment. The zero Reading is etcd's answer for a cluster that it doesn't know. A Reading
// that was delivered is never changed, its slices included.
type Reading struct {
	// Lost says in words why nothing is known; everything else is zero then. Empty while etcd is heard.
	Lost string
	// Leader is the name of the member that holds the leader key; empty if nobody does.
	Leader string
	// LeaderRevision is etcd's revision of the leader key's last change: a key that was lost and taken again by the same
	// member has another one. 0 if there is no key.
	LeaderRevision int64
	// Failover is what the failover key says, as Patroni wrote it (a JSON object with leader, member, scheduled_at); empty
	// if no switchover is asked for, or it has been done.
	Failover string
	// FailoverRevision is that of the failover key's last change; 0 if there is no key.
	FailoverRevision int64
	// System is the database system identifier that the cluster was initialised with; empty before that.
	System string
	// Standby says that the cluster is a standby cluster by its configuration in etcd.
	Standby bool
	// Members are those that have a member key, sorted by name. A key is there until its member's lease has run out.
	Members []MemberKey
	// Optime is the leader's WAL position in bytes, which the leader writes once per loop and `lag=` is reckoned from; 0 if
	// it isn't known. By itself it is no reason to deliver: it comes with the next read of the leader key, a second later at
	// most while etcd answers at once.
	Optime int64
	// Renewed is the earliest moment at which the leader's lease can have been renewed last, by the whole seconds that
	// etcd says it has left: up to a second too early, and as late as the last question. Zero while that isn't asked
	// (AskLease), not answered yet, or there is no key. An etcd that has elected a leader of its own gives every lease its
	// whole time anew: that looks like a renewal.
	Renewed time.Time
	// Read is when the last read through the quorum was asked for that this is true of: at some moment since then the leader
	// key said it, and everything else at that moment or one that a watch is behind. Each such read is delivered, every
	// second as a rule and after each change of the leader key, also if nothing else has changed.
	//
	// While etcd isn't lost it is 3 s old at most where reads take up to a second: it is asked for a second after the one
	// before, and may take 2 s. Where they take up to 2 s, and a connection breaks in the middle, it is 5 s at the very most.
	Read time.Time
}

// MemberKey is what a member's Patroni has written of it last: at once when its role or state changes, a loop later at most
// after a crash.
type MemberKey struct {
	Name string
	// Role and State are Patroni's words (`master` is `primary`), as in the answers of its REST API; empty where the value
	// has none.
	Role, State string
	// Revision is etcd's revision of the last change of Role or State; after a connection was begun that of the key's last
	// write.
	Revision int64
}

// Equal tells whether two Readings say the same, of the same moments.
func (r Reading) Equal(o Reading) bool {
	return r.Lost == o.Lost && r.Leader == o.Leader && r.LeaderRevision == o.LeaderRevision &&
		r.Failover == o.Failover && r.FailoverRevision == o.FailoverRevision && r.System == o.System && r.Standby == o.Standby &&
		slices.Equal(r.Members, o.Members) && r.Optime == o.Optime && r.Renewed.Equal(o.Renewed) && r.Read.Equal(o.Read)
}

// Deliver takes a Reading. It may block until its ctx ends; the Watcher gives the newest Reading after that and may leave
// out those in between.
type Deliver func(ctx context.Context, r Reading)
