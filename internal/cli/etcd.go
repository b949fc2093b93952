package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/daemon"
)

// etcdFlags adds the flags that say where Patroni's leader keys are.
func etcdFlags(c *cobra.Command, e *daemon.Etcd) {
	c.Flags().StringSliceVar(&e.Endpoints, "etcd", nil, "watch Patroni's leader keys in the etcd at these `ADDRESSES`: HOST[:PORT], or with https:// before it")
	c.Flags().StringVar(&e.CAFile, "etcd-ca", "", "`FILE` with the authority that signed etcd's certificates (default: the system's)")
	c.Flags().StringVar(&e.CertFile, "etcd-cert", "", "`FILE` with the certificate to show to etcd")
	c.Flags().StringVar(&e.KeyFile, "etcd-key", "", "`FILE` with that certificate's key")
	c.Flags().StringVar(&e.User, "etcd-user", "", "`NAME` of the user in etcd")
	c.Flags().StringVar(&e.PasswordFile, "etcd-password-file", "", "`FILE` with the user's password in its first line")
	c.Flags().StringVar(&e.Namespace, "etcd-namespace", daemon.DefaultNamespace, "`PATH` below which Patroni keeps the clusters' keys")
}

// newLeaderKeys makes what watches the leader keys; nil without --etcd.
func newLeaderKeys(e daemon.Etcd) (*daemon.LeaderKeys, error) {
	if len(e.Endpoints) == 0 {
		if e.CAFile+e.CertFile+e.KeyFile+e.User+e.PasswordFile != "" || e.Namespace != daemon.DefaultNamespace {
			return nil, inputError{errors.New("flags that begin with --etcd- go with --etcd ADDRESS")}
		}
		return nil, nil
	}
	keys, err := daemon.NewLeaderKeys(e)
	if err != nil {
		return nil, inputError{fmt.Errorf("--etcd: %w", err)}
	}
	return keys, nil
}
