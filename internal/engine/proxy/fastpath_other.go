//go:build !linux || portable

package proxy

// fastPath has no clients here: each has a goroutine.
type fastPath struct{}

func (*fastPath) interrupt() {}
