package sandbox

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// processHandle refers to one process for as long as it is open (pidfd_open(2), Linux 5.3), whatever becomes of its id.
type processHandle int

func openProcess(pid int) (processHandle, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	return processHandle(fd), err
}

func (h processHandle) signal(sig syscall.Signal) error {
	return unix.PidfdSendSignal(int(h), sig, nil, 0)
}

func (h processHandle) close() { unix.Close(int(h)) }

// mayManageAddresses gives a program that isn't root's what a service unit gives pgporter for virtual addresses and the port of
// names (AmbientCapabilities=, systemd.exec(5)); they count in the network namespace that it is started in.
func mayManageAddresses(attr *syscall.SysProcAttr) {
	attr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE}
}

// supported says why a sandbox can't run here.
func supported() error {
	handle, err := openProcess(syscall.Getpid())
	if err != nil {
		return fmt.Errorf("a sandbox needs Linux 5.3 or newer (pidfd_open): %w", err)
	}
	handle.close()
	return nil
}
