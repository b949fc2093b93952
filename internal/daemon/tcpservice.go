package daemon

import (
	"errors"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/tcpservice"
	"github.com/pgporter/pgporter/internal/monitor/tcpcheck"
)

// read makes the TCP services of a plan ready for the native engine: their lines are read, and the files that their
// checks need.
func read(tcp []model.TCPService) (*tcpcheck.Prepared, []tcpservice.Service, error) {
	var services []tcpservice.Service
	var failures []error
	for _, g := range tcp {
		s, problems := tcpservice.Parse(g)
		for _, what := range tcpservice.Errors(g, problems) {
			failures = append(failures, errors.New(what))
		}
		services = append(services, s)
	}
	if len(failures) > 0 {
		return nil, nil, errors.Join(failures...)
	}
	prepared, err := tcpcheck.Prepare(services)
	return prepared, services, err
}
