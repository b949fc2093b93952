package etcd

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Order is what a key that others write orders is found to say.
type Order struct {
	// Value is the key's; empty if there is no key.
	Value []byte
	// Problem says in words why the key may not be read; Value is empty then.
	Problem string
}

// Orders has Run follow one more key, over the same connection: see HoldKey. deliver is told what it says as a connection begins, with each
// change, and again with each beat while the key is there: an Order that isn't told again for some seconds is one of which nothing is
// known any more. It may block until its ctx ends.
//
// Nothing that is wrong with this key touches what is known of Patroni's: it is followed beside them, and an account that may not read it
// is told once in a while that it still may not.
func (w *Watcher) Orders(key string, deliver func(ctx context.Context, o Order)) {
	w.ordersKey, w.deliverOrder = key, deliver
}

// followOrders follows the key for as long as the session lasts. Errors that the session will find by itself are left to it.
func (s *session) followOrders(ctx context.Context) {
	for {
		pause := s.pace.beat
		if err := s.watchOrders(ctx); errors.Is(err, rpctypes.ErrPermissionDenied) {
			s.deliverOrder(ctx, Order{Problem: "etcd's account may not read " + s.ordersKey})
			pause = s.pace.all
		}
		if !sleep(ctx, jitter(pause)) {
			return
		}
	}
}

// watchOrders reads the key and follows it from there until something fails. It is read again with each beat while it is there, and
// sometimes otherwise, for a watch that is dead.
func (s *session) watchOrders(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var joined sync.WaitGroup
	defer joined.Wait()
	defer cancel()

	var known int64
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	tell := func(revision int64, value []byte) {
		known = max(known, revision)
		again.Reset(s.pace.all)
		if len(value) > 0 {
			again.Reset(s.pace.beat)
		}
		s.deliverOrder(ctx, Order{Value: value})
	}
	read := func() error {
		ctx, cancel := context.WithTimeout(ctx, s.pace.read)
		defer cancel()
		answer, err := s.client.Get(ctx, s.ordersKey)
		if err != nil || answer.Header.Revision < known {
			return err
		}
		var value []byte
		for _, kv := range answer.Kvs {
			value = kv.Value
		}
		tell(answer.Header.Revision, value)
		return nil
	}
	if err := read(); err != nil {
		return err
	}
	responses, since := make(chan clientv3.WatchResponse), known+1
	joined.Go(func() {
		defer close(responses)
		// Watch itself blocks until the server has answered.
		for response := range s.client.Watch(clientv3.WithRequireLeader(ctx), s.ordersKey, clientv3.WithRev(since)) {
			select {
			case responses <- response:
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case response, open := <-responses:
			if !open {
				return errBroken
			}
			if err := response.Err(); err != nil {
				return err
			}
			for _, event := range response.Events {
				switch at := event.Kv.ModRevision; {
				case at <= known:
				case event.Type == mvccpb.Event_DELETE:
					tell(at, nil)
				default:
					tell(at, event.Kv.Value)
				}
			}
		case <-again.C:
			if err := read(); err != nil {
				return err
			}
		}
	}
}
