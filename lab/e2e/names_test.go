package e2e

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// resolving is a pgporter of the test's own that tells names: a node beside the cluster's.
type resolving struct{ resolver *net.Resolver }

// tellNames starts it.
func tellNames(t *testing.T, c *cluster) resolving {
	t.Helper()
	node := c.prefix + ".53"
	startPorter(t, node, "--inventory", c.Inventory(), "--node", c.member(1), "--dns=:5353")
	return resolving{&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(node, "5353"))
	}}}
}

// are waits until names resolve to exactly these addresses.
func (n resolving) are(t *testing.T, within time.Duration, names map[string][]string) {
	t.Helper()
	eventually(t, within, func(ctx context.Context) error {
		for name, want := range names {
			got, err := n.resolver.LookupHost(ctx, name+".")
			slices.Sort(got)
			if err != nil || !slices.Equal(got, want) {
				return fmt.Errorf("%s is %s (error %v), want %s", name, strings.Join(got, " "), err, strings.Join(want, " "))
			}
		}
		return nil
	})
}
