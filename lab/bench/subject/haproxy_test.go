package subject

import "testing"

func TestStandAlone(t *testing.T) {
	const base = `global
    user haproxy
    group haproxy
    node pg-test-1
    stats socket /var/run/haproxy.sock mode 600
    maxconn 65535

defaults
    timeout queue 3s

userlist stats-auth
    group admin users admin

listen stats
    bind *:9101
    stats enable
`
	const want = `global
    no strict-limits
    node pg-test-1

defaults
    timeout queue 3s

userlist stats-auth
    group admin users admin

listen stats
    bind 127.0.5.41:9101
    stats enable
`
	if got := string(standAlone([]byte(base), "127.0.5.41")); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
