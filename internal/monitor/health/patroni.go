package health

import (
	"context"
	"errors"
	"syscall"

	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// AskPatroni is the CheckFunc that asks with a Client.
func AskPatroni(c *patroni.Client) CheckFunc {
	return func(ctx context.Context, t Target) Outcome {
		answer, err := c.With(t.TLS).Get(ctx, t.Base, t.Path)
		if err != nil {
			return silent(err, err.Error(), true)
		}
		return Outcome{Answer: answer}
	}
}

// Ours says that a check failed for a want of this node's own: descriptors, memory, local ports.
// It says nothing of whoever was to be asked.
func Ours(err error) bool {
	for _, want := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, want) {
			return true
		}
	}
	return false
}
