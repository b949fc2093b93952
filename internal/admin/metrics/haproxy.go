package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// started is when the process that counts began.
var started = prometheus.NewDesc("haproxy_process_start_time_seconds", "When the process started, in seconds since 1970.", nil, nil)

func describeHAProxy(descs chan<- *prometheus.Desc) {
	descs <- started
}

func collectHAProxy(s *api.Status, series chan<- prometheus.Metric) {
	series <- prometheus.MustNewConstMetric(started, prometheus.GaugeValue, float64(s.Started.Unix()))
}
