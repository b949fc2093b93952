package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/intake"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/daemon"
)

// planFlags are what `pgporter plan` takes.
type planFlags struct {
	inventory, node, out, engine string
	names                        bool
}

func newPlanCommand() *cobra.Command {
	var f planFlags
	c := &cobra.Command{
		Use:   "plan {FILE | --inventory FILE} {--node HOST [--out FILE] | --out DIR}",
		Short: "Write what a node runs from, without the inventory's secrets",
		Long: `Makes a node's plan of an inventory: all that pgporter run needs to know there, and no password. The inventory stays where it
is administered; the node gets the plan and runs from it (pgporter run --plan). Without --node every node that carries a
service gets a file in a directory, NODE.json.

What check or run refuses of the inventory is refused, with all problems, and nothing is written then. Passwords aren't
read, so they may stay encrypted; a plan names the files of the node in which it looks for them.

A plan has a checksum (sha256) of what it says. The same inventory gives the same one, whenever it is made; a file that says the
same already is left alone. To change a plan by hand take its line with sha256 out: without one it is run with a warning.`,
		Example: `  pgporter plan pigsty.yml --node 10.10.10.11                           # to standard output
  pgporter plan pigsty.yml --node 10.10.10.11 --out plan.json
  pgporter plan pigsty.yml --out plans                                  # plans/10.10.10.11.json and so on
  pgporter plan pigsty.yml --out plans --engine haproxy --names         # for nodes with HAProxy that tell names`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := inventoryArgument(&f.inventory, args); err != nil {
				return err
			}
			if f.node == "" && f.out == "" {
				return command.Input(errors.New("which node: --node HOST; or all of them: --out DIR"))
			}
			if err := command.OneOf("engine", f.engine, engineNative, engineHAProxy); err != nil {
				return err
			}
			return f.run(c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	inventoryFlag(c, &f.inventory)
	c.Flags().StringVar(&f.node, "node", "", "the plan of this `HOST` of the inventory (default: of all that carry services, each in a file)")
	c.Flags().StringVarP(&f.out, "out", "d", "", "the `FILE` to write to, or without --node the DIR, which is made if it isn't there (default: standard output)")
	engineFlag(c, &f.engine)
	c.Flags().BoolVar(&f.names, "names", false, "with the names of all clusters, for nodes that run with --dns or --dnsmasq-dir")
	return c
}

func (f planFlags) run(stdin io.Reader, stdout, stderr io.Writer) error {
	inv, problems := soundInventory(f.inventory, stdin, f.engine)
	if problems.Err() != nil {
		return problems
	}
	nodes, found := f.plans(inv)
	problems = append(problems, found...)
	if err := problems.Err(); err != nil {
		return err
	}
	made := intake.Made{By: command.Version, At: time.Now().UTC().Truncate(time.Second), From: fromInput}
	if f.inventory != standardInput {
		made.From = intake.Printable(filepath.Base(f.inventory))
	}
	files := make([]intake.File, len(nodes))
	texts := make([][]byte, len(nodes))
	for i, n := range nodes {
		var err error
		files[i] = intake.File{Made: made, Node: n}
		if texts[i], err = files[i].Encode(); err != nil {
			return err
		}
	}
	for _, w := range problems.Warnings() {
		fmt.Fprintln(stderr, w)
	}
	switch {
	case f.out == "":
		_, err := stdout.Write(texts[0])
		return err
	case f.node == "":
		if err := os.MkdirAll(f.out, 0o750); err != nil {
			return err
		}
	}
	out := safetext.Writer(stdout)
	for _, file := range files {
		path := f.out
		if f.node == "" {
			path = filepath.Join(f.out, file.Plan.Node+".json")
		}
		what, err := writePlan(path, file)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		fmt.Fprintf(out, "%s: %s\n", path, what)
	}
	return nil
}

// plans are those of the nodes that are asked for.
func (f planFlags) plans(inv *inventory.Inventory) ([]model.Node, diag.Problems) {
	needs := plan.Needs{HAProxy: f.engine == engineHAProxy, Names: f.names, Etcd: true}
	if f.node == "" {
		nodes, problems := plan.AllForRun(inv, needs)
		if len(nodes) == 0 && problems.Err() == nil {
			problems.Errorf(diag.NodeWithoutServices, diag.Position{File: inv.File}, "hosts with pg_cluster, pg_seq and pg_role, or haproxy_services", "no host carries a service: there is nothing to plan")
		}
		return nodes, problems
	}
	n, problems := plan.ForRun(inv, f.node, needs)
	return []model.Node{n}, problems.Sorted()
}

// writePlan writes a file unless it is there and says the same, and tells what it has done.
func writePlan(path string, file intake.File) (string, error) {
	services := len(file.Plan.TCPServices)
	for _, c := range file.Plan.Clusters {
		services += len(c.Definitions)
	}
	what := command.Plural(services, "service")
	sum, err := intake.Digest(file.Node)
	if err != nil {
		return "", err
	}
	if old, problems := daemon.ReadPlan(path); problems.Err() == nil && old.SHA256 == sum && old.Made.By == file.Made.By && old.Accepted == nil {
		return what + ", as it was", nil
	}
	return what, daemon.WritePlan(path, file)
}
