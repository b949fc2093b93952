//go:build unix

package proxy

import (
	"math"
	"syscall"
)

// openFilesLimit is the process's limit of open files (getrlimit(2), RLIMIT_NOFILE).
func openFilesLimit() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt32
	}
	return uint64(limit.Cur)
}
