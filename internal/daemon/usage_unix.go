//go:build unix

package daemon

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// processorTime is how long the process has run on processors, in user and in system mode (getrusage(2)).
func processorTime() time.Duration {
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// openFiles is how many descriptors are open: since Linux 6.2 that is the size of their directory (proc(5)), before they have to be
// counted. It is 0 where neither can be done.
func openFiles() int {
	const descriptors = "/proc/self/fd"
	if info, err := os.Stat(descriptors); err != nil {
		return 0
	} else if info.Size() > 0 {
		return int(info.Size())
	}
	dir, err := os.Open(descriptors)
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	return max(0, len(names)-1) // without the one that it is read by
}
