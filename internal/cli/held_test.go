package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/admin/api"
)

func TestStatusTellsWhoWaits(t *testing.T) {
	status := &api.Status{Clusters: []api.Cluster{{Services: []api.Service{
		{FullName: "pg-test-primary", Queued: 12}, {FullName: "pg-test-replica"},
	}}}}
	var out bytes.Buffer
	if err := printStatus(&out, status, "table", false); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.HasSuffix(text, "\npg-test-primary: 12 waiting for a server\n") || strings.Count(text, "waiting") != 1 {
		t.Errorf("got\n%s", text)
	}
}

func TestStatusTellsOfAnUnreadLog(t *testing.T) {
	for dropped, want := range map[uint64]bool{0: false, 7: true} {
		var out bytes.Buffer
		if err := printStatus(&out, &api.Status{LogDropped: dropped}, "table", false); err != nil {
			t.Fatal(err)
		}
		if text := out.String(); strings.Contains(text, "\nlines of the log that nobody read in time: 7 were dropped\n") != want || strings.Contains(text, "dropped") != want {
			t.Errorf("%d dropped: got\n%s", dropped, text)
		}
	}
}
