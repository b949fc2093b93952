package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine/balance"
	"github.com/pgporter/pgporter/internal/monitor/view"
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

// Error is the message.
func (r *refusal) Error() string { return r.message }

// encode is the refusal as PostgreSQL's clients read it.
func (r *refusal) encode() []byte {
	// It fails on messages longer than any of ours.
	answer, _ := (&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: r.code, Message: r.message, Detail: r.detail}).Encode(nil)
	return answer
}

// shortage is why no server takes a client now.
type shortage struct {
	// gone is set if the service isn't offered here any more.
	gone error
	// svc is nil if the cluster doesn't have the service, or nobody knows yet.
	svc     *view.Service
	outcome balance.Outcome
	// lost is when the service's last usable server was lost; zero if it never had one.
	lost time.Time
	// home is the only member that the client may be connected with (balance source); empty if it may be any.
	home string
	// crowded says that there is a server that would take it, once one of those on their way there from the queue has arrived. room is for how
	// many more the servers have places, or the client's own; -1 is any number.
	crowded bool
	room    int
	// held says that a View's Hold keeps everybody waiting, hopeless why no failover can bring a server, in words; empty if one may.
	held     bool
	hopeless string
}

// usable counts the servers that are up for new clients, whether they have room or not.
func (s shortage) usable() int {
	if s.svc == nil {
		return 0
	}
	return len(s.svc.Usable())
}

// maxQueue is how many clients may wait for the servers that are up, or for the client's own; 0 is any number.
func (s shortage) maxQueue() int {
	most := 0
	for _, i := range s.svc.Usable() {
		if s.home != "" && s.svc.Servers[i].Member != s.home {
			continue
		}
		own := s.svc.OptionsOf(i).MaxQueue
		if own == 0 {
			return 0
		}
		most += own
	}
	return most
}

// refusal puts it to a client: each server's reason, and for those that were tried what became of it.
func (s shortage) refusal(name string, failures map[string]error) *refusal {
	switch {
	case s.gone != nil:
		return &refusal{code: codeCannotConnectNow, message: s.gone.Error()}
	case s.svc == nil:
		return &refusal{code: codeCannotConnectNow, message: fmt.Sprintf("service %s is not known yet", name)}
	}
	svc := s.svc
	no := &refusal{code: codeCannotConnectNow, message: fmt.Sprintf("service %s has no usable server", name)}
	if out := svc.OrderedOut(); s.outcome == balance.None && len(failures) == 0 && len(svc.Usable()) == 0 && len(out) > 0 {
		// Many clients show the message alone.
		no.message += fmt.Sprintf(": %s is %s", svc.Servers[out[0]].Member, orderWords(svc.Health[out[0]].Order))
	}
	if s.held {
		no.message = fmt.Sprintf("service %s is %s", name, svc.HeldWords)
	}
	if s.outcome == balance.Full {
		no.code = codeTooManyConnections
		no.message = fmt.Sprintf("service %s is full: its usable servers have %d sessions each", name, svc.Options.MaxConn)
		if slices.ContainsFunc(svc.Servers, func(server model.Server) bool { return server.Own != nil }) {
			no.message = fmt.Sprintf("service %s is full: none of its usable servers has room", name)
		} else if s.home != "" {
			no.message = fmt.Sprintf("service %s is full: %s, to which clients from this address belong, has no room (maxconn %d)", name, s.home, svc.Options.MaxConn)
		}
	}
	lines := make([]string, 0, len(svc.Servers))
	for i, server := range svc.Servers {
		lines = append(lines, strings.TrimSuffix(server.Member+": "+reasonOf(svc, i, failures[server.Member]), ": "))
	}
	if len(lines) == 0 {
		lines = append(lines, "its selector matches no member now")
	}
	if s.hopeless != "" {
		lines = append(lines, "no failover can bring one: "+s.hopeless)
	}
	no.detail = strings.Join(lines, "\n")
	return no
}

// orderWords say an order to clients: that there is one, and not who gave it or from where, since whoever reaches the port is told.
func orderWords(o view.Order) string {
	o.By = "an operator"
	return o.Words()
}

// reasonOf says in words why a server doesn't take a client that failed there with an error, if one is given.
func reasonOf(svc *view.Service, i int, failure error) string {
	var refused *serverRefusal
	server, health := svc.Servers[i], svc.Health[i]
	order := orderWords(health.Order)
	if order != "" {
		order += "; "
	}
	switch {
	case !health.Up:
		return order + "down: " + health.Reason
	case order != "" && !svc.Takes(i):
		return order + "up: " + health.Reason
	case errors.As(failure, &refused), errors.Is(failure, errClosedEarly):
		return fmt.Sprintf("%s %v", server.Address(), failure)
	case failure != nil:
		return fmt.Sprintf("cannot connect to %s: %v", server.Address(), plain(failure))
	case server.Weight == 0:
		return "up, but its weight is 0"
	case server.Backup:
		return "up, but a backup"
	}
	return "up: " + health.Reason
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

// refuse is how a client of PostgreSQL's is rejected.
func (s *service) refuse(c *client, no *refusal) {
	refuse(s.engine.over, c.conn, no, c.declined)
	s.engine.log.Debug("refused a client", "service", s.name, "client", c.from.String(), "reason", no.message, "detail", no.detail)
}

// refuse tells a client that it can't be served, once it has said that it speaks PostgreSQL's protocol, and closes it.
// Encryption requests are answered with `N`. Cancel requests, TLS without a request and anything else are just closed:
// there is no answer that they would understand. Requests in declined have been answered before. The end of ctx ends it.
func refuse(ctx context.Context, client net.Conn, no *refusal, declined map[packetKind]bool) {
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	defer func() {
		stop()
		_ = client.Close()
	}()
	_ = client.SetDeadline(time.Now().Add(refusalTime))
	in := &io.LimitedReader{R: client, N: refusalSize}
	if !awaitStartup(in, client, declined) {
		return
	}
	if _, err := client.Write(no.encode()); err != nil {
		return
	}
	if half, ok := client.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = client.SetDeadline(time.Now().Add(lingerTime))
	_, _ = io.Copy(io.Discard, in)
}

// awaitStartup reads until the StartupMessage, declining encryption; false if the client wants anything else, or the same
// encryption twice.
func awaitStartup(in io.Reader, out io.Writer, before map[packetKind]bool) bool {
	answered := maps.Clone(before)
	if answered == nil {
		answered = map[packetKind]bool{}
	}
	for {
		what, err := readPacket(in)
		switch {
		case err != nil:
			return false
		case what == startupMessage:
			return true
		case (what == sslRequest || what == gssEncRequest) && !answered[what]:
			answered[what] = true
			if _, err := out.Write([]byte{declined}); err != nil {
				return false
			}
		default:
			return false
		}
	}
}
