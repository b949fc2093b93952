package cli

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestReread(t *testing.T) {
	newPair(t)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	porter := startRun(t, pairInventory, null)
	porter.serves(t)
	inventory := porter.Args[slices.Index(porter.Args, "--inventory")+1]
	pid := strconv.Itoa(porter.Process.Pid)
	for _, step := range []struct {
		// inventory is written before, if there is one.
		name, inventory string
		args            []string
		status          int
		says            string
	}{
		{"by its number", "", []string{"--pid", pid}, 0, "pgporter (pid " + pid + ") runs configuration 2 of " + inventory},
		{"by its address", "", []string{"--admin", unreadAdmin}, 0, "runs configuration 3 of "},
		{"a broken inventory", pairInventory + "  broken: [\n", []string{"--pid", pid}, 1, "pigsty.yml:11:1: error: the YAML can't be read"},
		{"the same one again", "", []string{"--pid", pid}, 1, "pgporter: not taken, configuration 3 goes on\n"},
		{"a sound one", pairInventory, []string{"--pid", pid}, 0, "runs configuration 4 of "},
		{"of something else", "", []string{"--pid", strconv.Itoa(os.Getpid())}, 1, "it isn't a pgporter run"},
		{"of nobody", "", []string{"--pid", "-1"}, 1, "--pid -1: its arguments can't be read"},
		{"by both", "", []string{"--pid", pid, "--admin", unreadAdmin}, 2, "--admin and --pid: one of them"},
		{"at once", "", []string{"--pid", pid, "--timeout", "0s"}, 2, "--timeout 0s: more than 0"},
	} {
		if step.inventory != "" {
			if err := os.WriteFile(inventory, []byte(step.inventory), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		if status := Main(append([]string{"reread"}, step.args...), nil, &out, &out); status != step.status || !strings.Contains(out.String(), step.says) {
			t.Errorf("%s: status %d, want %d with %q:\n%s", step.name, status, step.status, step.says, &out)
		}
	}
}

// A pgporter that was started without --admin is asked where such a one listens.
func TestAdminOfRun(t *testing.T) {
	for line, want := range map[string]string{
		"pgporter run --patroni 127.0.0.1 --bind 127.0.105.9":                         "127.0.105.9:8432",
		"/usr/bin/pgporter run -i x.yml --hold 1s":                                    "127.0.0.1:8432",
		"pgporter run --patroni 10.10.10.11 --bind 10.10.10.12 --admin=10.10.10.12":   "10.10.10.12:8432",
		"pgporter run --patroni 10.10.10.11 --admin [::1]:99 --dns=10.10.10.12 --vip": "[::1]:99",
		"pgporter status --admin 127.0.0.1":                                           "it isn't a pgporter run",
		"sleep":                                                                       "it isn't a pgporter run",
		"pgporter run --of-tomorrow":                                                  "its arguments are another version's: unknown flag: --of-tomorrow",
	} {
		got, err := adminOfRun(strings.Fields(line))
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}
