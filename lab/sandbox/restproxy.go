package sandbox

import (
	"context"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox/restproxy"
)

// RestProxyCommand is the command of pgporter-lab that is the proxy of Config.RestProxy.
const RestProxyCommand = "restproxy"

// restproxy is the way to a member's proxy.
func (s *Sandbox) restproxy(m Member) restproxy.Client {
	return restproxy.Client{Socket: s.layout.restproxySocket(m)}
}

// proxied finds a member by name, number or address, in a sandbox with proxies.
func (s *Sandbox) proxied(member string) (Member, error) {
	if s.layout.config.RestProxy == "" {
		return Member{}, inputErrorf("this sandbox has no proxies before its Patronis: start one with --rest-proxy")
	}
	return s.layout.member(member)
}

// API has the proxy before a member's REST API do as ordered from now on. The sandbox's own requests and those of the Patronis aren't
// affected.
func (s *Sandbox) API(ctx context.Context, member string, order restproxy.Order) error {
	m, err := s.proxied(member)
	if err != nil {
		return err
	}
	if err := order.Check(); err != nil {
		return refused{err}
	}
	if err := s.restproxy(m).Do(ctx, order); err != nil {
		return err
	}
	s.say("API of %s: %s", m.Name, order)
	return nil
}

// APIOrder is what a member's proxy does now.
func (s *Sandbox) APIOrder(ctx context.Context, member string) (restproxy.Order, error) {
	m, err := s.proxied(member)
	if err != nil {
		return restproxy.Order{}, err
	}
	return s.restproxy(m).Order(ctx)
}

// APIRequests are the questions that a member's proxy took since a time, in order.
func (s *Sandbox) APIRequests(ctx context.Context, member string, since time.Time) ([]restproxy.Request, error) {
	m, err := s.proxied(member)
	if err != nil {
		return nil, err
	}
	return s.restproxy(m).Requests(ctx, since)
}
