package relay

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds what should take no time at all.
const patience = time.Minute

// address is where these tests' sockets live.
const address = "127.0.41.1:0"

// connected gives the two ends of a TCP connection over loopback.
func connected(t testing.TB) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return dialed.(*net.TCPConn), accepted.(*net.TCPConn)
}

// relay carries the tests' flows.
var relay Relay

func descriptor(t testing.TB, conn *net.TCPConn) int {
	t.Helper()
	fd, err := Descriptor(conn)
	must(t, err)
	return fd
}

// stage is a flow with the peers at both ends of it.
type stage struct {
	client, server *net.TCPConn
	flow           *Flow
	ends           chan End
}

// set starts a flow between two peers. The peers' reads and writes fail after patience.
func set(t testing.TB, toServer, toClient []byte) *stage {
	t.Helper()
	client, ours := connected(t)
	theirs, server := connected(t)
	s := &stage{client: client, server: server, ends: make(chan End, 2)}
	for _, peer := range []*net.TCPConn{client, server} {
		if err := peer.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	s.flow = relay.Start(Pair{Client: descriptor(t, ours), Server: descriptor(t, theirs), ToServer: toServer, ToClient: toClient}, func(end End) { s.ends <- end })
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
		s.flow.Abort(errors.New("the test is over"))
		s.wait(t)
	})
	return s
}

func (s *stage) wait(t testing.TB) {
	t.Helper()
	select {
	case <-s.flow.Done():
	case <-time.After(patience):
		t.Fatal("the flow doesn't end")
	}
}

// ended waits for the flow's end and gives what it was told.
func (s *stage) ended(t testing.TB) End {
	t.Helper()
	s.wait(t)
	if len(s.ends) != 1 {
		t.Fatalf("end was called %d times", len(s.ends))
	}
	return <-s.ends
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func say(t testing.TB, to io.Writer, text string) {
	t.Helper()
	_, err := io.WriteString(to, text)
	must(t, err)
}

func expect(t testing.TB, from io.Reader, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if n, err := io.ReadFull(from, got); err != nil || string(got) != text {
		t.Fatalf("read %q (%v), want %q", got[:n], err, text)
	}
}

func expectEnd(t testing.TB, from io.Reader, want error) {
	t.Helper()
	n, err := from.Read(make([]byte, 1))
	if n != 0 || !errors.Is(err, want) {
		t.Fatalf("read %d bytes and %v, want %v", n, err, want)
	}
}

// pour writes total random bytes in chunks of 1 to most bytes and hashes them.
func pour(to io.Writer, random *rand.Rand, total, most int, sum hash.Hash) error {
	content := rand.NewChaCha8([32]byte{byte(random.Uint32())})
	chunk := make([]byte, most)
	for total > 0 {
		p := chunk[:min(total, 1+random.IntN(most))]
		_, _ = content.Read(p) // never fails
		sum.Write(p)
		if _, err := to.Write(p); err != nil {
			return err
		}
		total -= len(p)
	}
	return nil
}

// drink reads to the stream's end in chunks of 1 to most bytes and hashes them.
func drink(from io.Reader, random *rand.Rand, most int, sum hash.Hash) (int, error) {
	total := 0
	chunk := make([]byte, most)
	for {
		n, err := from.Read(chunk[:1+random.IntN(most)])
		total += n
		sum.Write(chunk[:n])
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func TestStreamsAreExactBothWays(t *testing.T) {
	for _, test := range []struct {
		name               string
		total, write, read int
	}{
		{"1-byte writes", 20_000, 1, 4096},
		{"1-byte reads", 50_000, 4096, 1},
		{"small packets", 2 << 20, 300, 700},
		{"64 KB writes", 8 << 20, 64 << 10, 64 << 10},
		{"large writes, odd reads", 4 << 20, 1 << 20, 1777},
		{"nothing", 0, 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			early, late := []byte("pending for the server"), []byte("pending for the client")
			s := set(t, early, late)
			var all sync.WaitGroup
			exchange := func(from, to *net.TCPConn, pending []byte, seed uint64) {
				sent, got := sha256.New(), sha256.New()
				sent.Write(pending)
				all.Go(func() {
					if err := pour(from, rand.New(rand.NewPCG(seed, 1)), test.total, test.write, sent); err != nil {
						t.Errorf("write: %v", err)
					}
					_ = from.CloseWrite()
				})
				all.Go(func() {
					n, err := drink(to, rand.New(rand.NewPCG(seed, 2)), test.read, got)
					if err != nil || n != test.total+len(pending) {
						t.Errorf("read %d bytes (%v), want %d", n, err, test.total+len(pending))
					}
				})
				t.Cleanup(func() {
					if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
						t.Error("what was read differs from what was written")
					}
				})
			}
			exchange(s.client, s.server, early, 7)
			exchange(s.server, s.client, late, 8)
			all.Wait()
			end := s.ended(t)
			end.ServerFirst = false // whichever was quicker
			want := End{ToServer: int64(test.total + len(early)), ToClient: int64(test.total + len(late))}
			if end != want {
				t.Errorf("ended as %+v, want %+v", end, want)
			}
			if toServer, toClient := s.flow.Bytes(); toServer != want.ToServer || toClient != want.ToClient {
				t.Errorf("Bytes gives %d and %d", toServer, toClient)
			}
		})
	}
}

func TestHalfClose(t *testing.T) {
	for _, first := range []string{"client", "server"} {
		t.Run(first+" first", func(t *testing.T) {
			s := set(t, nil, nil)
			a, b := s.client, s.server
			if first == "server" {
				a, b = b, a
			}
			say(t, a, "question")
			must(t, a.CloseWrite())
			expect(t, b, "question")
			expectEnd(t, b, io.EOF)
			// The other direction goes on for as long as it likes.
			for i := range 50 {
				say(t, b, fmt.Sprint("answer", i))
				expect(t, a, fmt.Sprint("answer", i))
			}
			select {
			case <-s.flow.Done():
				t.Fatal("the flow ended with one direction open")
			default:
			}
			must(t, b.CloseWrite())
			expectEnd(t, a, io.EOF)
			if end := s.ended(t); end.Cause != nil || end.ServerFirst != (first == "server") {
				t.Errorf("ended as %+v", end)
			}
		})
	}
}

func TestResetIsPassedOnAfterTheBytes(t *testing.T) {
	for _, who := range []string{"client", "server"} {
		t.Run(who, func(t *testing.T) {
			s := set(t, nil, nil)
			a, b := s.client, s.server
			if who == "server" {
				a, b = b, a
			}
			last := bytes.Repeat([]byte("last words "), 5000)
			_, err := a.Write(last)
			must(t, err)
			// A reset drops what the sender's kernel still has: wait until all has gone out.
			for waiting(a) > 0 {
				runtime.Gosched()
			}
			must(t, a.SetLinger(0))
			must(t, a.Close())
			expect(t, b, string(last))
			expectEnd(t, b, syscall.ECONNRESET)
			end := s.ended(t)
			if !errors.Is(end.Cause, syscall.ECONNRESET) || !bytes.HasPrefix([]byte(end.Cause.Error()), []byte(who+": ")) {
				t.Errorf("cause %v, want a reset by the %s", end.Cause, who)
			}
			if end.ClientBroke != (who == "client") || end.ServerBroke != (who == "server") || end.ServerFirst != (who == "server") || end.Aborted {
				t.Errorf("ended as %+v", end)
			}
		})
	}
}

// A reset that a blocked write gets to see must not come out at the other side as an end in order.
func TestResetSeenByAWriterIsNoEnd(t *testing.T) {
	for range 30 {
		s := set(t, nil, nil)
		wrote := make(chan error, 1)
		go func() {
			// Until it fails: the server doesn't read, so the flow blocks in its write, and then the client does.
			_, err := io.Copy(s.client, neverEnding{})
			wrote <- err
		}()
		for before := int64(-1); ; {
			now, _ := s.flow.Bytes()
			if now > 0 && now == before {
				break
			}
			before = now
			time.Sleep(5 * time.Millisecond) // a blocked stream is one that has stopped growing
		}
		say(t, s.server, "last words")
		expect(t, s.client, "last words")
		must(t, s.server.SetLinger(0))
		must(t, s.server.Close())
		// The kernel tells of a reset once, here to the read or to the write. After an end in order it would be neither:
		// the read would see the end, and the write EPIPE.
		_, readErr := s.client.Read(make([]byte, 1))
		writeErr := <-wrote
		if !errors.Is(readErr, syscall.ECONNRESET) && !errors.Is(writeErr, syscall.ECONNRESET) {
			t.Fatalf("read: %v, write: %v; want a reset", readErr, writeErr)
		}
		if end := s.ended(t); end.Cause == nil {
			t.Fatal("ended in order")
		}
	}
}

// neverEnding is a stream of zeros.
type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) { return len(p), nil }

func TestLastWordsOfAServerThatClosedOnTheClient(t *testing.T) {
	// The server says why it goes and closes, while the client is writing: the client's bytes have nowhere to go, the
	// server's come through, and then its end.
	for range 30 {
		s := set(t, nil, nil)
		say(t, s.client, "hello")
		expect(t, s.server, "hello")
		say(t, s.server, "FATAL: I am going")
		must(t, s.server.Close())
		go func() {
			for range 100 {
				if _, err := s.client.Write([]byte("more")); err != nil {
					return
				}
			}
			_ = s.client.CloseWrite()
		}()
		expect(t, s.client, "FATAL: I am going")
		if _, err := s.client.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("after the last words: %v", err)
		}
		s.ended(t)
	}
}

func TestSlowReaderHoldsTheWriterNotMemory(t *testing.T) {
	s := set(t, nil, nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	must(t, s.server.SetWriteDeadline(time.Now().Add(time.Second)))
	written, err := io.Copy(s.server, io.LimitReader(neverEnding{}, 1<<30))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("wrote %d bytes to a reader that doesn't read: %v", written, err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 512<<10 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	// Everything that was taken comes out.
	must(t, s.server.CloseWrite())
	got, err := io.Copy(io.Discard, s.client)
	if err != nil || got != written {
		t.Errorf("read %d bytes (%v), want %d", got, err, written)
	}
}

func TestAbort(t *testing.T) {
	why := errors.New("pg-test-1: no longer primary")

	t.Run("idle", func(t *testing.T) {
		s := set(t, nil, nil)
		began := time.Now()
		s.flow.Abort(why)
		expectEnd(t, s.client, io.EOF)
		expectEnd(t, s.server, syscall.ECONNRESET)
		if end := s.ended(t); end.Cause != why {
			t.Errorf("cause %v", end.Cause)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %v", took)
		}
		s.flow.Abort(errors.New("too late"))
	})

	t.Run("what the server sent reaches the client", func(t *testing.T) {
		for range 20 {
			s := set(t, nil, nil)
			last := bytes.Repeat([]byte("x"), 100_000)
			_, err := s.server.Write(last)
			must(t, err)
			// Unread bytes of the client must not make its close a reset that loses the server's.
			say(t, s.client, "a query that comes too late")
			s.flow.Abort(why)
			got, err := io.ReadAll(s.client)
			if !bytes.Equal(got, last) || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("got %d bytes (%v), want %d", len(got), err, len(last))
			}
			s.ended(t)
		}
	})

	t.Run("a message that comes within the drain", func(t *testing.T) {
		s := set(t, nil, nil)
		s.flow.Abort(why)
		say(t, s.server, "FATAL: terminating connection")
		must(t, s.server.CloseWrite())
		expect(t, s.client, "FATAL: terminating connection")
		expectEnd(t, s.client, io.EOF)
		s.ended(t)
	})

	t.Run("a client that doesn't read holds it no longer than the drain", func(t *testing.T) {
		s := set(t, nil, nil)
		go func() { _, _ = io.Copy(s.server, neverEnding{}) }()
		for _, now := s.flow.Bytes(); now == 0; _, now = s.flow.Bytes() {
			runtime.Gosched()
		}
		began := time.Now()
		s.flow.Abort(why)
		s.ended(t)
		if took := time.Since(began); took > DrainLimit+time.Second {
			t.Errorf("took %v", took)
		}
	})

	t.Run("a server that doesn't read gets nothing more", func(t *testing.T) {
		s := set(t, nil, nil)
		go func() { _, _ = io.Copy(s.client, neverEnding{}) }()
		for now, _ := s.flow.Bytes(); now == 0; now, _ = s.flow.Bytes() {
			runtime.Gosched()
		}
		s.flow.Abort(why)
		end := s.ended(t)
		got, err := io.Copy(io.Discard, s.server)
		if !errors.Is(err, syscall.ECONNRESET) || got > end.ToServer {
			t.Errorf("the server read %d bytes and then %v; the flow wrote %d", got, err, end.ToServer)
		}
	})

	t.Run("after a half-close", func(t *testing.T) {
		s := set(t, nil, nil)
		must(t, s.server.CloseWrite())
		expectEnd(t, s.client, io.EOF)
		s.flow.Abort(why)
		if end := s.ended(t); end.Cause != why {
			t.Errorf("cause %v", end.Cause)
		}
	})
}

// waiting gives how many bytes the peer's kernel hasn't acknowledged.
func waiting(conn *net.TCPConn) (n int) {
	raw, err := conn.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { n = unacknowledged(int(fd)) })
	}
	return n
}

func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// TestNothingIsLeftBehind ends many flows in every way there is and counts goroutines and descriptors.
func TestNothingIsLeftBehind(t *testing.T) {
	round := func(n int) {
		var all sync.WaitGroup
		for i := range n {
			client, ours := connected(t)
			theirs, server := connected(t)
			flow := relay.Start(Pair{Client: descriptor(t, ours), Server: descriptor(t, theirs)}, nil)
			random := rand.New(rand.NewPCG(uint64(i), 3))
			all.Go(func() {
				_ = pour(client, random, random.IntN(100_000), 5000, sha256.New())
				switch i % 5 {
				case 0:
					_ = client.CloseWrite()
				case 1:
					_ = client.SetLinger(0)
					_ = client.Close()
				case 2:
					flow.Abort(errors.New("enough"))
				case 3:
					_ = client.Close()
				case 4:
					_ = server.SetLinger(0)
					_ = server.Close()
				}
				_, _ = io.Copy(io.Discard, client)
				_ = client.Close()
			})
			all.Go(func() {
				_, _ = io.Copy(io.Discard, server)
				_ = server.Close()
			})
			all.Go(flow.Wait)
		}
		all.Wait()
	}
	round(5)
	files, goroutines := openFiles(t), runtime.NumGoroutine()
	round(200)
	deadline := time.Now().Add(patience)
	for openFiles(t) > files || runtime.NumGoroutine() > goroutines {
		if time.Now().After(deadline) {
			t.Fatalf("%d files and %d goroutines, there were %d and %d", openFiles(t), runtime.NumGoroutine(), files, goroutines)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestIdleFlowsHoldNoBuffers measures what an idle flow keeps on the heap.
func TestIdleFlowsHoldNoBuffers(t *testing.T) {
	const flows = 200
	var before, after runtime.MemStats
	stages := make([]*stage, flows)
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range stages {
		stages[i] = set(t, nil, nil)
		say(t, stages[i].client, "ping")
		expect(t, stages[i].server, "ping")
	}
	// Twice: a pool keeps its buffers through one collection.
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / flows; each > 8<<10 {
		t.Errorf("an idle flow keeps %d bytes", each)
	}
}

func BenchmarkEcho(b *testing.B) {
	s := set(b, nil, nil)
	must(b, s.client.SetDeadline(time.Time{}))
	must(b, s.server.SetDeadline(time.Time{}))
	go func() { _, _ = io.Copy(s.server, s.server) }()
	packet := make([]byte, 100)
	b.ResetTimer()
	for range b.N {
		if _, err := s.client.Write(packet); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(s.client, packet); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBulk(b *testing.B) {
	s := set(b, nil, nil)
	must(b, s.client.SetDeadline(time.Time{}))
	must(b, s.server.SetDeadline(time.Time{}))
	const piece = 1 << 20
	b.SetBytes(piece)
	go func() {
		p := make([]byte, 64<<10)
		for {
			if _, err := s.server.Write(p); err != nil {
				return
			}
		}
	}()
	p := make([]byte, piece)
	b.ResetTimer()
	for range b.N {
		if _, err := io.ReadFull(s.client, p); err != nil {
			b.Fatal(err)
		}
	}
}
