package metrics

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// One scrape asks for the status once, however many series there are.
func TestOneStatusAScrape(t *testing.T) {
	asked := 0
	registry := prometheus.NewPedanticRegistry()
	if err := New(registry, func() api.Status {
		asked++
		return api.Status{Version: "1.2.3", Started: time.Unix(1000, 0)}
	}); err != nil {
		t.Fatal(err)
	}
	if n, err := testutil.GatherAndCount(registry); err != nil || n < 2 || asked != 1 {
		t.Fatalf("%d series of %d statuses, %v", n, asked, err)
	}
}
