package sandbox

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// portTaken is an address that something else listens on.
type portTaken struct {
	address string
	// pid is 0 where /proc doesn't tell whose socket it is.
	pid     int
	command string
}

func (t portTaken) Error() string {
	if t.pid == 0 {
		return fmt.Sprintf("%s is taken, by a process that can't be seen from here", t.address)
	}
	return fmt.Sprintf("%s is taken by process %d: %s", t.address, t.pid, t.command)
}

// tryPort says whether a server could listen on host:port now: nil, a portTaken, or why the address can't be used. It takes the address for an
// instant, which whoever is about to listen there must not find taken.
func tryPort(address string) error {
	listener, err := net.Listen("tcp4", address)
	if err == nil {
		return listener.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s can't be listened on: %w", address, err)
	}
	taken := portTaken{address: address}
	if want, err := netip.ParseAddrPort(address); err == nil {
		taken.pid = listenerPID(want)
	}
	if taken.pid != 0 {
		taken.command = commandLine(taken.pid)
	}
	return taken
}

// listeners are the sockets, by what /proc calls them, that listen on an address or on the wildcard with its port. Looking for them takes the
// address from nobody, be it for an instant.
func listeners(want netip.AddrPort) map[string]bool {
	inodes := map[string]bool{}
	for _, name := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		table, err := os.Open(name)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(table); lines.Scan(); {
			if local, inode, ok := parseListener(lines.Text()); ok && local.Port() == want.Port() && (local.Addr() == want.Addr() || local.Addr().IsUnspecified()) {
				inodes["socket:["+inode+"]"] = true
			}
		}
		table.Close()
	}
	return inodes
}

// listenerPID finds the process that listens on an address or on the wildcard with its port; 0 if that can't be seen.
func listenerPID(want netip.AddrPort) int {
	inodes := listeners(want)
	if len(inodes) == 0 {
		return 0
	}
	for _, pid := range processIDs() {
		dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
		descriptors, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, d := range descriptors {
			if target, err := os.Readlink(filepath.Join(dir, d.Name())); err == nil && inodes[target] {
				return pid
			}
		}
	}
	return 0
}

// parseListener reads a line of /proc/net/tcp or tcp6 (proc(5)): the address and inode of a socket in state LISTEN (0A).
// Addresses are 32-bit words in the machine's byte order, which is little-endian wherever this runs.
func parseListener(line string) (local netip.AddrPort, inode string, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 || fields[3] != "0A" {
		return netip.AddrPort{}, "", false
	}
	host, port, ok := strings.Cut(fields[1], ":")
	if !ok {
		return netip.AddrPort{}, "", false
	}
	raw, err := hex.DecodeString(host)
	number, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil || (len(raw) != 4 && len(raw) != 16) {
		return netip.AddrPort{}, "", false
	}
	for word := 0; word < len(raw); word += 4 {
		raw[word], raw[word+1], raw[word+2], raw[word+3] = raw[word+3], raw[word+2], raw[word+1], raw[word]
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)), fields[9], true
}
