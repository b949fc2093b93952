package guard

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestProgressLeavesNothing ends the script that make runs the tests with, and what takes the place of make around it: the
// command's whole group and its temporary directory go too.
func TestProgressLeavesNothing(t *testing.T) {
	script, err := filepath.Abs("../../../scripts/progress")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		end  syscall.Signal
		// by is who gets the signal.
		by func(progress, caller int) int
		// deaf says that the command ignores SIGTERM.
		deaf bool
	}{
		{"it ends by itself", 0, nil, false},
		{"Ctrl-C", syscall.SIGINT, func(_, caller int) int { return -caller }, false},
		{"SIGTERM", syscall.SIGTERM, func(progress, _ int) int { return progress }, false},
		{"SIGKILL", syscall.SIGKILL, func(progress, _ int) int { return progress }, false},
		{"SIGKILL to all of the group", syscall.SIGKILL, func(_, caller int) int { return -caller }, false},
		{"SIGKILL to make", syscall.SIGKILL, func(_, caller int) int { return caller }, false},
		{"SIGTERM, which the command ignores", syscall.SIGTERM, func(progress, _ int) int { return progress }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			tmp := filepath.Join(t.TempDir(), "tmp")
			// The command tells who calls it, and what it has started.
			command := `echo "$PPID $$"; mktemp -p "$TMPDIR" >/dev/null; sleep 600 & echo $!; wait`
			if test.by == nil {
				command = `echo "$PPID $$"; mktemp -p "$TMPDIR" >/dev/null; echo $$; exit 7`
			}
			if test.deaf {
				command = `trap "" TERM; ` + command
			}
			make := exec.Command("sh", "-c", `"$0" trying sh -c "$1"; exit $?`, script, command)
			make.Env = append(os.Environ(), "PROGRESS_TMP="+tmp)
			make.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			stdout, err := make.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := make.Start(); err != nil {
				t.Fatal(err)
			}
			var pids []int
			for lines := bufio.NewScanner(stdout); len(pids) < 3 && lines.Scan(); {
				for _, word := range strings.Fields(lines.Text()) {
					pid, err := strconv.Atoi(word)
					if err != nil {
						t.Fatalf("the command tells %q", lines.Text())
					}
					pids = append(pids, pid)
				}
			}
			if len(pids) != 3 {
				t.Fatalf("the command tells of %v only", pids)
			}
			if test.by != nil {
				if err := syscall.Kill(test.by(pids[0], make.Process.Pid), test.end); err != nil {
					t.Fatal(err)
				}
			}
			_ = make.Wait()
			if _, err := os.Lstat(tmp); test.end == syscall.SIGTERM && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it ends before its directory is gone, which the next run may have made: %v", err)
			}
			for _, pid := range pids {
				eventually(t, fmt.Sprintf("process %d of %v is gone", pid, pids), func() bool { return !runs(pid) })
			}
			eventually(t, "the temporary directory is gone", func() bool {
				_, err := os.Lstat(tmp)
				return errors.Is(err, fs.ErrNotExist)
			})
			if status := make.ProcessState.ExitCode(); test.by == nil && status != 7 {
				t.Errorf("it exits with %d, the command with 7", status)
			}
		})
	}
}

// TestProgressRefusesWhatOthersWrite: temporary files are below a name in /tmp that anybody can take first, and programs that
// go test has built are run from there.
func TestProgressRefusesWhatOthersWrite(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a file":                      func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a link to a directory":       func(path string) error { return os.Symlink(t.TempDir(), path) },
		"a link to nothing":           func(path string) error { return os.Symlink("nothing", path) },
		"a directory open to a group": func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o770)) },
		"a directory open to all":     func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o702)) },
		"somebody else's directory": func(path string) error {
			if os.Getuid() != 0 {
				// The nearest that anybody else can put there.
				return os.Symlink("/", path)
			}
			return errors.Join(os.Mkdir(path, 0o755), os.Chown(path, 65534, 65534))
		},
	} {
		t.Run(name, func(t *testing.T) {
			tmp := filepath.Join(t.TempDir(), "tmp")
			if err := put(tmp); err != nil {
				t.Fatal(err)
			}
			progress := exec.Command("../../../scripts/progress", "trying", "echo", "it runs")
			progress.Env = append(os.Environ(), "PROGRESS_TMP="+tmp)
			output, err := progress.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(output), "progress: "+tmp+" is to be a directory of yours") || strings.Contains(string(output), "it runs") {
				t.Errorf("it ends with %v and says:\n%s", err, output)
			}
			if _, err := os.Lstat(tmp); err != nil {
				t.Error(err)
			}
		})
	}
}
