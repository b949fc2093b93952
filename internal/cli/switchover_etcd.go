package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/cli/switchover"
	"github.com/pgporter/pgporter/internal/daemon"
	"github.com/pgporter/pgporter/internal/monitor/etcd"
)

// holdKeyFlags say how nodes are told to hold by a key in etcd, in place of their control addresses.
type holdKeyFlags struct {
	etcd         etcd.Config
	passwordFile string
	prefix       string
}

func (f *holdKeyFlags) add(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.etcd.Endpoints, "etcd", nil, "tell the nodes by a key in the etcd at these `ADDRESSES`, HOST[:PORT] or with https:// before it, instead of at their control addresses")
	c.Flags().StringVar(&f.etcd.CAFile, "etcd-ca", "", "`FILE` with the authority that signed etcd's certificates (default: the system's)")
	c.Flags().StringVar(&f.etcd.CertFile, "etcd-cert", "", "`FILE` with the certificate to show to etcd")
	c.Flags().StringVar(&f.etcd.KeyFile, "etcd-key", "", "`FILE` with that certificate's key")
	c.Flags().StringVar(&f.etcd.User, "etcd-user", "", "`NAME` of the user in etcd, who needs to write below --etcd-prefix and nothing of Patroni's")
	c.Flags().StringVar(&f.passwordFile, "etcd-password-file", "", "`FILE` with the user's password in its first line")
	c.Flags().StringVar(&f.prefix, "etcd-prefix", etcd.HoldPrefix, "`PATH` below which pgporter's own keys are")
	for _, file := range []string{"etcd-ca", "etcd-cert", "etcd-key", "etcd-password-file"} {
		c.MarkFlagFilename(file)
	}
}

// settle gives what writes the key; nil where nodes are told at their control addresses.
func (f *holdKeyFlags) settle(c *cobra.Command) (*holdKey, error) {
	if len(f.etcd.Endpoints) == 0 {
		for _, flag := range []string{"etcd-ca", "etcd-cert", "etcd-key", "etcd-user", "etcd-password-file", "etcd-prefix"} {
			if c.Flags().Changed(flag) {
				return nil, command.Input(fmt.Errorf("--%s goes with --etcd", flag))
			}
		}
		return nil, nil
	}
	for _, flag := range []string{"token-file", "ca", "client-cert", "client-key", "admin"} {
		if c.Flags().Changed(flag) {
			return nil, command.Input(fmt.Errorf("--%s and --etcd: nodes are told at their control addresses or by etcd", flag))
		}
	}
	if f.passwordFile != "" {
		f.etcd.Password = func() (string, error) { return daemon.FirstLine(f.passwordFile) }
	}
	e, err := etcd.New(f.etcd)
	if err != nil {
		return nil, command.Input(fmt.Errorf("--etcd: %w", err))
	}
	return &holdKey{etcd: e, prefix: f.prefix, using: make(chan struct{}, 1)}, nil
}

// holdKey is the order in etcd that all nodes follow: one for all of them.
type holdKey struct {
	etcd   *etcd.Etcd
	prefix string
	// using has whoever uses what is below.
	using   chan struct{}
	lease   *etcd.Lease
	renewed time.Time
	// over says that the order was taken back, and isn't given again.
	over bool
}

// enough is how long an order counts as just renewed: each node has it renewed.
const enough = 500 * time.Millisecond

// order writes the key, renews it or takes it back.
func (k *holdKey) order(ctx context.Context, o api.HoldOrder) error {
	select {
	case k.using <- struct{}{}:
		defer func() { <-k.using }()
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case o.ForSeconds == 0 && k.lease == nil:
		k.over = true
		return nil
	case o.ForSeconds == 0:
		k.over = true
		lease := k.lease
		k.lease = nil
		return lease.Release(ctx)
	case k.over:
		return errors.New("the order was taken back")
	case k.lease == nil:
		o.By = orderer()
		text, err := json.Marshal(o)
		if err != nil {
			return err
		}
		if k.lease, err = k.etcd.Hold(ctx, k.prefix, o.Cluster, text, o.ForSeconds.Duration()); err != nil {
			return err
		}
	case time.Since(k.renewed) < enough:
		return nil
	default:
		if err := k.lease.Renew(ctx); err != nil {
			if errors.Is(err, etcd.ErrOver) {
				// It is written anew with the next renewal.
				_ = k.lease.Release(ctx)
				k.lease = nil
			}
			return err
		}
	}
	k.renewed = time.Now()
	return nil
}

// orderer is who gives the order, for the log and the events of nodes.
func orderer() string {
	name, host := "somebody", "somewhere"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}

// keyNode is a node that follows the key. What it does is in its status, which is open to everybody.
type keyNode struct {
	name   string
	status api.Client
	key    *holdKey
}

var _ switchover.Node = keyNode{}

func (n keyNode) Called() string { return n.name }

func (n keyNode) Status(ctx context.Context) (*api.Status, error) { return n.status.Status(ctx) }

// Hold gives the order, and waits until the node's status shows that it is followed.
func (n keyNode) Hold(ctx context.Context, o api.HoldOrder) (api.Held, error) {
	if err := n.key.order(ctx, o); err != nil {
		return api.Held{}, err
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		status, err := n.status.Status(ctx)
		if err == nil {
			held := heldBy(status, o.Cluster)
			if follows := held.Hold != nil && held.Hold.ID == o.ID; follows == (o.ForSeconds > 0) {
				return held, nil
			}
			err = errors.New("its status doesn't show that it follows the key: does it run with --etcd, and may its account read it?")
		}
		select {
		case <-ctx.Done():
			return api.Held{}, err
		case <-ticker.C:
		}
	}
}

// heldBy is what a node's status says of a hold.
func heldBy(s *api.Status, cluster string) api.Held {
	held := api.Held{Pools: s.Pools}
	for _, c := range s.Clusters {
		if c.Name == cluster {
			held.Hold = c.Hold
		}
	}
	return held
}
