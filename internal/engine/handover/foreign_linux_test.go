package handover

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// beside listens where another socket does, as HAProxy would.
func beside(at string) (*net.TCPListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }), err)
	}}
	return listen(config, at)
}

// listen opens a socket of TCP itself: Go's are of Multipath TCP, which have one of those inside that nobody can get at.
func listen(config net.ListenConfig, at string) (*net.TCPListener, error) {
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp4", at)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// comeTo makes connections to an address and counts those that get to a listener.
func comeTo(t *testing.T, l *net.TCPListener, n int) int {
	t.Helper()
	for range n {
		conn, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	got := 0
	for {
		// Connected is who has been put into the queue of one of the two.
		l.SetDeadline(time.Now().Add(50 * time.Millisecond))
		conn, err := l.Accept()
		if err != nil {
			return got
		}
		conn.Close()
		got++
	}
}

// A socket of another user that was bound without a thought of it is made to bear another one beside it, and new connections go to
// where they are wanted.
func TestShareAndSteer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root has a socket change its user")
	}
	for _, bound := range []struct {
		name   string
		listen func() (*net.TCPListener, error)
	}{
		{"alone", func() (*net.TCPListener, error) { return listen(net.ListenConfig{}, "127.0.0.1:0") }},
		{"with SO_REUSEPORT", func() (*net.TCPListener, error) { return beside("127.0.0.1:0") }},
	} {
		t.Run(bound.name, func(t *testing.T) {
			ours, err := bound.listen()
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			fd, err := Duplicate(ours)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := unix.Fchown(fd, 65534, 65534); err != nil {
				t.Fatal(err)
			}
			at := ours.Addr().String()
			if err := Share(fd); err != nil {
				t.Fatal(err)
			}
			if err := Steer(fd, First); err != nil && !errors.Is(err, ErrAlone) {
				t.Fatal(err)
			}
			theirs, err := beside(at)
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.Close()
			if err := Steer(fd, First); err != nil {
				t.Fatal(err)
			}
			if got := comeTo(t, ours, 40); got != 40 {
				t.Errorf("the first got %d of 40", got)
			}
			if err := Steer(fd, Next); err != nil {
				t.Fatal(err)
			}
			if got := comeTo(t, theirs, 40); got != 40 {
				t.Errorf("the next got %d of 40", got)
			}
			// Once the first is gone all go to the other, whatever the program says.
			ours.Close()
			unix.Close(fd)
			if got := comeTo(t, theirs, 40); got != 40 {
				t.Errorf("the one that was left got %d of 40", got)
			}
		})
	}
}

func TestCopy(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	own, err := Duplicate(l.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(own)
	fd, err := Copy(os.Getpid(), own)
	if errors.Is(err, unix.EPERM) {
		t.Skip("this process may not be looked into")
	}
	if err != nil {
		t.Fatal(err)
	}
	again, err := Listener(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Addr().String() != l.Addr().String() {
		t.Errorf("it listens at %s", again.Addr())
	}
	if _, err := Copy(os.Getpid(), 1<<20); err == nil {
		t.Error("a descriptor that isn't there was copied")
	}
	if _, err := Copy(1<<30, 0); err == nil {
		t.Error("a process that isn't there was looked into")
	}
}
