//go:build !linux

package sandbox

import (
	"errors"
	"syscall"
)

var errLinux = errors.New("a sandbox runs on Linux only: it knows its processes by /proc")

type processHandle struct{}

func openProcess(int) (processHandle, error) { return processHandle{}, errLinux }

func (processHandle) signal(syscall.Signal) error { return errLinux }

func (processHandle) close() {}

func mayManageAddresses(*syscall.SysProcAttr) {}

func supported() error { return errLinux }
