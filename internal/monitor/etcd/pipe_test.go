package etcd

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pipe is a way to an address that can be cut.
type pipe struct {
	address string

	// late is how much later whatever the server says arrives.
	late time.Duration
	// mute has new connections taken and left alone.
	mute atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

func startPipe(t *testing.T, to string) *pipe { return startPipeAt(t, host, to) }

func startPipeAt(t *testing.T, host, to string) *pipe { return startLatePipe(t, host, to, 0) }

func startLatePipe(t *testing.T, host, to string, late time.Duration) *pipe {
	t.Helper()
	listener, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	p := &pipe{address: listener.Addr().String(), late: late}
	var joined sync.WaitGroup
	joined.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			if p.mute.Load() {
				p.mu.Lock()
				p.conns = append(p.conns, client)
				p.mu.Unlock()
				continue
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, client, server)
			p.mu.Unlock()
			joined.Go(func() { p.deliver(client, server); client.Close() })
			joined.Go(func() { io.Copy(server, client); server.Close() })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.cut()
		joined.Wait()
	})
	return p
}

// deliver passes on what the server says, each piece late by as much.
func (p *pipe) deliver(client io.Writer, server io.Reader) {
	type piece struct {
		text []byte
		at   time.Time
	}
	pieces := make(chan piece, 1000)
	go func() {
		defer close(pieces)
		for {
			b := make([]byte, 32<<10)
			n, err := server.Read(b)
			pieces <- piece{b[:n], time.Now()}
			if err != nil {
				return
			}
		}
	}()
	for next := range pieces {
		time.Sleep(p.late - time.Since(next.at))
		client.Write(next.text)
	}
}

// cut ends every connection.
func (p *pipe) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// startSilent gives an address that takes connections and says nothing.
func startSilent(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener.Addr().String()
}
