package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/cli/nodes"
)

// filterFlags choose sessions.
type filterFlags struct {
	nodes   nodesFlags
	service string
	member  string
	client  string
	id      uint64
	idle    time.Duration
	output  string
}

func (f *filterFlags) add(c *cobra.Command) {
	f.nodes.add(c)
	c.Flags().StringVar(&f.client, "client", "", "those of clients at this `ADDRESS` or in this network (CIDR)")
	c.Flags().StringVar(&f.service, "service", "", "those of this service, by its full `NAME`")
	c.RegisterFlagCompletionFunc("service", f.nodes.completeServices)
	c.Flags().StringVar(&f.member, "member", "", "those with this `MEMBER`")
	c.RegisterFlagCompletionFunc("member", func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return f.nodes.known(c, membersOf)
	})
	c.Flags().DurationVar(&f.idle, "idle", 0, "those that have moved nothing for this `TIME`")
	c.Flags().Uint64Var(&f.id, "id", 0, "the session with this `NUMBER`, of one node")
	command.OutputFlag(c, &f.output, "table", "json")
}

// membersOf are the members that are servers of a service.
func membersOf(_ string, s api.Service) []string {
	var names []string
	for _, server := range s.Servers {
		names = append(names, server.Member)
	}
	return names
}

// filter is what the flags choose.
func (f *filterFlags) filter() (api.SessionFilter, error) {
	if err := command.OneOf("output", f.output, "table", "json"); err != nil {
		return api.SessionFilter{}, err
	}
	if f.client != "" {
		if _, err := netip.ParseAddr(f.client); err != nil {
			if _, err := netip.ParsePrefix(f.client); err != nil {
				return api.SessionFilter{}, command.Input(fmt.Errorf("--client %q: an address or a network, such as 10.10.10.0/24", f.client))
			}
		}
	}
	if f.idle < 0 {
		return api.SessionFilter{}, command.Input(fmt.Errorf("--idle %s: 0 or more", f.idle))
	}
	return api.SessionFilter{Cluster: f.nodes.cluster, Service: f.service, Member: f.member, Client: f.client, ID: f.id, Idle: api.Seconds(f.idle.Seconds())}, nil
}

func newSessionsCommand() *cobra.Command {
	var f filterFlags
	var limit int
	c := &cobra.Command{
		Use:   "sessions",
		Short: "List the sessions that are open: client, service, member, since when",
		Long: `Lists the sessions that are open, the oldest first, or those that the flags choose: whose client is where, which service it came
to and which member it was led to, since when and how many bytes went each way. PID and query of its backend: pgporter who.` + aboutNodes,
		Example: `  pgporter sessions
  pgporter sessions --member pg-test-2 --idle 1h
  pgporter sessions --client 10.10.10.0/24 --service pg-test-primary -o json
  pgporter sessions --inventory pigsty.yml --cluster pg-test`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			filter, err := f.filter()
			if err != nil {
				return err
			}
			if filter.Limit = limit; limit < 1 || limit > 10000 {
				return command.Input(fmt.Errorf("--limit %d: 1 to 10000", limit))
			}
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			all, err := f.nodes.find(ctx, c)
			if err != nil {
				return err
			}
			answers := ask(ctx, c, all, f.nodes.local.timeout, func(ctx context.Context, n *nodes.Node) (api.Sessions, error) { return n.Sessions(ctx, filter) })
			if f.output == "json" {
				err = printJSON(c.OutOrStdout(), nodeSessions(answers))
			} else {
				err = printSessions(c.OutOrStdout(), answers)
			}
			return errors.Join(err, ended(answers))
		},
	}
	f.add(c)
	c.Flags().IntVar(&limit, "limit", 1000, "show at most this `NUMBER` of each node, the oldest")
	return c
}

// toldSessions are a node's sessions as they are printed.
type toldSessions struct {
	Node     string        `json:"node"`
	Sessions []api.Session `json:"sessions"`
	More     int           `json:"more,omitempty"`
	Error    string        `json:"error,omitempty"`
}

func nodeSessions(answers []nodes.Answer[api.Sessions]) []toldSessions {
	var told []toldSessions
	for _, a := range answers {
		one := toldSessions{Node: a.Node, Sessions: a.Said.Sessions, More: a.Said.More}
		if a.Err != nil {
			one.Error = nodeFailure(a.Err)
		}
		told = append(told, one)
	}
	return told
}

func printSessions(w io.Writer, answers []nodes.Answer[api.Sessions]) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	heading := "NODE\tID\tCLIENT\tSERVICE\tMEMBER\tFOR\tTO SERVER\tTO CLIENT"
	for _, a := range answers {
		now := a.Said.Now
		for _, s := range a.Said.Sessions {
			if heading != "" {
				fmt.Fprintln(table, heading)
				heading = ""
			}
			lasts := "-"
			if !now.IsZero() && !s.Began.IsZero() {
				lasts = command.Age(now.Sub(s.Began))
			}
			fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", a.Node, s.ID, s.Client, s.Service, s.Member, lasts, command.Bytes(float64(s.ToServer)), command.Bytes(float64(s.ToClient)))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, a := range answers {
		switch {
		case a.Err != nil:
		case a.Said.More > 0:
			fmt.Fprintf(w, "%s has %d more\n", a.Node, a.Said.More)
		case len(a.Said.Sessions) == 0:
			fmt.Fprintf(w, "%s has none\n", a.Node)
		}
	}
	return nil
}

func newKillSessionsCommand() *cobra.Command {
	var f filterFlags
	var yes, everything, dryRun bool
	c := &cobra.Command{
		Use:   "kill-sessions {--client NET | --service NAME | --member MEMBER | --idle TIME | --id NUMBER | --all}",
		Short: "End sessions that are open",
		Long: `Ends the sessions that the flags choose: pgporter closes both connections, the client's and the server's, at once. What a
transaction had not committed is lost. It first counts them and asks, on a terminal; elsewhere --yes says that it is meant. All
sessions of a node are ended with --all alone. It keeps nobody from coming again: pgporter drain does.` + aboutNodes,
		Example: `  pgporter kill-sessions --member pg-test-2 --dry-run
  pgporter kill-sessions --member pg-test-2 --idle 10m
  pgporter kill-sessions --client 10.10.10.31 --yes --inventory pigsty.yml --cluster pg-test`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			filter, err := f.filter()
			switch {
			case err != nil:
				return err
			case filter == (api.SessionFilter{}) && !everything:
				return command.Input(errors.New("which sessions: --client, --service, --member, --idle, --id, or --all for every session of the node"))
			case filter != (api.SessionFilter{}) && everything:
				return command.Input(errors.New("--all is for every session of the node: it doesn't go with what chooses some"))
			case filter.ID != 0 && (len(f.nodes.named) > 1 || f.nodes.inventory != ""):
				return command.Input(errors.New("--id is a session of one node: say which with --node"))
			}
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			all, err := f.nodes.find(ctx, c)
			if err != nil {
				return err
			}
			end := func(dryRun bool) []nodes.Answer[api.SessionsEnded] {
				return ask(ctx, c, all, f.nodes.local.timeout, func(ctx context.Context, n *nodes.Node) (api.SessionsEnded, error) {
					return n.EndSessions(ctx, api.EndSessions{Filter: filter, All: everything, DryRun: dryRun})
				})
			}
			print := func(answers []nodes.Answer[api.SessionsEnded], word string) error {
				if f.output == "json" {
					return printJSON(c.OutOrStdout(), nodeEnded(answers, dryRun))
				}
				for _, a := range answers {
					if a.Err == nil {
						fmt.Fprintf(c.OutOrStdout(), "%s: %s %s\n", a.Node, command.Plural(a.Said.Ended, "session"), word)
					}
				}
				return nil
			}
			if dryRun {
				answers := end(true)
				return errors.Join(print(answers, "would be ended"), ended(answers))
			}
			if !yes {
				if !isTerminal(c.InOrStdin()) {
					return command.Input(errors.New("nobody can be asked here whether it is meant: --yes says so, --dry-run shows how many there are"))
				}
				counted := end(true)
				// Those that can't be counted can't be ended, either.
				if err := nodes.Failed(counted); err != nil && len(counted) == 1 {
					return command.Status(command.ExitFailed)
				}
				if ok, err := confirmed(c, counted); err != nil || !ok {
					return err
				}
			}
			answers := end(false)
			return errors.Join(print(answers, "ended"), ended(answers))
		},
	}
	f.add(c)
	c.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	c.Flags().BoolVar(&everything, "all", false, "every session of the node")
	c.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "show how many there are, and end none")
	return c
}

// toldEnded is how many sessions a node has ended, as it is printed.
type toldEnded struct {
	Node   string `json:"node"`
	Ended  int    `json:"ended"`
	DryRun bool   `json:"dry_run,omitempty"`
	Error  string `json:"error,omitempty"`
}

func nodeEnded(answers []nodes.Answer[api.SessionsEnded], dryRun bool) []toldEnded {
	var told []toldEnded
	for _, a := range answers {
		one := toldEnded{Node: a.Node, Ended: a.Said.Ended, DryRun: dryRun}
		if a.Err != nil {
			one.Error = nodeFailure(a.Err)
		}
		told = append(told, one)
	}
	return told
}

func isTerminal(r io.Reader) bool {
	file, is := r.(interface{ Fd() uintptr })
	return is && term.IsTerminal(int(file.Fd()))
}

// confirmed asks whether so many sessions are to be ended.
func confirmed(c *cobra.Command, counted []nodes.Answer[api.SessionsEnded]) (bool, error) {
	total := 0
	var parts []string
	for _, a := range counted {
		if a.Err == nil && a.Said.Ended > 0 {
			total += a.Said.Ended
			parts = append(parts, fmt.Sprintf("%d on %s", a.Said.Ended, a.Node))
		}
	}
	if total == 0 {
		fmt.Fprintln(c.OutOrStdout(), "there is no such session")
		return false, nil
	}
	fmt.Fprintf(c.ErrOrStderr(), "End %s (%s)? [y/N] ", command.Plural(total, "session"), strings.Join(parts, ", "))
	line, err := bufio.NewReader(c.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	return false, errors.New("none was ended")
}
