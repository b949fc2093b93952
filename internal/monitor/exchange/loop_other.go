//go:build !linux || portable

package exchange

import (
	"context"
	"errors"
)

// Loop is for Linux.
type Loop struct{}

// New fails.
func New() (*Loop, error) { return nil, errors.ErrUnsupported }

// Run isn't called, since there is no Loop. Nor is any other method.
func (l *Loop) Run(context.Context) {}

// Start isn't called.
func (l *Loop) Start(context.Context, Request) {}

// Sweep isn't called.
func (l *Loop) Sweep() {}

// Beats isn't called.
func (l *Loop) Beats() uint64 { return 0 }
