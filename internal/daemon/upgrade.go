package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/intake"
	"github.com/pgporter/pgporter/internal/engine/handover"
	"github.com/pgporter/pgporter/internal/engine/proxy"
)

// An upgrade is a conversation between the process that runs and the one that it starts. What the old one says ends with
//
//	begin     behind the sockets that it listens on and what it has that no file says (inherited.go)
//	again     the new one's answer isn't good enough: it is to look again and answer anew
//	yours     behind all sessions and clients; with the answer to it they are the new one's
//
// and the new one says
//
//	ready     it has read its configuration and checked the servers, whose status is in the body
//	failed    it can't take over, for the reason in the body
//
// Until `yours` is answered the old one can go on as if nothing had been: if the new one ends, says something else, or takes too
// long, it does. Other releases speak this, too: kinds are added, never changed.
const (
	beginItem  = "begin"
	readyItem  = "ready"
	failedItem = "failed"
	againItem  = "again"
	yoursItem  = "yours"
)

// Times of an upgrade. While everything is frozen only lastStep counts.
const (
	// startTime is how long a new process may take to read its configuration and check the servers.
	startTime = 20 * time.Second
	// settleTime is how long servers may be in a state in which it isn't the moment.
	settleTime = 15 * time.Second
	// lookAgain is between two looks whether it is.
	lookAgain = 50 * time.Millisecond
	// lastStep is how long the new process may take to take over what it is sent.
	lastStep = 5 * time.Second
)

// errHandedOver ends a daemon whose work another process does now.
var errHandedOver = errors.New("another process has taken over")

// Program is what to run as the next process: usually what this one was started as.
type Program struct {
	Path      string
	Arguments []string
}

// upgradeOnSignal hands over to a new process when it is asked to. It returns errHandedOver when that is done.
func (d *Daemon) upgradeOnSignal(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.cfg.Upgrade:
		}
		began := time.Now()
		err := d.upgrade(ctx)
		if err == nil {
			return errHandedOver
		}
		if ctx.Err() != nil {
			return nil
		}
		d.mu.Lock()
		d.upgraded = &api.Upgrade{At: began, Problem: err.Error()}
		d.mu.Unlock()
		d.note(api.Event{Kind: api.EventUpgrade, Text: "not upgraded, this process goes on: " + err.Error()})
		d.log.Error("not upgraded, this process goes on", "problem", err.Error())
	}
}

// upgrade starts the next process and hands everything over. On an error everything is as it was.
func (d *Daemon) upgrade(ctx context.Context) error {
	engine, isNative := d.native()
	switch {
	case !isNative:
		return errors.New("an upgrade is for the native engine: with --engine haproxy, restart pgporter instead")
	case os.Getpid() == 1:
		return errors.New("this process has number 1: what it runs in (a container, say) would end with it")
	}
	// No other configuration comes in between, and no order.
	d.taking.Lock()
	defer d.taking.Unlock()
	d.holdOrders(true)
	defer d.holdOrders(false)
	d.log.Info("starting the next process", "program", d.cfg.Program.Path)
	next, err := handover.Start(d.cfg.Program.Path, d.cfg.Program.Arguments)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, next.Interrupt)
	defer stop()
	if err := d.handOver(ctx, engine, next); err != nil {
		return fmt.Errorf("the next process (pid %d, %s): %w", next.PID(), next.End(), err)
	}
	_ = next.Close()
	if d.vips != nil {
		d.vips.HandOver()
	}
	if d.pools != nil {
		d.pools.HandOver()
	}
	// Whoever watches over us by systemd's protocol (sd_notify(3)) is to watch over the next one. Elsewhere it does nothing.
	if _, err := systemd.SdNotify(false, "MAINPID="+strconv.Itoa(next.PID())); err != nil {
		d.log.Warn("systemd wasn't told of the next process", "pid", next.PID(), "error", err)
	}
	return nil
}

// handOver is the conversation with the next process.
func (d *Daemon) handOver(ctx context.Context, engine native, next *handover.Successor) error {
	within := func(limit time.Duration) {
		_ = next.SetDeadline(time.Now().Add(limit))
		if ctx.Err() != nil {
			next.Interrupt()
		}
	}
	within(startTime)
	state, err := d.handoverItems(engine)
	if err == nil {
		err = next.Send(state...)
	}
	handover.Close(state)
	if err != nil {
		return err
	}
	var frozen *proxy.Frozen
	var began time.Time
	why := ""
	for until := time.Now().Add(startTime + settleTime); frozen == nil; {
		theirs, err := healthOf(next)
		if err != nil {
			return err
		}
		began = time.Now()
		frozen, why, err = freeze(engine.Engine, theirs)
		if err == nil && frozen == nil {
			if time.Now().After(until) {
				return fmt.Errorf("it isn't the moment: %s", why)
			}
			within(lastStep)
			err = next.Send(handover.Item{Kind: againItem})
		}
		if err != nil {
			return err
		}
	}
	sessions, clients := frozen.Count()
	within(lastStep)
	items, err := frozen.Items()
	if err == nil {
		err = next.Send(items...)
	}
	if err != nil {
		frozen.Thaw()
		return err
	}
	if taken, err := next.SendLast(handover.Item{Kind: yoursItem}); err != nil {
		if taken {
			d.log.Error("the next process died with the sessions", "sessions", sessions)
			frozen.Drop()
		}
		frozen.Thaw()
		return err
	}
	frozen.Release()
	d.log.Info("handed over", "pid", next.PID(), "sessions", sessions, "clients", clients, "took", time.Since(began).Round(time.Microsecond))
	return nil
}

// healthOf waits until the next process is ready.
func healthOf(next *handover.Successor) (proxy.HealthStatus, error) {
	for {
		items, err := next.Receive()
		if errors.Is(err, io.EOF) {
			err = errors.New("it ended before it was ready")
		}
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			switch item.Kind {
			case readyItem:
				var theirs proxy.HealthStatus
				if err := json.Unmarshal(item.Body, &theirs); err != nil {
					return nil, fmt.Errorf("the status of its servers: %w", err)
				}
				return theirs, nil
			case failedItem:
				var why string
				if err := json.Unmarshal(item.Body, &why); err != nil {
					return nil, fmt.Errorf("why it failed: %w", err)
				}
				return nil, errors.New(why)
			}
		}
	}
}

// freeze stops everything if it is the moment; otherwise it says why it isn't.
func freeze(engine *proxy.Engine, theirs proxy.HealthStatus) (*proxy.Frozen, string, error) {
	if why := engine.Unsettled(theirs); why != "" {
		return nil, why, nil
	}
	frozen, err := engine.Freeze()
	if err != nil {
		return nil, "", err
	}
	if why := frozen.Unsettled(theirs); why != "" {
		frozen.Thaw()
		return nil, why, nil
	}
	return frozen, "", nil
}

// handoverItems is what the next process gets before it is ready. Its descriptors are copies.
func (d *Daemon) handoverItems(engine native) ([]handover.Item, error) {
	var items []handover.Item
	add := func(name string, socket syscall.Conn) error {
		fd, err := handover.Duplicate(socket)
		if err != nil {
			return fmt.Errorf("the socket %s: %w", name, err)
		}
		items = append(items, handover.Item{Kind: socketItem, Body: text(name), Descriptors: []int{fd}})
		return nil
	}
	var problems []error
	for at, socket := range engine.Sockets() {
		problems = append(problems, add(serviceSocket+at, socket))
	}
	for name, listener := range map[string]net.Listener{adminSocket + d.cfg.Admin: d.admin, d.controlName(): d.control} {
		if tcp, is := listener.(*net.TCPListener); is {
			problems = append(problems, add(name, tcp))
		}
	}
	if d.commands != nil {
		if unix, is := d.commands.Listener.(*net.UnixListener); is {
			problems = append(problems, add(runtimeSocket+d.cfg.RuntimeSocket, unix))
		}
	}
	d.page.mu.Lock()
	if l := d.page.listener; l != nil {
		problems = append(problems, add(pageSocket+d.page.at, l))
	}
	d.page.mu.Unlock()
	if n := d.names(); n != nil {
		if tcp, udp := n.server.Sockets(); tcp != nil {
			problems = append(problems, add(namesTCPSocket+n.asked, tcp), add(namesUDPSocket+n.asked, udp))
		}
	}
	if source, is := d.cfg.Source.(*InventoryFile); is && source.Given != nil {
		items = append(items, inParts(inventoryItem, source.Given)...)
	}
	d.mu.Lock()
	state, plan := handoverState{PID: os.Getpid(), Version: d.cfg.Version, Generation: d.accepted, HandOvers: d.handOvers}, d.plan
	if d.sent != nil {
		state.Sent, state.Accepted = *d.sent, &d.acceptance.Accepted
	}
	sent := d.sent
	d.mu.Unlock()
	if shadow, is := d.engine.(*shadowing); is {
		state.Taken = shadow.takenNow()
	}
	if sent != nil {
		order, err := intake.Order{Plan: plan, Source: sent.Source, Sender: sent.Sender}.Encode()
		problems = append(problems, err)
		items = append(items, inParts(orderItem, order)...)
	}
	standing, err := d.standingOrders()
	problems = append(problems, err)
	items = append(items, inParts(standingItem, standing)...)
	events, err := json.Marshal(d.history.After(0))
	problems = append(problems, err)
	items = append(items, inParts(eventsItem, events)...)
	body, err := json.Marshal(state)
	problems = append(problems, err)
	return append(items, handover.Item{Kind: beginItem, Body: body}), errors.Join(problems...)
}

// largestPart is how much of a text goes into one item.
const largestPart = 128 << 10

// inParts cuts a text into items.
func inParts(kind string, all []byte) []handover.Item {
	var items []handover.Item
	for len(all) > 0 {
		n := min(len(all), largestPart)
		body, _ := json.Marshal(all[:n]) // bytes can always be
		items, all = append(items, handover.Item{Kind: kind, Body: body}), all[n:]
	}
	return items
}

func text(s string) json.RawMessage {
	body, _ := json.Marshal(s) // a string can always be
	return body
}
