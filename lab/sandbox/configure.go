package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
)

// Configure changes the dynamic configuration of pg-test (Patroni's manual, "Dynamic configuration settings"): keys of its
// top level, nil takes one away. It returns when every member has read it.
func (s *Sandbox) Configure(ctx context.Context, changes map[string]any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, switchTimeout, fmt.Errorf("not done within %s", switchTimeout))
	defer cancel()
	leader, err := s.leader(ctx, mainCluster)
	if err != nil {
		return err
	}
	status, text, err := s.ask(ctx, restAccount, http.MethodPatch, leader.restURL("/config"), changes, switchTimeout)
	if err != nil {
		return fmt.Errorf("configuration of %s: %w", mainCluster, err)
	}
	var wanted map[string]any
	if err := json.Unmarshal(text, &wanted); err != nil || status != http.StatusOK {
		return fmt.Errorf("configuration of %s: Patroni of %s refuses (%d): %s", mainCluster, leader.Name, status, text)
	}
	return s.await(ctx, "every member has the new configuration", func(ctx context.Context) error {
		for _, m := range s.layout.of(mainCluster) {
			_, text, err := s.ask(ctx, Account{}, http.MethodGet, m.restURL("/config"), nil, restTimeout)
			if err != nil {
				return err
			}
			var has map[string]any
			if err := json.Unmarshal(text, &has); err != nil {
				return fmt.Errorf("patroni of %s: %w", m.Name, err)
			}
			if !reflect.DeepEqual(has, wanted) {
				return fmt.Errorf("%s hasn't read it yet", m.Name)
			}
		}
		return nil
	})
}
