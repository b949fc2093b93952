// Package guard leaves nothing behind of a program that starts others, however it ends: by SIGKILL too.
//
// Run starts a guardian: the same executable in a session of its own (setsid(2)), which reads from a pipe whose other end is the
// program's alone. The pipe's end of file is the program's end. Then the guardian kills what the program started, known by a variable
// that children inherit, and undoes what was registered with it: directories, and whatever other packages say how to undo
// (Handle).
//
// What it owns: the processes with the program's mark, and what was given to Keep. PostgreSQL writes over its environment; it is known
// by its working directory, below a directory that was kept. Processes are found in /proc: elsewhere than on Linux none are.
//
// It leaves out how a program ends in order: who is still there to do so stops its processes itself, and the guardian finds nothing.
package guard

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// markVariable has the mark in the environment of a program and of all that it starts.
	markVariable = "PGPORTER_GUARD"
	// dutyVariable is in the guardian's own environment alone, and makes a program the guardian: the mark and starter().
	dutyVariable = "PGPORTER_GUARDIAN"
)

// Directory is the kind of what is removed with all that is in it.
const Directory = "directory"

// undoing is how each kind of thing is undone.
var undoing = map[string]func(what string) error{Directory: os.RemoveAll}

// Handle says how things of a kind are undone, where it is no error that there is nothing to undo. It is called while packages are
// initialised, so that the guardian knows it too.
func Handle(kind string, undo func(what string) error) { undoing[kind] = undo }

// thing is what is registered with the guardian: what there is to undo, or no longer.
type thing struct {
	Kind, What string
	Forget     bool
}

var guardian struct {
	sync.Mutex
	mark string
	pipe io.WriteCloser
}

// Keep has the guardian undo something after the program's end; without a guardian it does nothing.
func Keep(kind, what string) error { return tell(thing{Kind: kind, What: what}) }

// Forget takes a Keep back.
func Forget(kind, what string) error { return tell(thing{kind, what, true}) }

func tell(t thing) error {
	guardian.Lock()
	defer guardian.Unlock()
	if guardian.pipe == nil {
		return nil
	}
	if err := json.NewEncoder(guardian.pipe).Encode(t); err != nil {
		return fmt.Errorf("telling the guardian of %s %s: %w", t.Kind, t.What, err)
	}
	return nil
}

// Environment is what a program needs in its environment to be found, if its environment isn't this program's; empty without a
// guardian.
func Environment() []string {
	guardian.Lock()
	defer guardian.Unlock()
	if guardian.mark == "" {
		return nil
	}
	return []string{markVariable + "=" + guardian.mark}
}

// Run runs a program's body and gives its exit status. Temporary files are in a directory that goes with the program. Main and
// TestMain call it before anything else, since the guardian is this program up to this call.
func Run(body func() int) int {
	if duty := os.Getenv(dutyVariable); duty != "" {
		mark, starter, _ := strings.Cut(duty, " ")
		return watch(mark, starter)
	}
	end, err := begin()
	if err != nil {
		fmt.Fprintln(os.Stderr, "the guardian of processes:", err)
		return 1
	}
	status := body()
	if err := end(); err != nil {
		fmt.Fprintln(os.Stderr, "the guardian of processes:", err)
		return max(status, 1)
	}
	return status
}

// begin starts the guardian; end lets it do its work and waits for it.
func begin() (end func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// What is started may run as another user.
	dir, err := os.MkdirTemp("", "pgporter-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		return nil, err
	}
	mark := filepath.Base(dir) + "." + strconv.Itoa(os.Getpid())
	command := exec.Command(self)
	for _, v := range os.Environ() {
		// A guardian around this one must not take it for one of the processes to end: it ends after them.
		if !strings.HasPrefix(v, markVariable+"=") {
			command.Env = append(command.Env, v)
		}
	}
	command.Env = append(command.Env, fmt.Sprintf("%s=%s %d", dutyVariable, mark, starter()))
	command.Dir, command.Stderr = "/", os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := command.StdinPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	guardian.Lock()
	guardian.mark, guardian.pipe = mark, pipe
	guardian.Unlock()
	err = errors.Join(os.Setenv(markVariable, mark), os.Setenv("TMPDIR", dir), Keep(Directory, dir))
	end = func() error {
		guardian.Lock()
		defer guardian.Unlock()
		guardian.mark, guardian.pipe = "", nil
		return errors.Join(pipe.Close(), command.Wait())
	}
	if err != nil {
		return nil, errors.Join(err, end())
	}
	return end, nil
}

// starter is the id of the `go test` or `go run` that started this program; 0 if it was anybody else.
func starter() int {
	parent := os.Getppid()
	if name, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(parent), "comm")); err != nil || string(name) != "go\n" {
		return 0
	}
	return parent
}

// watch is the guardian.
func watch(mark, starter string) int {
	// Whoever ends a whole terminal or group means the program; its end is what counts.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if starter != "0" {
		go endWith(starter, os.Getppid())
	}
	var kept []thing
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var t thing
		if err := json.Unmarshal(lines.Bytes(), &t); err != nil {
			continue // cut off by the program's end
		}
		same := func(other thing) bool { return other.Kind == t.Kind && other.What == t.What }
		if kept = slices.DeleteFunc(kept, same); !t.Forget {
			kept = append(kept, t)
		}
	}
	failed := end(mark, kept)
	for _, t := range slices.Backward(kept) {
		undo := undoing[t.Kind]
		if undo == nil {
			failed = errors.Join(failed, fmt.Errorf("nobody says how to undo %s %s", t.Kind, t.What))
			continue
		}
		if err := undo(t.What); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s %s: %w", t.Kind, t.What, err))
		}
	}
	if failed != nil {
		fmt.Fprintln(os.Stderr, "left behind:", failed)
		return 1
	}
	return 0
}

// often is how often the guardian looks at processes.
const often = 20 * time.Millisecond

// endWith ends a program when who started it is gone: `go test`, killed, leaves a program behind that goes on.
func endWith(starter string, program int) {
	for ; ; time.Sleep(10 * often) {
		// The fourth field of /proc/PID/stat (proc(5)) is the parent; the second is in parentheses and may itself have some.
		line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(program), "stat"))
		fields := bytes.Fields(line[bytes.LastIndexByte(line, ')')+1:])
		if err != nil || len(fields) < 2 {
			return
		}
		if string(fields[1]) != starter {
			_ = syscall.Kill(program, syscall.SIGKILL) // its id is its own for as long as the pipe is open
			return
		}
	}
}

const (
	// enough bounds how long processes are killed for: one that waits for a device doesn't end before that answers.
	enough = 30 * time.Second
	// immediate is how long PostgreSQL has for what it calls an immediate shutdown, which removes its shared memory: killed, it leaves
	// that behind.
	immediate = 5 * time.Second
)

// end kills everything with the mark until nothing is left.
func end(mark string, kept []thing) error {
	named := map[int]bool{}
	for began := time.Now(); ; time.Sleep(often) {
		left := 0
		for _, pid := range processes() {
			// The handle first (on Linux a pidfd): what it is looked at for then is what is killed.
			process, err := os.FindProcess(pid)
			if err != nil {
				continue
			}
			// Errors are those of one that has ended.
			switch serves := servesBelow(pid, kept); {
			case serves && time.Since(began) < immediate:
				left++
				if !named[pid] {
					named[pid] = true
					_, _ = process.Signal(syscall.SIGQUIT), process.Signal(syscall.SIGCONT)
				}
			case serves || marked(pid, mark):
				left++
				_ = process.Kill()
			}
			_ = process.Release()
		}
		if left == 0 {
			return nil
		}
		if time.Since(began) > enough {
			return fmt.Errorf("%d processes don't end", left)
		}
	}
}

func processes() (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// marked says whether a process inherited the mark. One that has ended and wasn't waited for has no environment.
func marked(pid int, mark string) bool {
	environment, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	return err == nil && slices.Contains(strings.Split(string(environment), "\x00"), markVariable+"="+mark)
}

// servesBelow says whether a process is a postgres (server or backend) in a directory that was kept.
func servesBelow(pid int, kept []thing) bool {
	links := make([]string, 2)
	for i, name := range []string{"exe", "cwd"} {
		link, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), name))
		if err != nil {
			return false
		}
		links[i] = strings.TrimSuffix(link, " (deleted)")
	}
	return filepath.Base(links[0]) == "postgres" && slices.ContainsFunc(kept, func(t thing) bool {
		return t.Kind == Directory && strings.HasPrefix(links[1], filepath.Clean(t.What)+"/")
	})
}
