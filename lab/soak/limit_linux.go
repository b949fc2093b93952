package soak

import "golang.org/x/sys/unix"

// filesLimitOf gives a process's limit: prlimit(2).
func filesLimitOf(pid int) (filesLimit, error) {
	var limit unix.Rlimit
	err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit)
	return filesLimit{limit.Cur, limit.Max}, err
}

// limitFiles sets a process's limit.
func limitFiles(pid int, limit filesLimit) error {
	return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit.soft, Max: limit.hard}, nil)
}
