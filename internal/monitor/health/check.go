package health

import (
	"context"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// Target is what a check asks: a member's API at a base address, and a path; or a port that services have (see
// DestinationOf). Two checks with equal targets are one.
type Target struct {
	Member string
	// Base is scheme, host and port: http://10.10.10.11:8008; for a destination host and port.
	Base string
	Path string
	// TLS says how it is spoken if Base is https.
	TLS patroni.TLS
	// Proxy is the version of the PROXY protocol that a destination wants to be spoken to in; 0 is none.
	Proxy byte
}

// CheckFunc runs one check. ctx ends when nobody wants to know any more.
type CheckFunc func(ctx context.Context, t Target) Outcome

// Result is an Outcome with what it is of.
type Result struct {
	Target  Target
	Outcome Outcome
	// Ended is when it was there.
	Ended time.Time
}

// Timeout is how long a check may take before that is silence, whose smallest `inter` is given: HAProxy's `timeout check` of 3 s,
// less where checks follow each other faster, but at least a second, because an answer includes a query that a busy
// PostgreSQL runs late.
func Timeout(inter time.Duration) time.Duration {
	return min(3*time.Second, max(inter, time.Second))
}
