package cli

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/daemon"
)

// pigstyCA is where Pigsty's nodes have the authority of their certificates.
const pigstyCA = "/pg/cert/ca.crt"

// etcdFlags adds the flags that say where Patroni's leader keys are.
func etcdFlags(c *cobra.Command, e *daemon.Etcd) {
	c.Flags().StringSliceVar(&e.Endpoints, "etcd", nil, "watch Patroni's leader keys in the etcd at these `ADDRESSES`: HOST[:PORT], or with https:// before it; none for not at all (default: the inventory's group etcd)")
	c.Flags().StringVar(&e.CAFile, "etcd-ca", "", "`FILE` with the authority that signed etcd's certificates (default: the inventory's etcd "+pigstyCA+", another the system's)")
	c.Flags().StringVar(&e.CertFile, "etcd-cert", "", "`FILE` with the certificate to show to etcd")
	c.Flags().StringVar(&e.KeyFile, "etcd-key", "", "`FILE` with that certificate's key")
	c.Flags().StringVar(&e.User, "etcd-user", "", "`NAME` of the user in etcd")
	c.Flags().StringVar(&e.PasswordFile, "etcd-password-file", "", "`FILE` with the user's password in its first line (default: the inventory's pg_etcd_password, or the file that the plan names)")
	c.Flags().StringVar(&e.HoldPrefix, "etcd-prefix", "", "`PATH` below which pgporter's own keys are, by which pgporter switchover has clusters held (default: "+daemon.DefaultHoldPrefix+")")
	c.Flags().StringVar(&e.Namespace, "etcd-namespace", "", "`PATH` below which Patroni keeps the clusters' keys (default: pg_namespace of the inventory, or "+daemon.DefaultNamespace+")")
}

// noEtcd is what --etcd says for not watching the leader keys.
const noEtcd = "none"

// newLeaderKeys says how the leader keys are watched; nil for not at all. declared tells whether there is an inventory, which
// may say so itself.
func newLeaderKeys(e daemon.Etcd, declared bool) (*daemon.LeaderKeys, error) {
	detailed := e.CAFile+e.CertFile+e.KeyFile+e.User+e.PasswordFile+e.Namespace+e.HoldPrefix != ""
	off := slices.Contains(e.Endpoints, noEtcd)
	switch {
	case off && len(e.Endpoints) > 1:
		return nil, command.Input(errors.New("--etcd: addresses, or none"))
	case off && detailed:
		return nil, command.Input(errors.New("flags that begin with --etcd- say how etcd is read, --etcd none that it isn't"))
	case off:
		return nil, nil
	case len(e.Endpoints) > 0 || declared:
	case detailed:
		return nil, command.Input(errors.New("flags that begin with --etcd- go with --etcd ADDRESS"))
	default:
		return nil, nil
	}
	keys, err := daemon.NewLeaderKeys(e)
	if err != nil {
		return nil, command.Input(fmt.Errorf("--etcd: %w", err))
	}
	return keys, nil
}
