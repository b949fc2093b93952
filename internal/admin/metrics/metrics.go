// Package metrics is the exporter: what a daemon's status says, as Prometheus reads it.
//
// One scrape asks for one api.Status, and all series are made of that one: those of a scrape always agree with each other. There is
// nothing to be counted here. The series are in two groups, by who gave them their names:
//
//	haproxy.go    haproxy_*: HAProxy's names, labels and meanings, from the table of statistics; dashboards for HAProxy are filled by it
//	pgporter.go   pgporter_*: our own
//
// No series has a label that a scraper gives its targets (ip, ins, cls, job, instance): it would rename ours.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// New registers all series with reg. They are made of what status gives, which is asked once a scrape.
func New(reg prometheus.Registerer, status func() api.Status) error {
	return reg.Register(collector{status: status})
}

// scrapes is how many are answered at once, others are told 503: with 600 services each takes 120 MB for a moment.
const scrapes = 4

// Handler answers with the series of a registry of its own, made of what status gives, in the format that the asker accepts.
func Handler(status func() api.Status) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{status: status})
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: scrapes})
}

// collector has all series.
type collector struct{ status func() api.Status }

func (c collector) Describe(descs chan<- *prometheus.Desc) {
	describeHAProxy(descs)
	describePGPorter(descs)
}

func (c collector) Collect(series chan<- prometheus.Metric) {
	status := c.status()
	collectHAProxy(&status, series)
	collectPGPorter(&status, series)
}
