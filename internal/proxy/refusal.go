package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgporter/pgporter/internal/balance"
	"github.com/pgporter/pgporter/internal/state"
)

// SQLSTATEs of refusals (PostgreSQL documentation, appendix A). libpq goes on to its next host at the first.
const (
	codeCannotConnectNow   = "57P03"
	codeTooManyConnections = "53300"
)

// refusal is what a client is told that no server can take.
type refusal struct {
	code, message, detail string
}

// noServer says why no server of a service takes a client: each server's reason, and for those that were tried what
// became of it.
func noServer(svc *state.Service, outcome balance.Outcome, failures map[string]error) *refusal {
	no := &refusal{code: codeCannotConnectNow, message: fmt.Sprintf("service %s has no usable server", svc.FullName)}
	if outcome == balance.Full {
		no.code = codeTooManyConnections
		no.message = fmt.Sprintf("service %s is full: its usable servers have %d sessions each", svc.FullName, svc.Options.MaxConn)
	}
	lines := make([]string, 0, len(svc.Servers))
	for i, server := range svc.Servers {
		health := svc.Health[i]
		line := server.Member + ": down: " + health.Reason
		switch failure := failures[server.Member]; {
		case failure != nil:
			line = fmt.Sprintf("%s: cannot connect to %s: %v", server.Member, server.Address(), plain(failure))
		case health.Up && server.Weight == 0:
			line = server.Member + ": up, but its weight is 0"
		case health.Up && server.Backup:
			line = server.Member + ": up, but a backup"
		case health.Up:
			line = server.Member + ": up: " + health.Reason
		}
		lines = append(lines, strings.TrimSuffix(line, ": "))
	}
	if len(lines) == 0 {
		lines = append(lines, "its selector matches no member now")
	}
	no.detail = strings.Join(lines, "\n")
	return no
}

const (
	// refusalTime limits a client's startup phase when it is refused.
	refusalTime = 5 * time.Second
	// refusalSize limits what is read of it. PostgreSQL's own limit for a startup packet is 10,000 bytes.
	refusalSize = 16 << 10
	// lingerTime limits the wait for a refused client to close. Closing on unread bytes would reset the connection and
	// could lose the answer.
	lingerTime = time.Second
)

// refuse tells a client that it can't be served, once it has said that it speaks PostgreSQL's protocol, and closes it.
// Encryption requests are answered with `N`. Cancel requests, TLS without a request and anything else are just closed:
// there is no answer that they would understand. The end of ctx ends it.
func refuse(ctx context.Context, client net.Conn, no *refusal) {
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	defer func() {
		stop()
		_ = client.Close()
	}()
	_ = client.SetDeadline(time.Now().Add(refusalTime))
	in := &io.LimitedReader{R: client, N: refusalSize}
	if !awaitStartup(in, client) {
		return
	}
	answer, err := (&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: no.code,
		Message: no.message, Detail: no.detail}).Encode(nil)
	if err != nil {
		return
	}
	if _, err := client.Write(answer); err != nil {
		return
	}
	if half, ok := client.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = client.SetDeadline(time.Now().Add(lingerTime))
	_, _ = io.Copy(io.Discard, in)
}

// awaitStartup reads until the StartupMessage, declining encryption; false if the client wants anything else.
func awaitStartup(in io.Reader, out io.Writer) bool {
	declined := map[opening]bool{}
	for {
		what, err := readOpening(in)
		switch {
		case err != nil:
			return false
		case what == startupMessage:
			return true
		case (what == sslRequest || what == gssEncRequest) && !declined[what]:
			declined[what] = true
			if _, err := out.Write([]byte{'N'}); err != nil {
				return false
			}
		default:
			return false
		}
	}
}
