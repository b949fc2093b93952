//go:build !linux

package netns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
)

var errLinux = errors.New("network namespaces are Linux's")

// Supported says why there can't be a LAN here.
func Supported() error { return errLinux }

// Up makes the LAN: on Linux only.
func (l LAN) Up() error { return errors.Join(errLinux, l.check()) }

// Remove takes a LAN away; there is none.
func Remove(string) error { return nil }

// Do runs f on a node: on Linux only.
func (l LAN) Do(string, func() error) error { return errLinux }

// Dial connects from a node: on Linux only.
func (l LAN) Dial(context.Context, string, string, string) (net.Conn, error) { return nil, errLinux }

// Enter puts the calling thread on a node: on Linux only.
func (l LAN) Enter(string) error { return errLinux }

// Start starts a program on a node: on Linux only.
func (l LAN) Start(string, *exec.Cmd) error { return errLinux }

// Reset takes additional addresses from a node: on Linux only.
func (l LAN) Reset(string) error { return errLinux }

// Addresses are what a node's interface has now: on Linux only.
func (l LAN) Addresses(string) ([]netip.Prefix, error) { return nil, errLinux }

// Cut has the switch lose frames: on Linux only.
func (l LAN) Cut(oneWay bool, node string, others ...string) error {
	_, err := l.cutsBetween(node, others, oneWay)
	return errors.Join(errLinux, err)
}

// Unplug takes a node's link down: on Linux only.
func (l LAN) Unplug(string) error { return errLinux }

// Plug puts an unplugged node's cable back: on Linux only.
func (l LAN) Plug(string) error { return errLinux }

// Heal ends all cuts and plugs every node in: on Linux only.
func (l LAN) Heal() error { return errLinux }

// Faults are what is cut and unplugged: on Linux only.
func (l LAN) Faults() (Faults, error) { return Faults{Cuts: merged(nil, nil)}, errLinux }
