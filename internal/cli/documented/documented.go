// Package documented finds the commands that the documents and the help's examples show, for the tests of command lines: what
// people are asked to type has to be understood. No program uses it.
package documented

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Commands are all commands of a program that README.md and docs/*.md of the repository at root show, and its own help, without
// their remarks; each with the position where it was found.
func Commands(t *testing.T, repository string, root *cobra.Command) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(repository, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	collect := func(where, text string) {
		for line := range strings.Lines(text) {
			if line = Command(line); strings.HasPrefix(line, root.Name()+" ") && !strings.ContainsAny(line, "{…") {
				found[line] = where
			}
		}
	}
	for _, path := range append(paths, filepath.Join(repository, "README.md")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range strings.Split(string(text), "```") {
			// Console transcripts are played by the end-to-end tests.
			if i%2 == 1 && !strings.HasPrefix(block, "console") {
				collect(path, block)
			}
		}
	}
	var examples func(*cobra.Command)
	examples = func(c *cobra.Command) {
		collect(c.CommandPath()+" --help", c.Example)
		for _, sub := range c.Commands() {
			examples(sub)
		}
	}
	examples(root)
	return found
}

// Command is a line without what is around the command in documents: a prompt, bin/, a remark, what its output is piped to.
func Command(line string) string {
	line = strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(line), "$ "), "bin/")
	line, _, _ = strings.Cut(line, "  #")
	line, _, _ = strings.Cut(line, " | ")
	return strings.TrimSpace(line)
}

// Accept has a command's flags and arguments judged without running it.
func Accept(root *cobra.Command, line string) error {
	root.SetOut(io.Discard)
	command, rest, err := root.Find(strings.Fields(line)[1:])
	if err != nil || command == root {
		return fmt.Errorf("no such command: %v", err)
	}
	if err := command.ParseFlags(rest); err != nil {
		return err
	}
	return command.ValidateArgs(command.Flags().Args())
}
