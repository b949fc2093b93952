package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
)

// product is the name of the program that the lab is for.
const product = "pgporter"

// programFlag adds --pgporter.
func programFlag(c *cobra.Command, program *string, otherwise string) {
	c.Flags().StringVar(program, "pgporter", "", "the pgporter `PROGRAM` to run (default: "+otherwise+")")
	c.MarkFlagFilename("pgporter")
}

// foundProgram is what programFlag tells of findProgram.
const foundProgram = "the one beside this program, else in PATH"

// findProgram gives the absolute path of the pgporter to run: the one that was asked for, as a shell finds it, or the one beside
// this program, else in PATH.
func findProgram(given string) (string, error) {
	if given != "" {
		path, err := exec.LookPath(given)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return "", command.Input(fmt.Errorf("--pgporter: %w", err))
		}
		return path, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("which pgporter to run: %w", err)
	}
	dir := filepath.Dir(self)
	for _, name := range []string{filepath.Join(dir, product), product} {
		if path, err := exec.LookPath(name); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", command.Input(errors.New("there is no pgporter in " + dir + ", where this program is, nor in PATH: say --pgporter PROGRAM"))
}
