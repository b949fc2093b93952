//go:build !linux

package proxy

import (
	"net"
	"syscall"
)

// allowMissingAddress has no counterpart here: an address has to exist when it is bound.
func allowMissingAddress(uintptr, bool) error { return nil }

// takeOver isn't possible here: from `*` to an address of the node or back needs a restart.
func takeOver(at listenAddr, leaving []*listener) (*net.TCPListener, error) {
	return nil, &BindError{at.String(), "pgporter itself listens on " + leaving[0].addr.String() + ": restart it to change that", syscall.EADDRINUSE}
}

// listenSteerable has no counterpart here.
func listenSteerable(at listenAddr) (*net.TCPListener, error) { return listenOn(at, nil) }

// holder can't be known here.
func holder(listenAddr) string { return "" }

// listens can't be known here.
func listens(int, listenAddr) bool { return false }

func heldAt(listenAddr) []Held { return nil }
