//go:build unix

package handover

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ends gives two connected ends that give up after a while.
func ends(t testing.TB) (from, to *Conn) {
	t.Helper()
	from, fd, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	to, err = Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Conn{from, to} {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	return from, to
}

// openFiles counts this process's descriptors.
func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestManyDescriptors hands over the writing ends of pipes and finds that each is the one that its item says.
func TestManyDescriptors(t *testing.T) {
	from, to := ends(t)
	before := openFiles(t)
	const pipes = 400
	var items []Item
	readers := make([]*os.File, pipes)
	var writers []*os.File
	for i := range pipes {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		readers[i], writers = r, append(writers, w)
		item := Item{Kind: "pipe", Body: json.RawMessage(fmt.Sprint(i))}
		if i%7 != 0 {
			item.Descriptors = []int{int(w.Fd())}
		}
		// Several descriptors for one, and bodies of very different sizes.
		if i%5 == 0 {
			item.Descriptors = append(item.Descriptors, int(w.Fd()))
			item.Body = json.RawMessage(fmt.Sprintf(`%d%s`, i, strings.Repeat(" ", 10_000)))
		}
		items = append(items, item)
	}
	sent := make(chan error, 1)
	go func() { sent <- errors.Join(from.Send(items...), from.Send(Item{Kind: "end"})) }()
	var got []Item
	for len(got) == 0 || got[len(got)-1].Kind != "end" {
		some, err := to.Receive()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, some...)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for _, w := range writers {
		w.Close()
	}
	if len(got) != pipes+1 {
		t.Fatalf("%d items came, want %d", len(got), pipes+1)
	}
	for i, item := range got[:pipes] {
		if want := strings.TrimSpace(string(items[i].Body)); item.Kind != "pipe" || string(item.Body) != want || len(item.Descriptors) != len(items[i].Descriptors) {
			t.Fatalf("item %d is %s %s with %d descriptors", i, item.Kind, item.Body, len(item.Descriptors))
		}
		for _, fd := range item.Descriptors {
			if _, err := syscall.Write(fd, []byte(fmt.Sprintf("%d\n", i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	Close(got)
	for i, r := range readers {
		text, err := io.ReadAll(r)
		if want := strings.Repeat(fmt.Sprintf("%d\n", i), len(items[i].Descriptors)); err != nil || string(text) != want {
			t.Fatalf("pipe %d brought %q (%v), want %q", i, text, err, want)
		}
		r.Close()
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files are open, there were %d", after, before)
	}
}

func TestEnd(t *testing.T) {
	from, to := ends(t)
	from.Close()
	if _, err := to.Receive(); err != io.EOF {
		t.Errorf("got %v", err)
	}
}

func TestSendRefuses(t *testing.T) {
	from, _ := ends(t)
	for name, test := range map[string]struct {
		item Item
		want string
	}{
		"too many descriptors": {Item{Kind: "session", Descriptors: make([]int, 254)}, "handing over a session: it has 254 descriptors"},
		"too large":            {Item{Kind: "session", Body: json.RawMessage(`"` + strings.Repeat("x", mostBody) + `"`)}, "handing over a session: it has 0 descriptors"},
		"no JSON":              {Item{Kind: "session", Body: json.RawMessage(`{`)}, "handing over a session: json"},
	} {
		if err := from.Send(test.item); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestReceiverThatDies must not leave the sender waiting.
func TestReceiverThatDies(t *testing.T) {
	from, to := ends(t)
	go func() {
		_, _ = io.ReadFull(to.unix, make([]byte, 5))
		to.Close()
	}()
	if err := from.Send(Item{Kind: "session"}); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// message writes a message as no Send would.
func message(letters string, version, count int, body string) []byte {
	b := append([]byte(nil), letters...)
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint16(b, uint16(count))
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

func TestReceiveRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		bytes []byte
		want  string
	}{
		"another program":       {message("HTTP", 1, 0, "[]"), `it begins with "HTTP"`},
		"a newer version":       {message(magic, Version+1, 0, "[]"), "writes version 2 of the format, this one reads 1 to 1"},
		"missing descriptors":   {message(magic, 1, 2, "[]"), "announces 2 descriptors and brings 0"},
		"no JSON":               {message(magic, 1, 0, "[{]"), "a message's body"},
		"more than there are":   {message(magic, 1, 0, `[{"kind":"session","descriptors":1}]`), "a session has 1 descriptors, and 0 are left"},
		"fewer than none":       {message(magic, 1, 0, `[{"kind":"session","descriptors":-1}]`), "a session has -1 descriptors"},
		"a body that is cut":    {message(magic, 1, 0, `[{"kind":"session"}]`)[:20], "unexpected EOF"},
		"a head that is cut":    {[]byte("PGP"), "unexpected EOF"},
		"a body without bounds": {append(message(magic, 1, 0, "")[:8], 0xff, 0xff, 0xff, 0xff), "a message of 4294967295 bytes"},
	} {
		from, to := ends(t)
		if _, err := from.unix.Write(test.bytes); err != nil {
			t.Fatal(err)
		}
		from.unix.CloseWrite()
		if _, err := to.Receive(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, test.want)
		}
	}
}

// TestRefusedDescriptorsAreClosed: a message that can't be read must not cost descriptors.
func TestRefusedDescriptorsAreClosed(t *testing.T) {
	from, to := ends(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	body := `[{"kind":"session"}]`
	if _, _, err := from.unix.WriteMsgUnix(message(magic, 1, 1, body), syscall.UnixRights(int(w.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := to.Receive(); err == nil || !strings.Contains(err.Error(), "1 descriptors belong to nothing") {
		t.Errorf("got %v", err)
	}
	if err := r.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the descriptor is still open: %v", err)
	}
}

func TestOpenRefusesWhatIsNoSocket(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	fd, err := syscall.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := Open(fd); err == nil || !strings.Contains(err.Error(), "is nothing to take over from") {
		t.Errorf("got %v", err)
	}
}

// FuzzReceive has any bytes come from the other process: an error or items, and never more memory than a message's bound.
func FuzzReceive(f *testing.F) {
	f.Add(message(magic, 1, 0, `[{"kind":"session","body":{"a":1}}]`))
	f.Add(message(magic, 1, 1, `[{"kind":"session","descriptors":1}]`))
	f.Add(message("HTTP", 1, 0, ""))
	f.Fuzz(func(t *testing.T, p []byte) {
		from, to := ends(t)
		wrote := make(chan struct{})
		go func() {
			defer close(wrote)
			_, _ = from.unix.Write(p)
			_ = from.unix.CloseWrite()
		}()
		for {
			items, err := to.Receive()
			if err != nil {
				break
			}
			for _, item := range items {
				if len(item.Descriptors) != 0 {
					t.Fatalf("descriptors %v came from nowhere", item.Descriptors)
				}
			}
		}
		to.Close()
		<-wrote
	})
}

// BenchmarkHandOver hands over 1,000 sessions of two descriptors.
func BenchmarkHandOver(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.41.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	const sessions = 1000
	fd := int(file.Fd())
	items := make([]Item, sessions)
	for i := range items {
		items[i] = Item{Kind: "session", Body: json.RawMessage(`{"service":"pg-test-primary","member":"pg-test-1"}`), Descriptors: []int{fd, fd}}
	}
	from, to := ends(b)
	for b.Loop() {
		go func() { _ = from.Send(items...) }()
		for n := 0; n < sessions; {
			got, err := to.Receive()
			if err != nil {
				b.Fatal(err)
			}
			n += len(got)
			Close(got)
		}
	}
}
