package daemon

import (
	"errors"

	"github.com/pgporter/pgporter/internal/section"
	"github.com/pgporter/pgporter/internal/service"
	"github.com/pgporter/pgporter/internal/upstream"
)

// read makes the generic services of a plan ready for the native engine: their lines are read, and the files that their
// checks need.
func read(generics []service.Generic) (*upstream.Prepared, []section.Service, error) {
	var services []section.Service
	var failures []error
	for _, g := range generics {
		s, problems := section.Parse(g)
		for _, what := range section.Errors(g, problems) {
			failures = append(failures, errors.New(what))
		}
		services = append(services, s)
	}
	if len(failures) > 0 {
		return nil, nil, errors.Join(failures...)
	}
	prepared, err := upstream.Prepare(services)
	return prepared, services, err
}
