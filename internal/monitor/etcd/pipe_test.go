package etcd

import (
	"io"
	"net"
	"sync"
	"testing"
)

// pipe is a way to an address that can be cut.
type pipe struct {
	address string

	mu    sync.Mutex
	conns []net.Conn
}

func startPipe(t *testing.T, to string) *pipe { return startPipeAt(t, host, to) }

func startPipeAt(t *testing.T, host, to string) *pipe {
	t.Helper()
	listener, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	p := &pipe{address: listener.Addr().String()}
	var joined sync.WaitGroup
	joined.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, client, server)
			p.mu.Unlock()
			joined.Go(func() { io.Copy(client, server); client.Close() })
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
