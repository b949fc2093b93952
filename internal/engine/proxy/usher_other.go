//go:build !linux || portable

package proxy

// usher leads a client without a goroutine, which isn't possible here.
type usher struct{}

func (d *dispatcher) recall() {}
