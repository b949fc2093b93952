package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/engine"
)

// shownSessions is how many sessions are told of where a filter doesn't say.
const shownSessions = 10_000

// errTheirs is why sessions can't be told of.
var errTheirs = errors.New("HAProxy carries the sessions here: ask it (show sess, shutdown sessions server, at its own socket)")

// Sessions gives the sessions that a filter chooses, the oldest first. The error says what is wrong with the filter, or that HAProxy has
// the sessions.
func (d *Daemon) Sessions(f api.SessionFilter) (api.Sessions, error) {
	n, is := d.native()
	if !is {
		return api.Sessions{}, errTheirs
	}
	filter, err := filterOf(f)
	if err != nil {
		return api.Sessions{}, err
	}
	if filter.Limit == 0 {
		filter.Limit = shownSessions
	}
	found, more, err := n.Engine.Sessions(filter)
	if err != nil {
		return api.Sessions{}, err
	}
	d.mu.Lock()
	all := api.Sessions{Node: d.node, Now: time.Now(), Sessions: make([]api.Session, len(found)), More: more}
	d.mu.Unlock()
	for i, s := range found {
		all.Sessions[i] = api.Session{ID: s.ID, Service: s.Service, Member: s.Member, Client: addressText(s.Client), Listen: addressText(s.Listen),
			Local: addressText(s.Local), Server: addressText(s.Server), Began: s.Began, ToServer: s.ToServer, ToClient: s.ToClient}
	}
	return all, nil
}

// addressText is empty for an address that isn't known: the connection has died meanwhile.
func addressText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// EndSessions ends the sessions that a filter chooses, or with DryRun counts them. by is who wants that, for the log.
func (d *Daemon) EndSessions(_ context.Context, e api.EndSessions, by string) (api.SessionsEnded, error) {
	n, is := d.native()
	if !is {
		return api.SessionsEnded{}, errTheirs
	}
	filter, err := filterOf(e.Filter)
	if err != nil {
		return api.SessionsEnded{}, err
	}
	every := filter
	every.Limit = 0
	if every == (engine.SessionFilter{}) && !e.All {
		return api.SessionsEnded{}, errors.New("the filter chooses every session of the node: say that all are meant")
	}
	ended, err := n.Engine.EndSessions(filter, safetext.Line(by), e.DryRun)
	if err == nil && !e.DryRun && ended > 0 {
		d.note(api.Event{Kind: api.EventSessions, Cluster: e.Filter.Cluster, Service: e.Filter.Service, Member: e.Filter.Member, By: by, Text: fmt.Sprintf("%d sessions were ended", ended)})
	}
	return api.SessionsEnded{Ended: ended}, err
}

// filterOf reads a filter.
func filterOf(f api.SessionFilter) (engine.SessionFilter, error) {
	read := engine.SessionFilter{Cluster: f.Cluster, Service: f.Service, Member: f.Member, ID: f.ID, Limit: f.Limit}
	if f.Limit < 0 {
		return read, fmt.Errorf("a limit of %d sessions", f.Limit)
	}
	if !(f.Idle >= 0 && f.Idle < 1e9) {
		return read, fmt.Errorf("idle for %v seconds: a number from 0 to 1e9", float64(f.Idle))
	}
	read.Idle = f.Idle.Duration()
	if f.Client == "" {
		return read, nil
	}
	if addr, err := netip.ParseAddr(f.Client); err == nil {
		addr = addr.WithZone("").Unmap()
		read.Client = netip.PrefixFrom(addr, addr.BitLen())
		return read, nil
	}
	network, err := netip.ParsePrefix(f.Client)
	if err != nil {
		return read, fmt.Errorf("client %q is neither an address nor a network (CIDR)", safetext.Line(f.Client))
	}
	if addr := network.Addr(); addr.Is4In6() && network.Bits() >= 96 {
		network = netip.PrefixFrom(addr.Unmap(), network.Bits()-96)
	}
	read.Client = network
	return read, nil
}
