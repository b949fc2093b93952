package daemon

import (
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/engine/handover"
)

// holder makes an item with a descriptor of the end of a pipe, and gives the other end, which tells when the last is closed.
func holder(t *testing.T, kind, body string) (handover.Item, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	fd, err := syscall.Dup(int(w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	return handover.Item{Kind: kind, Body: json.RawMessage(body), Descriptors: []int{fd}}, r
}

func isClosed(t *testing.T, r *os.File, within time.Duration) bool {
	t.Helper()
	if err := r.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	_, err := r.Read(make([]byte, 1))
	return err == io.EOF
}

// TestInheritedDescriptorsHaveOneOwner has items of which one can't be taken, wherever it is among the others: every descriptor is
// closed, and neither the items nor the Inherited know its number any more, which may be somebody else's by then.
func TestInheritedDescriptorsHaveOneOwner(t *testing.T) {
	for name, broken := range map[string]func(t *testing.T) (handover.Item, *os.File){
		"":                  nil,
		"no name":           func(t *testing.T) (handover.Item, *os.File) { return holder(t, socketItem, `7`) },
		"a name that came":  func(t *testing.T) (handover.Item, *os.File) { return holder(t, socketItem, `"admin :1"`) },
		"no begin":          func(t *testing.T) (handover.Item, *os.File) { return holder(t, beginItem, `7`) },
		"no part of a text": func(t *testing.T) (handover.Item, *os.File) { return holder(t, inventoryItem, `7`) },
		"no descriptor": func(t *testing.T) (handover.Item, *os.File) {
			item, r := holder(t, socketItem, `"admin :3"`)
			handover.Close([]handover.Item{item})
			item.Descriptors = nil
			return item, r
		},
	} {
		for at := range 5 {
			if name == "a name that came" && at == 0 {
				continue
			}
			items := make([]handover.Item, 4)
			readers := make([]*os.File, 4)
			items[0], readers[0] = holder(t, socketItem, `"admin :1"`)
			items[1], readers[1] = holder(t, "something new", `{}`)
			items[2], readers[2] = holder(t, inventoryItem, `"YQ=="`)
			items[3], readers[3] = holder(t, socketItem, `"admin :2"`)
			if broken != nil {
				item, r := broken(t)
				items, readers = slices.Insert(items, at, item), append(readers, r)
			}
			i := &Inherited{sockets: map[string]int{}}
			err := i.takeAll(items)
			if failed := err != nil; failed != (broken != nil) {
				t.Fatalf("%q at %d: %v", name, at, err)
			}
			for _, item := range items {
				if len(item.Descriptors) > 0 {
					t.Errorf("%q at %d: a %s has descriptors still", name, at, item.Kind)
				}
			}
			if broken == nil {
				if len(i.sockets) != 2 || isClosed(t, readers[0], time.Millisecond) || isClosed(t, readers[3], time.Millisecond) {
					t.Errorf("has the sockets %v, or they are closed", i.sockets)
				}
				i.close()
			}
			if len(i.sockets) > 0 {
				t.Errorf("%q at %d: has sockets: %v", name, at, i.sockets)
			}
			for n, r := range readers {
				if !isClosed(t, r, patience) {
					t.Errorf("%q at %d: descriptor %d is left open", name, at, n)
				}
			}
		}
	}
}

// TestInheritFails has the process before send something that can't be taken.
func TestInheritFails(t *testing.T) {
	from, fd, err := handover.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := handover.Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*handover.Conn{from, to} {
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	unknown, first := holder(t, "something new", `{}`)
	broken, second := holder(t, socketItem, `7`)
	sent := make(chan error, 1)
	go func() {
		items := []handover.Item{unknown, broken, {Kind: beginItem, Body: json.RawMessage(`{}`)}}
		sent <- from.Send(items...)
		handover.Close(items)
	}()
	if _, err := inherit(to); err == nil || !strings.Contains(err.Error(), "taking over a socket from the process before") {
		t.Errorf("got %v", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if !isClosed(t, first, patience) || !isClosed(t, second, patience) {
		t.Error("descriptors are left open")
	}
	if _, err := from.Receive(); err != io.EOF {
		t.Errorf("the process before gets %v", err)
	}
}
