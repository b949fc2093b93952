package plan

import (
	"fmt"
	"strings"
	"testing"
)

// Whoever writes a default service out to give it a key of pgporter's own means that one: nothing is to be said of it. Another port is.
func TestDefaultServiceWrittenOut(t *testing.T) {
	for _, test := range []struct {
		service string
		warned  bool
	}{
		{`{ name: default, port: 5436, dest: postgres, check: /primary, selector: "[]", pool: door, hold: failover }`, false},
		{`{ name: primary, port: 5433, selector: "[]", check: /primary, allow: [10.0.0.0/8] }`, false},
		{`{ name: default, port: 5437, dest: postgres, check: /primary, selector: "[]", pool: door }`, true},
		{`{ name: default, port: 5436, dest: postgres, check: /primary, selector: "[]", maxconn: 10 }`, true},
	} {
		_, problems := Check(read(t, `pg-test:
  hosts:
    10.10.10.11: { pg_seq: 1, pg_role: primary }
  vars:
    pg_cluster: pg-test
    pg_services:
      - `+test.service+"\n"))
		if err := problems.Err(); err != nil {
			t.Fatalf("%s: %v", test.service, err)
		}
		warnings := fmt.Sprint(problems)
		if warned := strings.Contains(warnings, "takes the place of"); warned != test.warned {
			t.Errorf("%s: warned %t:\n%s", test.service, warned, warnings)
		}
	}
}
