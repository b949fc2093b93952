//go:build !unix

package proxy

import "math"

// openFilesLimit is none where the system has none.
func openFilesLimit() uint64 { return math.MaxInt32 }
