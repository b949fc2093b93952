package safetext

import (
	"slices"
	"strings"
)

// secretWords in a name mean that what it names is not for others to read.
var secretWords = []string{"password", "passwd", "passphrase", "secret", "token", "credential"}

// IsSecret tells whether a name looks like a secret's: it holds one of secretWords, or `key`, `keys`, `pass`, `pw` or `pwd` as a
// word.
func IsSecret(name string) bool {
	name = strings.ToLower(name)
	if slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(name, w) }) {
		return true
	}
	words := strings.FieldsFunc(name, func(r rune) bool { return r == '_' || r == '-' || r == '.' })
	return slices.ContainsFunc(words, func(w string) bool { return slices.Contains([]string{"key", "keys", "pass", "pw", "pwd"}, w) })
}
