//go:build !linux || portable

package proxy

// usher leads a client without a goroutine, which isn't possible here.
type usher struct{}

// intake isn't needed here.
type intake struct{}

func (*intake) close() {}

// next takes the listener's next client and has it led to a server. It waits for one.
func (l *listener) next() error {
	conn, err := l.socket.AcceptTCP()
	if err == nil {
		l.serves.Load().admit(conn)
	}
	return err
}

func (d *dispatcher) recall() {}
