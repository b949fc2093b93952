package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// version is what a program calls its version, in the first line that has one.
var version = regexp.MustCompile(`v?\d+\.\d+[\w.+~-]*`)

// machine describes on what is measured, and with what.
func machine(ctx context.Context, binary string) (string, error) {
	parts := []string{fmt.Sprintf("%d cores", runtime.NumCPU())}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			if kib, err := strconv.Atoi(fields[1]); err == nil {
				parts = append(parts, fmt.Sprintf("%.0f GiB", float64(kib)/(1<<20)))
			}
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		parts = append(parts, "Linux "+strings.TrimSpace(string(text)))
	}
	parts = append(parts, runtime.Version())
	for _, p := range []struct {
		name string
		ask  []string
	}{
		{"pgporter", []string{binary, "--version"}},
		{"PostgreSQL", []string{"/usr/lib/postgresql/15/bin/postgres", "--version"}},
		{"Patroni", []string{"patroni", "--version"}},
		{"etcd", []string{"etcd", "--version"}},
		{"PgBouncer", []string{"pgbouncer", "--version"}},
		{"HAProxy", []string{"haproxy", "-v"}},
	} {
		out, err := exec.CommandContext(ctx, p.ask[0], p.ask[1:]...).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("version of %s: %w\n%s", p.name, err, out)
		}
		parts = append(parts, p.name+" "+version.FindString(string(out)))
	}
	return strings.Join(parts, ", ") + ".", nil
}
