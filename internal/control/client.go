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

	"github.com/pgporter/pgporter/internal/api"
	"github.com/pgporter/pgporter/internal/intake"
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

// Send gives an order to the node at address, host:port, and returns what it answers: that it runs, or, with dryRun, what
// would change. An error that is neither ErrRefused nor ErrUnknown means that the order didn't reach it.
func (c *Client) Send(ctx context.Context, address string, o intake.Order, dryRun bool) (api.Taken, error) {
	text, err := o.Encode()
	if err != nil {
		return api.Taken{}, err
	}
	url := "https://" + address + takePath
	if dryRun {
		url = "https://" + address + dryRunPath
	}
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(w httptrace.WroteRequestInfo) { sent.Store(w.Err == nil) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return api.Taken{}, fmt.Errorf("control address %s: %w", address, err)
	}
	req.Header.Set("Authorization", bearer+c.token)
	req.Header.Set("Content-Type", "application/json")
	// Sent once: an order whose answer was lost isn't repeated unasked.
	req.GetBody = nil
	res, err := c.http.Do(req)
	if err == nil {
		defer res.Body.Close()
		text, err = io.ReadAll(io.LimitReader(res.Body, intake.MaxBytes))
	}
	if err != nil {
		why := explain(ctx, address, err)
		if sent.Load() && !dryRun {
			return api.Taken{}, fmt.Errorf("%w: %w", ErrUnknown, why)
		}
		return api.Taken{}, why
	}
	return read200(address, res, text)
}

// read200 makes of an answer what it means.
func read200(address string, res *http.Response, text []byte) (api.Taken, error) {
	if res.StatusCode != http.StatusOK {
		var refusal api.Refusal
		if err := json.Unmarshal(text, &refusal); err != nil || refusal.Error == "" {
			return api.Taken{}, fmt.Errorf("%s answers HTTP %s, as no pgporter does: is it the control port", address, res.Status)
		}
		return api.Taken{}, fmt.Errorf("%w: %s", ErrRefused, refusal.Error)
	}
	var taken api.Taken
	if err := json.Unmarshal(text, &taken); err != nil {
		return api.Taken{}, fmt.Errorf("%w: the answer of %s isn't a pgporter's: %w", ErrUnknown, address, err)
	}
	return taken, nil
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
