package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/admin/api"
)

func TestStatusTellsOfPools(t *testing.T) {
	status := &api.Status{Pools: []api.Pool{
		{Address: "/run/postgresql:6432", Databases: []api.PoolDatabase{
			{Name: "meta", Service: "pg-test-primary", State: api.PoolPausing, Active: 1, Waiting: 19, Busy: []string{"app from unix, its last statement 3s ago"}},
			{Name: "logs", Member: "pg-test-1", State: api.PoolPaused, Waiting: 4}}},
		{Address: "127.0.0.1:6433", Problem: "no answer in 3s"},
		{Address: "127.0.0.1:6434"},
	}}
	var out bytes.Buffer
	if err := printStatus(&out, status, "table", false); err != nil {
		t.Fatal(err)
	}
	want := `PgBouncer /run/postgresql:6432: meta (in front of pg-test-primary) pausing, 1 active, 19 waiting; logs (behind pg-test-1) paused, 0 active, 4 waiting
  meta waits for app from unix, its last statement 3s ago
PgBouncer 127.0.0.1:6433: no answer in 3s
PgBouncer 127.0.0.1:6434: none of its databases leads to a service or a member of this node
`
	if text := out.String(); !strings.Contains(text, want) {
		t.Errorf("got\n%s\nwant in it\n%s", text, want)
	}
}
