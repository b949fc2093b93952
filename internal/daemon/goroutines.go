package daemon

import (
	"fmt"
	"runtime/pprof"
	"strings"
)

// mostStacks bounds the text of goroutines' stacks: thousands with the same one are told once.
const mostStacks = 4 << 20

// goroutines are the stacks of all goroutines, those with the same one together.
func goroutines() (string, error) {
	var text strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&text, 1); err != nil {
		return "", fmt.Errorf("the goroutines can't be told: %w", err)
	}
	if text.Len() > mostStacks {
		return text.String()[:mostStacks], nil
	}
	return text.String(), nil
}
