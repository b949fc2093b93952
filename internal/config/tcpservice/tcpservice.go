// Package tcpservice reads a node's TCP service (haproxy_services) as the native engine carries it: the lines of HAProxy's
// listen section, the words of its server lines, and what follows from both for each server's check.
//
// A model.TCPService keeps the lines as they were written, for HAProxy to be given. Parse is the other reading of the same
// text: what it takes means what HAProxy 2.6's configuration manual says, and is a configuration that HAProxy would take
// too; where the native engine does better, the field says so. Whatever it doesn't take is a Problem with its position, never
// passed over. The package is pure.
package tcpservice

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/model"
)

// Service is a TCP service that the native engine can carry.
type Service struct {
	// Service has the definition and the servers, in order; Cluster, selectors and destination are empty, and Check says in
	// words what servers are asked.
	model.Service
	// Checks has one entry for each server; nil for one that isn't checked and is taken to be well.
	Checks []*Check
	// Once says that a client whose server refused its connection isn't connected to another one (retries 0). The native
	// engine has no other use for the number: it tries again for as long as the client may wait.
	Once bool
	// Connect limits connecting to a server, Queue a client's wait for one, Idle the time in which neither side of a session
	// sends anything; 0 where no line says so.
	Connect, Queue, Idle time.Duration
}

// Check is what a server is asked. It is plain data: two checks are one if their fields are equal.
type Check struct {
	// Host is an address or a name.
	Host string
	Port int
	// TLS is nil for a plain connection, HTTP is nil if connecting is all.
	TLS  *model.CheckTLS
	HTTP *Request
	// Connect limits connecting, Timeout the whole check.
	Connect, Timeout time.Duration
}

// Request is an HTTP check: a request, and what has to hold of the answer.
type Request struct {
	Method, URI string
	// Version is HTTP/1.0 or HTTP/1.1.
	Version string
	Headers []Header
	Body    string
	// Expect are conditions that all have to hold; without any, the status has to be 2xx or 3xx.
	Expect []Expect
}

// Header is a line of a request.
type Header struct{ Name, Value string }

// Expect is a condition on an answer. Exactly one of Status, StatusPattern, Text and Pattern is set.
type Expect struct {
	Not bool
	// Status are ranges of which one has the status; StatusPattern is a regular expression that finds something in it.
	Status        []Range
	StatusPattern string
	// Text is somewhere in the body, Pattern a regular expression that finds something there.
	Text, Pattern string
	// Comment is what to say if it doesn't hold; may be empty.
	Comment string
}

// Range is a range of statuses, both ends included.
type Range struct{ From, To int }

// Part is the part of a model.TCPService that a Problem is of.
type Part int

// The parts. InLine and InServer go with an index.
const (
	InProtocol Part = iota
	InBalance
	InLine
	InDefault
	InServer
)

// Problem is what the native engine can't carry.
type Problem struct {
	Code diag.Code
	Part Part
	// Index is of TCPService.Options or TCPService.Servers, Offset where in the text it is, in bytes.
	Index, Offset int
	// Minor problems are worth a word, but the service can be carried.
	Minor bool
	// What is wrong, and what would be right; the latter may be empty.
	What, Want string
}

// unsupported is said of what HAProxy can do and the native engine can't.
const unsupported = "isn't supported by the native engine"

// orHAProxy adds the other way out of a refusal by the native engine.
func orHAProxy(want string) string { return want + "; or HAProxy as the engine (--engine haproxy)" }

// Parse reads a service. With a problem that isn't minor the Service is not to be used.
func Parse(g model.TCPService) (Service, []Problem) {
	r := &reader{g: g, seen: map[string]bool{}}
	if g.Protocol != "tcp" {
		r.add(Problem{Code: diag.NativeUnsupported, Part: InProtocol, What: "protocol " + g.Protocol + " " + unsupported, Want: orHAProxy("tcp")})
	}
	if !model.Balance(g.Balance).Native() {
		r.add(Problem{Code: diag.NativeUnsupported, Part: InBalance, What: "balance " + g.Balance + " " + unsupported, Want: orHAProxy("roundrobin, leastconn, first, source or random")})
	}
	s := &r.s
	s.Definition = model.Definition{Name: g.Name, FullName: g.Name, IP: g.IP, Port: g.Port, MaxConn: g.MaxConn, Allow: g.Allow, Balance: model.Balance(g.Balance)}
	for i, line := range g.Options {
		r.line(i, line)
	}
	r.conclude()
	s.Check = r.words()
	s.Options = r.readServers()
	return *s, r.problems
}

// Errors are the problems that forbid carrying the service, in words.
func Errors(g model.TCPService, problems []Problem) []string {
	var all []string
	for _, p := range problems {
		if p.Minor {
			continue
		}
		where := ""
		switch p.Part {
		case InLine:
			where = "options: "
		case InDefault:
			where = "default: "
		case InServer:
			where = "server " + g.Servers[p.Index].Name + ": "
		}
		all = append(all, strings.TrimSuffix(fmt.Sprintf("service %s: %s%s; %s", g.Name, where, p.What, p.Want), "; "))
	}
	return all
}

// words say what servers are asked.
func (r *reader) words() string {
	if r.http != nil {
		return r.http.Method + " " + r.http.URI
	}
	return "connect"
}
