package patroni

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// Config is what of a cluster's dynamic configuration (GET /config) says how it is reached, and who may lead it next.
type Config struct {
	// TTL is how long the leader key outlives its holder, in seconds; 0 if it isn't said, which is 30 for Patroni.
	TTL int
	// Standby says that the cluster follows another one; Upstream is the host that it replicates from, if that is said.
	Standby  bool
	Upstream string
	// Synchronous says that commits wait for a standby: with a switchover the candidate has to be one of those.
	Synchronous bool
	// MaximumLag is how far behind a candidate may be, in bytes (maximum_lag_on_failover): 1 MiB unless it is said.
	MaximumLag int64
}

// defaultMaximumLag is Patroni's own maximum_lag_on_failover.
const defaultMaximumLag = 1 << 20

// Config asks for the cluster's dynamic configuration.
func (c *Client) Config(ctx context.Context, base string) (Config, error) {
	status, body, err := c.fetch(ctx, base, "/config")
	if err != nil {
		return Config{}, fmt.Errorf("GET %s/config: %w", base, err)
	}
	var o object
	if status != http.StatusOK {
		return Config{}, fmt.Errorf("GET %s/config: the answer is %d, not 200", base, status)
	}
	if err := json.Unmarshal(body, &o); err != nil {
		return Config{}, fmt.Errorf("GET %s/config: the answer isn't a JSON object: %w", base, err)
	}
	standby := o.object("standby_cluster")
	settings := Config{TTL: int(o.number("ttl")), Standby: len(standby) > 0, Upstream: printable(standby.text("host")), MaximumLag: defaultMaximumLag}
	if _, said := o["maximum_lag_on_failover"]; said {
		settings.MaximumLag = o.number("maximum_lag_on_failover")
	}
	// true, or a word: on, quorum (from 4.0 on).
	word := strings.ToLower(o.text("synchronous_mode"))
	settings.Synchronous = o.truth("synchronous_mode") || word == "on" || word == "true" || word == "yes" || word == "1" || word == "quorum"
	return settings, nil
}
