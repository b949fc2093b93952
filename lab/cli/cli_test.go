package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pgporter/pgporter/internal/cli/documented"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"pgporter-lab": func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs the command lines of testdata.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

// TestDocumentedCommands has the flags and arguments of every command accepted that the documents and the help's examples show.
func TestDocumentedCommands(t *testing.T) {
	commands := documented.Commands(t, "../..", newRootCommand())
	if len(commands) < 20 {
		t.Fatalf("only %d commands found: %v", len(commands), commands)
	}
	for line, where := range commands {
		if err := documented.Accept(newRootCommand(), line); err != nil {
			t.Errorf("%s: %q: %v", where, line, err)
		}
	}
}

// TestProgram: the one that is named, as a shell finds it, else the one beside this program, else that in PATH.
func TestProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	beside := filepath.Join(filepath.Dir(self), product)
	here, path := t.TempDir(), t.TempDir()
	t.Chdir(here)
	t.Setenv("PATH", path)
	program := func(name string) {
		t.Helper()
		if err := os.WriteFile(name, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	found := func(given, want string) {
		t.Helper()
		if got, err := findProgram(given); err != nil || got != want {
			t.Errorf("%q: found %q (%v), want %q", given, got, err, want)
		}
	}
	program("other")
	found("./other", filepath.Join(here, "other"))
	program(filepath.Join(path, product))
	found("", filepath.Join(path, product))
	found(product, filepath.Join(path, product))
	program(beside)
	t.Cleanup(func() { os.Remove(beside) })
	found("", beside)
}
