package patroni

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// Config is what of a cluster's dynamic configuration (GET /config) says how it is reached.
type Config struct {
	// TTL is how long the leader key outlives its holder, in seconds; 0 if it isn't said, which is 30 for Patroni.
	TTL int
	// Standby says that the cluster follows another one; Upstream is the host that it replicates from, if that is said.
	Standby  bool
	Upstream string
}

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
	return Config{TTL: int(o.number("ttl")), Standby: len(standby) > 0, Upstream: printable(standby.text("host"))}, nil
}
