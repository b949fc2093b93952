package sandbox

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// signals are those that a test of failures sends, by their names without SIG.
var signals = map[string]syscall.Signal{
	"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM,
	"STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "ABRT": syscall.SIGABRT,
	"SEGV": syscall.SIGSEGV,
}

// ParseSignal reads a signal as people write it: KILL, SIGKILL, kill or 9.
func ParseSignal(text string) (syscall.Signal, error) {
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if sig, ok := signals[name]; ok {
		return sig, nil
	}
	if number, err := strconv.Atoi(text); err == nil {
		for _, sig := range signals {
			if int(sig) == number {
				return sig, nil
			}
		}
	}
	return 0, fmt.Errorf("signal %q: one of %s, or its number", text, strings.Join(signalNames(), ", "))
}

func signalNames() []string {
	var names []string
	for name := range signals {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func signalName(sig syscall.Signal) string {
	for name, s := range signals {
		if s == sig {
			return "SIG" + name
		}
	}
	return sig.String()
}
