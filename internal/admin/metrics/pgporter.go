package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// buildInfo says which pgporter it is.
var buildInfo = prometheus.NewDesc("pgporter_build_info", "Always 1; which version runs is in its label.", []string{"version"}, nil)

func describePGPorter(descs chan<- *prometheus.Desc) {
	descs <- buildInfo
}

func collectPGPorter(s *api.Status, series chan<- prometheus.Metric) {
	series <- prometheus.MustNewConstMetric(buildInfo, prometheus.GaugeValue, 1, s.Version)
}
