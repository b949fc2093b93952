package health

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/exchange"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// Asker puts questions and doesn't wait for their answers. Its Exchange does that for all of them, for a small part of what a goroutine
// each costs; names that have to be looked up, and TLS, are left to goroutines. What comes of a question is the same either way.
type Asker struct {
	// Client asks members' APIs.
	Client *patroni.Client
	// Check and Probe put questions to APIs and ports, by a goroutine each, instead of Client, Probe and Exchange, where they aren't nil.
	Check, Probe CheckFunc
	// Exchange puts what it can; nil leaves all to goroutines.
	Exchange *exchange.Loop

	asking sync.WaitGroup
	// prepared are the requests for targets asked before. One without an address to go to is left to a goroutine.
	prepared map[Target]exchange.Request
}

// mostPrepared bounds them: discovered members come and go.
const mostPrepared = 256

// Ask puts a question to an API, or to a port, and gives it up after within, which done's outcome says. done doesn't block. Ask is
// called by one goroutine alone.
func (a *Asker) Ask(ctx context.Context, t Target, port bool, within time.Duration, done func(Outcome)) {
	a.asking.Add(1)
	r := a.prepare(t, port)
	if !r.To.IsValid() {
		go func() {
			defer a.asking.Done()
			done(a.wait(ctx, t, port, within))
		}()
		return
	}
	r.Within = within
	began := time.Now()
	r.Done = func(result exchange.Result) {
		var o Outcome
		switch {
		case !port:
			o = answered(result)
		case result.Socket >= 0:
			go func() {
				defer a.asking.Done()
				ctx, cancel := context.WithDeadline(ctx, began.Add(within))
				defer cancel()
				secureSocket(ctx, result.Socket)
				done(inTime(ctx, Outcome{}, within))
			}()
			return
		default:
			o = probed(result)
		}
		if result.Err == context.DeadlineExceeded {
			o = o.late(within)
		}
		defer a.asking.Done()
		done(o)
	}
	a.Exchange.Start(ctx, r)
}

// Wait waits until every question has been done with; their contexts have ended.
func (a *Asker) Wait() {
	if a.Exchange != nil {
		a.Exchange.Sweep()
	}
	a.asking.Wait()
}

// wait puts a question and waits for what comes of it.
func (a *Asker) wait(ctx context.Context, t Target, port bool, within time.Duration) Outcome {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	check := a.Check
	switch {
	case port && a.Probe != nil:
		check = a.Probe
	case port:
		check = Probe
	case check == nil:
		check = AskPatroni(a.Client)
	}
	return inTime(ctx, check(ctx, t), within)
}

// inTime makes silence of an outcome that came after ctx had ended.
func inTime(ctx context.Context, o Outcome, within time.Duration) Outcome {
	if ctx.Err() != nil {
		o = o.late(within)
	}
	return o
}

// late makes silence of what came too late.
func (o Outcome) late(within time.Duration) Outcome {
	o.Silence = tooLate(within)
	if o.Code != codeLate {
		o.Code = CodeNoAnswer
	}
	return o
}

func tooLate(within time.Duration) string { return "no answer for " + within.String() }

// prepare gives the request for a target.
func (a *Asker) prepare(t Target, port bool) exchange.Request {
	if a.Exchange == nil || port && a.Probe != nil || !port && a.Check != nil {
		return exchange.Request{}
	}
	r, before := a.prepared[t]
	if before {
		return r
	}
	if port {
		r = probeRequest(t)
	} else {
		r = apiRequest(t)
	}
	if a.prepared == nil || len(a.prepared) >= mostPrepared {
		a.prepared = map[Target]exchange.Request{}
	}
	a.prepared[t] = r
	return r
}

// apiRequest is what AskPatroni does, as far as it needs no TLS and no name.
func apiRequest(t Target) exchange.Request {
	request, err := patroni.NewRequest(t.Base, t.Path)
	if err != nil {
		return exchange.Request{}
	}
	to, plain := request.Plain()
	if !plain {
		return exchange.Request{}
	}
	return exchange.Request{To: to, Send: request.Text, Connect: patroni.ConnectWithin, Keepalive: true, Most: patroni.MaxAnswer, More: patroni.More}
}

// answered is what AskPatroni makes of the same bytes.
func answered(r exchange.Result) Outcome {
	answer, err := patroni.ReadAnswer(r.Received, r.Err)
	if err != nil {
		return silent(err, err.Error(), r.Connected)
	}
	return Outcome{Answer: answer}
}

// probeRequest is what Probe does, as far as it needs no name.
func probeRequest(t Target) exchange.Request {
	to, err := netip.ParseAddrPort(t.Base)
	packet, unknown := announced(t.Proxy)
	if err != nil || unknown != nil || to.Addr().Zone() != "" {
		return exchange.Request{}
	}
	return exchange.Request{
		To: to, Send: packet, Most: 1, More: func([]byte) int { return 0 }, Keep: func(answer []byte) bool { return answer[0] == 'S' },
	}
}

// probed is what Probe makes of the same byte, or of none.
func probed(r exchange.Result) Outcome {
	switch {
	case r.Err == nil:
		return Outcome{}
	case r.Connected:
		return Outcome{Silence: plainly(r.Err), Accepted: true}
	}
	return silent(r.Err, plainly(r.Err), false)
}

// silent is the outcome where there was no connection, or no answer of an API.
func silent(err error, words string, connected bool) Outcome {
	return Outcome{Silence: words, Code: CodeOf(err, connected), Dead: errors.Is(err, syscall.ECONNREFUSED), NotAsked: Ours(err)}
}

// secureSocket is secure for a descriptor, which it closes.
func secureSocket(ctx context.Context, fd int) {
	file := os.NewFile(uintptr(fd), "probe")
	conn, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		return
	}
	defer conn.Close() //nolint:errcheck // it has answered
	secure(ctx, conn)
}
