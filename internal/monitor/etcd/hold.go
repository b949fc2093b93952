package etcd

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
)

// HoldPrefix is below which pgporter's own keys are, unless somebody says otherwise.
const HoldPrefix = "/pgporter"

// HoldKey is where the order is that has all nodes hold a cluster: /pgporter/hold/pg-test. Whoever may write it can keep new clients of
// the cluster's leader waiting, and nothing else.
func HoldKey(prefix, cluster string) string {
	return strings.TrimRight(prefix, "/") + "/hold/" + cluster
}

// HeldError is given by Hold where the key is there already.
type HeldError struct {
	Key string
	// Value is what it says.
	Value []byte
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("etcd's key %s is there already: %s", e.Key, printable(e.Value))
}

// Lease is an order to hold that lies in etcd. It ends by itself: with Release, or when its time has passed since it was renewed last. It
// isn't for use by several goroutines at once.
type Lease struct {
	etcd *Etcd
	key  string
	id   clientv3.LeaseID
	// client is the connection to the at-th address, nil while there is none, which lives as long as own and ends with fail.
	client *clientv3.Client
	own    context.Context
	fail   context.CancelCauseFunc
	at     int
}

// Hold writes an order to hold a cluster, for nodes that follow its keys (Watcher.Orders): value is an api.HoldOrder as JSON. The account
// needs to read and write HoldKey. ttl is in whole seconds (etcd makes it longer if it is less than it can do, 2 s as a rule). A
// *HeldError says that somebody else's order is there. Whoever has the Lease renews it well within ttl, and releases it.
//
// Each address of etcd is tried for 2 s, by this and by what is asked of the Lease.
func (e *Etcd) Hold(ctx context.Context, prefix, cluster string, value []byte, ttl time.Duration) (*Lease, error) {
	l := &Lease{etcd: e, key: HoldKey(prefix, cluster)}
	wrong := func(err error) (*Lease, error) {
		l.close()
		return nil, fmt.Errorf("to write %s to etcd: %w", l.key, err)
	}
	err := l.do(ctx, func(ctx context.Context) error {
		granted, err := l.client.Grant(ctx, int64(math.Ceil(ttl.Seconds())))
		if err == nil {
			l.id = granted.ID
		}
		return err
	})
	if err != nil {
		return wrong(err)
	}
	err = l.do(ctx, func(ctx context.Context) error {
		absent := clientv3.Compare(clientv3.CreateRevision(l.key), "=", 0)
		said, err := l.client.Txn(ctx).If(absent).Then(clientv3.OpPut(l.key, string(value), clientv3.WithLease(l.id))).Else(clientv3.OpGet(l.key)).Commit()
		if err != nil || said.Succeeded {
			return err
		}
		for _, kv := range said.Responses[0].GetResponseRange().GetKvs() {
			// It may be this one, written through an address that didn't answer in time.
			if clientv3.LeaseID(kv.Lease) != l.id {
				return &HeldError{l.key, kv.Value}
			}
		}
		return nil
	})
	if err != nil {
		// Without its lease there is no order, whatever came of writing it.
		_ = l.Release(context.WithoutCancel(ctx))
		return wrong(err)
	}
	return l, nil
}

// Renew has the order last for its time again. An error of which errors.Is says ErrOver is the end; after another one it may be tried
// again.
func (l *Lease) Renew(ctx context.Context) error {
	err := l.do(ctx, func(ctx context.Context) error {
		_, err := l.client.KeepAliveOnce(ctx, l.id)
		return err
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return ErrOver
	}
	return err
}

// ErrOver says that an order's time has passed in etcd, and its key is gone.
var ErrOver = errors.New("the order in etcd wasn't renewed in time, and is gone")

// Release ends the order, and what the Lease needs for itself, also if it fails: then the order ends when its time has passed.
func (l *Lease) Release(ctx context.Context) error {
	defer l.close()
	err := l.do(ctx, func(ctx context.Context) error {
		_, err := l.client.Revoke(ctx, l.id)
		return err
	})
	if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("to take %s out of etcd: %w", l.key, err)
	}
	return nil
}

func (l *Lease) close() {
	if l.client != nil {
		l.fail(nil)
		_ = l.client.Close()
		l.client = nil
	}
}

// do has an address of etcd asked, and the next one if that can't answer.
func (l *Lease) do(ctx context.Context, ask func(ctx context.Context) error) error {
	var failures []error
	for range l.etcd.hosts {
		host := l.etcd.hosts[l.at]
		err := l.try(ctx, host, ask)
		var said rpctypes.EtcdError
		var held *HeldError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &held):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &said) && said.Code() != codes.Unavailable && said.Code() != codes.Unknown:
			// That is etcd's own word, and another of its members would say the same.
			return inWords(ctx, host, err)
		}
		failures = append(failures, inWords(ctx, host, err))
		l.close()
		l.at = (l.at + 1) % len(l.etcd.hosts)
	}
	return errors.Join(failures...)
}

// try has one address asked, within the time of a read.
func (l *Lease) try(ctx context.Context, host string, ask func(ctx context.Context) error) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer time.AfterFunc(pace.read, func() { end(fmt.Errorf("timed out after %s", pace.read)) }).Stop()
	if l.client == nil {
		// The connection outlives this call.
		own, fail := context.WithCancelCause(context.WithoutCancel(ctx))
		kept := context.AfterFunc(ctx, func() { fail(context.Cause(ctx)) })
		client, err := l.etcd.connect(own, host, pace.read, fail)
		kept()
		if err != nil {
			err = errors.Join(context.Cause(own), err)
			fail(nil)
			return err
		}
		l.client, l.own, l.fail = client, own, fail
	}
	defer context.AfterFunc(l.own, func() { end(context.Cause(l.own)) })()
	err := ask(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
