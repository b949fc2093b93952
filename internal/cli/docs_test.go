package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/cli/documented"
)

// commandsShown are all commands that the documents, the help's examples and systemd's unit show, without their remarks.
func commandsShown(t *testing.T) map[string]string {
	t.Helper()
	found := documented.Commands(t, "../..", newRootCommand())
	unit, err := os.ReadFile("../../systemd/pgporter.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"ExecStart", "ExecReload"} {
		_, command, _ := strings.Cut(string(unit), "\n"+key+"=/usr/bin/")
		command, _, _ = strings.Cut(command, "\n")
		if !strings.HasPrefix(command, "pgporter ") {
			t.Errorf("the unit's %s is %q", key, command)
		}
		found[documented.Command(command)] = "systemd/pgporter.service"
	}
	return found
}

// TestDocumentedCommands runs what the documents show of check, services and url, and has every other command's flags and
// arguments accepted.
func TestDocumentedCommands(t *testing.T) {
	commands := commandsShown(t)
	if len(commands) < 10 {
		t.Fatalf("only %d commands found: %v", len(commands), commands)
	}
	inventory, err := filepath.Abs("testdata/documented.yml")
	if err != nil {
		t.Fatal(err)
	}
	for line, where := range commands {
		args := strings.Fields(line)
		for i, a := range args {
			if strings.HasSuffix(a, "pigsty.yml") {
				args[i] = inventory
			}
		}
		if slices.Contains([]string{"check", "services", "url"}, args[1]) {
			var stdout, stderr bytes.Buffer
			if status := Main(args[1:], nil, &stdout, &stderr); status != 0 {
				t.Errorf("%s: %q ends with %d: %s", where, line, status, &stderr)
			}
		} else if err := documented.Accept(newRootCommand(), strings.Join(args, " ")); err != nil {
			t.Errorf("%s: %q: %v", where, line, err)
		}
	}
}

// What docs/operations.md shows of check is what it prints.
func TestDocumentedCheck(t *testing.T) {
	document, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	inventory, err := os.ReadFile("testdata/broken.yml")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(document), "## Checking an inventory")
	_, shown, _ := strings.Cut(section, "```console\n")
	shown, _, _ = strings.Cut(shown, "```")
	t.Chdir(t.TempDir())
	if err := os.WriteFile("pigsty.yml", inventory, 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	status := Main([]string{"check", "pigsty.yml"}, nil, &stdout, &stderr)
	if status != 2 || stdout.Len() > 0 || stderr.String() != shown {
		t.Errorf("status %d; it prints\n%s\nand shown is\n%s", status, &stderr, shown)
	}
}
