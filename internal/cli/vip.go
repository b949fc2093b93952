package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/access/vip"
	"github.com/pgporter/pgporter/internal/access/vip/owner"
	"github.com/pgporter/pgporter/internal/cli/command"
)

// vipFlags say whether virtual addresses are kept, and how they are announced.
type vipFlags struct {
	keep   bool
	repeat int
}

func (f *vipFlags) add(c *cobra.Command) {
	c.Flags().BoolVar(&f.keep, "vip", false, "keep the cluster's virtual address while this node's member leads, instead of vip-manager")
	c.Flags().IntVar(&f.repeat, "vip-announce", owner.DefaultRepeat, "how often, `N` times, the address is announced when it came here, and again 5 s later")
}

// config is what the daemon is given; nil without --vip.
func (f *vipFlags) config(c *cobra.Command, discovered bool) (*vip.Config, error) {
	switch {
	case !f.keep && c.Flags().Changed("vip-announce"):
		return nil, command.Input(errors.New("--vip-announce goes with --vip"))
	case !f.keep:
		return nil, nil
	case discovered:
		return nil, command.Input(errors.New("--vip keeps what an inventory declares (pg_vip_enabled): it goes with --inventory or --plan"))
	case f.repeat < 1 || f.repeat > 100:
		return nil, command.Input(fmt.Errorf("--vip-announce %d: 1 to 100", f.repeat))
	}
	return &vip.Config{Repeat: f.repeat}, nil
}
