package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/pgporter/pgporter/internal/access/dns"
	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/proxy"
)

// Names is the Part that tells the clusters' names. Its Source has to give them.
type Names struct {
	server *dns.Server
	// asked is the address as it was asked for.
	asked string
}

// NewNames opens the sockets, unless they are inherited; if somebody has one of them, the error says who.
func NewNames(ctx context.Context, cfg dns.Config, inherited *Inherited) (*Names, error) {
	var err error
	if cfg.TCP, err = inherited.listener(namesTCPSocket + cfg.Address); err != nil {
		return nil, err
	}
	if cfg.UDP, err = inherited.udp(namesUDPSocket + cfg.Address); err != nil {
		return nil, err
	}
	cfg.Connections = budgetOf(proxy.OpenFiles(), false, true, false).names
	server, err := dns.New(ctx, cfg)
	var refused *net.OpError
	if errors.As(err, &refused) && errors.Is(err, syscall.EADDRINUSE) {
		const instead = "another is chosen with --dns=ADDRESS:PORT"
		tcp, is := refused.Addr.(*net.TCPAddr)
		if !is {
			return nil, fmt.Errorf("%w by another UDP socket; %s", err, instead)
		}
		at := tcp.AddrPort()
		if !at.Addr().IsValid() { // every address
			at = netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port())
		}
		return nil, fmt.Errorf("%w: %s; %s", err, proxy.Holder(at), instead)
	}
	if err != nil {
		return nil, err
	}
	return &Names{server, cfg.Address}, nil
}

// Address is where questions are answered; empty for nowhere.
func (n *Names) Address() string { return n.server.Address() }

// Close closes the sockets of Names that are never run.
func (n *Names) Close() { n.server.Close() }

// Prepare finds out whether the names of an Offer can be served.
func (n *Names) Prepare(_ context.Context, o engine.Offer) (Change, error) {
	if len(o.Names) == 0 && len(o.Clusters) > 0 {
		return Change{}, errors.New("this node tells names, and the configuration has none")
	}
	commit, err := n.server.Prepare(o)
	return Change{Commit: commit}, err
}

// Run tells names until ctx ends.
func (n *Names) Run(ctx context.Context) error { return n.server.Run(ctx) }

func (n *Names) status() *api.Names {
	counts, names := n.server.Counts()
	return &api.Names{Listen: n.server.Address(), Names: names, Questions: counts.Questions, Refused: counts.Refused, Unknown: counts.Unknown,
		Malformed: counts.Malformed, Rejected: counts.Rejected}
}

// names is the Part that tells names; nil if none does.
func (d *Daemon) names() *Names {
	for _, p := range d.cfg.Parts {
		if n, is := p.(*Names); is {
			return n
		}
	}
	return nil
}

// monitored are the clusters that a plan has somebody look at: those that are carried, and those whose names are served. One that
// is both, since other nodes carry its services, is watched as the names need it.
func monitored(p model.Plan) []model.Cluster {
	all := slices.Clone(p.Elsewhere)
	for _, c := range p.Clusters {
		if !slices.ContainsFunc(p.Elsewhere, func(e model.Cluster) bool { return e.Name == c.Name }) {
			all = append(all, c)
		}
	}
	return all
}
