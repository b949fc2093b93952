//go:build !linux

package soak

import (
	"errors"
	"fmt"
	"runtime"
)

// filesLimitOf isn't known here.
func filesLimitOf(int) (filesLimit, error) {
	return filesLimit{}, fmt.Errorf("what holds for another process can't be seen or changed on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// limitFiles isn't possible here.
func limitFiles(pid int, _ filesLimit) error {
	_, err := filesLimitOf(pid)
	return err
}
