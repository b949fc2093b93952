package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/tcpservice"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/proxy"
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
		slots int
		want  string
	}{
		{"enough", offering(5000, 5000), 10000, ""},
		{"no limit asks for nothing", offering(0, 0), 1, ""},
		{"too few", offering(5000, 5000, 5000), 9655, "allows for 9655 clients at a time, the services' maxconn for 15000"},
		{"TCP services count", offering(0, 11), 10, "maxconn for 11"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := shortfall(test.offer, test.slots)
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestShortfallIsToldOnce(t *testing.T) {
	var log bytes.Buffer
	d := &Daemon{log: slog.New(slog.NewTextHandler(&log, nil)), tcpcheck: tcpcheck.New(slog.New(slog.DiscardHandler))}
	much, more := proxy.Slots()+1, proxy.Slots()+2
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
