package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// TestDemo plays the transcript of docs/demo.md on a cluster of its own: the same commands have to print the same.
func TestDemo(t *testing.T) {
	t.Parallel()
	steps := transcript(t, "../../docs/demo.md")
	if len(steps) < 8 {
		t.Fatalf("only %d commands in the transcript", len(steps))
	}
	c := up(t, 76, sandbox.Config{Door: true})
	for _, s := range steps {
		command := strings.ReplaceAll(s.command, "127.0.1.", c.prefix+".")
		command = labCommand.ReplaceAllString(command, lab+" $1 --dir "+c.Dir())
		command = strings.ReplaceAll(command, "bin/pgporter ", binary+" ")
		want := steady(strings.ReplaceAll(s.output, "127.0.1.", c.prefix+"."))
		// What follows a switchover takes the time that the checks need.
		eventually(t, afterSwitchover, func(ctx context.Context) error {
			out, err := exec.CommandContext(ctx, "bash", "-c", command).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", s.command, err, out)
			}
			if got := steady(string(out)); got != want {
				if strings.Contains(s.command, "switchover") {
					t.Fatalf("%s prints\n%s\nthe document says\n%s", s.command, got, want)
				}
				return fmt.Errorf("%s prints\n%s\nthe document says\n%s", s.command, got, want)
			}
			return nil
		})
	}
}

// labCommand is a command on the sandbox.
var labCommand = regexp.MustCompile(`bin/pgporter-lab (\w+)`)

// step is a command of a transcript and what it prints.
type step struct{ command, output string }

// transcript reads the console blocks of a document.
func transcript(t *testing.T, path string) []step {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var steps []step
	inside := false
	for line := range strings.Lines(string(text)) {
		switch command, isCommand := strings.CutPrefix(line, "$ "); {
		case strings.HasPrefix(line, "```"):
			inside = strings.TrimSpace(line) == "```console"
		case !inside:
		case isCommand:
			steps = append(steps, step{command: strings.TrimSpace(command)})
		case len(steps) > 0:
			steps[len(steps)-1].output += line
		}
	}
	return steps
}

var (
	spaces = regexp.MustCompile(` +`)
	// waiting is what a busy machine adds.
	waiting  = regexp.MustCompile(`(?m)^.* … waiting until .*\n`)
	seconds  = regexp.MustCompile(`\b\d+(\.\d+)? ?s\b|\b\d+m\d\ds\b`)
	sockets  = regexp.MustCompile(`/\S+/sockets/`)
	plan     = regexp.MustCompile(`(?m)^plan [0-9a-f]+ of inventory.yml, accepted .*`)
	identity = regexp.MustCompile(`pgporter \S+ \(pid \d+\) serves (\S+) of \S+, (.*) of \d\d:\d\d:\d\d`)
)

// steady takes away what differs from run to run: times, ids, paths, signs of patience and the widths of columns.
func steady(text string) string {
	text = waiting.ReplaceAllString(text, "")
	text = plan.ReplaceAllString(sockets.ReplaceAllString(text, "SOCKETS/"), "PLAN")
	text = identity.ReplaceAllString(text, "pgporter VERSION serves $1, $2")
	text = seconds.ReplaceAllString(text, "TIME")
	return spaces.ReplaceAllString(strings.TrimSpace(text), " ")
}
