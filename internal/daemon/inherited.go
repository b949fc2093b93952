package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/intake"
	"github.com/pgporter/pgporter/internal/engine/handover"
	"github.com/pgporter/pgporter/internal/engine/proxy"
)

// What a process gets from the one before: sockets by a name that says what they are for and the address as it was asked for,
// an inventory that came on standard input, a configuration that was sent, and the operators' orders that stand, and
// the newest events, all in parts.
const (
	socketItem    = "socket"
	inventoryItem = "inventory"
	orderItem     = "order"
	standingItem  = "standing"
	eventsItem    = "events"

	serviceSocket  = "service "
	adminSocket    = "admin "
	controlSocket  = "control "
	pageSocket     = "page "
	runtimeSocket  = "runtime "
	namesTCPSocket = "dns-tcp "
	namesUDPSocket = "dns-udp "
)

// handoverState is what else a process says of itself to the next.
type handoverState struct {
	PID        int    `json:"pid"`
	Version    string `json:"version"`
	Generation int    `json:"generation"`
	// Sent is who sent the order, Accepted when it was taken; nil from releases that don't say.
	Sent     Sent             `json:"sent"`
	Accepted *intake.Accepted `json:"accepted,omitempty"`
	// HandOvers counts those before this one.
	HandOvers int `json:"hand_overs,omitempty"`
	// Taken are the services that a shadow has taken.
	Taken []string `json:"taken,omitempty"`
}

// Inherited is what the process before this one has given, before it hands over the rest. A nil Inherited has nothing.
type Inherited struct {
	conn    *handover.Conn
	sockets map[string]int
	state   handoverState
	// Inventory is the one that came on that process's standard input.
	Inventory []byte
	order     []byte
	// events are the newest ones, for the timeline.
	events []byte
	// standing are the operators' orders and holds, stood the same as they were read.
	standing []byte
	stood    standing
	// taken says that everything was taken over.
	taken bool
}

// Inherit takes what the process before this one gives, if there is one; nil otherwise.
func Inherit() (*Inherited, error) {
	conn, err := handover.Predecessor()
	if conn == nil || err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(startTime))
	return inherit(conn)
}

// inherit is Inherit by an end of a handing over, which it owns.
func inherit(conn *handover.Conn) (*Inherited, error) {
	items, err := conn.ReceiveUntil(beginItem)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("taking over from the process before: %w", err)
	}
	i := &Inherited{conn: conn, sockets: map[string]int{}}
	if err := i.takeAll(items); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return i, nil
}

// takeAll takes what the items have. They have no descriptors any more then, and with an error i hasn't either.
func (i *Inherited) takeAll(items []handover.Item) error {
	// What nobody takes: a newer release may give what this one has no use for.
	defer handover.Close(items)
	for n := range items {
		if err := i.take(&items[n]); err != nil {
			i.close()
			return fmt.Errorf("taking over a %s from the process before: %w", items[n].Kind, err)
		}
	}
	var err error
	if i.stood, err = readStanding(i.standing); err != nil {
		i.close()
		return err
	}
	return nil
}

// take takes what an item has, with the descriptors that there is use for.
func (i *Inherited) take(item *handover.Item) error {
	switch item.Kind {
	case socketItem:
		var name string
		if err := json.Unmarshal(item.Body, &name); err != nil {
			return err
		}
		if len(item.Descriptors) != 1 {
			return fmt.Errorf("%d descriptors instead of 1", len(item.Descriptors))
		}
		if _, taken := i.sockets[name]; taken {
			return fmt.Errorf("%q came twice", name)
		}
		i.sockets[name], item.Descriptors = item.Descriptors[0], nil
	case inventoryItem:
		return appendPart(&i.Inventory, item.Body)
	case orderItem:
		return appendPart(&i.order, item.Body)
	case standingItem:
		return appendPart(&i.standing, item.Body)
	case eventsItem:
		return appendPart(&i.events, item.Body)
	case beginItem:
		return json.Unmarshal(item.Body, &i.state)
	}
	return nil
}

func appendPart(all *[]byte, body json.RawMessage) error {
	var part []byte
	if err := json.Unmarshal(body, &part); err != nil {
		return err
	}
	*all = append(*all, part...)
	return nil
}

// Explain tells the process before why this one can't take over from it. Once it has, it does nothing.
func (i *Inherited) Explain(why error) {
	if i == nil || why == nil || i.taken {
		return
	}
	// If it can't be reached it will see that this process ends.
	_ = i.conn.SetDeadline(time.Now().Add(time.Second))
	_ = i.conn.Send(handover.Item{Kind: failedItem, Body: text(why.Error())})
	_ = i.conn.Close()
}

// socket gives the descriptor of a name, which is the caller's then; -1 if there is none.
func (i *Inherited) socket(name string) int {
	if i == nil {
		return -1
	}
	fd, is := i.sockets[name]
	if !is {
		return -1
	}
	delete(i.sockets, name)
	return fd
}

// listener gives a listening socket; nil if there is none.
func (i *Inherited) listener(name string) (*net.TCPListener, error) {
	fd := i.socket(name)
	if fd < 0 {
		return nil, nil
	}
	return handover.Listener(fd)
}

// udp gives a socket for datagrams; nil if there is none.
func (i *Inherited) udp(name string) (*net.UDPConn, error) {
	fd := i.socket(name)
	if fd < 0 {
		return nil, nil
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	conn, err := net.FilePacketConn(file)
	if err != nil {
		return nil, fmt.Errorf("the socket %s: %w", name, err)
	}
	udp, is := conn.(*net.UDPConn)
	if !is {
		_ = conn.Close()
		return nil, fmt.Errorf("the socket %s is a %T", name, conn)
	}
	return udp, nil
}

// services gives the services' listening sockets, by address.
func (i *Inherited) services() (map[string]*net.TCPListener, error) {
	if i == nil {
		return nil, nil
	}
	all := map[string]*net.TCPListener{}
	for name := range i.sockets {
		at, is := strings.CutPrefix(name, serviceSocket)
		if !is {
			continue
		}
		l, err := i.listener(name)
		if err != nil {
			return nil, err
		}
		all[at] = l
	}
	return all, nil
}

// close closes the sockets that nobody wanted.
func (i *Inherited) close() {
	if i == nil {
		return
	}
	for _, fd := range i.sockets {
		handover.Close([]handover.Item{{Descriptors: []int{fd}}})
	}
	clear(i.sockets)
}

// loaded is what a Source has loaded, or, where the process before went by an order, that.
func (i *Inherited) loaded(l Loaded) (Loaded, error) {
	if i == nil || len(i.order) == 0 {
		return l, nil
	}
	order, err := intake.Decode(i.order)
	if err != nil {
		return Loaded{}, fmt.Errorf("the configuration that the process before was sent: %w", err)
	}
	sent := i.state.Sent
	return Loaded{Plan: order.Plan, Base: l.Base, Page: l.Page, Sent: &sent, Accepted: i.state.Accepted, Instead: l.Instead}, nil
}

// begin makes the first configuration the running one, and takes over from the process before if there is one.
func (d *Daemon) begin(ctx context.Context, loaded Loaded) error {
	// A plan that was sent says nothing of etcd, nor of the page.
	d.etcd = loaded.Etcd
	if d.hasPage() {
		d.page.set(loaded.Page)
	}
	before := d.cfg.Inherited
	if before == nil {
		return d.take(ctx, loaded)
	}
	engine, isNative := d.native()
	if !isNative {
		return errors.New("the process before can't be taken over from with --engine haproxy: restart pgporter instead")
	}
	d.accepted, d.handOvers = before.state.Generation, before.state.HandOvers+1
	loaded, err := before.loaded(loaded)
	if err == nil {
		err = d.take(ctx, loaded)
	}
	if err != nil {
		return err
	}
	if err := d.takeOver(ctx, before, engine); err != nil {
		return err
	}
	d.taking.Lock()
	defer d.taking.Unlock()
	d.keep(loaded)
	return nil
}

// takeOver tells the process before that this one is ready, and takes everything over from it, which isn't running any more
// then.
func (d *Daemon) takeOver(ctx context.Context, i *Inherited, engine native) error {
	stop := context.AfterFunc(ctx, i.conn.Interrupt)
	defer stop()
	var known proxy.HealthStatus
	var items []handover.Item
	for {
		if ctx.Err() == nil {
			_ = i.conn.SetDeadline(time.Now().Add(startTime))
		}
		known = engine.HealthStatus()
		body, err := json.Marshal(known)
		if err != nil {
			return err
		}
		if err := i.conn.Send(handover.Item{Kind: readyItem, Body: body}); err != nil {
			return err
		}
		some, again, err := receiveTurn(i.conn)
		if err != nil {
			return err
		}
		if !again {
			items = some
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookAgain):
		}
	}
	i.taken = true
	// From here on there is no return: what can't be taken is lost, and everything else goes on.
	sessions, clients, err := engine.TakeOver(items, known)
	d.mu.Lock()
	d.upgraded = &api.Upgrade{At: time.Now(), PID: i.state.PID, Version: i.state.Version, Sessions: sessions, Clients: clients}
	d.mu.Unlock()
	d.note(api.Event{Kind: api.EventUpgrade, Text: fmt.Sprintf("version %s took over from version %s (pid %d): %d sessions, %d clients", d.cfg.Version, i.state.Version, i.state.PID, sessions, clients)})
	i.close()
	_ = i.conn.Close()
	if err != nil {
		d.log.Error("not everything could be taken over", "problems", err.Error())
	}
	d.log.Info("took over", "from_pid", i.state.PID, "from_version", i.state.Version, "sessions", sessions, "clients", clients)
	return nil
}

// receiveTurn gives what the process before says in answer to a ready: all that is handed over, or that it is to be asked again.
func receiveTurn(conn *handover.Conn) (items []handover.Item, again bool, err error) {
	for {
		some, err := conn.Receive()
		if err != nil {
			handover.Close(items)
			return nil, false, errors.Join(errors.New("the process before goes on"), err)
		}
		for n, item := range some {
			switch item.Kind {
			case againItem:
				handover.Close(append(items, some[n:]...))
				return nil, true, nil
			case yoursItem:
				handover.Close(some[n:])
				return items, false, nil
			default:
				items = append(items, item)
			}
		}
	}
}
