package guard

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asProgram names what a test's program does; the test binary is that program.
const asProgram = "GUARD_TEST_PROGRAM"

func init() {
	Handle("note", func(path string) error { return os.WriteFile(path, []byte("undone"), 0o600) })
}

func TestMain(m *testing.M) {
	os.Exit(Run(func() int {
		if does := os.Getenv(asProgram); does != "" {
			return program(does)
		}
		// A shell has what it starts in the background ignore SIGINT, which is inherited; one that is handled here isn't ignored there.
		if signal.Ignored(syscall.SIGINT) {
			signal.Notify(make(chan os.Signal, 1), syscall.SIGINT)
		}
		return m.Run()
	}))
}

// program starts others by every means by which they could be lost, tells their ids and its temporary directory, and then ends
// as it is asked to.
func program(does string) int {
	const family = `sleep 600 & echo $!; setsid sh -c 'trap "" INT TERM HUP; echo $$; sleep 600; read x' & wait`
	inherits := exec.Command("sh", "-c", family)
	given := exec.Command("sh", "-c", family)
	given.Env = append([]string{"PATH=" + os.Getenv("PATH")}, Environment()...)
	given.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	notes := os.Getenv("GUARD_TEST_NOTES")
	var started []string
	err := errors.Join(Keep("note", filepath.Join(notes, "kept")), Keep("note", filepath.Join(notes, "forgotten")), Forget("note", filepath.Join(notes, "forgotten")))
	for _, c := range []*exec.Cmd{inherits, given} {
		out, pipeErr := c.StdoutPipe()
		if err = errors.Join(err, pipeErr, c.Start()); err != nil {
			break
		}
		started = append(started, strconv.Itoa(c.Process.Pid))
		lines := bufio.NewScanner(out)
		for range 2 {
			if !lines.Scan() {
				err = errors.New("a shell has ended")
			}
			started = append(started, lines.Text())
		}
	}
	dir, dirErr := os.MkdirTemp("", "")
	if err = errors.Join(err, dirErr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(os.Getpid(), dir, strings.Join(started, " "))
	switch does {
	case "return":
		return 3
	case "exit":
		os.Exit(3)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// TestNothingStays ends the program by every means; what it started, its directory and what it had the guardian keep go with it.
func TestNothingStays(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, does string
		end        syscall.Signal
		// by is who gets the signal.
		by func(program, command int) int
	}{
		{"it returns", "return", 0, nil},
		{"it exits", "exit", 0, nil},
		{"SIGINT", "wait", syscall.SIGINT, func(program, _ int) int { return program }},
		{"SIGTERM", "wait", syscall.SIGTERM, func(program, _ int) int { return program }},
		{"SIGKILL", "wait", syscall.SIGKILL, func(program, _ int) int { return program }},
		{"SIGKILL to all of its group", "wait", syscall.SIGKILL, func(_, command int) int { return -command }},
		{"SIGKILL to go", "wait", syscall.SIGKILL, func(_, command int) int { return command }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			// The program's parent is called go, as it is under `go test`.
			parent := filepath.Join(t.TempDir(), "go")
			if err := os.Symlink("/bin/sh", parent); err != nil {
				t.Fatal(err)
			}
			notes := t.TempDir()
			command := exec.Command(parent, "-c", `"$0"; true`, self)
			command.Env = append(os.Environ(), asProgram+"="+test.does, "GUARD_TEST_NOTES="+notes)
			command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			var complaints bytes.Buffer
			command.Stderr = &complaints
			command.WaitDelay = time.Minute
			stdin, err := command.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdin.Close()
			stdout, err := command.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(stdout).ReadString('\n')
			words := strings.Fields(line)
			if err != nil || len(words) != 8 {
				t.Fatalf("the program tells %q, %v", line, err)
			}
			var pids []int
			for _, word := range append(words[2:], words[0]) {
				pid, err := strconv.Atoi(word)
				if err != nil {
					t.Fatalf("the program tells %q", line)
				}
				pids = append(pids, pid)
			}
			program, dir := pids[len(pids)-1], words[1]
			if test.by != nil {
				if err := syscall.Kill(test.by(program, command.Process.Pid), test.end); err != nil {
					t.Fatal(err)
				}
			}
			// It comes back once the guardian has closed its end of the complaints.
			_ = command.Wait()
			for _, pid := range pids {
				eventually(t, fmt.Sprintf("process %d of %v is gone", pid, pids), func() bool { return !runs(pid) })
			}
			eventually(t, "the directory is gone", func() bool {
				_, err := os.Lstat(filepath.Dir(dir))
				return errors.Is(err, fs.ErrNotExist)
			})
			eventually(t, "what was kept is undone", func() bool {
				text, _ := os.ReadFile(filepath.Join(notes, "kept"))
				return string(text) == "undone"
			})
			if _, err := os.Lstat(filepath.Join(notes, "forgotten")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("what was taken back is undone too: %v", err)
			}
			// A shell says too how its child ended.
			if said := complaints.String(); strings.Contains(said, "left behind") || strings.Contains(said, "guardian") {
				t.Errorf("it complains: %s", said)
			}
		})
	}
}

// runs says whether there is a process other than one that nobody has waited for.
func runs(pid int) bool {
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && !bytes.Contains(line, []byte(") Z "))
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !holds() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func TestWithoutAGuardian(t *testing.T) {
	guardian.Lock()
	mark, pipe := guardian.mark, guardian.pipe
	guardian.mark, guardian.pipe = "", nil
	guardian.Unlock()
	defer func() {
		guardian.Lock()
		guardian.mark, guardian.pipe = mark, pipe
		guardian.Unlock()
	}()
	if err := errors.Join(Keep("nonsense", "x"), Forget("nonsense", "x")); err != nil || len(Environment()) > 0 {
		t.Errorf("%v, %v", err, Environment())
	}
}
