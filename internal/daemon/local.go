package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine/handover"
)

// A shadow takes orders from this machine, from root and its own user, at a socket that is named after its process: which services
// to serve, with the listening sockets of those. Whoever orders says
//
//	socket    a service's address, with the descriptor that listens there
//	order     what is to be done
//
// and the shadow answers
//
//	carried   where its services listen, or would, and which of them it serves
//	socket    as above, where some were asked for
//	done      it was done
//	failed    it wasn't, for the reason in the body; nothing has changed
const (
	localOrderItem = "order"
	carriedItem    = "carried"
	doneItem       = "done"
)

// localOrder is what is to be done with services.
type localOrder struct {
	// Do is one of the words below; an other release may know others.
	Do       string   `json:"do"`
	Services []string `json:"services,omitempty"`
}

// What can be ordered: to tell what is carried; to serve services by sockets that come along; to give copies of the sockets of
// services that are served; to give services back once HAProxy does what pgporter would; to leave them to it at once.
const (
	tellOrder    = "tell"
	takeOrder    = "take"
	lendOrder    = "lend"
	backOrder    = "back"
	releaseOrder = "release"
)

// Carried is a service of a shadow.
type Carried struct {
	Service string `json:"service"`
	// Address is where it listens or would, as in model.ListenAddr.
	Address string `json:"address"`
	// Taken says that it is served, and not only watched.
	Taken bool `json:"taken"`
}

// Times of an order.
const (
	// orderTime bounds the waiting for the other end, localTime all that an order may take.
	orderTime = 5 * time.Second
	localTime = readyTime + 30*time.Second
)

// localName is the socket of a process: an abstract one (unix(7)), so that nothing is left of it.
func localName(pid int) string { return fmt.Sprintf("@pgporter-shadow-%d", pid) }

// listenLocal opens the socket for orders to a shadow; nil where none are taken.
func (d *Daemon) listenLocal(ctx context.Context) net.Listener {
	if _, is := d.engine.(*shadowing); !is || !abstractSockets {
		return nil
	}
	listener, err := d.listenPeers(ctx, localName(os.Getpid()))
	if err != nil {
		d.log.Error("nothing can be taken from HAProxy: the socket for orders from this machine can't be opened", "error", err)
		return nil
	}
	return listener
}

// serveLocal takes orders from this machine until ctx ends. When it returns, none is being carried out.
func (d *Daemon) serveLocal(ctx context.Context, listener net.Listener) error {
	engine, is := d.engine.(*shadowing)
	if !is || listener == nil {
		return nil
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return nil
		}
		// One after the other: each takes the lock of changes.
		serving.Go(func() {
			defer conn.Close()
			d.obey(ctx, engine, handover.New(conn.(*peer).UnixConn))
		})
	}
}

// obey carries one order out and answers it.
func (d *Daemon) obey(ctx context.Context, engine *shadowing, conn *handover.Conn) {
	stop := context.AfterFunc(ctx, conn.Interrupt)
	defer stop()
	_ = conn.SetDeadline(time.Now().Add(orderTime))
	items, err := conn.ReceiveUntil(localOrderItem)
	defer handover.Close(items)
	var answer []handover.Item
	if err == nil {
		answer, err = d.localOrder(ctx, engine, items)
	}
	last := handover.Item{Kind: doneItem}
	if err != nil {
		handover.Close(answer)
		answer, last = nil, handover.Item{Kind: failedItem, Body: text(err.Error())}
	}
	_ = conn.SetDeadline(time.Now().Add(orderTime))
	if err := conn.Send(append(answer, last)...); err != nil {
		d.log.Warn("an order from this machine couldn't be answered", "error", err)
	}
	handover.Close(answer)
}

// localOrder does what is ordered.
func (d *Daemon) localOrder(ctx context.Context, engine *shadowing, items []handover.Item) ([]handover.Item, error) {
	var order localOrder
	if err := json.Unmarshal(items[len(items)-1].Body, &order); err != nil {
		return nil, fmt.Errorf("the order: %w", err)
	}
	d.taking.Lock()
	defer d.taking.Unlock()
	if d.closed || ctx.Err() != nil {
		return nil, errors.New("this pgporter is stopping")
	}
	if order.Do == tellOrder {
		body, err := json.Marshal(engine.carried())
		return []handover.Item{{Kind: carriedItem, Body: body}}, err
	}
	addresses, err := engine.chosen(order)
	if err != nil {
		return nil, err
	}
	switch order.Do {
	case takeOrder:
		sockets, err := listenersOf(items, addresses)
		if err != nil {
			return nil, err
		}
		if err := engine.take(ctx, order.Services, sockets, d.keepTaken); err != nil {
			return nil, err
		}
		d.log.Info("services were taken from HAProxy", "services", order.Services)
	case lendOrder:
		return copiesOf(engine, addresses)
	case backOrder, releaseOrder:
		do := engine.giveBack
		if order.Do == releaseOrder {
			do = engine.release
		}
		if err := do(ctx, order.Services, d.keepTaken); err != nil {
			return nil, err
		}
		d.log.Info("services were given back to HAProxy", "services", order.Services)
	default:
		return nil, fmt.Errorf("this version can't %q", order.Do)
	}
	return nil, nil
}

// chosen are the addresses of the services that an order names, by the services.
func (s *shadowing) chosen(order localOrder) (map[string]string, error) {
	all := s.carried()
	addresses := map[string]string{}
	for _, name := range order.Services {
		i := slices.IndexFunc(all, func(c Carried) bool { return c.Service == name })
		switch {
		case i < 0:
			return nil, fmt.Errorf("this node has no service %q", name)
		case all[i].Taken == (order.Do == takeOrder):
			return nil, fmt.Errorf("service %s is %s already", name, map[bool]string{true: "served here", false: "HAProxy's"}[all[i].Taken])
		}
		addresses[name] = all[i].Address
	}
	if len(addresses) == 0 {
		return nil, errors.New("the order names no service")
	}
	return addresses, nil
}

// listenersOf takes the listening sockets that came with an order, one for each address.
func listenersOf(items []handover.Item, addresses map[string]string) (map[string]*net.TCPListener, error) {
	sockets := map[string]*net.TCPListener{}
	fail := func(err error) (map[string]*net.TCPListener, error) {
		for _, socket := range sockets {
			_ = socket.Close()
		}
		return nil, err
	}
	for n := range items {
		item := &items[n]
		if item.Kind != socketItem {
			continue
		}
		var at string
		if err := json.Unmarshal(item.Body, &at); err != nil || len(item.Descriptors) != 1 || sockets[at] != nil {
			return fail(fmt.Errorf("a socket of the order: %d descriptors for %q: %w", len(item.Descriptors), at, err))
		}
		fd := item.Descriptors[0]
		item.Descriptors = nil
		socket, err := handover.Listener(fd)
		if err != nil {
			return fail(err)
		}
		sockets[at] = socket
		if !listensAt(socket, at) {
			return fail(fmt.Errorf("the socket for %s listens at %s", at, socket.Addr()))
		}
	}
	for name, at := range addresses {
		if sockets[at] == nil {
			return fail(fmt.Errorf("no socket came for service %s (%s)", name, at))
		}
	}
	if len(sockets) != len(addresses) {
		return fail(errors.New("sockets came that no service of the order has"))
	}
	return sockets, nil
}

// listensAt says whether a socket listens at an address; "*" is every one of either family.
func listensAt(socket *net.TCPListener, at string) bool {
	want, err := model.ParseListenAddr(at)
	has := socket.Addr().(*net.TCPAddr).AddrPort()
	return err == nil && has.Port() == want.Port && (want.Every() && has.Addr().IsUnspecified() || has.Addr().Unmap() == want.Addr)
}

// copiesOf gives copies of the sockets of services.
func copiesOf(engine *shadowing, addresses map[string]string) ([]handover.Item, error) {
	var items []handover.Item
	sockets := engine.Sockets()
	for _, at := range addresses {
		socket := sockets[at]
		if socket == nil {
			handover.Close(items)
			return nil, fmt.Errorf("nothing listens at %s", at)
		}
		fd, err := handover.Duplicate(socket)
		if err != nil {
			handover.Close(items)
			return nil, err
		}
		items = append(items, handover.Item{Kind: socketItem, Body: text(at), Descriptors: []int{fd}})
	}
	return items, nil
}

// Local is a shadow on this machine that takes orders. Each order is a conversation of its own.
type Local struct{ pid int }

// Shadow finds the shadow with a process number, which somebody said who answered at one of the admin addresses: it has to be seen to be
// a pgporter that listens there, as for Ask, and the caller's or root's or a user's called like the program, unless it was chosen expressly.
func Shadow(pid int, admin []netip.AddrPort, chosen bool) (Local, error) {
	p, user, err := seen(pid, admin)
	if err != nil {
		return Local{}, err
	}
	p.Close()
	if !chosen && user != 0 && user != os.Geteuid() && userNamed(user) != "pgporter" {
		return Local{}, fmt.Errorf("it belongs to the user with id %d: --pid %d says that it is meant", user, pid)
	}
	return Local{pid}, nil
}

// order gives an order and returns the answer, whose descriptors are the caller's.
func (l Local) order(ctx context.Context, order localOrder, items ...handover.Item) ([]handover.Item, error) {
	ctx, cancel := context.WithTimeout(ctx, localTime)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "unix", localName(l.pid))
	if err != nil {
		return nil, fmt.Errorf("the pgporter with number %d takes no orders from here (it does with --shadow): %w", l.pid, err)
	}
	defer raw.Close()
	if err := belongsTo(raw.(*net.UnixConn), l.pid); err != nil {
		return nil, err
	}
	conn := handover.New(raw.(*net.UnixConn))
	defer context.AfterFunc(ctx, conn.Interrupt)()
	body, err := json.Marshal(order)
	if err != nil {
		return nil, err
	}
	if err := conn.Send(append(items, handover.Item{Kind: localOrderItem, Body: body})...); err != nil {
		return nil, err
	}
	var answer []handover.Item
	for {
		some, err := conn.Receive()
		if err != nil {
			handover.Close(answer)
			return nil, err
		}
		for n, item := range some {
			switch item.Kind {
			case doneItem:
				return append(answer, some[:n]...), nil
			case failedItem:
				handover.Close(append(answer, some...))
				var why string
				if err := json.Unmarshal(item.Body, &why); err != nil {
					return nil, err
				}
				return nil, errors.New(why)
			}
		}
		answer = append(answer, some...)
	}
}

// Carried tells which services it has.
func (l Local) Carried(ctx context.Context) ([]Carried, error) {
	items, err := l.order(ctx, localOrder{Do: tellOrder})
	if err != nil {
		return nil, err
	}
	defer handover.Close(items)
	var all []Carried
	for _, item := range items {
		if item.Kind == carriedItem {
			err = json.Unmarshal(item.Body, &all)
		}
	}
	return all, err
}

// Take has it serve a service with a listening socket, which stays the caller's.
func (l Local) Take(ctx context.Context, c Carried, fd int) error {
	items, err := l.order(ctx, localOrder{Do: takeOrder, Services: []string{c.Service}}, handover.Item{Kind: socketItem, Body: text(c.Address), Descriptors: []int{fd}})
	handover.Close(items)
	return err
}

// Lend gives copies of the sockets of services that it serves, by addresses; they are the caller's to close.
func (l Local) Lend(ctx context.Context, services []string) (map[string]int, error) {
	items, err := l.order(ctx, localOrder{Do: lendOrder, Services: services})
	if err != nil {
		return nil, err
	}
	fds := map[string]int{}
	for n := range items {
		var at string
		if err := json.Unmarshal(items[n].Body, &at); err == nil && items[n].Kind == socketItem && len(items[n].Descriptors) == 1 {
			fds[at], items[n].Descriptors = items[n].Descriptors[0], nil
		}
	}
	handover.Close(items)
	return fds, nil
}

// GiveBack has it give services back to a HAProxy that listens for them, too; at once if that has the very same sockets.
func (l Local) GiveBack(ctx context.Context, services []string, atOnce bool) error {
	do := backOrder
	if atOnce {
		do = releaseOrder
	}
	items, err := l.order(ctx, localOrder{Do: do, Services: services})
	handover.Close(items)
	return err
}

// takenFile has the services that were taken, a line each, in the state directory.
const takenFile = "taken"

// takenBefore are the services that the process before has taken, or those of before this start.
func (c *Config) takenBefore() ([]string, error) {
	if c.Inherited != nil {
		return c.Inherited.state.Taken, nil
	}
	taken, err := readTaken(c.StateDir)
	if err != nil {
		return nil, fmt.Errorf("which services were taken from HAProxy: %w", err)
	}
	return taken, nil
}

// readTaken reads which services were taken before this start; none where nothing is kept.
func readTaken(dir string) ([]string, error) {
	if dir == "" {
		return nil, nil
	}
	content, err := os.ReadFile(filepath.Join(dir, takenFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(content)), err
}

// keepTaken keeps which services are taken: a restart that forgot them would leave their ports to nobody.
func (d *Daemon) keepTaken(taken []string) error {
	if d.cfg.StateDir == "" {
		return errors.New("services are taken where that outlives a restart: run with --state-dir")
	}
	if err := writeWhole(filepath.Join(d.cfg.StateDir, takenFile), []byte(strings.Join(taken, "\n")+"\n")); err != nil {
		return fmt.Errorf("keeping which services are taken: %w", err)
	}
	return nil
}
