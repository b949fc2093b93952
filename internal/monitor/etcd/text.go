package etcd

import "strings"

// longest is how much of a text from etcd is kept. Names of members are far shorter, and so is what Patroni writes into the
// failover key.
const longest = 500

// printable cuts a text from the network to what may stand in a log line or on a terminal: control characters are replaced.
func printable(value []byte) string {
	if len(value) > longest {
		value = value[:longest]
	}
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, string(value)), "?")
}
