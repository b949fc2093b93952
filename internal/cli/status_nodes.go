package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/cli/nodes"
)

// toldStatus is a node's status as it is printed.
type toldStatus struct {
	Node   string      `json:"node"`
	Status *api.Status `json:"status,omitempty"`
	Error  string      `json:"error,omitempty"`
}

// statusOfNodes prints what several nodes say: what each is at, and what they have together.
func statusOfNodes(c *cobra.Command, f nodesFlags, cluster, output string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	all, err := f.find(ctx, c)
	if err != nil {
		return err
	}
	answers := ask(ctx, c, all, f.local.timeout, func(ctx context.Context, n *nodes.Node) (*api.Status, error) {
		status, err := n.Status(ctx)
		if err == nil && cluster != "" {
			err = only(status, cluster)
		}
		return status, err
	})
	var told []toldStatus
	var statuses []*api.Status
	for _, a := range answers {
		one := toldStatus{Node: a.Node, Status: a.Said}
		if a.Err != nil {
			one.Status, one.Error = nil, nodeFailure(a.Err)
		} else {
			statuses = append(statuses, a.Said)
		}
		told = append(told, one)
	}
	switch output {
	case "json":
		err = printJSON(c.OutOrStdout(), told)
	case "yaml":
		err = printYAML(c.OutOrStdout(), told)
	default:
		err = printStatusOfNodes(c.OutOrStdout(), told, nodes.Sum(statuses, cluster))
	}
	return errors.Join(err, ended(answers))
}

func printStatusOfNodes(w io.Writer, told []toldStatus, sum nodes.Overview) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tVERSION\tUP\tCONFIGURATION\tSESSIONS\tWAITING\tREMARK")
	for _, one := range told {
		s := one.Status
		if s == nil {
			fmt.Fprintf(table, "%s\t-\t-\t-\t-\t-\tno status\n", one.Node)
			continue
		}
		sessions, waiting := 0, 0
		for _, c := range withTCPServices(s) {
			for _, v := range c.Services {
				sessions, waiting = sessions+v.Sessions, waiting+v.Queued
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d of %s\t%d\t%d\t%s\n", one.Node, s.Version, command.Age(s.Now.Sub(s.Started)), s.Config.Generation, s.Config.Loaded.Local().Format("15:04:05"),
			sessions, waiting, remark(s))
	}
	if len(sum.Clusters) > 0 {
		fmt.Fprintln(table, "\nSERVICE\tSTATE\tSERVER\tROLE\tSTATE\tSESSIONS\tWHY")
	}
	for _, c := range sum.Clusters {
		for _, s := range c.Services {
			name, state := s.Name, s.State()
			if len(s.Servers) == 0 {
				fmt.Fprintf(table, "%s\t%s\t-\t-\t-\t%d\tno member is selected\n", name, state, s.Sessions)
			}
			for _, r := range s.Servers {
				member, role := r.Member, r.Role
				if r.Backup {
					member += " (backup)"
				}
				if role == "" {
					role = "-"
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", name, state, member, role, r.State(), r.Sessions, r.Reason)
				name, state = "", ""
			}
		}
	}
	return table.Flush()
}

// remark is what an operator should know of a node.
func remark(s *api.Status) string {
	var words []string
	if n := len(s.Stalled); n > 0 {
		words = append(words, command.Plural(n, "loop")+" stand still")
	}
	if s.Config.Refused != "" {
		words = append(words, "its last reload was refused")
	}
	if s.Shadow != nil {
		words = append(words, "a shadow")
	}
	for _, c := range s.Clusters {
		if c.Hold != nil {
			words = append(words, c.Name+" is held")
		}
	}
	for _, c := range s.Clusters {
		if c.LeaderKey != nil && c.LeaderKey.Lost != "" {
			words = append(words, "etcd is lost")
			break
		}
	}
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, ", ")
}
