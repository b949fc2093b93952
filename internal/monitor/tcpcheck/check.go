package tcpcheck

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/config/tcpservice"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// probe is a check that is ready to run: its files are there, its patterns compiled.
type probe struct {
	tcpservice.Check
	tls *tls.Config
	// patterns are those of HTTP.Expect, at the same index; nil where there is none.
	patterns []*regexp.Regexp
}

// newProbe makes a check ready. Files are read to see that they can be; a check reads them again.
func newProbe(c tcpservice.Check) (*probe, error) {
	p := &probe{Check: c}
	if c.HTTP != nil {
		for _, e := range c.HTTP.Expect {
			var pattern *regexp.Regexp
			if text := e.StatusPattern + e.Pattern; text != "" {
				var err error
				if pattern, err = tcpservice.Compile(text); err != nil {
					return nil, fmt.Errorf("pattern %q: %w", text, err)
				}
			}
			p.patterns = append(p.patterns, pattern)
		}
	}
	if c.TLS == nil {
		return p, nil
	}
	how := patroni.TLS{CAFile: c.TLS.CAFile, NoVerify: c.TLS.NoVerify, CertFile: c.TLS.CertFile, SNI: c.TLS.SNI, VerifyHost: c.TLS.VerifyHost}
	if err := how.Check(); err != nil {
		return nil, err
	}
	p.tls = how.Config(c.Host)
	return p, nil
}

// failed is a check that didn't pass.
func failed(format string, args ...any) health.Outcome {
	// What isn't HTTP, or a certificate, is quoted in its error.
	return health.Outcome{Silence: safetext.Short(fmt.Sprintf(format, args...), 300), Code: health.CodeFail}
}

// broken is a check that an error has ended. One of this node's own, which may have opened no socket or read no file, says nothing of the
// server.
func broken(what string, err error) health.Outcome {
	o := failed("%s: %s", what, plain(err))
	o.NotAsked, o.Code = health.Ours(err), health.CodeOf(err, true)
	return o
}

// run asks the server. An Outcome with Silence is a failure and says why; one without has the status of an HTTP check, and 0
// where connecting was all.
func (p *probe) run(ctx context.Context) health.Outcome {
	var opened atomic.Bool
	dialer := net.Dialer{Timeout: p.Connect, Control: func(string, string, syscall.RawConn) error {
		opened.Store(true)
		return nil
	}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(p.Host, strconv.Itoa(p.Port)))
	if err != nil {
		o := broken("cannot connect", err)
		// On a node without a processor to spare the time may be over before there is a socket. Of a name it may be the resolver's fault.
		_, named := netip.ParseAddr(p.Host)
		o.NotAsked = o.NotAsked || !opened.Load() && named == nil
		return o
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if p.tls != nil {
		encrypted := tls.Client(conn, p.tls)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			return broken("TLS", err)
		}
		conn = encrypted
	}
	if p.HTTP == nil {
		o := health.Outcome{Code: health.CodeConnected}
		if p.tls != nil {
			o.Code = health.CodeSecured
		}
		return o
	}
	if _, err := conn.Write(request(p.HTTP)); err != nil {
		return broken("cannot send the request", err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, mostHeader+mostBody)), &http.Request{Method: p.HTTP.Method})
	if err != nil {
		return broken("no HTTP answer", err)
	}
	outcome := p.judge(answer)
	outcome.Answer.Status = answer.StatusCode
	return outcome
}

// request writes a request as HAProxy does: what it doesn't say isn't added, but for what ends it.
func request(q *tcpservice.Request) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s %s\r\n", q.Method, q.URI, q.Version)
	closes := false
	for _, h := range q.Headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h.Name, h.Value)
		closes = closes || strings.EqualFold(h.Name, "connection")
	}
	bodiless := q.Method == "GET" || q.Method == "HEAD" || q.Method == "OPTIONS"
	if q.Body != "" || !bodiless {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(q.Body))
	}
	if !closes && q.Version != "HTTP/1.0" {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	b.WriteString(q.Body)
	return b.Bytes()
}

// mostBody is how much of an answer's body is looked at: HAProxy's tune.bufsize. mostHeader is how much there may be before it.
const (
	mostBody   = 16 << 10
	mostHeader = 64 << 10
)

// judge holds an answer against what is expected of it.
func (p *probe) judge(answer *http.Response) health.Outcome {
	status := answer.StatusCode
	var pass health.Outcome
	pass.Answer.Status = status
	if len(p.HTTP.Expect) == 0 {
		if status < 200 || status > 399 {
			return failed("%d, not 2xx or 3xx", status)
		}
		return pass
	}
	body, read := []byte(nil), false
	for i, e := range p.HTTP.Expect {
		holds, what := false, ""
		switch {
		case e.Status != nil:
			what = "the status that is expected"
			for _, r := range e.Status {
				holds = holds || r.From <= status && status <= r.To
			}
		case e.StatusPattern != "":
			what = fmt.Sprintf("a status like %q", e.StatusPattern)
			holds = p.patterns[i].MatchString(strconv.Itoa(status))
		default:
			if !read {
				// An answer that breaks off is judged by what there is of it, as in HAProxy.
				body, _ = io.ReadAll(io.LimitReader(answer.Body, mostBody))
				read = true
			}
			if e.Text != "" {
				what, holds = fmt.Sprintf("%q in its body", e.Text), bytes.Contains(body, []byte(e.Text))
			} else {
				what, holds = fmt.Sprintf("something like %q in its body", e.Pattern), p.patterns[i].Match(body)
			}
		}
		if holds != e.Not {
			continue
		}
		if e.Comment != "" {
			return failed("%d: %s", status, e.Comment)
		}
		switch {
		case e.Status != nil:
			return failed("%d, not what is expected", status)
		case e.Not:
			return failed("%d with %s", status, what)
		}
		return failed("%d without %s", status, what)
	}
	return pass
}

// plain takes the operation and the address off a network error.
func plain(err error) string {
	var errno syscall.Errno
	var name *net.DNSError
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &name):
		return name.Error()
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed"
	case errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded):
		return "timed out"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return err.Error()
}
