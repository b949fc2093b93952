package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/access/dns"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/daemon"
)

// dnsPort is where resolvers ask unless they are given another (RFC 1035, section 4.2).
const dnsPort = "53"

// dnsFlags say where the clusters' names are served.
type dnsFlags struct {
	address, hosts string
	ttl            time.Duration
}

func (f *dnsFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.address, "dns", "", "answer questions for the names of all clusters, at what --bind says unless it is --dns=`ADDRESS[:PORT]` (port "+dnsPort+" unless given)")
	c.Flags().Lookup("dns").NoOptDefVal = "*"
	c.Flags().DurationVar(&f.ttl, "dns-ttl", dns.DefaultTTL, "how long answers may be kept, as `TIME` in whole seconds")
	c.Flags().StringVar(&f.hosts, "dnsmasq-dir", "", "keep a dnsmasq's names up to date in its hostsdir `DIR`, as render writes them, on switchovers too")
}

// noArgs refuses arguments. Behind --dns one is an address that was meant for it: a flag that may be alone takes its value
// only with an equals sign.
func (f *dnsFlags) noArgs(c *cobra.Command, args []string) error {
	if len(args) == 1 && c.Flags().Changed("dns") && f.address == c.Flags().Lookup("dns").NoOptDefVal {
		return command.Input(fmt.Errorf("--dns=%s, if that is where names are to be served: with an equals sign", args[0]))
	}
	return cobra.NoArgs(c, args)
}

// settle opens what the flags ask for; nil if no names are to be served.
func (f *dnsFlags) settle(ctx context.Context, c *cobra.Command, bind netip.Addr, inherited *daemon.Inherited, log *slog.Logger) (*daemon.Names, error) {
	given := c.Flags().Changed
	switch {
	case given("dns-ttl") && !given("dns"):
		return nil, command.Input(errors.New("--dns-ttl is for answers: it goes with --dns"))
	case f.ttl < time.Second || f.ttl > 24*time.Hour || f.ttl%time.Second != 0:
		return nil, command.Input(fmt.Errorf("--dns-ttl %s: whole seconds, from 1s to 24h", f.ttl))
	case given("dnsmasq-dir") && f.hosts == "":
		return nil, command.Input(errors.New("--dnsmasq-dir: which directory"))
	case !given("dns") && f.hosts == "":
		return nil, nil
	}
	cfg := dns.Config{TTL: f.ttl, HostsDir: f.hosts, Logger: log}
	if given("dns") {
		var err error
		if cfg.Address, err = listenAddress("dns", f.address, dnsPort, bind); err != nil {
			return nil, err
		}
		if host, _, _ := net.SplitHostPort(cfg.Address); host != "" {
			if _, err := netip.ParseAddr(host); err != nil {
				return nil, command.Input(fmt.Errorf("--dns %q: an IP address, with a port if it isn't %s", f.address, dnsPort))
			}
		}
	}
	return daemon.NewNames(ctx, cfg, inherited)
}
