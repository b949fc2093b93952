//go:build !unix

package daemon

import "time"

// processorTime and openFiles aren't known here.
func processorTime() time.Duration { return 0 }

func openFiles() int { return 0 }
