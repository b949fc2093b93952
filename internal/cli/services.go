package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/config/resolve"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/config/tcpservice"
)

// declared is what `pgporter services` prints: a Plan whose services name the servers that the declared roles give.
type declared struct {
	Node     string            `json:"node,omitempty"`
	Clusters []declaredCluster `json:"clusters"`
	// TCPServices are a node's services that belong to no cluster.
	TCPServices []model.TCPService `json:"generic_services,omitempty"`
}

type declaredCluster struct {
	Name     string          `json:"name"`
	Members  []model.Member  `json:"members"`
	Services []model.Service `json:"services"`
}

func newServicesCommand() *cobra.Command {
	var path, node, output, engine string
	c := &cobra.Command{
		Use:   "services {FILE | --inventory FILE}",
		Short: "List the services that an inventory declares",
		Long: `Lists every service with its port, check, destination, servers and backups, as the declared roles give them. What the
members are at this moment is told by pgporter status. With --node a node's haproxy_services are in the list, too.`,
		Example: `  pgporter services pigsty.yml
  pgporter services pigsty.yml --node 10.10.10.11               # as this node sees them
  pgporter services pigsty.yml --node pg-test-1                 # the same, by its instance's name
  pgporter services pigsty.yml -o json | jq '.clusters[].services[].full_name'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := inventoryArgument(&path, args); err != nil {
				return err
			}
			if err := command.OneOf("output", output, "table", "json", "yaml"); err != nil {
				return err
			}
			if err := command.OneOf("engine", engine, engineNative, engineHAProxy); err != nil {
				return err
			}
			d, problems := readDeclared(path, node, engine, c.InOrStdin())
			if err := problems.Err(); err != nil {
				return err
			}
			for _, p := range problems.Warnings() {
				fmt.Fprintln(c.ErrOrStderr(), p)
			}
			return d.print(safetext.Writer(c.OutOrStdout()), output)
		},
	}
	inventoryFlag(c, &path)
	c.Flags().StringVar(&node, "node", "", "show what this `NODE`, a host of the inventory or an instance, serves (default: every cluster as its primary sees it)")
	command.OutputFlag(c, &output, "table", "json", "yaml")
	engineFlag(c, &engine)
	return c
}

func readDeclared(path, node, engine string, stdin io.Reader) (declared, diag.Problems) {
	inv, problems := soundInventory(path, stdin, engine)
	if inv == nil || problems.Err() != nil {
		return declared{}, problems
	}
	var p model.Plan
	var found diag.Problems
	switch {
	case node != "":
		p, found = planners[engine](inv, node)
	case engine == engineHAProxy:
		p, found = plan.AllForHAProxy(inv)
	default:
		p, found = plan.All(inv)
	}
	problems = append(problems, found...)
	if problems.Err() != nil {
		return declared{}, problems
	}
	d := declared{Node: p.Node, Clusters: []declaredCluster{}, TCPServices: p.TCPServices}
	for _, cluster := range p.Clusters {
		set, err := resolve.Set(cluster, nil)
		if err != nil {
			problems.Errorf(diag.NotRenderable, diag.Position{File: path}, "", "cluster %q: %v", cluster.Name, err)
			continue
		}
		d.Clusters = append(d.Clusters, declaredCluster{cluster.Name, cluster.Members, set.Services})
	}
	return d, problems
}

func (d declared) print(w io.Writer, format string) error {
	switch format {
	case "json":
		return printJSON(w, d)
	case "yaml":
		return printYAML(w, d)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SERVICE\tLISTEN\tCHECK\tDESTINATION\tSERVERS\tBACKUPS")
	for _, cluster := range d.Clusters {
		for _, s := range cluster.Services {
			servers, backups := serversOf(s)
			fmt.Fprintf(table, "%s\t%s:%d\t%s\t%s\t%s\t%s\n", s.FullName, s.IP, s.Port, s.Check, destination(s), orDash(servers), orDash(backups))
		}
	}
	for _, g := range d.TCPServices {
		// What HAProxy alone can do leaves the words as they would be without it.
		s, _ := tcpservice.Parse(g)
		servers, backups := serversOf(s.Service)
		port, checked := "-", "-"
		for i, server := range s.Servers {
			if port = fmt.Sprintf("port %d", server.Port); i > 0 && server.Port != s.Servers[0].Port {
				port = "-"
				break
			}
		}
		if slices.ContainsFunc(s.Checks, func(c *tcpservice.Check) bool { return c != nil }) {
			checked = s.Check
		}
		fmt.Fprintf(table, "%s\t%s:%d\t%s\t%s\t%s\t%s\n", g.Name, g.IP, g.Port, checked, port, orDash(servers), orDash(backups))
	}
	return table.Flush()
}

// serversOf gives the names of a service's servers, the regular ones and the backups.
func serversOf(s model.Service) (servers, backups []string) {
	for _, server := range s.Servers {
		if server.Backup {
			backups = append(backups, server.Member)
		} else {
			servers = append(servers, server.Member)
		}
	}
	return servers, backups
}

// destination is the destination's name with the port it means, if all servers agree on one.
func destination(s model.Service) string {
	port := 0
	for i, server := range s.Servers {
		if i > 0 && server.Port != port {
			return string(s.Dest.Kind)
		}
		port = server.Port
	}
	switch {
	case s.Dest.Kind == model.ToPort:
		return fmt.Sprintf("port %d", s.Dest.Port)
	case port == 0:
		return string(s.Dest.Kind)
	}
	return fmt.Sprintf("%s %d", s.Dest.Kind, port)
}

func orDash(words []string) string {
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, ",")
}

// printYAML prints a value's JSON as YAML, so that both have the same names in the same order.
func printYAML(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return err
	}
	block(&root)
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(&root); err != nil {
		return err
	}
	return encoder.Close()
}

// block drops JSON's braces and quotes from a tree; the encoder quotes again what needs it.
func block(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		block(child)
	}
}
