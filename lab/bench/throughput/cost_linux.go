package throughput

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// processorTime is what all threads of a process, those that have ended too, have spent on processors: its CPU-time clock
// (clock_getcpuclockid(3)), in nanoseconds where /proc/PID/stat counts in ticks of 10 ms.
func processorTime(pid int) (time.Duration, error) {
	// The id of another process's clock: kernel, include/linux/posix-timers.h, CPUCLOCK_SCHED of a process.
	const sched = 2
	var at unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|sched, &at); err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	return time.Duration(at.Nano()), nil
}

// resident is a process's memory that is in RAM, in bytes.
func resident(pid int) (int64, error) {
	all, _, err := memory(pid)
	return all, err
}

// memory is a process's memory that is in RAM, and how much of that other processes may have too, in bytes (Rss and Shared_… of
// /proc/PID/smaps_rollup).
func memory(pid int) (all, shared int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0, err
	}
	found := false
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) != 3 {
			continue
		}
		name := string(fields[0])
		if name != "Rss:" && !strings.HasPrefix(name, "Shared_") {
			continue
		}
		kib, err := strconv.ParseInt(string(fields[1]), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("process %d, %s: %w", pid, name, err)
		}
		if name == "Rss:" {
			all, found = kib<<10, true
		} else {
			shared += kib << 10
		}
	}
	if !found {
		return 0, 0, fmt.Errorf("process %d: no Rss in its smaps_rollup", pid)
	}
	return all, shared, nil
}

// treeCost is what a process and all that descend from it have spent and hold. Processes that have ended are in it once their
// parent has waited for them, as everything of theirs is (proc(5), /proc/PID/stat: cutime, cstime).
func treeCost(pid int) (cost, error) {
	own, err := processorTime(pid)
	if err != nil {
		return cost{}, err
	}
	held, shared, err := memory(pid)
	if err != nil {
		return cost{}, err
	}
	ended, err := endedChildren(pid)
	if err != nil {
		return cost{}, err
	}
	all := cost{processor: own + ended, private: held - shared, shared: shared}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return cost{}, err
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // a thread that has ended
		}
		if err != nil {
			return cost{}, err
		}
		for field := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return cost{}, fmt.Errorf("%s: %w", list, err)
			}
			c, err := treeCost(child)
			if err != nil {
				continue // it has ended since: it is among what its parent waited for the next time
			}
			all.processor += c.processor
			all.private += c.private
			all.shared = max(all.shared, c.shared)
		}
	}
	return all, nil
}

// tick is the unit of times in /proc (sysconf(_SC_CLK_TCK), which is 100 on Linux for all programs).
const tick = 10 * time.Millisecond

func endedChildren(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may have anything in it; what follows it begins with the third field.
	_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')')+1:]), " ")
	fields := strings.Fields(rest)
	const third, cutime, cstime = 3, 16, 17
	if len(fields) <= cstime-third {
		return 0, fmt.Errorf("/proc/%d/stat is %q", pid, text)
	}
	var all time.Duration
	for _, field := range []string{fields[cutime-third], fields[cstime-third]} {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		all += time.Duration(n) * tick
	}
	return all, nil
}
