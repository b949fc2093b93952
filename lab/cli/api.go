package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/lab/sandbox"
	"github.com/pgporter/pgporter/lab/sandbox/restproxy"
)

func sandboxAPI(dir *string) *cobra.Command {
	var delay time.Duration
	var faults []string
	for _, f := range restproxy.Faults() {
		faults = append(faults, string(f))
	}
	c := &cobra.Command{
		Use:   "api [FAULT MEMBER...]",
		Short: "Have Patroni's REST API hang, lie or be late, and see who asks it how often",
		Long: `Has the proxy before a member's REST API behave as FAULT says, for pgporter and HAProxy alike; Patroni itself goes on as before, and
so do the Patronis among each other. It is for a sandbox that was started with --rest-proxy. FAULT is one of
  pass         none
  hang         questions are taken and never answered, those under way neither
  late         answers are held until --delay after the question
  refuse       nobody listens
  500, 502     pages of HTML
  half-header  the answer breaks off in its header
  reset        questions are taken and the connection is reset
Without arguments it shows what each API does and who has asked how much: in all, and at most within one second and five.`,
		Example: `  pgporter-lab up --rest-proxy --detach
  pgporter-lab api hang 1
  pgporter-lab api late 2 3 --delay 3s
  pgporter-lab api pass 1 2 3
  pgporter-lab api`,
		RunE: func(c *cobra.Command, args []string) error {
			s, ctx, stop, err := openSandbox(c, *dir)
			if err != nil {
				return err
			}
			defer stop()
			switch len(args) {
			case 0:
				return showAPIs(ctx, c.OutOrStdout(), s)
			case 1:
				return command.Input(fmt.Errorf("whose API? pgporter-lab api FAULT MEMBER..., FAULT one of %s", strings.Join(faults, ", ")))
			}
			for _, member := range args[1:] {
				if err := s.API(ctx, member, restproxy.Order{Fault: restproxy.Fault(args[0]), Delay: delay}); err != nil {
					return input(err)
				}
			}
			return nil
		},
	}
	c.Flags().DurationVar(&delay, "delay", 0, "how long after its question an answer is given, as `TIME`")
	return c
}

// showAPIs tells what each member's API does and who asks it.
func showAPIs(ctx context.Context, w io.Writer, s *sandbox.Sandbox) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "MEMBER\tAPI\tASKED BY\tREQUESTS\tIN 1S\tIN 5S\tUNDER WAY")
	for _, m := range s.Declared() {
		order, err := s.APIOrder(ctx, m.Name)
		if err != nil {
			return input(err)
		}
		all, err := s.APIRequests(ctx, m.Name, time.Time{})
		if err != nil {
			return err
		}
		by := restproxy.ByAsker(all)
		if len(by) == 0 {
			fmt.Fprintf(out, "%s\t%s\n", m.Name, order)
		}
		for _, from := range slices.SortedFunc(maps.Keys(by), netip.Addr.Compare) {
			asked := by[from]
			fmt.Fprintf(out, "%s\t%s\t%s\t%d\t%d\t%d\t%d\n", m.Name, order, from, len(asked), restproxy.Most(asked, time.Second),
				restproxy.Most(asked, 5*time.Second), restproxy.UnderWay(asked, time.Now()))
		}
	}
	return out.Flush()
}

// newRestProxyCommand is the proxy that a sandbox starts before each Patroni.
func newRestProxyCommand() *cobra.Command {
	return &cobra.Command{
		Use:    sandbox.RestProxyCommand,
		Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) != 3 {
				return command.Input(errors.New("LISTEN PATRONI CONTROL"))
			}
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return restproxy.Run(ctx, args[0], args[1], args[2])
		},
	}
}
