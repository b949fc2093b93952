package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/api"
)

func TestStatusTellsWhoWaits(t *testing.T) {
	status := &api.Status{Clusters: []api.Cluster{{Services: []api.Service{
		{FullName: "pg-test-primary", Held: 12}, {FullName: "pg-test-replica"},
	}}}}
	var out bytes.Buffer
	if err := printStatus(&out, status, "table", false); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.HasSuffix(text, "\npg-test-primary: 12 waiting for a server\n") || strings.Count(text, "waiting") != 1 {
		t.Errorf("got\n%s", text)
	}
}
