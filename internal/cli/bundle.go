package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/bundle"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/cli/nodes"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// bundleFlags are those of bundle.
type bundleFlags struct {
	local           localFlags
	out             string
	inventory, plan string
	unit            string
	since           time.Duration
	sessions        bool
}

func newBundleCommand() *cobra.Command {
	f := bundleFlags{}
	c := &cobra.Command{
		Use:   "bundle",
		Short: "Collect what a report of a fault needs into one file, without secrets",
		Long: `Writes what there is to know of this machine's pgporter into one file: its status with what Patroni said last, its events and
its log of the last hour, its configuration, arguments, limits, metrics, goroutines, how many sessions there are, the system. The file
can be read by its owner alone, and what is in it is listed when it is done, and in it.

Passwords, tokens and keys are taken out, by their names, by their form, and wherever one that is known from the configuration stands.
Addresses and names of members, services, databases and users stay. Look into it before you give it away.

Where pgporter doesn't run, what can be had without it is collected. Goroutines and sessions are told to root and pgporter's own user
alone.`,
		Example: `  pgporter bundle
  pgporter bundle --out /tmp/report.tar.gz --since 6h
  pgporter bundle --inventory pigsty.yml --sessions`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	f.local.add(c)
	c.Flags().Lookup("timeout").DefValue, f.local.timeout = "10s", 10*time.Second
	c.Flags().StringVar(&f.out, "out", "", "the `FILE` to write; it must not be there (default: pgporter-HOST-TIME.tar.gz here)")
	inventoryFlag(c, &f.inventory)
	c.Flags().StringVar(&f.plan, "plan", "", "put in the plan in this `FILE` (default: the one that it runs from)")
	c.Flags().StringVar(&f.unit, "unit", "pgporter", "the `NAME` of systemd's unit, whose log is put in")
	c.Flags().DurationVar(&f.since, "since", time.Hour, "put in the log and the events of as much `TIME`")
	c.Flags().BoolVar(&f.sessions, "sessions", false, "put in the list of the sessions, with their clients' addresses")
	return c
}

func (f *bundleFlags) run(c *cobra.Command) error {
	if f.since <= 0 || f.local.timeout <= 0 {
		return command.Input(fmt.Errorf("--since %s, --timeout %s: more than 0", f.since, f.local.timeout))
	}
	now := time.Now()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	name := fmt.Sprintf("pgporter-%s-%s", strings.Map(plainRune, host), now.UTC().Format("20060102T150405Z"))
	if f.out == "" {
		f.out = name + ".tar.gz"
	}
	// Never over another file, nor through a link that somebody put there.
	file, err := os.OpenFile(f.out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	w := bundle.NewWriter(file, name, now)
	err = errors.Join(f.collect(c.Context(), w, now), w.Close(), file.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", f.out, err), os.Remove(f.out))
	}
	out := safetext.Writer(c.OutOrStdout())
	fmt.Fprintf(out, "%s\n", f.out)
	fmt.Fprintf(safetext.Writer(c.ErrOrStderr()), "%s", w.Contents())
	return nil
}

func plainRune(r rune) rune {
	if r < 0x7f && (r == '-' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
		return r
	}
	return '_'
}

// collector puts things into a bundle. An error is one of writing it; what can't be had is noted there.
type collector struct {
	w    *bundle.Writer
	errs []error
}

// put puts in what get gives: own says that pgporter itself wrote it.
func (c *collector) put(own bool, name, about string, get func() (string, error)) {
	text, err := get()
	if err != nil {
		c.w.Missing(name, about, err)
		return
	}
	write := c.w.Foreign
	if own {
		write = c.w.Own
	}
	c.errs = append(c.errs, write(name, about, text))
}

func (f *bundleFlags) collect(ctx context.Context, w *bundle.Writer, now time.Time) error {
	c := collector{w: w}
	limited, cancel := context.WithTimeout(ctx, f.local.timeout)
	address, status, missing := f.local.find(limited)
	cancel()
	if missing != nil {
		status = nil
	}
	arguments, running := argumentsOf(status, f.local.pid)
	// Configuration first: secrets that it has are looked for in all that follows.
	f.configuration(&c, status, arguments)
	c.put(true, "version.txt", "this program", func() (string, error) {
		return fmt.Sprintf("pgporter %s (%s, %s/%s)\n", command.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH), nil
	})
	c.put(true, "status.json", "the status of the pgporter that runs, with what Patroni said last", func() (string, error) {
		if missing != nil {
			return "", missing
		}
		return indented(status)
	})
	f.asked(ctx, &c, address, missing, now)
	if running {
		f.process(&c, status, arguments)
	} else {
		w.Missing("process/", "the process: arguments, limits, memory", errors.New("none was found"))
	}
	c.put(false, "journal.txt", fmt.Sprintf("the log of %s's last %s", f.unit, f.since), func() (string, error) {
		return outputOf(ctx, "journalctl", "-u", f.unit, "--since", fmt.Sprintf("-%ds", int(f.since.Seconds())), "-o", "short-iso-precise", "--no-pager", "--quiet")
	})
	c.put(false, "unit.txt", "systemd's unit", func() (string, error) { return outputOf(ctx, "systemctl", "cat", "--no-pager", f.unit) })
	c.put(false, "system.txt", "the machine", func() (string, error) { return system(ctx), nil })
	return errors.Join(c.errs...)
}

// asked puts in what the pgporter that runs tells when it is asked.
func (f *bundleFlags) asked(ctx context.Context, c *collector, address string, missing error, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, f.local.timeout)
	defer cancel()
	var node *nodes.Node
	if missing == nil {
		steer := nodesFlags{local: f.local}
		node, missing = steer.thisMachine(ctx)
	}
	answer := func(get func() (string, error)) func() (string, error) {
		return func() (string, error) {
			if missing != nil {
				return "", missing
			}
			return get()
		}
	}
	c.put(true, "events.json", fmt.Sprintf("what happened in the last %s", f.since), answer(func() (string, error) {
		events, err := node.Events(ctx, 0)
		if err != nil {
			return "", err
		}
		return indented(slices.DeleteFunc(events, func(e api.Event) bool { return e.At.Before(now.Add(-f.since)) }))
	}))
	c.put(true, "metrics.txt", "its metrics", answer(func() (string, error) { return fetched(ctx, "http://"+address+"/metrics") }))
	c.put(true, "goroutines.txt", "what it is at", answer(func() (string, error) { return node.Goroutines(ctx) }))
	c.put(true, "sessions.json", "its sessions", answer(func() (string, error) {
		sessions, err := node.Sessions(ctx, api.SessionFilter{})
		switch {
		case err != nil:
			return "", err
		case f.sessions:
			return indented(sessions)
		}
		return indented(struct {
			Sessions int `json:"sessions"`
		}{len(sessions.Sessions) + sessions.More})
	}))
}

// configuration puts in the plan and the inventory that were named, or that the process runs from.
func (f *bundleFlags) configuration(c *collector, status *api.Status, arguments []string) {
	inventory, plan := f.inventory, f.plan
	inventory = orOf(inventory, flagOf(arguments, "inventory", "i"))
	plan = orOf(plan, flagOf(arguments, "plan"))
	for _, file := range files(inventory) {
		c.put(true, "config/"+strings.TrimPrefix(filepath.ToSlash(file), "/"), "the inventory, without comments", func() (string, error) {
			text, err := readSome(file)
			if err != nil {
				return "", err
			}
			return c.w.YAML(text)
		})
	}
	kept := ""
	if status != nil && status.Config.Plan != nil {
		kept = status.Config.Plan.Kept
	}
	for _, one := range []struct{ name, about, path string }{{"config/plan.json", "the plan's file", plan}, {"config/kept.json", "the plan that is kept for the next start", kept}} {
		if one.path == "" {
			continue
		}
		c.put(true, one.name, one.about, func() (string, error) {
			text, err := readSome(one.path)
			return string(text), err
		})
	}
	for _, path := range []string{"/etc/pgporter/pgporter.env"} {
		if _, err := os.Stat(path); err == nil {
			c.put(false, "config/pgporter.env", "the unit's variables", func() (string, error) {
				text, err := readSome(path)
				return string(text), err
			})
		}
	}
	if inventory == "" && plan == "" && kept == "" {
		c.w.Missing("config/", "the configuration", errors.New("no --plan or --inventory was named, and nobody says where it is"))
	}
}

// files are those of an inventory that is a file or a directory.
func files(path string) []string {
	if path == "" || path == standardInput {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}
	}
	const most = 200
	var found []string
	filepath.WalkDir(path, func(file string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() && len(found) < most {
			found = append(found, file)
		}
		return nil
	})
	return found
}

// process puts in what the system says of the process.
func (f *bundleFlags) process(c *collector, status *api.Status, arguments []string) {
	pid := f.local.pid
	if status != nil {
		pid = status.PID
	}
	c.put(false, "process/arguments.txt", "its arguments", func() (string, error) { return strings.Join(arguments, " ") + "\n", nil })
	for _, name := range []string{"limits", "status", "cgroup", "sched"} {
		c.put(false, "process/"+name+".txt", "its "+name+" (proc(5))", func() (string, error) {
			text, err := readSome(filepath.Join("/proc", strconv.Itoa(pid), name))
			return string(text), err
		})
	}
	c.put(false, "process/files.txt", "how many files it has open", func() (string, error) {
		entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
		return fmt.Sprintln(len(entries)), err
	})
}

// argumentsOf are those of the process that has the status, or of that with a number.
func argumentsOf(status *api.Status, pid int) ([]string, bool) {
	if status != nil {
		pid = status.PID
	}
	if pid == 0 {
		return nil, false
	}
	text, err := readSome(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || len(text) == 0 {
		return nil, false
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"), true
}

// flagOf is the value of a flag among arguments, by any of its names.
func flagOf(arguments []string, names ...string) string {
	for i, a := range arguments {
		for _, name := range names {
			dashes := "--"
			if len(name) == 1 {
				dashes = "-"
			}
			if value, is := strings.CutPrefix(a, dashes+name+"="); is {
				return value
			}
			if a == dashes+name && i+1 < len(arguments) {
				return arguments[i+1]
			}
		}
	}
	return ""
}

func orOf(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// mostRead bounds what is read of a file, a program or an answer: the writer cuts what it puts in, and says so.
const mostRead = 16 << 20

func readSome(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, mostRead))
}

// outputOf runs a program of the system and gives what it prints.
func outputOf(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out := tail{most: mostRead}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, safetext.Line(strings.TrimSpace(out.text.String())))
	}
	return out.text.String(), nil
}

// tail keeps the end of what is written to it.
type tail struct {
	text bytes.Buffer
	most int
}

func (t *tail) Write(text []byte) (int, error) {
	t.text.Write(text)
	if t.text.Len() > 2*t.most {
		t.text.Next(t.text.Len() - t.most)
	}
	return len(text), nil
}

// system says what machine it is.
func system(ctx context.Context) string {
	var text strings.Builder
	for _, path := range []string{"/etc/os-release", "/proc/version", "/proc/uptime", "/proc/loadavg", "/proc/meminfo", "/proc/net/sockstat", "/proc/net/sockstat6", "/proc/sys/fs/file-nr", "/proc/sys/net/core/somaxconn", "/proc/sys/net/ipv4/ip_local_port_range"} {
		content, err := readSome(path)
		if err != nil {
			content = []byte(err.Error() + "\n")
		}
		fmt.Fprintf(&text, "# %s\n%s\n", path, content)
	}
	for _, line := range []string{"timedatectl --no-pager", "ip -brief address", "haproxy -v"} {
		words := strings.Fields(line)
		content, err := outputOf(ctx, words[0], words[1:]...)
		if err != nil {
			content = err.Error() + "\n"
		}
		fmt.Fprintf(&text, "# %s\n%s\n", line, content)
	}
	fmt.Fprintf(&text, "# processors: %d\n", runtime.NumCPU())
	return text.String()
}

// fetched is the text of an answer over HTTP.
func fetched(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	// The admin address is this machine's: no proxy.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, mostRead))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("HTTP %s", safetext.Line(res.Status))
	}
	return string(text), err
}

func indented(v any) (string, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return text.String(), err
}
