package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
)

// standardInput is what --inventory says for what is piped in, and fromInput what messages call that.
const (
	standardInput = "-"
	fromInput     = "standard input"
)

// inventoryFlag adds --inventory.
func inventoryFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "inventory", "i", "", "the inventory: a `FILE` or directory (YAML, Pigsty's format), or - for ansible-inventory --list on standard input")
	c.MarkFlagFilename("inventory", "yml", "yaml", "json")
}

// readInventory reads what --inventory names.
func readInventory(path string, stdin io.Reader) (*inventory.Inventory, diag.Problems) {
	if path == standardInput {
		return inventory.ReadFrom(fromInput, stdin)
	}
	return inventory.Read(path)
}

// readInput takes in what is piped in.
func readInput(stdin io.Reader) ([]byte, error) {
	data, err := io.ReadAll(stdin)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fromInput, err)
	}
	return data, nil
}
