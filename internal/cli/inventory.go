package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
)

// standardInput is what --inventory says for what is piped in, and fromInput what messages call that.
const (
	standardInput = "-"
	fromInput     = "standard input"
)

// inventoryFlag adds --inventory.
func inventoryFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "inventory", "i", "", "the inventory: a `FILE` or directory (YAML, Pigsty's format), a pgporter.yml, or - for ansible-inventory --list on standard input")
	c.MarkFlagFilename("inventory", "yml", "yaml", "json")
}

// inventoryArgument takes the inventory that is a command's argument for what --inventory says, if there is one.
func inventoryArgument(path *string, args []string) error {
	switch {
	case len(args) == 0 && *path == "":
		return command.Input(errors.New("which inventory: FILE, or --inventory FILE"))
	case len(args) == 0:
	case *path != "":
		return command.Input(fmt.Errorf("%s and --inventory %s: one of them", args[0], *path))
	default:
		*path = args[0]
	}
	return nil
}

// clusterArguments takes a cluster and the inventory that it is in, [CLUSTER] [FILE]. A word alone is a cluster if one may be
// called so and --inventory says the file, or if no file may be meant; the cluster is empty if it isn't said.
func clusterArguments(path *string, args []string) (cluster string, err error) {
	if len(args) > 0 && (len(args) > 1 || *path != "" || model.IsClusterName(args[0])) {
		cluster, args = args[0], args[1:]
	}
	return cluster, inventoryArgument(path, args)
}

// whichCluster refuses a command line that doesn't say which cluster of an inventory it is about.
func whichCluster(inv *inventory.Inventory) error {
	clusters := plan.Clusters(inv)
	if len(clusters) == 0 {
		return command.Input(fmt.Errorf("%s has no cluster", inv.File))
	}
	return command.Input(fmt.Errorf("which cluster: %s", listed(clusters)))
}

// aboutCluster are the problems that have to do with a cluster, its members or those who carry its services: what is written at
// other hosts is left out.
func aboutCluster(inv *inventory.Inventory, cluster string, problems diag.Problems) diag.Problems {
	carriers, members := plan.Nodes(inv, cluster)
	concerned := slices.Concat(carriers, members)
	return slices.DeleteFunc(slices.Clone(problems), func(p diag.Problem) bool {
		owners := inv.OwnersOf(p.Pos)
		return len(owners) > 0 && !slices.ContainsFunc(owners, func(h *inventory.Host) bool { return slices.Contains(concerned, h.Name) })
	})
}

// readInventory reads what --inventory names.
func readInventory(path string, stdin io.Reader) (*inventory.Inventory, diag.Problems) {
	if path == standardInput {
		return inventory.ReadFrom(fromInput, stdin)
	}
	return inventory.Read(path)
}

// soundInventory reads what --inventory names. With an error in it, wherever that is, all that check finds is among the problems:
// what check refuses no command goes on with.
func soundInventory(path string, stdin io.Reader, engine string) (*inventory.Inventory, diag.Problems) {
	inv, problems := readInventory(path, stdin)
	if inv == nil {
		return nil, problems
	}
	return inv, plan.Refused(inv, problems, engine == engineHAProxy)
}

// readInput takes in what is piped in.
func readInput(stdin io.Reader) ([]byte, error) {
	data, err := io.ReadAll(stdin)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fromInput, err)
	}
	return data, nil
}
