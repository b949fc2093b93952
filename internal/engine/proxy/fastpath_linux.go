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

// connector leads one client to a server in the relay's loops, without a goroutine, as long as all goes plainly: the client
// speaks at once, a server is there for it, can be connected to, and takes it up. Whatever else happens, it leaves the client to
// a goroutine (see fall), which goes on from there: nothing of the client's has been taken that a server hasn't answered.
//
// What a client is led by is the dispatcher's, and the same on both ways. Its lock may be taken while mu is held, not the other
// way round.
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
	// session is nil until there is a server for the client.
	session *session
	// answer is the beginning of the server's, as long as that doesn't say yet whether it takes the client up.
	answer []byte
	// unwanted says that the server may not take new clients any more.
	unwanted bool
	// until is when the stage has lasted for too long.
	until time.Time
}

// stage is how far a client has been led.
type stage int

const (
	// awaitPacket waits for the client's packet.
	awaitPacket stage = iota
	// awaitConnect waits for the connection to the server.
	awaitConnect
	// awaitResponse waits for the server's first word.
	awaitResponse
	// finished is after the session's start, or when a goroutine has the client.
	finished
)

// firstPacketTimeout is how long a client's first packet is waited for without a goroutine.
const firstPacketTimeout = 100 * time.Millisecond

// startFast takes charge of a client that has a place, in the loop of the flow that told of it.
func (d *dispatcher) startFast(fd int, from netip.AddrPort, ticket uint64, affinity *relay.Flow) {
	u := &connector{d: d, fd: fd, server: -1}
	u.from, u.ticket = from, ticket
	u.mu.Lock()
	defer u.mu.Unlock()
	d.engine.serving.Add(1)
	d.engine.dispatching.add(1)
	d.mu.Lock()
	d.connectors[u] = struct{}{}
	if !d.sweeping {
		d.sweeping = true
		time.AfterFunc(sweepInterval, d.sweep)
	}
	d.mu.Unlock()
	var err error
	if u.flow, err = d.engine.relay.Prepare(affinity, u.event); err != nil {
		u.fall(nil)
		return
	}
	if d.tcp() != nil {
		u.kind = notStartup
		u.assign()
		return
	}
	u.expireIn(firstPacketTimeout)
	u.hear()
}

// reserve keeps a place for a client, if there is room, and gives it its ticket. Who has no use for it leaves.
func (d *dispatcher) reserve() (ticket uint64, room bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if limit := d.endpoint().Definition.MaxConn; limit > 0 && d.clients.n >= limit || !d.clients.reserve() {
		return 0, false
	}
	d.tickets++
	return d.tickets, true
}

// event goes on after something happened on a socket.
func (u *connector) event(server bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.stage == awaitPacket && !server:
		u.hear()
	case u.stage == awaitConnect && server:
		u.connected()
	case u.stage == awaitResponse && server:
		u.readResponse()
	}
}

// hear looks at what the client has said.
func (u *connector) hear() {
	var seen [512]byte
	n, err := peek(uintptr(u.fd), seen[:])
	if err != errNothingYet && (err != nil || n == 0 || n == len(seen)) {
		u.fall(nil)
		return
	}
	what, packet, whole := peekedPacket(seen[:max(n, 0)])
	switch {
	case !whole && u.registered:
		return
	case !whole:
		u.registered = true
		if err := u.flow.AwaitClient(u.fd); err != nil {
			u.fall(nil)
		}
		return
	}
	u.kind, u.packet = what, append([]byte(nil), packet...)
	switch {
	case u.unwanted:
		u.fall(errUnwanted)
	case what == cancelRequest && u.session != nil:
		u.fall(errAnother)
	case what == cancelRequest:
		u.fall(nil)
	case u.session == nil:
		u.assign()
	case what == notStartup:
		u.startRelay(nil)
	default:
		u.sendPacket()
	}
}

// assign finds a server for the client and begins to connect to it.
func (u *connector) assign() {
	d := u.d
	d.mu.Lock()
	d.letIn()
	s, _ := d.register(&u.client)
	if s != nil {
		s.stop = u.stop
	}
	d.mu.Unlock()
	u.session = s
	if s == nil || s.header != 0 {
		u.fall(nil)
		return
	}
	address, err := netip.ParseAddrPort(s.address)
	if err != nil {
		u.fall(nil)
		return
	}
	u.stage = awaitConnect
	if u.server, err = connectTo(address); err != nil {
		u.fall(err)
		return
	}
	u.expireIn(d.connectTimeout())
	// On this machine and near it, it is there already.
	u.connected()
	switch {
	case u.stage == awaitResponse && u.kind == startupMessage:
		err = u.flow.Watch(u.server)
	case u.stage == awaitResponse || u.stage == awaitConnect:
		err = u.flow.AwaitServer(u.server)
	}
	if err != nil {
		u.fall(err)
	}
}

// connected goes on as soon as the connection to the server is there.
func (u *connector) connected() {
	if u.kind != notStartup && u.d.engine.cfg.Hold > 0 {
		u.sendPacket()
		return
	}
	ready, err := isConnected(u.server)
	switch {
	case err != nil:
		u.fall(err)
	case ready:
		u.startRelay(nil)
	}
}

// sendPacket passes the client's packet to the server.
func (u *connector) sendPacket() {
	n, err := relay.Send(u.server, u.packet)
	switch {
	case u.stage == awaitConnect && err == errNothingYet:
		return
	case u.stage == awaitConnect && err != nil:
		u.fall(os.NewSyscallError("connect", err))
		return
	case err != nil && ours(err):
		u.fall(err)
		return
	case err != nil || n < len(u.packet):
		u.fall(errClosedEarly)
		return
	}
	u.stage = awaitResponse
	u.expireIn(responseCheck)
}

// readResponse reads the server's first word.
func (u *connector) readResponse() {
	var heard [maxResponse]byte
	for {
		n, err := relay.Receive(u.server, heard[:maxResponse-len(u.answer)])
		switch {
		case err == errNothingYet:
			return
		case err != nil && ours(err):
			u.fall(err)
			return
		case (err != nil || n == 0) && len(u.answer) == 0:
			u.fall(errClosedEarly)
			return
		case err != nil || n == 0:
			// It said something and closed: whatever it was, it is for the client.
			u.startRelay(u.answer)
			return
		}
		u.answer = append(u.answer, heard[:n]...)
		no, decided := firstResponse(u.answer)
		switch {
		case no != nil:
			u.fall(no)
			return
		case !decided && len(u.answer) < maxResponse:
			continue
		case len(u.answer) == 1 && u.answer[0] == declined && u.kind != startupMessage:
			u.decline()
			return
		}
		if u.answer[0] == 0 {
			// No server begins like this, but what was sent to it: the connection is one to itself (simultaneous open).
			u.fall(unix.ECONNREFUSED)
			return
		}
		u.startRelay(u.answer)
		return
	}
}

// decline tells the client that its encryption request was declined by the server, and waits for what it says to that.
func (u *connector) decline() {
	d := u.d
	d.mu.Lock()
	d.yield(u.session)
	d.letIn()
	d.mu.Unlock()
	if !u.takePacket() {
		u.fall(errLeft)
		return
	}
	u.noteDeclined()
	if n, _ := relay.Send(u.fd, u.answer); n == 0 {
		u.fall(errLeft)
		return
	}
	u.answer, u.stage = u.answer[:0], awaitPacket
	u.expireIn(d.engine.cfg.OpeningTimeout)
	u.hear()
}

// takePacket removes the packet from the client's socket, now that it was passed on.
func (u *connector) takePacket() bool {
	n, err := relay.Receive(u.fd, u.packet)
	return err == nil && n == len(u.packet)
}

// startRelay starts the session, unless the newest View has something against the server.
func (u *connector) startRelay(answer []byte) {
	if !u.started(answer) {
		return
	}
	// Without the dispatcher's lock: other loops have clients to lead meanwhile.
	pair := relay.Pair{Client: u.fd, ClientPrepared: true, Server: u.server, ToClient: answer, SentToServer: u.toServer, SentToClient: u.toClient}
	if answer != nil {
		pair.SentToServer += int64(len(u.packet))
	}
	u.flow.Begin(pair, u.d.onEnd(u.session))
	u.d.engine.dispatching.add(-1)
}

// started notes that the session has started, unless it may not; the flow is to begin then.
func (u *connector) started(answer []byte) bool {
	d, s := u.d, u.session
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.stillWanted(s) {
		u.fallLocked(errUnwanted)
		return false
	}
	if answer != nil && !u.takePacket() {
		u.fallLocked(errLeft)
		return false
	}
	u.finish()
	s.stop, s.flow = nil, u.flow
	d.started(s)
	return true
}

// finish ends the fast-path connector's part. Both locks are held.
func (u *connector) finish() {
	u.stage = finished
	delete(u.d.connectors, u)
}

// expireIn gives the stage its time.
func (u *connector) expireIn(patience time.Duration) { u.until = time.Now().Add(patience) }

// sweepInterval is how often fast-path connectors are looked at for stages that have lasted for too long.
const sweepInterval = 50 * time.Millisecond

// sweep looks at all fast-path connectors, as long as there are any. A timer for each would cost more than most of them live for.
func (d *dispatcher) sweep() {
	d.mu.Lock()
	all := slices.Collect(maps.Keys(d.connectors))
	if len(all) > 0 {
		time.AfterFunc(sweepInterval, d.sweep)
	} else {
		d.sweeping = false
	}
	d.mu.Unlock()
	now := time.Now()
	for _, u := range all {
		u.expire(now)
	}
}

// expire looks whether the stage has lasted for too long.
func (u *connector) expire(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Before(u.until) {
		return
	}
	switch {
	case u.stage == awaitPacket && u.session == nil:
		u.fall(nil)
	case u.stage == awaitPacket:
		u.fall(errSilent)
	case u.stage == awaitConnect:
		u.fall(os.ErrDeadlineExceeded)
	case u.stage == awaitResponse && hasLeft(uintptr(u.fd)):
		u.fall(errLeft)
	case u.stage == awaitResponse:
		u.d.mu.Lock()
		u.d.reset(u.session.member)
		u.d.mu.Unlock()
		u.expireIn(responseCheck)
	}
}

// stop is the session's: with a cause, its server may not take new clients any more. d.mu is held.
func (u *connector) stop(cause error) {
	if cause != nil {
		u.d.engine.serving.Go(u.interrupt)
	}
}

// interrupt has the client led elsewhere, or ends the wait for it where the service is gone.
func (u *connector) interrupt() {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.stage == awaitPacket && u.session != nil && u.d.here.Err() == nil:
		// It would have to be heard again, so let it speak first.
		u.unwanted = true
	case u.stage == finished:
	case u.session == nil:
		u.fall(nil)
	default:
		u.fall(errUnwanted)
	}
}

// interruptAll takes all clients that are on their way to where they can end it. d.mu is held.
func (d *dispatcher) interruptAll() {
	for u := range d.connectors {
		d.engine.serving.Go(u.interrupt)
	}
}

// fall leaves the client to a goroutine. An attempt's error is dealt with there, and without one the attempt, if there is a
// session, or else the hearing is still to be made.
func (u *connector) fall(err error) {
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	u.fallLocked(err)
}

// fallLocked is fall with d.mu held.
func (u *connector) fallLocked(err error) {
	u.finish()
	if u.flow != nil {
		u.flow.Drop()
	}
	if u.server >= 0 {
		relay.Discard(u.server)
	}
	if u.session != nil {
		u.session.stop = nil
	}
	go u.fallback(err)
}

// fallback is what the goroutine does that the client was left to.
func (u *connector) fallback(err error) {
	d, c, s := u.d, &u.client, u.session
	defer d.engine.serving.Done()
	conn, connErr := connection(u.fd, u.reject)
	if connErr != nil {
		// Nobody but this node is to blame.
		if s != nil {
			d.giveUp(s, errUnwanted)
		}
		d.engine.dispatching.add(-1)
		d.mu.Lock()
		d.leave()
		d.mu.Unlock()
		return
	}
	c.conn = conn
	// It can't fail on a connection that was made.
	c.raw, _ = conn.SyscallConn()
	if s == nil {
		d.serve(c)
		return
	}
	if err != nil {
		d.giveUp(s, err)
		if err = d.judge(c, s, err); err != nil {
			d.dispose(c, err)
			return
		}
		s = nil
	}
	d.dispose(c, d.connect(c, s))
}

// reject tells the client that there is no descriptor to lead it by, on the bare socket, which needs no other one. One that
// has asked for encryption, or hasn't spoken, is told nothing.
func (u *connector) reject(lack error) {
	d := u.d
	no := &refusal{code: codeTooManyConnections, message: fmt.Sprintf("pgporter cannot lead a client to a server of service %s now", d.name),
		detail: plain(lack).Error()}
	if u.kind == startupMessage && u.takePacket() {
		// A new connection's buffer takes it at once.
		_, _ = relay.Send(u.fd, no.encode())
	}
	d.mu.Lock()
	d.tally.refused++
	say, missed := d.rejections.ready(time.Now())
	d.mu.Unlock()
	if say {
		d.engine.log.Error(no.message, "client", u.from.String(), "error", plain(lack), "clients_since_last_line", missed+1)
	}
}
