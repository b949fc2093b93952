package discover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// Surveyed is all that a living cluster tells of itself for a configuration that is written once.
type Surveyed struct {
	// Cluster is it as a Follower finds it; Name is Patroni's scope.
	Cluster model.Cluster
	// At is the address that was asked, as a URL, Version the Patroni's there.
	At, Version string
	// Pooled has the members of which a PgBouncer answers on its usual port.
	Pooled map[string]bool
	// Tags are those that Patroni has for members, by their names. Silent are members that have said no addresses yet.
	Tags   map[string]map[string]string
	Silent []string
	// Config is the cluster's dynamic configuration, as far as ConfigErr is nil.
	Config    patroni.Config
	ConfigErr error
}

// Survey asks Patronis who they are, each address that no cluster found before has a member at. The clusters come in the order of the
// addresses. An error says what of it couldn't be asked; what could is there all the same.
func Survey(ctx context.Context, addresses []string) ([]Surveyed, error) {
	var all []Surveyed
	var problems []error
	for _, address := range addresses {
		base, err := baseURL(address)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if slices.ContainsFunc(all, func(s Surveyed) bool {
			return slices.ContainsFunc(s.Cluster.Members, func(m model.Member) bool { return memberURL(m) == base })
		}) {
			continue
		}
		one, err := survey(ctx, address)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if !slices.ContainsFunc(all, func(s Surveyed) bool { return sameCluster(s.Cluster, one.Cluster) }) {
			all = append(all, one)
		}
	}
	return all, errors.Join(problems...)
}

// sameCluster tells whether two addresses have told of one cluster.
func sameCluster(a, b model.Cluster) bool {
	return a.Name == b.Name && slices.ContainsFunc(a.Members, func(m model.Member) bool {
		return slices.ContainsFunc(b.Members, func(other model.Member) bool { return other.Name == m.Name && memberURL(other) == memberURL(m) })
	})
}

func survey(ctx context.Context, address string) (Surveyed, error) {
	f, err := New([]string{address}, slog.New(slog.DiscardHandler))
	if err != nil {
		return Surveyed{}, err
	}
	found, err := f.Find(ctx)
	if err != nil {
		return Surveyed{}, err
	}
	s := Surveyed{Cluster: found.Cluster, At: f.seeds[0], Pooled: maps.Clone(f.pooled), Tags: map[string]map[string]string{}}
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	answer, err := f.client.Cluster(ctx, s.At)
	if err != nil {
		return Surveyed{}, fmt.Errorf("%s: %w", s.At, err)
	}
	for _, m := range answer.Members {
		s.Tags[m.Name] = m.Tags
		if !slices.ContainsFunc(s.Cluster.Members, func(known model.Member) bool { return known.Name == m.Name }) {
			s.Silent = append(s.Silent, m.Name)
		}
	}
	if self, err := f.client.Get(ctx, s.At, "/patroni"); err == nil {
		s.Version = self.Version
	}
	s.Config, s.ConfigErr = f.client.Config(ctx, s.At)
	return s, nil
}
