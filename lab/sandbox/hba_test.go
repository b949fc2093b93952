package sandbox

import (
	"strings"
	"testing"
)

func TestRefusalComesAndGoes(t *testing.T) {
	const hba = "# made by Patroni\nlocal all all scram-sha-256\nhost replication replicator 127.0.0.1/32 scram-sha-256\n"
	refusal := layout{}.refusal(Member{Address: "10.10.10.12"})
	for _, line := range []string{"host replication all 127.0.0.0/8 reject\n", "host replication all 10.10.10.12/32 reject\n", "local replication all reject\n"} {
		if !strings.Contains(refusal, line) {
			t.Errorf("%q isn't in\n%s", line, refusal)
		}
	}
	if got := withoutRefusal(refusal + hba); got != hba {
		t.Errorf("taken out again it is\n%s", got)
	}
	if got := withoutRefusal(hba); got != hba {
		t.Errorf("a file without one becomes\n%s", got)
	}
}
