//go:build linux && !portable

package proxy

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pgporter/pgporter/internal/engine/relay"
)

// fastPath is the clients of a service that are on their way to a session in the relay's loops.
type fastPath struct {
	mu         sync.Mutex
	connectors map[*connector]struct{}
	// sweeping says that sweep is to be called.
	sweeping bool
}

// connector brings one client to a server in the relay's loops, without a goroutine, as long as all goes plainly: the client
// speaks at once, a server is there for it, can be connected to, and takes it up. Whatever else happens, it leaves the client to
// a goroutine (see fall), which goes on from there: nothing of the client's has been taken that a server hasn't answered.
//
// Its steps are those of dispatch.go, in the same order, but none of them waits: each ends with what event is to go on with.
type connector struct {
	client
	d    *dispatcher
	flow *relay.Flow

	mu    sync.Mutex
	stage stage
	// fd is the client's socket, server that of the server, -1 while there is none.
	fd, server int
	// registered says that the loop waits for the client's socket, too.
	registered bool
	// session is nil until there is a server for the client. waiter is its place in the queue while it waits for one.
	session *session
	waiter  *waiter
	// response is the beginning of the server's, as long as that doesn't say yet whether it takes the client up.
	response []byte
	// unwanted says that the server may not take new clients any more.
	unwanted bool
	// until is when the stage has lasted for too long, or is to be looked at; connectUntil is when the connection isn't waited for any
	// longer.
	until, connectUntil time.Time
	// declinedAt is when the client was last told that there is no encryption.
	declinedAt time.Time
}

// stage is how far a client has come.
type stage int

const (
	// awaitPacket waits for the client's packet.
	awaitPacket stage = iota
	// awaitConnect waits for the connection to the server.
	awaitConnect
	// awaitResponse waits for the server's first response.
	awaitResponse
	// awaitTurn waits in the queue.
	awaitTurn
	// finished is after the session's start, or when a goroutine has the client.
	finished
)

const (
	// firstPacketTimeout is how long a client's first packet is waited for without a goroutine.
	firstPacketTimeout = 100 * time.Millisecond
	// sweepInterval is how often connectors are looked at for stages that have lasted for too long.
	sweepInterval = 50 * time.Millisecond
)

// begin takes charge of a client that was accepted and has a slot, in the loop of the listening socket's flow that announced it.
func (f *fastPath) begin(d *dispatcher, fd int, from netip.AddrPort, now time.Time, affinity *relay.Flow) {
	k := &connector{d: d, fd: fd, server: -1}
	d.slots.arrived()
	k.from, k.ticket = from, d.tickets.Add(1)
	k.mu.Lock()
	defer k.mu.Unlock()
	d.engine.serving.Add(1)
	d.engine.dispatching.add(1)
	f.add(k)
	var err error
	if k.flow, err = d.engine.relay.Prepare(affinity, k.event); err != nil {
		k.fall(nil)
		return
	}
	if d.protocol().hear == nil {
		k.kind = notStartup
		k.assign()
		return
	}
	k.until = now.Add(firstPacketTimeout)
	k.hear()
}

func (f *fastPath) add(k *connector) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.connectors == nil {
		f.connectors = map[*connector]struct{}{}
	}
	f.connectors[k] = struct{}{}
	if !f.sweeping {
		f.sweeping = true
		time.AfterFunc(sweepInterval, f.sweep)
	}
}

func (f *fastPath) remove(k *connector) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.connectors, k)
}

// event goes on after something happened on a socket.
func (k *connector) event(server bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.stage == awaitPacket && !server:
		k.hear()
	case k.stage == awaitConnect && server:
		k.connected()
	case k.stage == awaitResponse && server:
		k.readResponse()
	case k.stage == awaitTurn && !server && hasLeft(uintptr(k.fd)):
		k.leaveQueue()
		k.fall(errLeft)
	}
}

// hear looks at what the client has said.
func (k *connector) hear() {
	var seen [512]byte
	n, err := peek(uintptr(k.fd), seen[:])
	if err != errNothingYet && (err != nil || n == 0 || n == len(seen)) {
		k.fall(nil)
		return
	}
	kind, packet, whole := peekedPacket(seen[:max(n, 0)])
	switch {
	case !whole && k.registered:
		return
	case !whole:
		k.registered = true
		if err := k.flow.AwaitClient(k.fd); err != nil {
			k.fall(nil)
		}
		return
	}
	k.kind, k.packet = kind, append([]byte(nil), packet...)
	switch {
	case k.unwanted:
		k.fall(errUnwanted)
	case kind == cancelRequest && k.session != nil:
		k.fall(errAnother)
	case kind == cancelRequest:
		k.fall(nil)
	case k.session == nil:
		k.assign()
	case kind == notStartup:
		k.start(nil)
	default:
		k.sendPacket()
	}
}

// assign finds a server for the client and begins to connect to it, or has the client wait for its turn.
func (k *connector) assign() {
	// Whoever wakes it has the queue's lock, which is taken with k.mu held.
	wake := func() { k.d.engine.serving.Go(k.turn) }
	if k.session, k.waiter, _ = k.d.queue.enter(&k.client, k.stop, wake); k.waiter != nil {
		k.wait()
		return
	}
	k.connect()
}

// wait has the client wait for its turn, as long as it is there. It needs nothing for that but its place in the queue.
func (k *connector) wait() {
	k.stage = awaitTurn
	k.d.fast.remove(k)
	if !k.registered {
		k.registered = true
		if err := k.flow.AwaitClient(k.fd); err != nil {
			k.leaveQueue()
			k.fall(nil)
			return
		}
	}
	if hasLeft(uintptr(k.fd)) {
		k.leaveQueue()
		k.fall(errLeft)
	}
}

// leaveQueue ends the client's wait. Its turn may have come.
func (k *connector) leaveQueue() { k.session, k.waiter = k.d.queue.leave(k.waiter), nil }

// turn goes on with a client that was woken: its turn has come, or its time is up.
func (k *connector) turn() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stage != awaitTurn {
		return
	}
	k.leaveQueue()
	switch {
	case hasLeft(uintptr(k.fd)):
		k.fall(errLeft)
	case k.session == nil:
		k.fall(nil)
	case !k.d.sessions.attach(k.session, k.stop):
		k.fall(errUnwanted)
	default:
		k.d.fast.add(k)
		if k.d.here.Err() != nil {
			// Whoever interrupts all of them may have missed this one.
			k.fall(errUnwanted)
			return
		}
		k.connect()
	}
}

// connect begins to connect to the server that was found.
func (k *connector) connect() {
	s := k.session
	if s == nil || s.header != 0 {
		k.fall(nil)
		return
	}
	address, err := netip.ParseAddrPort(s.address)
	if err != nil {
		k.fall(nil)
		return
	}
	k.stage = awaitConnect
	if k.server, err = connectTo(address); err != nil {
		k.fall(err)
		return
	}
	k.connectUntil = time.Now().Add(k.d.protocol().connectTimeout)
	k.expireIn(min(responseCheck, k.d.protocol().connectTimeout))
	// On this machine and near it, it is there already.
	k.connected()
	switch {
	case k.stage == awaitResponse && k.kind == startupMessage:
		err = k.flow.Watch(k.server)
	case k.stage == awaitResponse || k.stage == awaitConnect:
		err = k.flow.AwaitServer(k.server)
	}
	if err != nil {
		k.fall(err)
	}
}

// connected goes on as soon as the connection to the server is there.
func (k *connector) connected() {
	if k.kind != notStartup && k.d.protocol().waits() {
		k.sendPacket()
		return
	}
	ready, err := isConnected(k.server)
	switch {
	case err != nil:
		k.fall(err)
	case ready:
		k.start(nil)
	}
}

// sendPacket passes the client's packet to the server.
func (k *connector) sendPacket() {
	n, err := relay.Send(k.server, k.packet)
	switch {
	case k.stage == awaitConnect && err == errNothingYet:
		return
	case k.stage == awaitConnect && err != nil:
		k.fall(os.NewSyscallError("connect", err))
		return
	case err != nil && ours(err):
		k.fall(err)
		return
	case err != nil || n < len(k.packet):
		k.fall(errClosedEarly)
		return
	}
	now := time.Now()
	if k.stage == awaitConnect {
		k.session.connected = now
	}
	k.stage = awaitResponse
	k.until = now.Add(responseCheck)
}

// readResponse reads the server's first response.
func (k *connector) readResponse() {
	var heard [maxResponse]byte
	for {
		n, err := relay.Receive(k.server, heard[:maxResponse-len(k.response)])
		switch {
		case err == errNothingYet:
			return
		case err != nil && ours(err):
			k.fall(err)
			return
		case (err != nil || n == 0) && len(k.response) == 0:
			k.fall(errClosedEarly)
			return
		case err != nil || n == 0:
			// It said something and closed: whatever it was, it is for the client.
			k.start(k.response)
			return
		}
		k.response = append(k.response, heard[:n]...)
		no, decided := firstResponse(k.response)
		switch {
		case no != nil:
			k.fall(no)
			return
		case !decided && len(k.response) < maxResponse:
			continue
		case len(k.response) == 1 && k.response[0] == declined && k.kind != startupMessage:
			k.decline()
			return
		}
		if k.response[0] == 0 {
			// No server begins like this, but what was sent to it: the connection is one to itself (simultaneous open).
			k.fall(unix.ECONNREFUSED)
			return
		}
		k.start(k.response)
		return
	}
}

// decline tells the client that its encryption request was declined by the server, and waits for what it says to that.
func (k *connector) decline() {
	d := k.d
	d.backoff.yield(k.session)
	d.queue.letIn()
	if !k.takePacket() {
		k.fall(errLeft)
		return
	}
	k.noteDeclined()
	if n, _ := relay.Send(k.fd, k.response); n == 0 {
		k.fall(errLeft)
		return
	}
	k.response, k.stage = k.response[:0], awaitPacket
	k.expireIn(d.engine.cfg.OpeningTimeout)
	k.declinedAt = time.Now()
	k.hear()
}

// takePacket removes the packet from the client's socket, now that it was passed on.
func (k *connector) takePacket() bool {
	n, err := relay.Receive(k.fd, k.packet)
	return err == nil && n == len(k.packet)
}

// start begins the session, unless the newest View has something against the server. The server has had the client's packet if
// there is a response.
func (k *connector) start(response []byte) {
	d, s := k.d, k.session
	err := d.sessions.start(s, func() (*relay.Flow, error) {
		if response != nil && !k.takePacket() {
			return nil, errLeft
		}
		return k.flow, nil
	})
	if err != nil {
		k.fall(err)
		return
	}
	k.finish()
	d.arrived(s.member)
	// Without the sessions' lock: other loops have clients to connect meanwhile.
	pair := relay.Pair{Client: k.fd, ClientPrepared: true, Server: k.server, ToClient: response, SentToServer: k.toServer, SentToClient: k.toClient}
	if response != nil {
		pair.SentToServer += int64(len(k.packet))
	}
	d.logBegan(s, k.fd, k.server)
	k.flow.Begin(pair, d.onEnd(s))
	d.engine.dispatching.add(-1)
}

// finish ends the connector's part.
func (k *connector) finish() {
	k.stage = finished
	k.d.fast.remove(k)
}

// What follows is for clients that don't come through at once.

// expireIn gives the stage its time.
func (k *connector) expireIn(limit time.Duration) { k.until = time.Now().Add(limit) }

// sweep looks at all connectors, as long as there are any. A timer for each would cost more than most of them live for.
func (f *fastPath) sweep() {
	f.mu.Lock()
	all := slices.Collect(maps.Keys(f.connectors))
	if len(all) > 0 {
		time.AfterFunc(sweepInterval, f.sweep)
	} else {
		f.sweeping = false
	}
	f.mu.Unlock()
	now := time.Now()
	for _, k := range all {
		k.expire(now)
	}
}

// expire looks whether the stage has lasted for too long.
func (k *connector) expire(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	impatient := k.stage == awaitPacket && k.session != nil && now.Sub(k.declinedAt) >= k.d.patience()
	if now.Before(k.until) && !impatient {
		return
	}
	switch {
	case k.stage == awaitPacket && k.session == nil:
		k.fall(nil)
	case k.stage == awaitPacket:
		k.fall(errSilent)
	case k.stage == awaitConnect && now.Before(k.connectUntil):
		k.d.protocol().doubt(k.d.name, k.session.member)
		k.expireIn(min(responseCheck, k.connectUntil.Sub(now)))
	case k.stage == awaitConnect:
		k.fall(os.ErrDeadlineExceeded)
	case k.stage == awaitResponse && hasLeft(uintptr(k.fd)):
		k.fall(errLeft)
	case k.stage == awaitResponse:
		k.d.keepsWaiting(k.session)
		k.expireIn(responseCheck)
	}
}

// stop is the session's: with a cause, its server may not take new clients any more. The sessions' lock is held, which may be taken
// with k.mu held and not the other way round.
func (k *connector) stop(cause error) {
	if cause != nil {
		k.d.engine.serving.Go(k.interrupt)
	}
}

// interrupt has all clients find out that the service is gone.
func (f *fastPath) interrupt() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k := range f.connectors {
		k.d.engine.serving.Go(k.interrupt)
	}
}

// interrupt has the client given another server, or ends the wait for it where the service is gone.
func (k *connector) interrupt() {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.stage == awaitPacket && k.session != nil && k.d.here.Err() == nil:
		// It would have to be heard again, so let it speak first.
		k.unwanted = true
	case k.stage == finished:
	case k.session == nil:
		k.fall(nil)
	default:
		k.fall(errUnwanted)
	}
}

// fall leaves the client to a goroutine. An attempt's error is dealt with there, and without one the attempt, if there is a
// session, or else the hearing is still to be made.
func (k *connector) fall(err error) {
	k.finish()
	if k.flow != nil {
		k.flow.Drop()
	}
	if k.server >= 0 {
		relay.Discard(k.server)
	}
	go k.fallback(err)
}

// fallback is what the goroutine does that the client was left to.
func (k *connector) fallback(err error) {
	d, c, s := k.d, &k.client, k.session
	defer d.engine.serving.Done()
	conn, connErr := connection(k.fd, k.reject)
	if connErr != nil {
		// Nobody but this node is to blame.
		if s != nil {
			d.release(s, errUnwanted)
		}
		d.engine.dispatching.add(-1)
		d.slots.leave()
		return
	}
	c.conn = conn
	// It can't fail on a connection that was made.
	c.raw, _ = conn.SyscallConn()
	if s == nil && err == nil {
		d.serve(c)
		return
	}
	if s != nil && err != nil {
		d.release(s, err)
		err = d.judge(c, s, err)
		s = nil
	}
	if err != nil {
		d.settle(c, err)
		return
	}
	d.settle(c, d.connect(c, s))
}

// reject tells the client that there is no descriptor to serve it by, on the bare socket, which needs no other one. One that
// has asked for encryption, or hasn't spoken, is told nothing.
func (k *connector) reject(lack error) {
	d := k.d
	no := &refusal{code: codeTooManyConnections, message: fmt.Sprintf("pgporter cannot lead a client to a server of service %s now", d.name),
		detail: plain(lack).Error()}
	if k.kind == startupMessage && k.takePacket() {
		// A new connection's buffer takes it at once.
		_, _ = relay.Send(k.fd, no.encode())
	}
	d.sessions.refused()
	if say, missed := d.rejections.ready(time.Now()); say {
		d.engine.log.Error(no.message, "client", k.from.String(), "error", plain(lack), "clients_since_last_line", missed+1)
	}
}
