package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"syscall"
)

// Last is what the last check brought, as HAProxy would say it (management guide, "check_status").
type Last struct {
	// Code is HAProxy's.
	Code string
	// Status is an HTTP answer's, 0 without one. Text says in words what came.
	Status int
	Text   string
	// Health is 0 for down and rise+fall-1 for up; between them results in a row are counted.
	Health int
}

// HAProxy's codes for what checks bring: not checked yet, connected (where that is all), nobody there, nobody in time, TLS made (where that is all), TLS that failed, no
// answer in time, nonsense, an answer that passes, one that doesn't; and for a check that this node couldn't make.
const (
	codeNone      = "INI"
	CodeConnected = "L4OK"
	codeNobody    = "L4CON"
	codeLate      = "L4TOUT"
	CodeSecured   = "L6OK"
	CodeTLS       = "L6RSP"
	CodeNoAnswer  = "L7TOUT"
	CodeNonsense  = "L7RSP"
	CodePass      = "L7OK"
	CodeFail      = "L7STS"
	codeOurs      = "SOCKERR"
)

// CodeOf is HAProxy's code for an error that was met instead of an answer. connected says that there was a connection; an error of a dial
// says by itself that there was none.
func CodeOf(err error, connected bool) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		connected = false
	}
	var timeout net.Error
	late := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT) || errors.As(err, &timeout) && timeout.Timeout()
	switch {
	case Ours(err):
		return codeOurs
	case late && !connected:
		return codeLate
	case late:
		return CodeNoAnswer
	case !connected || errors.Is(err, syscall.ECONNREFUSED):
		return codeNobody
	case ofTLS(err):
		return CodeTLS
	}
	return CodeNonsense
}

// ofTLS says that an error is one of a handshake.
func ofTLS(err error) bool {
	var verification *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	return errors.As(err, &verification) || errors.As(err, &record) || errors.As(err, &alert) || errors.As(err, &authority) || errors.As(err, &name)
}

// code is HAProxy's for an outcome that was judged.
func (o Outcome) code(j judgement) string {
	switch {
	case o.NotAsked:
		return codeOurs
	case o.Dead:
		return codeNobody
	case o.Silence != "" && o.Code != "":
		return o.Code
	case o.Silence != "":
		return CodeNoAnswer
	case j == silence:
		return CodeNonsense
	case j == pass:
		return CodePass
	}
	return CodeFail
}

// Last is what the last check brought, and how far it counts.
func (m Machine) Last() Last {
	if m.phase == Waiting {
		return Last{Code: codeNone, Text: m.reason()}
	}
	r := Last{Code: m.code, Status: m.status, Text: m.last}
	if m.code == "" {
		r.Code = codeNone
	}
	if m.phase == Down {
		r.Health = min(m.streak.Count(), m.options.Rise-1)
	} else {
		r.Health = m.options.Rise + m.options.Fall - 1 - min(m.streak.Count(), m.options.Fall-1)
	}
	return r
}
