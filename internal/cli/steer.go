package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/cli/nodes"
)

// orderFlags are those of commands that order something of servers.
type orderFlags struct {
	nodes   nodesFlags
	service string
	dryRun  bool
	output  string
	wait    time.Duration
}

const untilRestart = `

It holds until another order: across reloads and upgrades, not across a restart. --dry-run shows what would become of each server.`

func newDrainCommand() *cobra.Command {
	return newStateCommand(api.Drain, &cobra.Command{
		Use:   "drain {MEMBER | --service NAME}",
		Short: "Have a server take no new clients; its sessions go on",
		Long: `Has a member take no new clients, behind all its services or behind one (--service); with --service alone, all servers of
that. Sessions go on until their clients end them: --wait waits for that, pgporter kill-sessions doesn't. Whoever comes
meanwhile is led to the others; where there are none, he waits as while all are down.` + untilRestart + aboutNodes,
		Example: `  pgporter drain pg-test-2 --dry-run
  pgporter drain pg-test-2 --wait 5m
  pgporter drain pg-test-2 --service pg-test-replica
  pgporter drain pg-test-2 --inventory pigsty.yml --cluster pg-test --token-file control.token --ca control.crt`,
	})
}

func newMaintCommand() *cobra.Command {
	return newStateCommand(api.Maintenance, &cobra.Command{
		Use:   "maint {MEMBER | --service NAME}",
		Short: "Have a server take no clients; its sessions end where its options say so",
		Long: `Has a member take no clients, behind all its services or behind one (--service). Its sessions end where the service's options
say on-marked-down shutdown-sessions, as those of the default services do, and go on elsewhere; pgporter drain keeps them all.` + untilRestart + aboutNodes,
		Example: `  pgporter maint pg-test-2 --dry-run
  pgporter maint pg-test-2 --node 10.10.10.11,10.10.10.12 --token-file control.token --ca control.crt`,
	})
}

func newReadyCommand() *cobra.Command {
	return newStateCommand(api.Ready, &cobra.Command{
		Use:   "ready {MEMBER | --service NAME}",
		Short: "Have a server take clients again",
		Long:  `Takes back pgporter drain and pgporter maint: the server takes clients as soon as its checks say that it can.` + aboutNodes,
		Example: `  pgporter ready pg-test-2
  pgporter ready --service pg-test-replica
  pgporter ready pg-test-2 --inventory pigsty.yml --cluster pg-test`,
	})
}

func newWeightCommand() *cobra.Command {
	var f orderFlags
	c := &cobra.Command{
		Use:   "weight MEMBER {WEIGHT | declared}",
		Short: "Give a server another share of the clients",
		Long: `Has a weight from 0 to 256 count for a member, behind all its services or behind one (--service), in place of the one that is
declared; with 0 it takes no new clients. declared goes back to that.` + untilRestart + aboutNodes,
		Example: `  pgporter weight pg-test-2 50
  pgporter weight pg-test-2 declared
  pgporter weight pg-test-2 10 --service pg-test-replica --dry-run`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			o := api.Order{Member: args[0]}
			if args[1] == "declared" {
				o.DeclaredWeight = true
			} else {
				weight, err := strconv.Atoi(args[1])
				if err != nil || weight < 0 || weight > 256 {
					return command.Input(fmt.Errorf("weight %q: 0 to 256, or declared", args[1]))
				}
				o.Weight = &weight
			}
			return f.order(c, o)
		},
	}
	f.add(c)
	c.ValidArgsFunction = f.complete
	return c
}

// newStateCommand is a command that has servers be in a state.
func newStateCommand(state api.ServerState, c *cobra.Command) *cobra.Command {
	var f orderFlags
	c.Args = cobra.MaximumNArgs(1)
	c.RunE = func(c *cobra.Command, args []string) error {
		o := api.Order{State: state}
		if len(args) > 0 {
			o.Member = args[0]
		}
		return f.order(c, o)
	}
	f.add(c)
	if state != api.Ready {
		c.Flags().DurationVar(&f.wait, "wait", 0, "wait up to a `TIME` until the sessions of the servers have ended")
	}
	c.ValidArgsFunction = f.complete
	return c
}

func (f *orderFlags) add(c *cobra.Command) {
	f.nodes.add(c)
	c.Flags().StringVar(&f.service, "service", "", "only behind this service, by its full `NAME`")
	c.RegisterFlagCompletionFunc("service", f.nodes.completeServices)
	c.Flags().BoolVarP(&f.dryRun, "dry-run", "n", false, "show what would become of each server, and change nothing")
	command.OutputFlag(c, &f.output, "table", "json")
}

func (f *orderFlags) complete(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch {
	case len(args) == 0:
		return f.nodes.known(c, membersOf)
	case c.Name() == "weight" && len(args) == 1:
		return []string{"declared"}, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func (f *nodesFlags) completeServices(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return f.known(c, func(_ string, s api.Service) []string { return []string{s.FullName} })
}

// completing bounds how long whoever presses the tabulator waits.
const completing = 2 * time.Second

// known are words of the services that the first node which answers has.
func (f *nodesFlags) known(c *cobra.Command, words func(cluster string, s api.Service) []string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completing)
	defer cancel()
	all, err := f.find(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	status, err := all[0].Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []string
	for _, one := range withTCPServices(status) {
		if f.cluster != "" && one.Name != f.cluster {
			continue
		}
		for _, s := range one.Services {
			found = append(found, words(one.Name, s)...)
		}
	}
	slices.Sort(found)
	return slices.Compact(found), cobra.ShellCompDirectiveNoFileComp
}

// ordered is a node's answer to an order, as it is printed.
type ordered struct {
	Node    string            `json:"node"`
	Results []api.OrderResult `json:"results,omitempty"`
	Error   string            `json:"error,omitempty"`
}

// order sends an order to all nodes and prints what became of it.
func (f *orderFlags) order(c *cobra.Command, o api.Order) error {
	if err := command.OneOf("output", f.output, "table", "json"); err != nil {
		return err
	}
	o.Cluster, o.Service, o.DryRun = f.nodes.cluster, f.service, f.dryRun
	switch {
	case o.Member == "" && o.Service == "":
		return command.Input(errors.New("which server: MEMBER, or --service for all servers of one"))
	case f.wait < 0:
		return command.Input(fmt.Errorf("--wait %s: more than 0", f.wait))
	case f.wait > 0 && f.dryRun:
		return command.Input(errors.New("--wait and --dry-run: one of them"))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	all, err := f.nodes.find(ctx, c)
	if err != nil {
		return err
	}
	answers := ask(ctx, c, all, f.nodes.local.timeout, func(ctx context.Context, n *nodes.Node) ([]api.OrderResult, error) { return n.Order(ctx, o) })
	var told []ordered
	for _, a := range answers {
		one := ordered{Node: a.Node, Results: a.Said}
		if a.Err != nil {
			one.Error = nodeFailure(a.Err)
		}
		told = append(told, one)
	}
	if f.output == "json" {
		if err := printJSON(c.OutOrStdout(), told); err != nil {
			return err
		}
	} else if err := printOrdered(c.OutOrStdout(), told); err != nil {
		return err
	}
	err = ended(answers)
	if f.wait > 0 {
		err = errors.Join(err, f.drained(ctx, c, all, answers))
	}
	return err
}

// printOrdered prints what became of servers as a table.
func printOrdered(w io.Writer, told []ordered) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows := 0
	for _, one := range told {
		for _, r := range one.Results {
			if rows == 0 {
				fmt.Fprintln(table, "NODE\tSERVICE\tSERVER\tSTATE\tSESSIONS\tEFFECT")
			}
			rows++
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", one.Node, r.Service, r.Member, orderedState(r.Now), r.Sessions, r.Effect)
		}
	}
	return table.Flush()
}

// orderedState is what was ordered, in a word or two.
func orderedState(o api.Ordered) string {
	text := string(o.State)
	if text == "" {
		text = string(api.Ready)
	}
	if o.Weight != nil {
		text += fmt.Sprintf(", weight %d", *o.Weight)
	}
	return text
}

// drained waits until the servers that took an order have no sessions on any node, and tells how many are left whenever that changes.
func (f *orderFlags) drained(ctx context.Context, c *cobra.Command, all []*nodes.Node, answers []nodes.Answer[[]api.OrderResult]) error {
	servers := map[string]bool{}
	var waiting []*nodes.Node
	for i, a := range answers {
		if a.Err != nil {
			continue
		}
		waiting = append(waiting, all[i])
		for _, r := range a.Said {
			servers[r.Service+"\x00"+r.Member] = true
		}
	}
	if len(waiting) == 0 {
		return nil
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, f.wait)
	defer cancel()
	left := func(ctx context.Context, n *nodes.Node) (int, error) {
		status, err := n.Status(ctx)
		if err != nil {
			return 0, err
		}
		sessions := 0
		for _, one := range withTCPServices(status) {
			for _, s := range one.Services {
				for _, server := range s.Servers {
					if servers[s.FullName+"\x00"+server.Member] {
						sessions += server.Sessions
					}
				}
			}
		}
		return sessions, nil
	}
	last := "sessions may be left"
	for {
		total, silent := 0, []string(nil)
		var parts []string
		for _, a := range nodes.Ask(ctx, waiting, f.nodes.local.timeout, left, nil) {
			if a.Err != nil {
				silent = append(silent, a.Node)
				continue
			}
			if total += a.Said; a.Said > 0 {
				parts = append(parts, fmt.Sprintf("%d on %s", a.Said, a.Node))
			}
		}
		if total == 0 && len(silent) == 0 {
			fmt.Fprintf(c.OutOrStdout(), "no session is left (after %s)\n", command.Age(time.Since(began)))
			return nil
		}
		if ctx.Err() == nil {
			now := fmt.Sprintf("%s left: %s", command.Plural(total, "session"), strings.Join(parts, ", "))
			if total == 0 {
				now = "no session is left elsewhere"
			}
			if len(silent) > 0 {
				now += "; no answer from " + strings.Join(silent, ", ")
			}
			if now != last {
				last = now
				fmt.Fprintln(c.ErrOrStderr(), now)
			}
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return errors.New("interrupted; the order holds")
			}
			return fmt.Errorf("after %s: %s; the order holds, pgporter kill-sessions ends them", f.wait, last)
		case <-time.After(time.Second):
		}
	}
}
