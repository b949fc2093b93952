//go:build !linux || portable

package proxy

// connector leads a client without a goroutine, which isn't possible here.
type connector struct{}

func (d *dispatcher) interruptAll() {}
