package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// documented are all commands that the documents and the help's examples show, without their remarks.
func documented(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	collect := func(where, text string) {
		for line := range strings.Lines(text) {
			line = strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(line), "$ "), "bin/")
			line, _, _ = strings.Cut(line, "  #")
			line, _, _ = strings.Cut(line, " | ")
			if strings.HasPrefix(line, "pgporter ") && !strings.ContainsAny(line, "{…") {
				found[strings.TrimSpace(line)] = where
			}
		}
	}
	for _, path := range append(paths, "../../README.md") {
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
		collect("systemd/pgporter.service", command)
	}
	root := newRootCommand()
	collect("pgporter --help", root.Example)
	for _, c := range root.Commands() {
		collect(c.CommandPath()+" --help", c.Example)
		for _, sub := range c.Commands() {
			collect(sub.CommandPath()+" --help", sub.Example)
		}
	}
	return found
}

// TestDocumentedCommands runs what the documents show of check, services and url, and has every other command's flags and
// arguments accepted.
func TestDocumentedCommands(t *testing.T) {
	commands := documented(t)
	if len(commands) < 10 {
		t.Fatalf("only %d commands found: %v", len(commands), commands)
	}
	inventory, err := filepath.Abs("testdata/documented.yml")
	if err != nil {
		t.Fatal(err)
	}
	for line, where := range commands {
		args := strings.Fields(line)[1:]
		for i, a := range args {
			if strings.HasSuffix(a, "pigsty.yml") {
				args[i] = inventory
			}
		}
		if slices.Contains([]string{"check", "services", "url"}, args[0]) {
			var stdout, stderr bytes.Buffer
			if status := Main(args, nil, &stdout, &stderr); status != 0 {
				t.Errorf("%s: %q ends with %d: %s", where, line, status, &stderr)
			}
			continue
		}
		root := newRootCommand()
		root.SetOut(io.Discard)
		command, rest, err := root.Find(args)
		if err != nil || command == root {
			t.Errorf("%s: %q: no such command: %v", where, line, err)
			continue
		}
		if err := command.ParseFlags(rest); err != nil {
			t.Errorf("%s: %q: %v", where, line, err)
			continue
		}
		if err := command.ValidateArgs(command.Flags().Args()); err != nil {
			t.Errorf("%s: %q: %v", where, line, err)
		}
	}
}
