package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/config/safetext"
)

// MaxAnswer bounds what is read of an answer: 1,000 clusters make about 4 MB of status.
const MaxAnswer = 64 << 20

// DefaultPort is the admin address's port where none is given.
const DefaultPort = "8432"

// Client asks a daemon at its admin address.
type Client struct {
	// Address is host:port.
	Address string
}

// connection settings of every client: the admin address is on this machine or close to it, so no proxy is asked.
var transport = &http.Transport{DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext, ResponseHeaderTimeout: 10 * time.Second}

// Status gives the daemon's state.
func (c Client) Status(ctx context.Context) (*Status, error) {
	code, body, err := c.get(ctx, "/status")
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("status from %s: HTTP %d %s", c.Address, code, http.StatusText(code))
	}
	var status Status
	if err := json.Unmarshal(body, &status); err != nil {
		return nil, fmt.Errorf("status from %s isn't a pgporter's: %w", c.Address, err)
	}
	status.show()
	return &status, nil
}

// Events gives what happened after the event with an ID; a daemon that tells no events is one where nothing happens.
func (c Client) Events(ctx context.Context, after uint64) ([]Event, error) {
	code, body, err := c.get(ctx, "/events?after="+strconv.FormatUint(after, 10))
	switch {
	case err != nil:
		return nil, err
	case code == http.StatusNotFound:
		return nil, nil
	case code != http.StatusOK:
		return nil, fmt.Errorf("events from %s: HTTP %d %s", c.Address, code, http.StatusText(code))
	}
	var events Events
	if err := json.Unmarshal(body, &events); err != nil {
		return nil, fmt.Errorf("events from %s aren't a pgporter's: %w", c.Address, err)
	}
	safetext.Deep(&events)
	return events.Events, nil
}

// Health says what of the daemon doesn't work, a line each; nothing if all does.
func (c Client) Health(ctx context.Context) error {
	code, body, err := c.get(ctx, "/health")
	switch {
	case err != nil:
		return err
	case code == http.StatusOK && string(body) == "ok\n":
		return nil
	case code == http.StatusServiceUnavailable:
		return errors.New(safetext.Text(strings.TrimSpace(string(body))))
	}
	return fmt.Errorf("health from %s isn't a pgporter's: HTTP %d %s", c.Address, code, http.StatusText(code))
}

// get asks for a path. An error is that there is no answer.
func (c Client) get(ctx context.Context, path string) (code int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Address+path, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("admin address %s: %w", c.Address, err)
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		var late net.Error
		var dialed *net.OpError
		if errors.As(err, &late) && late.Timeout() && !errors.As(err, &dialed) {
			return 0, nil, fmt.Errorf("admin address %s takes connections and doesn't answer: %w", c.Address, cause(err))
		}
		return 0, nil, fmt.Errorf("no pgporter answers at %s (give --admin if it listens elsewhere): %w", c.Address, cause(err))
	}
	defer res.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(res.Body, MaxAnswer)); err != nil {
		return 0, nil, fmt.Errorf("%s from %s: %w", path[1:], c.Address, err)
	}
	return res.StatusCode, body, nil
}

// cause is what went wrong, without the addresses around it: whoever says it has named them.
func cause(err error) error {
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		err = failed.Err
	}
	if failed := (*net.OpError)(nil); errors.As(err, &failed) {
		err = failed.Err
	}
	if failed := (*os.SyscallError)(nil); errors.As(err, &failed) {
		err = failed.Err
	}
	return err
}

// show makes all texts fit to be shown: whoever listens at the address has written them. Why a reload was refused, or an upgrade was
// in vain, may be several lines.
func (s *Status) show() {
	refused, problem, instead := safetext.Text(s.Config.Refused), "", ""
	if s.Config.Plan != nil {
		instead = safetext.Text(s.Config.Plan.Instead)
	}
	if s.Upgrade != nil {
		problem = safetext.Text(s.Upgrade.Problem)
	}
	safetext.Deep(s)
	s.Config.Refused = refused
	if s.Config.Plan != nil {
		s.Config.Plan.Instead = instead
	}
	if s.Upgrade != nil {
		s.Upgrade.Problem = problem
	}
}
