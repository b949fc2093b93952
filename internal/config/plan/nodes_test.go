package plan

import (
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/inventory"
)

func TestNodes(t *testing.T) {
	inv, problems := inventory.Parse("t.yml", []byte(`all:
  children:
    pg-a:
      hosts: { 10.0.0.2: { pg_seq: 1, pg_role: primary }, 10.0.0.1: { pg_seq: 2, pg_role: replica } }
      vars: { pg_cluster: pg-a }
    pg-b:
      hosts: { 10.0.1.1: { pg_seq: 1, pg_role: primary } }
      vars: { pg_cluster: pg-b, pg_service_provider: proxy }
    pg-c:
      hosts: { 10.0.2.1: { pg_seq: 1, pg_role: primary } }
      vars: { pg_cluster: pg-c, pg_service_provider: nowhere }
    pg-d:
      hosts: { 10.0.3.1: { pg_seq: 1, pg_role: primary }, 10.0.3.2: { pg_seq: 2, pg_role: replica, pg_service_provider: '' } }
      vars: { pg_cluster: pg-d, pg_service_provider: pg-d }
    proxy:
      hosts: { 10.0.9.1: , 10.0.9.2: }
`))
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	if got := strings.Join(Clusters(inv), " "); got != "pg-a pg-b pg-c pg-d" {
		t.Errorf("clusters %s", got)
	}
	for cluster, want := range map[string]string{
		"pg-a":  "10.0.0.2 10.0.0.1 | 10.0.0.2 10.0.0.1",
		"pg-b":  "10.0.9.1 10.0.9.2 | 10.0.1.1",
		"pg-c":  "10.0.2.1 | 10.0.2.1",
		"pg-d":  "10.0.3.1 10.0.3.2 | 10.0.3.1 10.0.3.2",
		"proxy": " | ",
	} {
		carriers, members := Nodes(inv, cluster)
		if got := strings.Join(carriers, " ") + " | " + strings.Join(members, " "); got != want {
			t.Errorf("%s: %s, want %s", cluster, got, want)
		}
	}
}
