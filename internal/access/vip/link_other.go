//go:build !linux

package vip

import (
	"errors"
	"log/slog"

	"github.com/pgporter/pgporter/internal/access/vip/owner"
)

// nowhere is the network interface of an address on systems on which none can be kept.
type nowhere struct{}

func openLink(owner.Want, *slog.Logger) link { return nowhere{} }

var errUnsupported = errors.New("virtual addresses are kept on Linux only")

func (nowhere) look() owner.Link         { return owner.Link{Problem: errUnsupported.Error()} }
func (nowhere) bind(int) error           { return errUnsupported }
func (nowhere) unbind() error            { return errUnsupported }
func (nowhere) announce() error          { return errUnsupported }
func (nowhere) probe() error             { return errUnsupported }
func (nowhere) claims() <-chan owner.MAC { return nil }
func (nowhere) close()                   {}
