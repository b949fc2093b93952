//go:build !linux

package cli

import (
	"context"
	"errors"
	"io"
)

// foreground says that no keys can be read: a sandbox is for Linux.
func foreground(io.Reader) bool { return false }

func readKeys(context.Context, func(byte)) error { return errors.ErrUnsupported }
