// Package patroni speaks to Patroni's REST API: one check path, or the list of a cluster's members.
//
// A Client asks and reads; the one thing that it may change is who leads (Switchover), where an operator asks for it. It holds no schedule, no state of members, no retries: what an answer
// means for a service is judged elsewhere. Facts about Patroni are from its REST API documentation and from its api.py
// (3.0.2, and 4.0 where it differs).
//
// Patroni serves its API from a small pool of threads with a short backlog and closes each connection after the answer
// (HTTP/1.0). A Client therefore opens one connection a request, asks for it to be closed, and reads every answer to its
// end, so that it never holds a thread longer than its answer takes.
package patroni

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

// DefaultCAFile is where Pigsty puts the private CA of a PostgreSQL node.
const DefaultCAFile = "/pg/cert/ca.crt"

// Options of a Client.
type Options struct {
	// CAFile is the PEM file of the authority that signed the API's certificates; DefaultCAFile if empty. It is read at
	// each handshake, so a renewed one is picked up.
	//
	// With the file, certificates are verified against it alone and the name in them isn't compared, as in the
	// `check-ssl ca-file` that Pigsty renders for HAProxy: a private authority signs nobody else's. If CAFile is empty and
	// the default file doesn't exist, the system's authorities are used and the name is compared with the address. Only
	// TLS.NoVerify turns verification off.
	CAFile string
	// TLS says more of how to speak TLS; see Client.With.
	TLS TLS
}

// Client asks Patroni's REST API. It is safe for concurrent use and holds no connection between requests.
type Client struct{ options Options }

// ConnectWithin bounds a connection attempt. A full backlog (Patroni's holds 5 connections) has the kernel try again after 1 s and 3 s, and
// one that takes longer than that is no backlog.
const ConnectWithin = 4 * time.Second

// dialer's keepalives are for a host that is gone while an answer is awaited; one that is there acknowledges them, be Patroni stopped.
var dialer = net.Dialer{Timeout: ConnectWithin, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3}}

// NewClient makes a Client. It reads no proxy from the environment and follows no redirect: a check is about the very
// address that it names.
//
// Requests and answers are net/http's; the connection isn't its Transport's, which keeps two goroutines and a pool for connections
// that Patroni closes after each answer anyway, and so takes twice the processor for one.
func NewClient(o Options) *Client { return &Client{o} }

// With gives a Client with other settings of TLS. It costs next to nothing.
func (c *Client) With(t TLS) *Client {
	if t == c.options.TLS {
		return c
	}
	o := c.options
	o.TLS = t
	return NewClient(o)
}

// BaseURL is the address of a member's API, as Get and Cluster take it.
func BaseURL(host string, port int, overTLS bool) string {
	scheme := "http"
	if overTLS {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port))
}

// Get asks for a path (with its query) and gives the answer, whatever its status. An error means that there was no whole
// answer: refused, reset, timed out, cut short, not HTTP, an untrusted certificate, or longer than 1 MiB. The time is
// bounded by ctx alone.
func (c *Client) Get(ctx context.Context, base, path string) (Answer, error) {
	status, body, err := c.fetch(ctx, base, path)
	if err != nil {
		return Answer{}, err
	}
	return ParseAnswer(status, body), nil
}

// Cluster asks for the cluster's members as the answering one knows them (GET /cluster).
func (c *Client) Cluster(ctx context.Context, base string) (Cluster, error) {
	status, body, err := c.fetch(ctx, base, "/cluster")
	if err != nil {
		return Cluster{}, err
	}
	if status != http.StatusOK {
		return Cluster{}, fmt.Errorf("GET %s/cluster: the answer is %d, not 200", base, status)
	}
	cluster, err := ParseCluster(body)
	if err != nil {
		return Cluster{}, fmt.Errorf("GET %s/cluster: %w", base, err)
	}
	return cluster, nil
}

// dial connects to an API, over TLS where its address says so.
func (c *Client) dial(ctx context.Context, u *url.URL) (net.Conn, error) {
	conn, err := dialer.DialContext(ctx, "tcp", u.Host)
	if err != nil || u.Scheme != "https" {
		return conn, err
	}
	secure := tls.Client(conn, c.options.TLS.config(c.options.CAFile, u.Hostname()))
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close() //nolint:errcheck // it is of no use any more
		return nil, err
	}
	return secure, nil
}

func (c *Client) fetch(ctx context.Context, base, path string) (status int, body []byte, err error) {
	request, err := NewRequest(base, path)
	if err != nil {
		return 0, nil, err
	}
	conn, err := c.dial(ctx, request.url)
	if err != nil {
		return 0, nil, inWords(ctx, err)
	}
	defer conn.Close() //nolint:errcheck // all has been read
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past) })()
	if _, err := conn.Write(request.Text); err != nil {
		return 0, nil, inWords(ctx, err)
	}
	return read(ctx, conn)
}

// past as a deadline ends what reads or writes at once.
var past = time.Unix(1, 0)

// inWords shortens a failure to what an operator needs next to the member's name. The cause stays reachable with errors.Is.
func inWords(ctx context.Context, err error) error {
	var authority x509.UnknownAuthorityError
	var netErr net.Error
	var unknown *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return worded{"connection refused", err}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return worded{"connection reset", err}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return worded{"no route to the host", err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return worded{"connection closed without an answer", err}
	case ctx.Err() != nil:
		return worded{"timed out", ctx.Err()}
	case errors.As(err, &unknown) && !unknown.IsTimeout:
		return worded{unknown.Error(), err}
	case errors.As(err, &netErr) && netErr.Timeout():
		return worded{"timed out", err}
	case errors.As(err, &authority):
		return worded{"its certificate is signed by an unknown authority", err}
	}
	// What isn't HTTP, or a certificate, is quoted in its error.
	return worded{printable(err.Error()), err}
}

// worded is a failure with a short text.
type worded struct {
	text  string
	cause error
}

func (w worded) Error() string { return w.text }
func (w worded) Unwrap() error { return w.cause }
