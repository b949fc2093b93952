package health

import (
	"context"

	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// AskPatroni is the CheckFunc that asks with a Client.
func AskPatroni(c *patroni.Client) CheckFunc {
	return func(ctx context.Context, t Target) Outcome {
		answer, err := c.With(t.TLS).Get(ctx, t.Base, t.Path)
		if err != nil {
			return Outcome{Silence: err.Error()}
		}
		return Outcome{Answer: answer}
	}
}
