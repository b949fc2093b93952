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

// usher leads one client to a server in the relay's loops, without a goroutine, as long as all goes plainly: the client
// speaks at once, a server is there for it, can be connected to, and takes it up. Whatever else happens, it leaves the client to
// a goroutine (see fall), which goes on from there: nothing of the client's has been taken that a server hasn't answered.
//
// What a client is led by is the dispatcher's, and the same on both ways. Its lock may be taken while mu is held, not the other
// way round.
type usher struct {
	client
	d    *dispatcher
	flow *relay.Flow

	mu    sync.Mutex
	stage stage
	// fd is the client's socket, server that of the server, -1 while there is none.
	fd, server int
	// heard says that the loop waits for the client's socket, too.
	heard bool
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
	// hearing waits for the client's packet.
	hearing stage = iota
	// connecting waits for the connection to the server.
	connecting
	// answering waits for the server's first word.
	answering
	// done is after the session's start, or when a goroutine has the client.
	done
)

// hearPatience is how long a client's first packet is waited for without a goroutine.
const hearPatience = 100 * time.Millisecond

// usher takes charge of a client that has a place, in the loop of the flow that told of it.
func (d *dispatcher) usher(fd int, from netip.AddrPort, ticket uint64, near *relay.Flow) {
	u := &usher{d: d, fd: fd, server: -1}
	u.from, u.ticket = from, ticket
	u.mu.Lock()
	defer u.mu.Unlock()
	d.engine.serving.Add(1)
	d.engine.leading.add(1)
	d.mu.Lock()
	d.ushers[u] = struct{}{}
	if !d.sweeping {
		d.sweeping = true
		time.AfterFunc(sweepPause, d.sweep)
	}
	d.mu.Unlock()
	var err error
	if u.flow, err = d.engine.relay.Prepare(near, u.happened); err != nil {
		u.fall(nil)
		return
	}
	if d.raw() != nil {
		u.what = foreign
		u.claim()
		return
	}
	u.limit(hearPatience)
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

// happened goes on after something happened on a socket.
func (u *usher) happened(server bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.stage == hearing && !server:
		u.hear()
	case u.stage == connecting && server:
		u.connected()
	case u.stage == answering && server:
		u.listen()
	}
}

// hear looks at what the client has said.
func (u *usher) hear() {
	var seen [512]byte
	n, err := peek(uintptr(u.fd), seen[:])
	if err != errNothingYet && (err != nil || n == 0 || n == len(seen)) {
		u.fall(nil)
		return
	}
	what, packet, whole := openingOf(seen[:max(n, 0)])
	switch {
	case !whole && u.heard:
		return
	case !whole:
		u.heard = true
		if err := u.flow.AwaitClient(u.fd); err != nil {
			u.fall(nil)
		}
		return
	}
	u.what, u.packet = what, append([]byte(nil), packet...)
	switch {
	case u.unwanted:
		u.fall(errUnwanted)
	case what == cancelRequest && u.session != nil:
		u.fall(errAnother)
	case what == cancelRequest:
		u.fall(nil)
	case u.session == nil:
		u.claim()
	case what == foreign:
		u.begin(nil)
	default:
		u.ask()
	}
}

// claim finds a server for the client and begins to connect to it.
func (u *usher) claim() {
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
	u.stage = connecting
	if u.server, err = connectTo(address); err != nil {
		u.fall(err)
		return
	}
	u.limit(d.connectTimeout())
	// On this machine and near it, it is there already.
	u.connected()
	switch {
	case u.stage == answering && u.what == startupMessage:
		err = u.flow.Watch(u.server)
	case u.stage == answering || u.stage == connecting:
		err = u.flow.AwaitServer(u.server)
	}
	if err != nil {
		u.fall(err)
	}
}

// connected goes on as soon as the connection to the server is there.
func (u *usher) connected() {
	if u.what != foreign && u.d.engine.cfg.Hold > 0 {
		u.ask()
		return
	}
	ready, err := isConnected(u.server)
	switch {
	case err != nil:
		u.fall(err)
	case ready:
		u.begin(nil)
	}
}

// ask passes the client's packet to the server.
func (u *usher) ask() {
	n, err := relay.Send(u.server, u.packet)
	switch {
	case u.stage == connecting && err == errNothingYet:
		return
	case u.stage == connecting && err != nil:
		u.fall(os.NewSyscallError("connect", err))
		return
	case err != nil && ours(err):
		u.fall(err)
		return
	case err != nil || n < len(u.packet):
		u.fall(errClosedEarly)
		return
	}
	u.stage = answering
	u.limit(glance)
}

// listen reads the server's first word.
func (u *usher) listen() {
	var heard [longestAnswer]byte
	for {
		n, err := relay.Receive(u.server, heard[:longestAnswer-len(u.answer)])
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
			u.begin(u.answer)
			return
		}
		u.answer = append(u.answer, heard[:n]...)
		no, decided := firstWord(u.answer)
		switch {
		case no != nil:
			u.fall(no)
			return
		case !decided && len(u.answer) < longestAnswer:
			continue
		case len(u.answer) == 1 && u.answer[0] == declined && u.what != startupMessage:
			u.decline()
			return
		}
		if u.answer[0] == 0 {
			// No server begins like this, but what was sent to it: the connection is one to itself (simultaneous open).
			u.fall(unix.ECONNREFUSED)
			return
		}
		u.begin(u.answer)
		return
	}
}

// decline tells the client that its encryption request was declined by the server, and waits for what it says to that.
func (u *usher) decline() {
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
	u.answer, u.stage = u.answer[:0], hearing
	u.limit(d.engine.cfg.OpeningTimeout)
	u.hear()
}

// takePacket removes the packet from the client's socket, now that it was passed on.
func (u *usher) takePacket() bool {
	n, err := relay.Receive(u.fd, u.packet)
	return err == nil && n == len(u.packet)
}

// begin starts the session, unless the newest View has something against the server.
func (u *usher) begin(answer []byte) {
	if !u.started(answer) {
		return
	}
	// Without the dispatcher's lock: other loops have clients to lead meanwhile.
	pair := relay.Pair{Client: u.fd, ClientPrepared: true, Server: u.server, ToClient: answer, SentToServer: u.toServer, SentToClient: u.toClient}
	if answer != nil {
		pair.SentToServer += int64(len(u.packet))
	}
	u.flow.Begin(pair, u.d.onEnd(u.session))
	u.d.engine.leading.add(-1)
}

// started notes that the session has started, unless it may not; the flow is to begin then.
func (u *usher) started(answer []byte) bool {
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

// finish ends the usher's part. Both locks are held.
func (u *usher) finish() {
	u.stage = done
	delete(u.d.ushers, u)
}

// limit gives the stage its time.
func (u *usher) limit(patience time.Duration) { u.until = time.Now().Add(patience) }

// sweepPause is how often ushers are looked at for stages that have lasted for too long.
const sweepPause = 50 * time.Millisecond

// sweep looks at all ushers, as long as there are any. A timer for each would cost more than most of them live for.
func (d *dispatcher) sweep() {
	d.mu.Lock()
	all := slices.Collect(maps.Keys(d.ushers))
	if len(all) > 0 {
		time.AfterFunc(sweepPause, d.sweep)
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
func (u *usher) expire(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Before(u.until) {
		return
	}
	switch {
	case u.stage == hearing && u.session == nil:
		u.fall(nil)
	case u.stage == hearing:
		u.fall(errSilent)
	case u.stage == connecting:
		u.fall(os.ErrDeadlineExceeded)
	case u.stage == answering && hasLeft(uintptr(u.fd)):
		u.fall(errLeft)
	case u.stage == answering:
		u.d.mu.Lock()
		u.d.trust(u.session.member)
		u.d.mu.Unlock()
		u.limit(glance)
	}
}

// stop is the session's: with a cause, its server may not take new clients any more. d.mu is held.
func (u *usher) stop(cause error) {
	if cause != nil {
		u.d.engine.serving.Go(u.dismiss)
	}
}

// dismiss has the client led elsewhere, or ends the wait for it where the service is gone.
func (u *usher) dismiss() {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.stage == hearing && u.session != nil && u.d.here.Err() == nil:
		// It would have to be heard again, so let it speak first.
		u.unwanted = true
	case u.stage == done:
	case u.session == nil:
		u.fall(nil)
	default:
		u.fall(errUnwanted)
	}
}

// recall takes all clients that are on their way to where they can end it. d.mu is held.
func (d *dispatcher) recall() {
	for u := range d.ushers {
		d.engine.serving.Go(u.dismiss)
	}
}

// fall leaves the client to a goroutine. An attempt's error is dealt with there, and without one the attempt, if there is a
// session, or else the hearing is still to be made.
func (u *usher) fall(err error) {
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	u.fallLocked(err)
}

// fallLocked is fall with d.mu held.
func (u *usher) fallLocked(err error) {
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
	go u.walk(err)
}

// walk is what the goroutine does that the client was left to.
func (u *usher) walk(err error) {
	d, c, s := u.d, &u.client, u.session
	defer d.engine.serving.Done()
	conn, connErr := connection(u.fd, u.turnAway)
	if connErr != nil {
		// Nobody but this node is to blame.
		if s != nil {
			d.giveUp(s, errUnwanted)
		}
		d.engine.leading.add(-1)
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
		if err = d.verdict(c, s, err); err != nil {
			d.dispose(c, err)
			return
		}
		s = nil
	}
	d.dispose(c, d.pursue(c, s))
}

// turnAway tells the client that there is no descriptor to lead it by, on the bare socket, which needs no other one. One that
// has asked for encryption, or hasn't spoken, is told nothing.
func (u *usher) turnAway(lack error) {
	d := u.d
	no := &refusal{code: codeTooManyConnections, message: fmt.Sprintf("pgporter cannot lead a client to a server of service %s now", d.name),
		detail: plain(lack).Error()}
	if u.what == startupMessage && u.takePacket() {
		// A new connection's buffer takes it at once.
		_, _ = relay.Send(u.fd, no.encode())
	}
	d.mu.Lock()
	d.tally.refused++
	say, missed := d.turnings.ready(time.Now())
	d.mu.Unlock()
	if say {
		d.engine.log.Error(no.message, "client", u.from.String(), "error", plain(lack), "clients_since_last_line", missed+1)
	}
}
