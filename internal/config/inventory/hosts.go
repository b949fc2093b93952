package inventory

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxExpansion bounds the hosts that one pattern may mean.
const maxExpansion = 100_000

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// expand gives the host names that a key under `hosts` means: ranges in brackets written out, a port after the name dropped
// (it is SSH's).
func expand(pattern string) ([]string, error) {
	name := withoutPort(pattern)
	names := []string{""}
	for name != "" {
		head, rest, hasRange := strings.Cut(name, "[")
		if !hasRange {
			return attach(names, []string{head})
		}
		bounds, tail, closed := strings.Cut(rest, "]")
		if !closed {
			return nil, errors.New("a range is never closed with ]")
		}
		sequence, err := sequence(bounds)
		if err != nil {
			return nil, fmt.Errorf("range [%s] %w", bounds, err)
		}
		if names, err = attach(names, []string{head}); err != nil {
			return nil, err
		}
		if names, err = attach(names, sequence); err != nil {
			return nil, err
		}
		name = tail
	}
	return names, nil
}

func attach(names, endings []string) ([]string, error) {
	if len(names)*len(endings) > maxExpansion {
		return nil, fmt.Errorf("means more than %d hosts", maxExpansion)
	}
	attached := make([]string, 0, len(names)*len(endings))
	for _, n := range names {
		for _, e := range endings {
			attached = append(attached, n+e)
		}
	}
	return attached, nil
}

// sequence writes out begin:end or begin:end:step, of numbers (all of one width if begin has a leading zero) or of letters.
func sequence(bounds string) ([]string, error) {
	parts := strings.Split(bounds, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return nil, errors.New("isn't begin:end or begin:end:step")
	}
	begin, end := parts[0], parts[1]
	if begin == "" {
		begin = "0"
	}
	if end == "" {
		return nil, errors.New("has no end")
	}
	step := 1
	if len(parts) == 3 {
		var err error
		if step, err = strconv.Atoi(parts[2]); err != nil || step < 1 {
			return nil, errors.New("has a step that is no positive number")
		}
	}
	write := strconv.Itoa
	first, last := letterOf(begin), letterOf(end)
	if first >= 0 && last >= 0 {
		write = func(i int) string { return letters[i : i+1] }
	} else {
		var errBegin, errEnd error
		first, errBegin = strconv.Atoi(begin)
		last, errEnd = strconv.Atoi(end)
		if errBegin != nil || errEnd != nil || first < 0 || last < 0 {
			return nil, errors.New("goes neither from number to number nor from letter to letter")
		}
		if len(begin) > 1 && begin[0] == '0' {
			if len(begin) != len(end) {
				return nil, errors.New("has bounds of different widths")
			}
			write = func(i int) string { return fmt.Sprintf("%0*d", len(begin), i) }
		}
	}
	if first > last {
		return nil, errors.New("ends before it begins")
	}
	if (last-first)/step >= maxExpansion {
		return nil, fmt.Errorf("means more than %d hosts", maxExpansion)
	}
	var names []string
	for i := first; i <= last; i += step {
		names = append(names, write(i))
		if i > last-step {
			break
		}
	}
	return names, nil
}

func letterOf(s string) int {
	if len(s) != 1 {
		return -1
	}
	return strings.Index(letters, s)
}

// withoutPort drops the port of name:port and [address]:port. A colon inside a range, and those of a bare IPv6 address,
// begin none.
func withoutPort(pattern string) string {
	at := strings.LastIndexByte(pattern, ':')
	if at < 0 {
		return pattern
	}
	name, port := pattern[:at], pattern[at+1:]
	if port == "" || strings.Trim(port, "0123456789") != "" {
		return pattern
	}
	if inner, ok := strings.CutPrefix(name, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			if _, err := netip.ParseAddr(inner); err == nil {
				return inner
			}
		}
	}
	depth := 0
	for _, c := range name {
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case c == ':' && depth == 0:
			return pattern
		}
	}
	return name
}
