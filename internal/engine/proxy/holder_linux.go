package proxy

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// row is a row of /proc/net/tcp or tcp6 (proc(5)): a socket with a local address.
type row struct {
	at        listenAddr
	listening bool
	uid       int
	inode     string
}

// holder says in words who has sockets on an address that overlaps at, as far as /proc tells.
func holder(at listenAddr) string {
	found := sockets(at)
	if slices.ContainsFunc(found, func(h row) bool { return h.listening }) {
		found = slices.DeleteFunc(found, func(h row) bool { return !h.listening })
	}
	if len(found) == 0 {
		return "no socket is to be seen that holds it, so who does can't be known"
	}
	return describe(found)
}

// strangers says in words who else than this process listens on an address that overlaps at; empty if nobody does.
func strangers(at listenAddr) string {
	mine := socketsOf("self")
	return describe(slices.DeleteFunc(sockets(at), func(h row) bool { return !h.listening || mine[h.inode] }))
}

// listens tells whether a process listens on an address that overlaps at. One of another network namespace counts where nobody of
// this one does: the address is reached there, then.
func listens(pid int, at listenAddr) bool {
	connected := func(row row) bool { return !row.listening }
	process := strconv.Itoa(pid)
	found := slices.DeleteFunc(sockets(at), connected)
	if len(found) == 0 && at.Addr.IsValid() && !at.Addr.IsLoopback() {
		found = slices.DeleteFunc(socketsSeenBy(process, at), connected)
	}
	theirs := socketsOf(process)
	return slices.ContainsFunc(found, func(row row) bool { return theirs[row.inode] })
}

// sockets gives all sockets of this network namespace whose local address overlaps at.
func sockets(at listenAddr) []row { return socketsSeenBy("self", at) }

// socketsSeenBy gives those of a process's network namespace.
func socketsSeenBy(process string, at listenAddr) []row {
	var found []row
	for _, file := range []string{"tcp", "tcp6"} {
		rows, err := os.Open(filepath.Join("/proc", process, "net", file))
		if err != nil {
			continue // no IPv6, as a rule
		}
		for lines := bufio.NewScanner(rows); lines.Scan(); {
			if row, ok := parseRow(lines.Text()); ok && row.at.Overlaps(at) {
				found = append(found, row)
			}
		}
		_ = rows.Close()
	}
	return found
}

func describe(found []row) string {
	var words []string
	for _, h := range found {
		verb := "listens on"
		if !h.listening {
			verb = "has a connection from"
		}
		line := fmt.Sprintf("%s %s %s", ownerOf(h), verb, h.at)
		if !slices.Contains(words, line) {
			words = append(words, line)
		}
	}
	return strings.Join(words, ", ")
}

// parseRow reads one row; false for the heading and for anything that isn't one.
func parseRow(line string) (row, bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 {
		return row{}, false
	}
	host, port, _ := strings.Cut(fields[1], ":")
	raw, err := hex.DecodeString(host)
	number, portErr := strconv.ParseUint(port, 16, 16)
	uid, uidErr := strconv.Atoi(fields[7])
	if err != nil || portErr != nil || uidErr != nil || len(raw) != 4 && len(raw) != 16 {
		return row{}, false
	}
	// Each group of four bytes is a number in the machine's order.
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, _ := netip.AddrFromSlice(raw)
	at := listenAddr{Addr: addr.Unmap(), Port: uint16(number)}
	if addr.Is6() && addr.IsUnspecified() {
		// Whether it takes IPv4 as well isn't shown; by default it does.
		at.Addr = netip.Addr{}
	}
	const listen = "0A"
	return row{at: at, listening: fields[3] == listen, uid: uid, inode: fields[9]}, true
}

func heldAt(at listenAddr) []Held {
	var all []Held
	for _, h := range sockets(at) {
		if !h.listening || h.at != at && !(at.Every() && h.at.Addr.IsUnspecified()) {
			continue
		}
		found := holdersOf(h.inode)
		if len(found) == 0 {
			found = []Held{{Inode: h.inode}}
		}
		all = append(all, found...)
	}
	return all
}

// holdersOf are the processes that are seen to have a socket open.
func holdersOf(inode string) []Held {
	var all []Held
	link := "socket:[" + inode + "]"
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || target != link {
			continue
		}
		parts := strings.Split(fd, "/")
		pid, _ := strconv.Atoi(parts[2])
		number, _ := strconv.Atoi(parts[4])
		command, err := os.ReadFile("/proc/" + parts[2] + "/comm")
		if err != nil {
			continue
		}
		all = append(all, Held{Inode: inode, PID: pid, FD: number, Command: strings.TrimSpace(string(command))})
	}
	return all
}

// ownerOf names the process that has a socket open.
func ownerOf(h row) string {
	if holders := holdersOf(h.inode); len(holders) > 0 {
		if holders[0].PID == os.Getpid() {
			return fmt.Sprintf("this pgporter (pid %d)", holders[0].PID)
		}
		return fmt.Sprintf("%s (pid %d)", holders[0].Command, holders[0].PID)
	}
	if h.uid != os.Getuid() {
		return fmt.Sprintf("a process of the user with id %d, which can't be named without root,", h.uid)
	}
	return "a process that can't be seen from here"
}

// socketsOf are the inodes of a process's sockets, as far as they may be seen.
func socketsOf(process string) map[string]bool {
	sockets := map[string]bool{}
	fds, _ := filepath.Glob(filepath.Join("/proc", process, "fd/*"))
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if inode, is := strings.CutPrefix(target, "socket:["); err == nil && is {
			sockets[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return sockets
}
