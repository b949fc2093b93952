package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/cli/documented"
)

// commandsShown are all commands that the documents, the help's examples and systemd's unit show, without their remarks.
func commandsShown(t *testing.T) map[string]string {
	t.Helper()
	found := documented.Commands(t, "../..", newRootCommand())
	for line, where := range unitCommands(t) {
		found[line] = where
	}
	return found
}

// unitVariable is what a variable is set to in quotes, in a unit's Environment= or in the file beside it, where examples stand behind #.
var unitVariable = regexp.MustCompile(`"(PGPORTER_[A-Z]+)=([^"\n]*)"|(PGPORTER_[A-Z]+)="([^"\n]*)"`)

// unitCommands are what the unit runs: with each source and with all options that it and its file of variables have, alone and together.
func unitCommands(t *testing.T) map[string]string {
	t.Helper()
	read := func(path string) string {
		text, err := os.ReadFile("../../" + path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const unit, variables, door = "systemd/pgporter.service", "packages/pgporter.env", "systemd/drop-ins/door.conf"
	values := map[string][]string{}
	for _, found := range unitVariable.FindAllStringSubmatch(read(unit)+read(variables)+read(door), -1) {
		name := found[1] + found[3]
		values[name] = append(values[name], found[2]+found[4])
	}
	if len(values) != 3 || len(values["PGPORTER_SOURCE"]) < 3 || len(values["PGPORTER_OPTIONS"]) < 2 || len(values["PGPORTER_POOL"]) != 2 {
		t.Errorf("the unit's variables are %q", values)
	}
	found := map[string]string{}
	for _, key := range []string{"ExecStart", "ExecReload"} {
		_, command, _ := strings.Cut(read(unit), "\n"+key+"=/usr/bin/")
		command, _, _ = strings.Cut(command, "\n")
		if !strings.HasPrefix(command, "pgporter ") {
			t.Errorf("the unit's %s is %q", key, command)
		}
		for _, source := range values["PGPORTER_SOURCE"] {
			for _, options := range values["PGPORTER_OPTIONS"] {
				for _, pool := range values["PGPORTER_POOL"] {
					line := strings.NewReplacer("$MAINPID", "4711", "$PGPORTER_SOURCE", source, "$PGPORTER_OPTIONS", options, "$PGPORTER_POOL", pool).Replace(command)
					found[documented.Command(line)] = unit
				}
			}
		}
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
	own := documentedOwnFile(t)
	for line, where := range commands {
		args := strings.Fields(line)
		for i, a := range args {
			switch {
			case strings.HasSuffix(a, "pigsty.yml"):
				args[i] = inventory
			case a == "pgporter.yml":
				args[i] = own
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

// documentedOwnFile is the file that docs/pgporter-yml.md begins with.
func documentedOwnFile(t *testing.T) string {
	t.Helper()
	document, err := os.ReadFile("../../docs/pgporter-yml.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(document), "```yaml\n")
	text, _, _ = strings.Cut(text, "```")
	path := filepath.Join(t.TempDir(), "pgporter.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What docs/check.md shows of check is what it prints.
func TestDocumentedCheck(t *testing.T) {
	document, err := os.ReadFile("../../docs/check.md")
	if err != nil {
		t.Fatal(err)
	}
	inventory, err := os.ReadFile("testdata/broken.yml")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(document), "```console\n")
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

// What docs/pool.md shows of render is what becomes of the inventory that it begins with.
func TestDocumentedPool(t *testing.T) {
	document, err := os.ReadFile("../../docs/pool.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(language string) string {
		_, text, _ := strings.Cut(string(document), "```"+language+"\n")
		text, _, _ = strings.Cut(text, "```")
		return text
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("pigsty.yml", []byte(block("yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if status := Main([]string{"render", "--inventory", "pigsty.yml", "--out", "rendered", "--only", "pgbouncer"}, nil, &stdout, &stderr); status != 0 || stderr.String() != block("text") {
		t.Errorf("status %d; it says\n%s\nand shown is\n%s", status, &stderr, block("text"))
	}
	text, err := os.ReadFile("rendered/10.10.10.11/pgbouncer.ini")
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != block("ini") {
		t.Errorf("rendered is\n%s\nand shown is\n%s", text, block("ini"))
	}
}
