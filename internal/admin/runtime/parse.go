package runtime

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

// longest is how long a command may be, in bytes: HAProxy's is a buffer, 16 KiB.
const longest = 16 << 10

// errTooLong is a command that is longer: the connection is closed, as HAProxy does.
var errTooLong = errors.New("a command is longer than 16384 bytes")

// readCommand reads up to the end of a line or a semicolon that no backslash is before, and leaves that out. What stands at the end of the
// input is a command, too. more says that the line goes on.
func readCommand(in *bufio.Reader) (command string, more bool, err error) {
	var b strings.Builder
	for escaped := false; ; {
		c, err := in.ReadByte()
		if errors.Is(err, io.EOF) && strings.TrimSpace(b.String()) != "" {
			return b.String(), false, nil
		}
		if err != nil {
			return "", false, err
		}
		switch {
		case c == '\n':
			return strings.TrimSuffix(b.String(), "\r"), false, nil
		case c == ';' && !escaped:
			return b.String(), true, nil
		case b.Len() == longest:
			return "", false, errTooLong
		}
		escaped = c == '\\' && !escaped
		b.WriteByte(c)
	}
}

// most is how many words a command may have; the others are left out, as HAProxy does.
const most = 64

// words are those of a command: blanks divide them unless a backslash is before. A backslash is left out, and one of two stays.
func words(command string) []string {
	var all []string
	for i := 0; i < len(command) && len(all) < most; {
		if command[i] == ' ' || command[i] == '\t' {
			i++
			continue
		}
		var word strings.Builder
		for ; i < len(command) && command[i] != ' ' && command[i] != '\t'; i++ {
			if command[i] == '\\' {
				if i++; i == len(command) {
					break
				}
			}
			word.WriteByte(command[i])
		}
		all = append(all, word.String())
	}
	return all
}
