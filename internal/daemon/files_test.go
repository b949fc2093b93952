package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/tcpservice"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/tcpcheck"
)

// offering has services with these limits; the last is a TCP service.
func offering(limits ...int) engine.Offer {
	var o engine.Offer
	o.Clusters = []engine.Cluster{{}}
	for i, limit := range limits {
		definition := model.Definition{MaxConn: limit}
		if i == len(limits)-1 {
			o.TCP.Services = []tcpservice.Service{{Service: model.Service{Definition: definition}}}
			continue
		}
		o.Clusters[0].Definitions = append(o.Clusters[0].Definitions, definition)
	}
	return o
}

func TestShortfall(t *testing.T) {
	for _, test := range []struct {
		name  string
		offer engine.Offer
		files uint64
		want  string
	}{
		{"enough", offering(500, 500), 10000, ""},
		{"no limit asks for nothing", offering(0, 0), 1, ""},
		{"too few", offering(5000, 5000, 5000), 20000, "the services' maxconn for 15000"},
		{"TCP services count", offering(0, 1100), 1024, "maxconn for 1100"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := budgetOf(test.files, true, true, true).shortfall(test.offer)
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// With 1,024 open files there is place for some 400 clients, whatever else is offered; and with the limit that would do, it does.
func TestBudget(t *testing.T) {
	for _, all := range []bool{false, true} {
		o := offering(1000, 1000, 1000, 1000, 0)
		b := budgetOf(1024, all, all, all)
		if n := b.slots(o); n < 360 || n > 420 {
			t.Errorf("%d clients with 1,024 files", n)
		}
		for _, clients := range []int{1, 92, 400, 9655, 1_000_003} {
			files := b.filesFor(clients, o)
			if got := budgetOf(files, all, all, all).slots(o); got < clients {
				t.Errorf("%d clients: %d files give %d", clients, files, got)
			}
		}
	}
}

func TestShortfallIsToldOnce(t *testing.T) {
	var log bytes.Buffer
	d := &Daemon{log: slog.New(slog.NewTextHandler(&log, nil)), tcpcheck: tcpcheck.New(slog.New(slog.DiscardHandler), 8), budget: budgetOf(1024, false, false, false)}
	much, more := 1025, 1026
	for _, o := range []engine.Offer{offering(1, 1), offering(1, much), offering(1, much), offering(1, more), offering(1, 1), offering(1, more)} {
		d.tellShortfall(o)
	}
	if lines := strings.Count(log.String(), "LimitNOFILE="); lines != 3 {
		t.Errorf("logged %d times, want 3:\n%s", lines, log.String())
	}
	d.tcpcheck = nil
	log.Reset()
	d.short = ""
	d.tellShortfall(offering(1, more))
	if log.Len() > 0 {
		t.Errorf("logged of HAProxy's clients: %s", log.String())
	}
}
