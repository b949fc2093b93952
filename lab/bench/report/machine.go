package report

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// programs are those that a benchmark can be made with, and how each is asked for its version.
var programs = map[string][]string{
	"PostgreSQL": {"postgres", "--version"},
	"Patroni":    {"patroni", "--version"},
	"etcd":       {"etcd", "--version"},
	"PgBouncer":  {"pgbouncer", "--version"},
	"HAProxy":    {"haproxy", "-v"},
}

// Machine describes on what is measured: the machine, the pgporter at a path, and other programs by name (PostgreSQL,
// Patroni, etcd, PgBouncer, HAProxy).
func Machine(ctx context.Context, pgporter string, others ...string) (string, error) {
	parts := []string{System(), fmt.Sprintf("%d cores", runtime.NumCPU())}
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
	own, err := Version(ctx, pgporter)
	if err != nil {
		return "", err
	}
	parts = append(parts, "pgporter "+own)
	for _, name := range others {
		said, err := ask(ctx, name, programs[name])
		if err != nil {
			return "", err
		}
		parts = append(parts, name+" "+dotted.FindString(said))
	}
	return strings.Join(parts, ", ") + ".", nil
}

// System is the operating system by its short name and version, as in Debian 12 (os-release(5)).
func System() string {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return systemOf("")
	}
	return systemOf(string(text))
}

func systemOf(release string) string {
	fields := map[string]string{}
	for line := range strings.Lines(release) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields[name] = strings.Trim(value, `"'`)
	}
	name := strings.TrimSuffix(fields["NAME"], " GNU/Linux")
	if name == "" {
		name = "Linux"
	}
	return strings.TrimSpace(name + " " + fields["VERSION_ID"])
}

// Version is that of the pgporter at a path.
func Version(ctx context.Context, pgporter string) (string, error) {
	said, err := ask(ctx, "pgporter", []string{pgporter, "--version"})
	return ownVersion(said), err
}

func ask(ctx context.Context, name string, command []string) (string, error) {
	if command[0] == "postgres" { // never in PATH on Debian
		bin, _, err := sandbox.PostgresBin()
		if err != nil {
			return "", err
		}
		command = append([]string{filepath.Join(bin, command[0])}, command[1:]...)
	}
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("version of %s: %w\n%s", name, err, out)
	}
	return string(out), nil
}

// dotted is what most programs call a version, in the first line that has one.
var dotted = regexp.MustCompile(`v?\d+\.\d+[\w.+~-]*`)

// ownVersion is what follows the name in what pgporter says: a tag, what git describes a commit by, or the commit alone.
func ownVersion(said string) string {
	line, _, _ := strings.Cut(said, "\n")
	return strings.TrimSpace(strings.TrimPrefix(line, "pgporter"))
}
