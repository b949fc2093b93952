//go:build !linux

package vipd

import (
	"errors"
	"log/slog"

	"github.com/pgporter/pgporter/internal/vip"
)

// nowhere is the network interface of an address on systems on which none can be kept.
type nowhere struct{}

func openLink(vip.Want, *slog.Logger) link { return nowhere{} }

var errUnsupported = errors.New("virtual addresses are kept on Linux only")

func (nowhere) look() vip.Link         { return vip.Link{Problem: errUnsupported.Error()} }
func (nowhere) bind(int) error         { return errUnsupported }
func (nowhere) unbind() error          { return errUnsupported }
func (nowhere) announce() error        { return errUnsupported }
func (nowhere) probe() error           { return errUnsupported }
func (nowhere) claims() <-chan vip.MAC { return nil }
func (nowhere) close()                 {}
