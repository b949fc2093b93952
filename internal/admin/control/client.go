package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/intake"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Client asks nodes and sends them orders. Every node's certificate is verified, for the host that was asked for.
type Client struct {
	scheme string
	token  string
	http   *http.Client
	// explain says what an operator can do about an error of a connection.
	explain func(ctx context.Context, address string, err error) error
}

// Credential is what a client shows: a token, or a certificate with its key (files in PEM), or both.
type Credential struct {
	Token            string
	Certificate, Key string
}

// NewClient makes a Client with a token. caFile has the certificates (PEM) whose signature is trusted, a self-signed one of
// the nodes among them; empty trusts the system's authorities.
func NewClient(token, caFile string) (*Client, error) {
	return NewClientWith(Credential{Token: token}, caFile)
}

// NewClientWith makes a Client with what it shows.
func NewClientWith(c Credential, caFile string) (*Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if caFile != "" {
		var err error
		if config.RootCAs, err = readAuthority(caFile); err != nil {
			return nil, err
		}
	}
	if c.Certificate != "" {
		certificate, err := readCertificate(c.Certificate, c.Key)
		if err != nil {
			return nil, err
		}
		// Whatever authorities the node names: where it doesn't trust the certificate it says why.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
	}
	return newClient("https", c.Token, explain, &http.Transport{
		// No proxy: the token is for the node itself.
		DialContext:       (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSClientConfig:   config,
		DisableKeepAlives: true,
	}), nil
}

// NewLocalClient makes a Client of the socket for orders from this machine, which dial opens, of a pgporter that runs here.
func NewLocalClient(dial func(context.Context) (net.Conn, error)) *Client {
	return newClient("http", "", func(ctx context.Context, _ string, err error) error {
		var timeout net.Error
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
			return errors.New("interrupted")
		case errors.As(err, &timeout) && timeout.Timeout():
			return errors.New("no answer from this machine's pgporter in time")
		}
		if failed := (*url.Error)(nil); errors.As(err, &failed) {
			err = failed.Err
		}
		return err
	}, &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			// Without the values: whoever finds the socket by a request of its own must not be taken for the order (httptrace).
			plain, cancel := context.WithCancel(context.Background())
			defer cancel()
			defer context.AfterFunc(ctx, cancel)()
			return dial(plain)
		},
		DisableKeepAlives: true,
	})
}

func newClient(scheme, token string, explain func(context.Context, string, error) error, transport *http.Transport) *Client {
	return &Client{scheme: scheme, token: token, explain: explain, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// ErrRefused is a node's own word that it didn't take an order; what it ran goes on.
var ErrRefused = errors.New("refused")

// ErrUnknown means that an order was sent whole and no answer came: it may have been taken.
var ErrUnknown = errors.New("it isn't known whether the order was taken")

// Ask has the node at address, host:port, say who it is.
func (c *Client) Ask(ctx context.Context, address string) (api.Node, error) {
	var node api.Node
	_, err := c.do(ctx, http.MethodGet, address, nodePath, nil, &node)
	return node, err
}

// Status gives the state of the node at address.
func (c *Client) Status(ctx context.Context, address string) (*api.Status, error) {
	status := new(api.Status)
	if _, err := c.do(ctx, http.MethodGet, address, statusPath, nil, status); err != nil {
		return nil, err
	}
	return status, nil
}

// Events gives what happened at the node after the event with an ID.
func (c *Client) Events(ctx context.Context, address string, after uint64) ([]api.Event, error) {
	var events api.Events
	_, err := c.do(ctx, http.MethodGet, address, eventsPath+"?after="+strconv.FormatUint(after, 10), nil, &events)
	return events.Events, err
}

// Sessions gives the sessions of the node that a filter chooses.
func (c *Client) Sessions(ctx context.Context, address string, f api.SessionFilter) (api.Sessions, error) {
	query := url.Values{}
	for name, text := range map[string]string{"cluster": f.Cluster, "service": f.Service, "member": f.Member, "client": f.Client} {
		if text != "" {
			query.Set(name, text)
		}
	}
	if f.ID != 0 {
		query.Set("id", strconv.FormatUint(f.ID, 10))
	}
	if f.Idle != 0 {
		query.Set("idle_seconds", strconv.FormatFloat(float64(f.Idle), 'f', -1, 64))
	}
	if f.Limit != 0 {
		query.Set("limit", strconv.Itoa(f.Limit))
	}
	path := sessionsPath
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	var sessions api.Sessions
	_, err := c.do(ctx, http.MethodGet, address, path, nil, &sessions)
	return sessions, err
}

// Goroutines gives the stacks of the node's goroutines.
func (c *Client) Goroutines(ctx context.Context, address string) (string, error) {
	var g api.Goroutines
	_, err := c.do(ctx, http.MethodGet, address, goroutinesPath, nil, &g)
	return strings.Join(g.Lines, "\n"), err
}

// Order gives an order about servers to the node at address. ErrRefused and ErrUnknown are as for Send.
func (c *Client) Order(ctx context.Context, address string, o api.Order) ([]api.OrderResult, error) {
	var results []api.OrderResult
	err := c.change(ctx, address, serversPath, o, o.DryRun, &results)
	return results, err
}

// EndSessions has the node at address end sessions. ErrRefused and ErrUnknown are as for Send.
func (c *Client) EndSessions(ctx context.Context, address string, e api.EndSessions) (api.SessionsEnded, error) {
	var ended api.SessionsEnded
	err := c.change(ctx, address, endSessionsPath, e, e.DryRun, &ended)
	return ended, err
}

// Hold has the node at address hold new clients of a cluster's leader, or let them go. ErrRefused and ErrUnknown are as for Send.
func (c *Client) Hold(ctx context.Context, address string, o api.HoldOrder) (api.Held, error) {
	var held api.Held
	err := c.change(ctx, address, holdPath, o, false, &held)
	return held, err
}

// Reread has the node at address read its own configuration again. ErrRefused and ErrUnknown are as for Send.
func (c *Client) Reread(ctx context.Context, address string) (api.Reread, error) {
	var reread api.Reread
	err := c.change(ctx, address, rereadPath, nil, false, &reread)
	return reread, err
}

// change sends an order as JSON and reads its answer into into.
func (c *Client) change(ctx context.Context, address, path string, order any, dryRun bool, into any) error {
	var text []byte
	var err error
	if order != nil {
		if text, err = json.Marshal(order); err != nil {
			return err
		}
	}
	sent, err := c.do(ctx, http.MethodPost, address, path, text, into)
	return unknown(err, sent, dryRun)
}

// unknown marks the error of an order that was sent whole and not answered.
func unknown(err error, sent, dryRun bool) error {
	if err != nil && sent && !dryRun && !errors.Is(err, ErrRefused) {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

// Send gives an order to the node at address, host:port, and returns what it answers: that it runs, or, with dryRun, what
// would change. An error that is neither ErrRefused nor ErrUnknown means that the order didn't reach it.
func (c *Client) Send(ctx context.Context, address string, o intake.Order, dryRun bool) (api.Taken, error) {
	text, err := o.Encode()
	if err != nil {
		return api.Taken{}, err
	}
	path := takePath
	if dryRun {
		path = dryRunPath
	}
	var taken api.Taken
	sent, err := c.do(ctx, http.MethodPost, address, path, text, &taken)
	return taken, unknown(err, sent, dryRun)
}

// do makes one request and reads its answer into into. sent says that all of it went out; what became of it then is only
// known with an answer.
func (c *Client) do(ctx context.Context, method, address, path string, body []byte, into any) (sent bool, err error) {
	var wrote atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(w httptrace.WroteRequestInfo) { wrote.Store(w.Err == nil) },
	})
	req, err := http.NewRequestWithContext(ctx, method, c.scheme+"://"+address+path, bytes.NewReader(body))
	if err != nil {
		return false, fmt.Errorf("control address %s: %w", address, err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", bearer+c.token)
	}
	req.Header.Set("Content-Type", "application/json")
	// Sent once: an order whose answer was lost isn't repeated unasked.
	req.GetBody = nil
	res, err := c.http.Do(req)
	if err != nil {
		return wrote.Load(), c.explain(ctx, address, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, api.MaxAnswer))
	if err != nil {
		return true, c.explain(ctx, address, err)
	}
	if res.StatusCode != http.StatusOK {
		var refusal api.Refusal
		if err := json.Unmarshal(text, &refusal); err != nil || refusal.Error == "" {
			return false, fmt.Errorf("%s answers HTTP %s, as no control address of this version does", address, safetext.Line(res.Status))
		}
		return true, fmt.Errorf("%w: %s", ErrRefused, safetext.Text(refusal.Error))
	}
	if err := json.Unmarshal(text, into); err != nil {
		return true, fmt.Errorf("the answer of %s isn't a pgporter's: %w", address, err)
	}
	safetext.Deep(into)
	return true, nil
}

// explain says what an operator can do about an error.
func explain(ctx context.Context, address string, err error) error {
	var untrusted *tls.CertificateVerificationError
	var netErr net.Error
	switch {
	case errors.As(err, &untrusted):
		return fmt.Errorf("the certificate of %s isn't trusted: %w (--ca names whom to trust)", address, untrusted.Err)
	case errors.Is(err, http.ErrSchemeMismatch), strings.Contains(err.Error(), "first record does not look like a TLS handshake"):
		return fmt.Errorf("%s speaks no TLS: it isn't a control address", address)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens at %s: its pgporter doesn't run, or not with --control there", address)
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled):
		return errors.New("interrupted")
	case errors.As(err, &netErr) && netErr.Timeout():
		return fmt.Errorf("no answer from %s in time", address)
	}
	return fmt.Errorf("%s: %w", address, err)
}
