package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// Process is known by its id and by when it started, as the kernel gives an id to another process one day.
type Process struct {
	PID int `json:"pid"`
	// Start is in clock ticks since boot: field 22 of /proc/PID/stat (proc(5)).
	Start uint64 `json:"start"`
}

// dirVariable names the sandbox's directory in the environment of every process that it starts; what those start inherits it.
const dirVariable = "PGPORTER_SANDBOX"

// procStat is what of /proc/PID/stat is of use here.
type procStat struct {
	state byte // R, S, D, T (stopped), Z (ended, not yet waited for) …
	start uint64
}

// parseStat reads a line of /proc/PID/stat. The command's name (field 2, in parentheses) may itself hold spaces and
// parentheses, so fields are counted from the last one.
func parseStat(line []byte) (procStat, error) {
	end := bytes.LastIndexByte(line, ')')
	if end < 0 {
		return procStat{}, fmt.Errorf("no command name in %q", line)
	}
	fields := bytes.Fields(line[end+1:])
	// What follows the name begins with field 3.
	const stateField, startField = 0, 22 - 3
	if len(fields) <= startField || len(fields[stateField]) != 1 {
		return procStat{}, fmt.Errorf("too few fields in %q", line)
	}
	start, err := strconv.ParseUint(string(fields[startField]), 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("start time: %w", err)
	}
	return procStat{state: fields[stateField][0], start: start}, nil
}

func statOf(pid int) (procStat, error) {
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(line)
}

// identify gives the process that has an id now.
func identify(pid int) (Process, error) {
	st, err := statOf(pid)
	if err != nil {
		return Process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return Process{PID: pid, Start: st.start}, nil
}

// running says whether the process is still there: the same one, and not merely waiting to be reaped.
func (p Process) running() bool {
	st, err := statOf(p.PID)
	return err == nil && p.PID > 0 && st.start == p.Start && st.state != 'Z' && st.state != 'X'
}

// Runs tells whether there is a process with an id, other than one that has ended and wasn't waited for: the parent of a pgporter
// that took over may have handed over itself.
func Runs(pid int) bool {
	p, err := identify(pid)
	return err == nil && p.running()
}

// stopped says whether the process was halted by SIGSTOP.
func (p Process) stopped() bool {
	st, err := statOf(p.PID)
	return err == nil && st.start == p.Start && (st.state == 'T' || st.state == 't')
}

// errEnded is what signalling a process that isn't there any more gives.
var errEnded = errors.New("it isn't running")

// signal sends a signal to this very process. The handle is opened first and the start time looked at afterwards: if they
// agree, the handle can't be another process's.
func (p Process) signal(sig syscall.Signal) error {
	handle, err := openProcess(p.PID)
	if errors.Is(err, syscall.ESRCH) {
		return errEnded
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", p.PID, err)
	}
	defer handle.close()
	if !p.running() {
		return errEnded
	}
	if err := handle.signal(sig); err != nil {
		if errors.Is(err, syscall.ESRCH) {
			return errEnded
		}
		return fmt.Errorf("signal %s to process %d: %w", sig, p.PID, err)
	}
	return nil
}

// wait returns true when the process has ended, false if it hasn't within the time or ctx ended.
func (p Process) wait(ctx context.Context, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return poll(ctx, 20*time.Millisecond, func() bool { return !p.running() })
}

// poll asks again and again until the answer is yes or ctx ends, and gives the last answer.
func poll(ctx context.Context, every time.Duration, done func() bool) bool {
	if done() {
		return true
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return done()
		case <-ticker.C:
			if done() {
				return true
			}
		}
	}
}

// commandLine is a process's arguments, for people; the name in parentheses for one that hides them.
func commandLine(pid int) string {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	text, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err == nil {
		// Arguments end with a zero byte; they may hold line ends and worse.
		words := strings.FieldsFunc(string(text), func(r rune) bool { return unicode.IsControl(r) || r == ' ' })
		if line := []rune(strings.Join(words, " ")); len(line) > 0 {
			const most = 100
			if len(line) > most {
				return string(line[:most]) + "…"
			}
			return string(line)
		}
	}
	name, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return ""
	}
	return "(" + strings.TrimSpace(string(name)) + ")"
}

// startedAt says when a process started, for people; the clock tick is 1/100 s on Linux (sysconf _SC_CLK_TCK).
func (p Process) startedAt() time.Time {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			boot, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			if err != nil {
				return time.Time{}
			}
			return time.Unix(boot, 0).Add(time.Duration(p.Start) * 10 * time.Millisecond)
		}
	}
	return time.Time{}
}

// bootID tells one boot of the machine from another: ids and start times mean nothing across one.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// postmaster gives the PostgreSQL server of a data directory, which Patroni started: the process that postmaster.pid names,
// if it runs in that very directory. The file alone proves nothing, as it outlives a kill.
func postmaster(dataDir string) (Process, bool) {
	text, err := os.ReadFile(filepath.Join(dataDir, "postmaster.pid"))
	if err != nil {
		return Process{}, false
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 0 {
		return Process{}, false
	}
	p, err := identify(pid)
	if err != nil || !p.running() || !runsPostgresIn(pid, func(dir string) bool { return dir == dataDir }) {
		return Process{}, false
	}
	return p, true
}

// runsPostgresIn says whether a process is a postgres (server or backend) whose working directory is one that is asked for:
// PostgreSQL's processes all stay in their data directory.
func runsPostgresIn(pid int, isOurs func(dir string) bool) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	exe, err := os.Readlink(filepath.Join(dir, "exe"))
	if err != nil || filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != "postgres" {
		return false
	}
	cwd, err := os.Readlink(filepath.Join(dir, "cwd"))
	return err == nil && isOurs(strings.TrimSuffix(cwd, " (deleted)"))
}

// postgresProcesses are the server of a data directory and its backends.
func postgresProcesses(dataDir string) []Process {
	var found []Process
	for _, pid := range processIDs() {
		p, err := identify(pid)
		if err == nil && runsPostgresIn(pid, func(dir string) bool { return dir == dataDir }) {
			found = append(found, p)
		}
	}
	return found
}

// processIDs are all there are.
func processIDs() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var ids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			ids = append(ids, pid)
		}
	}
	return ids
}

// withArguments are the processes that were started with these arguments, whatever the program.
func withArguments(arguments []string) []Process {
	var found []Process
	for _, pid := range processIDs() {
		line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if err != nil {
			continue
		}
		if _, rest, _ := strings.Cut(string(line), "\x00"); rest != strings.Join(arguments, "\x00")+"\x00" {
			continue
		}
		if p, err := identify(pid); err == nil && p.running() {
			found = append(found, p)
		}
	}
	return found
}

// leftovers are the processes that belong to the sandbox in a directory, whoever started them: those whose environment
// names it, and PostgreSQL's (which write over their environment) by their working directory.
func leftovers(sandboxDir string) []Process {
	marker := []byte(dirVariable + "=" + sandboxDir + "\x00")
	var found []Process
	for _, pid := range processIDs() {
		if pid == os.Getpid() {
			continue
		}
		p, err := identify(pid)
		if err != nil || !p.running() {
			continue
		}
		environment, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
		ours := err == nil && bytes.Contains(append([]byte{0}, environment...), append([]byte{0}, marker...))
		if !ours {
			ours = runsPostgresIn(pid, func(dir string) bool {
				member, data := filepath.Split(dir)
				return data == "data" && filepath.Dir(filepath.Clean(member)) == sandboxDir
			})
		}
		if ours {
			found = append(found, p)
		}
	}
	return found
}
