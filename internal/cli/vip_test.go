package cli

import (
	"testing"

	"github.com/pgporter/pgporter/internal/admin/api"
)

func TestVirtualState(t *testing.T) {
	for _, test := range []struct {
		given api.VirtualIP
		want  string
		code  colourCode
	}{
		{api.VirtualIP{Here: true, Interface: "eth0", Why: "pg-test-1 holds the leader key"}, "is here, on eth0: pg-test-1 holds the leader key", green},
		{api.VirtualIP{Interface: "eth0", Why: "pg-test-2 holds the leader key"}, "is elsewhere: pg-test-2 holds the leader key", none},
		{api.VirtualIP{Why: "there is no network interface eth7", Problem: "there is no network interface eth7"}, "can't be kept here: there is no network interface eth7", red},
		{api.VirtualIP{Interface: "eth0", Why: "pg-test-2 holds the leader key", Problem: "it is on eth0 all the same"}, "is elsewhere: pg-test-2 holds the leader key; it is on eth0 all the same", red},
		{api.VirtualIP{Here: true, Interface: "eth0", Why: "pg-test-1 holds the leader key", Others: []string{"02:00:00:00:00:07"}},
			"is here, on eth0: pg-test-1 holds the leader key; 02:00:00:00:00:07 has it too", red},
	} {
		if words, code := virtualState(test.given); words != test.want || code != test.code {
			t.Errorf("%+v: %q in %d, want %q in %d", test.given, words, code, test.want, test.code)
		}
	}
}
