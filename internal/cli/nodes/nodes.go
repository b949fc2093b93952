// Package nodes is the running pgporters that a command is about: how each is reached, all asked at once with an answer of each, and
// what they say summed up.
//
// A node is reached at its control address, or, where it is this machine's, at the socket for those who may; its status can be had
// without either at its admin address. The package keeps nothing and prints nothing.
package nodes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/control"
)

// Node is a running pgporter.
type Node struct {
	// Name is what it is called in tables.
	Name string
	// client asks it at address.
	client  *control.Client
	address string
	// open asks for its status where nobody needs credentials; nil where that isn't known.
	open *api.Client
}

// At is the node at a control address, host:port.
func At(name string, client *control.Client, address string) *Node {
	return &Node{Name: name, client: client, address: address}
}

// Here is a node on this machine: client speaks to its socket, its status is at its admin address.
func Here(name string, client *control.Client, admin api.Client) *Node {
	return &Node{Name: name, client: client, address: "pgporter", open: &admin}
}

// Called is its name.
func (n *Node) Called() string { return n.Name }

// Status gives its state.
func (n *Node) Status(ctx context.Context) (*api.Status, error) {
	if n.open != nil {
		return n.open.Status(ctx)
	}
	return n.client.Status(ctx, n.address)
}

// Events gives what happened after the event with an ID.
func (n *Node) Events(ctx context.Context, after uint64) ([]api.Event, error) {
	if n.open != nil {
		return n.open.Events(ctx, after)
	}
	return n.client.Events(ctx, n.address, after)
}

// Sessions gives the sessions that a filter chooses.
func (n *Node) Sessions(ctx context.Context, f api.SessionFilter) (api.Sessions, error) {
	return n.client.Sessions(ctx, n.address, f)
}

// Goroutines gives the stacks of its goroutines.
func (n *Node) Goroutines(ctx context.Context) (string, error) {
	return n.client.Goroutines(ctx, n.address)
}

// Order gives an order about servers.
func (n *Node) Order(ctx context.Context, o api.Order) ([]api.OrderResult, error) {
	return n.client.Order(ctx, n.address, o)
}

// EndSessions has sessions ended.
func (n *Node) EndSessions(ctx context.Context, e api.EndSessions) (api.SessionsEnded, error) {
	return n.client.EndSessions(ctx, n.address, e)
}

// Hold has it hold new clients of a cluster's leader, or let them go.
func (n *Node) Hold(ctx context.Context, o api.HoldOrder) (api.Held, error) {
	return n.client.Hold(ctx, n.address, o)
}

// Reread has it read its own configuration again.
func (n *Node) Reread(ctx context.Context) (api.Reread, error) {
	return n.client.Reread(ctx, n.address)
}

// together bounds how many nodes are spoken to at once.
const together = 16

// Answer is what a node said, or why it said nothing.
type Answer[T any] struct {
	Node string
	Said T
	Err  error
}

// Ask has every node asked, several at a time, each for as long as limit at most. heard is called with each as it answers, one at a
// time; the answers are in the order of the nodes.
func Ask[T any](ctx context.Context, all []*Node, limit time.Duration, ask func(context.Context, *Node) (T, error), heard func(Answer[T])) []Answer[T] {
	answers := make([]Answer[T], len(all))
	ended := make(chan int)
	slots := make(chan struct{}, together)
	var asking sync.WaitGroup
	for i, n := range all {
		asking.Go(func() {
			slots <- struct{}{}
			one, cancel := context.WithTimeout(ctx, limit)
			said, err := ask(one, n)
			cancel()
			<-slots
			answers[i] = Answer[T]{n.Name, said, err}
			ended <- i
		})
	}
	for range all {
		i := <-ended
		if heard != nil {
			heard(answers[i])
		}
	}
	asking.Wait()
	return answers
}

// Failed are the answers that are errors, as one error that names the nodes; nil if there are none.
func Failed[T any](answers []Answer[T]) error {
	var names []string
	for _, a := range answers {
		if a.Err != nil {
			names = append(names, a.Node)
		}
	}
	switch {
	case len(names) == 0:
		return nil
	case len(answers) == 1:
		return errors.New("it failed")
	}
	return fmt.Errorf("%d of %d nodes failed: %s", len(names), len(answers), strings.Join(names, ", "))
}
