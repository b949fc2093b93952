package etcd

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// accounts makes users of an etcd: root, pg-test, which may read its cluster's keys and orders to hold it, legacy, which may read its
// cluster's keys alone, and pgporter, which may read and write pgporter's keys alone. It gives root's way in.
func accounts(t *testing.T, e *etcd) (root *etcd, as func(user string) Config) {
	t.Helper()
	e.do(func(ctx context.Context) error {
		a := e.admin.Auth
		var errs []error
		for name, may := range map[string]map[string]clientv3.PermissionType{
			"pg-test":  {"/pg/pg-test/": clientv3.PermissionType(clientv3.PermReadWrite), "/pgporter/": clientv3.PermissionType(clientv3.PermRead)},
			"legacy":   {"/pg/pg-test/": clientv3.PermissionType(clientv3.PermReadWrite)},
			"pgporter": {"/pgporter/": clientv3.PermissionType(clientv3.PermReadWrite)},
		} {
			_, err1 := a.RoleAdd(ctx, name)
			_, err2 := a.UserAdd(ctx, name, "secret of "+name)
			_, err3 := a.UserGrantRole(ctx, name, name)
			errs = append(errs, err1, err2, err3)
			for prefix, permission := range may {
				_, err := a.RoleGrantPermission(ctx, name, prefix, clientv3.GetPrefixRangeEnd(prefix), permission)
				errs = append(errs, err)
			}
		}
		_, err1 := a.UserAdd(ctx, "root", "secret of root")
		_, err2 := a.UserGrantRole(ctx, "root", "root")
		_, err3 := a.AuthEnable(ctx)
		return errors.Join(append(errs, err1, err2, err3)...)
	})
	root = (&etcd{t: t, scheme: e.scheme, address: e.address}).connect(clientv3.Config{Username: "root", Password: "secret of root"})
	return root, func(user string) Config {
		return Config{Endpoints: []string{e.address}, User: user, Password: fixed("secret of " + user)}
	}
}

// ordering is a running Watcher with the Orders that it delivered.
type ordering struct {
	*following
	orders chan Order
}

func followOrders(t *testing.T, cfg Config, change func(*Watcher)) *ordering {
	t.Helper()
	o := &ordering{orders: make(chan Order)}
	o.following = follow(t, cfg, func(w *Watcher) {
		w.Orders(HoldKey(HoldPrefix, "pg-test"), func(ctx context.Context, told Order) {
			select {
			case o.orders <- told:
			case <-ctx.Done():
			}
		})
		change(w)
	})
	return o
}

// hears waits until an Order says something; what is told meanwhile is told again.
func (o *ordering) hears(value, problem string) {
	o.t.Helper()
	late := time.After(patience)
	var last Order
	for {
		select {
		case last = <-o.orders:
			if string(last.Value) == value && strings.Contains(last.Problem, problem) && (problem == "") == (last.Problem == "") {
				return
			}
		case <-late:
			o.t.Fatalf("told last %q %q, want %q %q", last.Value, last.Problem, value, problem)
		}
	}
}

// TestHoldOrders: who may write nothing of Patroni's has nodes told to hold, for as long as it renews that, and nodes that may read
// the cluster's keys alone go on with them.
func TestHoldOrders(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	e.put("/pg/pg-test/leader", "pg-test-1")
	root, as := accounts(t, e)
	node, legacy := followOrders(t, as("pg-test"), briskly), followOrders(t, as("legacy"), briskly)
	node.says("leader pg-test-1")
	legacy.says("leader pg-test-1")
	node.hears("", "")
	legacy.hears("", "may not read /pgporter/hold/pg-test")

	writer, err := New(as("pgporter"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := writer.Hold(t.Context(), HoldPrefix, "pg-test", []byte("one"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	node.hears("one", "")
	// Told again while it is there.
	node.hears("one", "")
	var held *HeldError
	if _, err := writer.Hold(t.Context(), HoldPrefix, "pg-test", []byte("two"), time.Hour); !errors.As(err, &held) || string(held.Value) != "one" {
		t.Errorf("another one beside it: %v", err)
	}
	if err := l.Renew(t.Context()); err != nil {
		t.Error(err)
	}
	if err := l.Release(t.Context()); err != nil {
		t.Error(err)
	}
	node.hears("", "")
	if err := l.Release(t.Context()); err != nil {
		t.Errorf("released twice: %v", err)
	}

	// Who is killed renews nothing.
	l, err = writer.Hold(t.Context(), HoldPrefix, "pg-test", []byte("three"), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	node.hears("three", "")
	node.hears("", "")
	if err := l.Renew(t.Context()); !errors.Is(err, ErrOver) {
		t.Errorf("renewed after its end: %v", err)
	}
	_ = l.Release(t.Context())

	// An account that may read orders now does so without a new connection.
	root.do(func(ctx context.Context) error {
		_, err := root.admin.RoleGrantPermission(ctx, "legacy", "/pgporter/", clientv3.GetPrefixRangeEnd("/pgporter/"), clientv3.PermissionType(clientv3.PermRead))
		return err
	})
	legacy.hears("", "")
	root.put("/pg/pg-test/leader", "pg-test-2")
	node.says("leader pg-test-2")
	legacy.says("leader pg-test-2")
}

// TestHoldRefused: what can't be written is said with the reason, and leaves nothing in etcd.
func TestHoldRefused(t *testing.T) {
	e := startEtcd(t).connect(clientv3.Config{})
	root, as := accounts(t, e)
	for user, want := range map[string]string{"legacy": "permission denied", "nobody": "authentication failed"} {
		writer, err := New(as(user))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Hold(t.Context(), HoldPrefix, "pg-test", []byte("one"), time.Hour); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "/pgporter/hold/pg-test") {
			t.Errorf("as %s: %v", user, err)
		}
	}
	root.do(func(ctx context.Context) error {
		leases, err := root.admin.Leases(ctx)
		if err == nil && len(leases.Leases) > 0 {
			t.Errorf("leases are left: %v", leases.Leases)
		}
		return err
	})

	// An address that nobody listens at is passed by, before and after.
	cfg := as("pgporter")
	cfg.Endpoints = []string{freeAddress(t), e.address}
	writer, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := writer.Hold(t.Context(), "/elsewhere/", "pg-test", []byte("one"), time.Hour)
	if err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("elsewhere: %v, %v", l, err)
	}
	if l, err = writer.Hold(t.Context(), HoldPrefix, "pg-test", []byte("one"), time.Hour); err != nil {
		t.Fatal(err)
	}
	e.kill()
	if err := l.Renew(t.Context()); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("renewed by nobody: %v", err)
	}
	e.start()
	until(t, "it isn't renewed by an etcd that is back", func() bool { return l.Renew(t.Context()) == nil })
	if err := l.Release(t.Context()); err != nil {
		t.Error(err)
	}
}
