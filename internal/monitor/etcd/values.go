package etcd

import (
	"encoding/json"
	"strconv"
	"strings"
)

// mostParsed is how many bytes of a value are looked into. What Patroni writes is a hundred times shorter; a longer value is
// as good as none: a member of which nothing is known, no WAL position, no standby cluster.
const mostParsed = 256 << 10

// parse reads a JSON object into fields. What isn't one leaves them empty, and so does each field of another type.
func parse(value []byte, fields any) {
	if len(value) <= mostParsed {
		// The error names what is left empty.
		_ = json.Unmarshal(value, fields)
	}
}

// memberOf is the role and state in a member's value.
func memberOf(value []byte) (role, state string) {
	var m struct{ Role, State string }
	parse(value, &m)
	if m.Role == "master" {
		m.Role = "primary"
	}
	return printable([]byte(m.Role)), printable([]byte(m.State))
}

// optimeOf is the WAL position in the value of status; 0 if there is none. It is a number, or the text of one (dcs/etcd3.py
// takes both).
func optimeOf(value []byte) int64 {
	var s struct{ Optime json.RawMessage }
	parse(value, &s)
	n, err := strconv.ParseInt(strings.Trim(string(s.Optime), `"`), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// standbyOf tells whether the value of config makes the cluster a standby cluster, by the rule of Patroni's
// is_standby_cluster: a section standby_cluster with a host, a port or a restore_command that isn't empty.
func standbyOf(value []byte) bool {
	var c struct {
		Section map[string]json.RawMessage `json:"standby_cluster"`
	}
	parse(value, &c)
	for _, name := range []string{"host", "port", "restore_command"} {
		switch string(c.Section[name]) {
		case "", "null", "false", "0", `""`, "[]", "{}":
		default:
			return true
		}
	}
	return false
}
