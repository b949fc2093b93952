package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// guide are the commands of a document's plain blocks, each with the heading that it stands below.
func guide(t *testing.T, path string) (commands [][2]string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	heading, block, commandsHere := "", false, false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "```"):
			block = !block
			commandsHere = block && line == "```"
		case commandsHere && line != "":
			line, _, _ = strings.Cut(line, "  #")
			commands = append(commands, [2]string{heading, strings.TrimSpace(line)})
		case !block && strings.HasPrefix(line, "#"):
			heading = strings.TrimLeft(line, "# ")
		}
	}
	return commands
}

// operations runs every command of docs/operations.md, in its order, as somebody would who has the inventory and is on the first node.
func (s shared) operations(t *testing.T) {
	commands := guide(t, "../../docs/operations.md")
	dir := t.TempDir()
	original, err := os.ReadFile(s.Inventory())
	if err != nil {
		t.Fatal(err)
	}
	inventory := filepath.Join(dir, "pigsty.yml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("pigsty.yml", string(original))
	for _, account := range []string{"monitor.account", "admin.account"} {
		write(account, fmt.Sprintf("user = %s\npassword = %s\n", direct.user, direct.password))
	}
	if err := os.Symlink(binary, filepath.Join(dir, "pgporter")); err != nil {
		t.Fatal(err)
	}
	environment := append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "PGPORTER_ADMIN="+s.member(1), "PGPASSWORD="+direct.password, "PGSSLMODE=disable", "PGPORTER_TOKEN_FILE="+s.token, "PGPORTER_CA="+s.ca)
	patroni := filepath.Join(s.Config().Dir, "pg-test-1", "patroni.yml")
	lineOfThree := regexp.MustCompile(`(?m)^ +` + regexp.QuoteMeta(s.member(3)) + `: .*\n`)
	ran := map[string]int{}
	below := ""
	for _, one := range commands {
		heading, command := one[0], one[1]
		// What is done by hand in between.
		if heading != below {
			switch heading {
			case "Taking a member out":
				without := lineOfThree.ReplaceAllString(string(original), "")
				if without == string(original) {
					t.Fatal("the third member isn't in the inventory")
				}
				write("pigsty.yml", without)
			case "Adding or replacing a member":
				write("pigsty.yml", string(original))
			}
			below = heading
		}
		ran[heading]++
		if strings.HasPrefix(command, "export ") {
			continue
		}
		line := strings.NewReplacer("10.10.10.", s.prefix+".", "/etc/patroni/patroni.yml", patroni, "pigsty.yml", inventory).Replace(command)
		// A node follows what has just been done within some checks.
		eventually(t, afterFailover, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "bash", "-c", line)
			cmd.Dir, cmd.Env = dir, environment
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %s: %w\n%s", heading, line, err, out)
			}
			if strings.Contains(string(out), direct.password) {
				t.Errorf("%s shows a password:\n%s", line, out)
			}
			return nil
		})
	}
	for _, heading := range []string{"A switchover", "Draining a member", "Taking a member out", "Adding or replacing a member", "Clients get 57P03", "Who is that connection?", "Something that isn't here"} {
		if ran[heading] == 0 {
			t.Errorf("no command of %q was run", heading)
		}
	}
}
