package patroni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Credential is what an API with `restapi.authentication` asks of those who change something. An empty User shows nothing.
type Credential struct {
	User     string
	Password model.Secret
}

// ErrNotAsked means that a request to change something didn't reach the API: nothing has begun.
var ErrNotAsked = errors.New("the question didn't reach Patroni")

// Switchover asks the API at base to have the cluster switched over from leader to candidate, at once. Patroni answers when it sees how that
// went, after seconds, or at once with 412 if it can't be (api.py, do_POST_switchover, poll_failover_result): its status and what it says are
// given, whatever they are. An error that isn't ErrNotAsked leaves open whether it was taken.
func (c *Client) Switchover(ctx context.Context, base, leader, candidate string, who Credential) (status int, says string, err error) {
	order, err := json.Marshal(map[string]string{"leader": leader, "candidate": candidate})
	if err != nil {
		return 0, "", err
	}
	request, err := http.NewRequest(http.MethodPost, base+"/switchover", bytes.NewReader(order))
	if err != nil {
		return 0, "", fmt.Errorf("%w: %s/switchover: %w", ErrNotAsked, base, err)
	}
	request.Header.Set("User-Agent", "pgporter")
	request.Header.Set("Content-Type", "application/json")
	if who.User != "" {
		request.SetBasicAuth(who.User, who.Password.Reveal())
	}
	request.Close = true
	conn, err := c.dial(ctx, request.URL)
	if err != nil {
		return 0, "", fmt.Errorf("%w: %w", ErrNotAsked, inWords(ctx, err))
	}
	defer conn.Close() //nolint:errcheck // all has been read
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past) })()
	if err := request.Write(conn); err != nil {
		return 0, "", inWords(ctx, err)
	}
	status, body, err := read(ctx, io.Reader(conn))
	if err != nil {
		return 0, "", err
	}
	return status, safetext.Short(strings.TrimSpace(string(body)), longest), nil
}
