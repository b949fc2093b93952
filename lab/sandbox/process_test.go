package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sleeper starts a process that does nothing, in dir and with an environment of its own; it ends with the test. It is left
// unreaped until then, as the sandbox's own are to any process but their parent.
func sleeper(t *testing.T, dir string, environment ...string) Process {
	t.Helper()
	path, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	return start(t, path, dir, environment, "600")
}

func start(t *testing.T, path, dir string, environment []string, args ...string) Process {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = dir, append([]string{"PATH=/usr/bin:/bin"}, environment...)
	// Kept open, so that a shell that reads waits.
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		cmd.Wait()         //nolint:errcheck // killed
	})
	p, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// eventually waits for what another process is about to do.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if !poll(ctx, time.Millisecond, done) {
		t.Fatalf("not within a minute: %s", what)
	}
}

func realTempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestParseStat(t *testing.T) {
	rest := " S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 200 18446744073709551615 1"
	for _, c := range []struct {
		line string
		want procStat
		err  string
	}{
		{line: "42 (sleep)" + rest, want: procStat{'S', 98765}},
		{line: "42 (a) b (c))" + rest, want: procStat{'S', 98765}},
		{line: "42 (x) Z 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 7", want: procStat{'Z', 7}},
		{line: "", err: "no command name"},
		{line: "42 (sleep) S 1", err: "too few fields"},
		{line: "42 (x) S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 soon", err: "start time"},
	} {
		got, err := parseStat([]byte(c.line))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v, want %s", c.line, err, c.err)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%q: %+v, %v; want %+v", c.line, got, err, c.want)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (sleep) S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 200"))
	f.Add([]byte("42 (a) b (c)) Z 1"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if got, err := parseStat(line); err == nil && !bytes.Contains(line, []byte(strconv.FormatUint(got.start, 10))) && !bytes.ContainsAny(line, "0+_") {
			t.Errorf("%q has no start time %d", line, got.start)
		}
	})
}

// TestRecycled: an id that another process has now is not signalled, whatever the state says.
func TestRecycled(t *testing.T) {
	p := sleeper(t, "/")
	recycled := Process{PID: p.PID, Start: p.Start - 1}
	if recycled.running() {
		t.Error("another start time counts as running")
	}
	if err := recycled.signal(syscall.SIGKILL); !errors.Is(err, errEnded) {
		t.Errorf("signal: %v, want %v", err, errEnded)
	}
	if !p.running() {
		t.Fatal("the innocent process was killed")
	}
	for _, nobody := range []Process{{}, {PID: -1}, {PID: 0, Start: 1}} {
		if nobody.running() {
			t.Errorf("%+v is running", nobody)
		}
	}
}

func TestSignalAndWait(t *testing.T) {
	p := sleeper(t, "/")
	if err := p.signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process is halted", p.stopped)
	if !p.running() {
		t.Error("a halted process counts as ended")
	}
	if p.wait(t.Context(), time.Millisecond) {
		t.Error("a halted process counts as ended")
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !p.wait(t.Context(), time.Minute) {
		t.Error("a killed process that nobody has reaped yet counts as running")
	}
	if err := p.signal(syscall.SIGKILL); !errors.Is(err, errEnded) {
		t.Errorf("second signal: %v, want %v", err, errEnded)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if other := sleeper(t, "/"); other.wait(ctx, time.Hour) {
		t.Error("an ended context counts as an ended process")
	}
}

func TestStartedAt(t *testing.T) {
	before := time.Now()
	p := sleeper(t, "/")
	// The boot time that the kernel tells has whole seconds, and the start hundredths.
	if at := p.startedAt(); at.Before(before.Add(-2*time.Second)) || at.After(time.Now().Add(2*time.Second)) {
		t.Errorf("started at %s, though it was at %s", at, before)
	}
}

// fakePostgres makes a program that is called postgres and sleeps, as a server and its backends do in a data directory.
func fakePostgres(t *testing.T) string {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "postgres")
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPostmaster(t *testing.T) {
	data := filepath.Join(realTempDir(t), "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	pidFile := func(text string) {
		if err := os.WriteFile(filepath.Join(data, "postmaster.pid"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	none := func(why string) {
		t.Helper()
		if p, ok := postmaster(data); ok {
			t.Errorf("%s: found process %d", why, p.PID)
		}
	}
	none("no postmaster.pid")
	pidFile("nonsense\n")
	none("nonsense in postmaster.pid")
	pidFile(fmt.Sprintf("%d\n%s\n", os.Getpid(), data))
	none("postmaster.pid names a process that is no postgres")
	program := fakePostgres(t)
	elsewhere := start(t, program, "/", nil, "600")
	pidFile(fmt.Sprintf("%d\n%s\n", elsewhere.PID, data))
	none("postmaster.pid names a postgres of another directory")
	server := start(t, program, data, nil, "600")
	pidFile(fmt.Sprintf("%d\n%s\n1700000000\n5432\n", server.PID, data))
	if p, ok := postmaster(data); !ok || p != server {
		t.Errorf("got %+v, %v; want %+v", p, ok, server)
	}
}

func TestLeftovers(t *testing.T) {
	dir := realTempDir(t)
	other := dir + "-other"
	data := filepath.Join(dir, "pg-test-1", "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	ours := sleeper(t, "/", dirVariable+"="+dir)
	program := fakePostgres(t)
	backend := start(t, program, data, nil, "600")
	innocent := []Process{
		sleeper(t, "/", dirVariable+"="+other),
		sleeper(t, "/", "OTHER_"+dirVariable+"="+dir),
		sleeper(t, dir), // somebody's shell
		sleeper(t, data),
		start(t, program, dir, nil, "600"),
	}
	// The environment and program of a child are there only when its exec is done.
	var found []Process
	eventually(t, "two are found", func() bool { found = leftovers(dir); return len(found) >= 2 })
	for _, p := range []Process{ours, backend} {
		if !slices.Contains(found, p) {
			t.Errorf("process %d (%s) isn't found", p.PID, commandLine(p.PID))
		}
	}
	for _, p := range found {
		if slices.Contains(innocent, p) {
			t.Errorf("process %d (%s) is found, and isn't the sandbox's", p.PID, commandLine(p.PID))
		}
	}
}

func TestCommandLine(t *testing.T) {
	p := start(t, "/bin/sh", "/", nil, "-c", "read x\nexit", strings.Repeat("long ", 50))
	var line string
	eventually(t, "the shell runs", func() bool { line = commandLine(p.PID); return strings.HasPrefix(line, "/bin/sh") })
	if strings.ContainsAny(line, "\n\x00") || !strings.HasSuffix(line, "…") || len([]rune(line)) != 101 {
		t.Errorf("%q: want one line, cut", line)
	}
	if got := commandLine(1 << 30); got != "" {
		t.Errorf("a process that isn't there has the command line %q", got)
	}
}
