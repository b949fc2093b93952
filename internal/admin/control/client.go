package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/intake"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Client sends orders to nodes. Every node's certificate is verified, for the host that was asked for.
type Client struct {
	token string
	http  *http.Client
}

// NewClient makes a Client with a token. caFile has the certificates (PEM) whose signature is trusted, a self-signed one of
// the nodes among them; empty trusts the system's authorities.
func NewClient(token, caFile string) (*Client, error) {
	var roots *x509.CertPool
	if caFile != "" {
		text, err := readBounded(caFile)
		if err != nil {
			return nil, fmt.Errorf("authority %s: %w", caFile, plain(err))
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("authority %s: it has no certificate (PEM)", caFile)
		}
	}
	return &Client{token: token, http: &http.Client{
		Transport: &http.Transport{
			// No proxy: the token is for the node itself.
			DialContext:       (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
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
	if err != nil && sent && !dryRun && !errors.Is(err, ErrRefused) {
		err = fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return taken, err
}

// do makes one request and reads its answer into into. sent says that all of it went out; what became of it then is only
// known with an answer.
func (c *Client) do(ctx context.Context, method, address, path string, body []byte, into any) (sent bool, err error) {
	var wrote atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(w httptrace.WroteRequestInfo) { wrote.Store(w.Err == nil) },
	})
	req, err := http.NewRequestWithContext(ctx, method, "https://"+address+path, bytes.NewReader(body))
	if err != nil {
		return false, fmt.Errorf("control address %s: %w", address, err)
	}
	req.Header.Set("Authorization", bearer+c.token)
	req.Header.Set("Content-Type", "application/json")
	// Sent once: an order whose answer was lost isn't repeated unasked.
	req.GetBody = nil
	res, err := c.http.Do(req)
	if err != nil {
		return wrote.Load(), explain(ctx, address, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, intake.MaxBytes))
	if err != nil {
		return true, explain(ctx, address, err)
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
