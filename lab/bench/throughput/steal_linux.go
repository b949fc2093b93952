package throughput

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// machineTime is what all processors together have had of time so far, and what of it another virtual machine had while this
// one wanted to run (proc(5), /proc/stat: the line `cpu`, in ticks; its eighth figure is steal).
func machineTime() (ticks, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return ticks{}, err
	}
	return parseTicks(string(text))
}

func parseTicks(stat string) (ticks, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	const stolen, guest = 8, 9 // the figures from guest on are within those before
	if len(fields) <= stolen || fields[0] != "cpu" {
		return ticks{}, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var t ticks
	for i, field := range fields[1:min(guest, len(fields))] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return ticks{}, fmt.Errorf("/proc/stat begins with %q: %w", line, err)
		}
		t.all += n
		if i+1 == stolen {
			t.stolen = n
		}
	}
	return t, nil
}
