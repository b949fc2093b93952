package throughput

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
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

// resident is a process's memory that is in RAM, in bytes (Rss of /proc/PID/smaps_rollup).
func resident(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) == 3 && string(fields[0]) == "Rss:" {
			kib, err := strconv.ParseInt(string(fields[1]), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d: no Rss in its smaps_rollup", pid)
}
