// Package restproxy is a proxy before one member's Patroni REST API that can be told to answer as a sick one does, and that keeps
// record of every question.
//
// Run is the proxy, a process of its own; Client tells it what to do. In between it is as invisible as it can be: while nothing
// listens at Patroni's address, nothing listens at its own, so that a Patroni that was killed is refused here too. It knows that
// from one connection to Patroni that it keeps open without a word, which costs Patroni a thread.
//
// One thing differs from Patroni itself: the backlog of 5 connections is this side's, and longer. A Patroni that accepts nobody (SIGSTOP)
// looks the same, but for the SYNs that the kernel would drop.
//
// Questions are HTTP without TLS, one for each connection, since Patroni answers HTTP/1.0. Who asked is known by address alone: on
// loopback addresses all askers have the same one.
package restproxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fault is what is the matter with the API.
type Fault string

// The faults. Those that answer do so at once, and Patroni isn't asked.
const (
	// Pass is no fault.
	Pass Fault = "pass"
	// Hang accepts and never answers, not even when the fault is over; answers that are under way when it begins are lost too.
	Hang Fault = "hang"
	// Late asks Patroni at once and holds its answer until the delay since the question is over: what arrives is old.
	Late Fault = "late"
	// Refuse listens to nobody and resets the connections that there are: a process that has ended.
	Refuse Fault = "refuse"
	// Error500 is a page of HTML with status 500, Error502 one with 502.
	Error500 Fault = "500"
	Error502 Fault = "502"
	// HalfHeader ends within the answer's header.
	HalfHeader Fault = "half-header"
	// Reset takes the question and resets the connection.
	Reset Fault = "reset"
)

// nonsense is what faults say that answer. A reset says nothing.
var nonsense = map[Fault]string{
	Error500: "HTTP/1.0 500 Internal Server Error\r\nContent-Type: text/html\r\n\r\n" +
		"<html><head><title>500</title></head><body><h1>Internal Server Error</h1></body></html>\n",
	Error502: "HTTP/1.0 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n" +
		"<html><body><h1>502 Bad Gateway</h1>The server returned an invalid or incomplete response.</body></html>\n",
	HalfHeader: "HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6 Pyth",
	Reset:      "",
}

// Faults are all there are, in the order in which they are shown.
func Faults() []Fault {
	return []Fault{Pass, Hang, Late, Refuse, Error500, Error502, HalfHeader, Reset}
}

// Order is what the proxy is to do from now on.
type Order struct {
	Fault Fault `json:"fault"`
	// Delay is Late's.
	Delay time.Duration `json:"delay_ns,omitempty"`
}

// String is the fault, with its delay.
func (o Order) String() string {
	if o.Delay > 0 {
		return fmt.Sprintf("%s, %s", o.Fault, o.Delay)
	}
	return string(o.Fault)
}

// Check says what is wrong with an order.
func (o Order) Check() error {
	switch {
	case !slices.Contains(Faults(), o.Fault):
		var all []string
		for _, f := range Faults() {
			all = append(all, string(f))
		}
		return fmt.Errorf("no fault of an API is called %q; there are: %s", o.Fault, strings.Join(all, ", "))
	case (o.Fault == Late) != (o.Delay > 0):
		return fmt.Errorf("delay %s of fault %s: only %s has one, and needs it", o.Delay, o.Fault, Late)
	}
	return nil
}

// Request is one question that arrived.
type Request struct {
	// At is when the question was complete.
	At     time.Time  `json:"at"`
	From   netip.Addr `json:"from"`
	Method string     `json:"method"`
	// Path has the query.
	Path string `json:"path"`
	// Status is that of the answer; 0 is none.
	Status int `json:"status,omitempty"`
	// Took is the time until the answer was given, or the connection ended without one; 0 is that the question is under way yet.
	Took time.Duration `json:"took_ns,omitempty"`
	// Left says that the asker closed the connection without having got an answer.
	Left bool `json:"left,omitempty"`
}

// Limits of what is kept and read.
const (
	// remembered is how many requests are kept at least: 50 a second for half an hour.
	remembered = 90_000
	// maxHead bounds a question's header, maxAnswer an answer.
	maxHead, maxAnswer = 64 << 10, 4 << 20
	// again is how often a Patroni that isn't there is looked for.
	again = 50 * time.Millisecond
)

// proxy is one that runs.
type proxy struct {
	listen, patroni string
	connections     sync.WaitGroup

	mu    sync.Mutex
	order Order
	// hangs counts the orders to hang.
	hangs int
	// changed is closed, and replaced, when order or up changes.
	changed chan struct{}
	// up says that somebody listens at Patroni's address.
	up   bool
	open map[net.Conn]struct{}
	// requests are the last ones, gone is how many there were before them.
	requests []Request
	gone     int
}

func newProxy(listen, patroni string) *proxy {
	return &proxy{listen: listen, patroni: patroni, order: Order{Fault: Pass}, changed: make(chan struct{}), open: map[net.Conn]struct{}{}}
}

// Run answers at the address listen for the Patroni at another one, and takes orders at the unix socket control, until ctx ends.
// An address that can't be listened on is an error once and for all.
func Run(ctx context.Context, listen, patroni, control string) error {
	p := newProxy(listen, patroni)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	orders, err := listenControl(control)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: p.handler(), ReadHeaderTimeout: 5 * time.Second}
	var running sync.WaitGroup
	running.Go(func() {
		if err := server.Serve(orders); !errors.Is(err, http.ErrServerClosed) {
			cancel(err)
		}
	})
	running.Go(func() { p.watch(ctx) })
	running.Go(func() {
		if err := p.accept(ctx); err != nil {
			cancel(err)
		}
	})
	<-ctx.Done()
	server.Close() //nolint:errcheck // nothing is left to be told
	running.Wait()
	p.closeAll()
	p.connections.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// change alters what connections look at, and wakes them.
func (p *proxy) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

// now gives the order, whether the proxy is to listen, and a channel that closes when either changes.
func (p *proxy) now() (Order, bool, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.order, p.up && p.order.Fault != Refuse, p.changed
}

// watch keeps a connection to Patroni, whose end is the end of Patroni.
func (p *proxy) watch(ctx context.Context) {
	for ctx.Err() == nil {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", p.patroni)
		if err != nil {
			p.setUp(false)
			wait(ctx, again)
			continue
		}
		p.setUp(true)
		began := time.Now()
		stop := context.AfterFunc(ctx, func() { c.Close() })
		_, _ = c.Read(make([]byte, 1))
		stop()
		c.Close()
		// One that accepts and closes isn't asked without a pause.
		if time.Since(began) < again {
			wait(ctx, again)
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (p *proxy) setUp(up bool) {
	p.mu.Lock()
	same := p.up == up
	p.mu.Unlock()
	if !same {
		p.change(func() { p.up = up })
	}
}

// accept listens whenever the proxy is to.
func (p *proxy) accept(ctx context.Context) error {
	for {
		_, listening, changed := p.now()
		if !listening {
			p.closeAll()
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
			continue
		}
		l, err := net.Listen("tcp", p.listen)
		if err != nil {
			return err
		}
		stop := make(chan struct{})
		var closing sync.WaitGroup
		closing.Go(func() {
			for listening {
				select {
				case <-ctx.Done():
				case <-stop:
				case <-changed:
					if _, listening, changed = p.now(); listening {
						continue
					}
				}
				break
			}
			l.Close()
		})
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			p.mu.Lock()
			p.open[c] = struct{}{}
			p.mu.Unlock()
			p.connections.Go(func() { p.serve(c.(*net.TCPConn)) })
		}
		close(stop)
		closing.Wait()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// closeAll resets every connection that there is.
func (p *proxy) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		reset(c)
	}
}

// reset closes a connection with a RST in place of a FIN (SO_LINGER of 0, socket(7)).
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0) //nolint:errcheck // it is closed in any case
	}
	c.Close()
}

// serve takes one question and answers it as ordered.
func (p *proxy) serve(asker *net.TCPConn) {
	defer func() {
		asker.Close()
		p.mu.Lock()
		delete(p.open, asker)
		p.mu.Unlock()
	}()
	var question bytes.Buffer
	request, err := http.ReadRequest(bufio.NewReader(io.TeeReader(io.LimitReader(asker, maxHead), &question)))
	if err != nil {
		return // it said nothing, or nothing that Patroni would understand
	}
	number, asked, swallowed := p.note(asker, request)
	left := make(chan struct{})
	var reading sync.WaitGroup
	// An asker says no more, but for the body of a request, which TeeReader has seen as far as it came along with the header.
	reading.Go(func() {
		io.Copy(io.Discard, asker) //nolint:errcheck // its end is what counts
		close(left)
	})
	defer reading.Wait()
	defer asker.Close()

	order, _, _ := p.now()
	var answer []byte
	if swallowed() {
		order.Fault = Hang
	}
	if order.Fault == Pass || order.Fault == Late {
		if answer, err = p.ask(question.Bytes(), left); err != nil {
			p.finish(number, asked, 0, isClosed(left))
			reset(asker)
			return
		}
		order, _, _ = p.now()
	}
	for order.Fault == Late && time.Since(asked) < order.Delay {
		_, _, changed := p.now()
		select {
		case <-left:
			p.finish(number, asked, 0, true)
			return
		case <-time.After(time.Until(asked.Add(order.Delay))):
		case <-changed:
		}
		order, _, _ = p.now()
	}
	if order.Fault == Hang || swallowed() {
		<-left
		p.finish(number, asked, 0, true)
		return
	}
	if said, is := nonsense[order.Fault]; is {
		answer = []byte(said)
	}
	p.finish(number, asked, statusOf(answer), isClosed(left))
	if order.Fault == Reset {
		reset(asker)
		return
	}
	asker.Write(answer) //nolint:errcheck // who has left isn't told
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// ask has Patroni answer, however long that takes; the answer ends with its connection. As Patroni doesn't notice that an asker has
// gone, nothing is lost by going away with it.
func (p *proxy) ask(question []byte, left <-chan struct{}) ([]byte, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	done := make(chan struct{})
	defer close(done)
	waiting.Go(func() {
		select {
		case <-left:
			cancel()
		case <-done:
		}
	})
	c, err := new(net.Dialer).DialContext(ctx, "tcp", p.patroni)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := c.Write(question); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(c, maxAnswer))
}

// note keeps a question, and gives its number and time, and what tells whether it was under way during an order to hang, which may be
// over by now.
func (p *proxy) note(asker net.Conn, request *http.Request) (number int, asked time.Time, swallowed func() bool) {
	r := Request{At: time.Now(), Method: request.Method, Path: request.RequestURI}
	if from, err := netip.ParseAddrPort(asker.RemoteAddr().String()); err == nil {
		r.From = from.Addr()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.requests) >= 2*remembered {
		p.requests = slices.Clone(p.requests[remembered:])
		p.gone += remembered
	}
	p.requests = append(p.requests, r)
	hanging, hangs := p.order.Fault == Hang, p.hangs
	return p.gone + len(p.requests) - 1, r.At, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return hanging || p.hangs != hangs
	}
}

// finish keeps how a question ended.
func (p *proxy) finish(number int, asked time.Time, status int, left bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := number - p.gone; at >= 0 {
		r := &p.requests[at]
		r.Took, r.Status, r.Left = max(1, time.Since(asked)), status, left
	}
}

// statusOf reads an answer's status; 0 if it has none.
func statusOf(answer []byte) int {
	line, _, complete := bytes.Cut(answer, []byte("\r\n\r\n"))
	var minor, status int
	if _, err := fmt.Sscanf(string(line), "HTTP/1.%d %d", &minor, &status); err != nil || !complete {
		return 0
	}
	return status
}

// since are copies of the requests from a time on.
func (p *proxy) since(t time.Time) []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := []Request{}
	for _, r := range p.requests {
		if !r.At.Before(t) {
			all = append(all, r)
		}
	}
	return all
}
