package soak

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// peerVariable says in the environment of a process that it is a peer, and which.
const peerVariable = "PGPORTER_SOAK_PEER"

const (
	serverPeer = "server"
	clientPeer = "clients"
)

// BePeer is to be called first by every program that calls Run: the peers are the same program, started anew. It returns
// false if this is no peer, and otherwise when the peer's work is done.
func BePeer() bool {
	kind := os.Getenv(peerVariable)
	if kind == "" {
		return false
	}
	// A terminal's Ctrl-C goes to all; the peers end when their input does.
	signal.Ignore(os.Interrupt)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	orders, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	if kind == serverPeer {
		beServer(ctx, orders, answers)
		return true
	}
	var c clients
	for {
		var task Task
		if orders.Decode(&task) != nil {
			return true
		}
		if answers.Encode(c.do(ctx, task)) != nil {
			return true
		}
	}
}

// hello is what a server says first.
type hello struct {
	Port, PatroniPort int
	Failed            string
}

func beServer(ctx context.Context, orders *json.Decoder, answers *json.Encoder) {
	host := ""
	if orders.Decode(&host) != nil {
		return
	}
	port, err := net.Listen("tcp4", net.JoinHostPort(host, "0"))
	var patroni net.Listener
	if err == nil {
		patroni, err = net.Listen("tcp4", net.JoinHostPort(host, "0"))
	}
	if err != nil {
		_ = answers.Encode(hello{Failed: err.Error()})
		return
	}
	var t trivialServer
	ctx, stop := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() { t.serve(ctx, port, patroni) })
	_ = answers.Encode(hello{Port: port.Addr().(*net.TCPAddr).Port, PatroniPort: patroni.Addr().(*net.TCPAddr).Port})
	for {
		var ask string
		if orders.Decode(&ask) != nil {
			break
		}
		if answers.Encode(t.report()) != nil {
			break
		}
	}
	stop()
	serving.Wait()
}

// peer is another process of this program.
type peer struct {
	command *exec.Cmd
	in      io.WriteCloser
	answers *json.Decoder
	ended   chan struct{}
	err     error
	said    *lastLines
}

// startPeer starts one; it ends with stop, or with this process, at the latest with ctx.
func startPeer(ctx context.Context, kind string) (*peer, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, program)
	c.Env = append(os.Environ(), peerVariable+"="+kind)
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	said := &lastLines{}
	c.Stderr = said
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("starting the %s: %w", kind, err)
	}
	p := &peer{command: c, in: in, said: said, ended: make(chan struct{})}
	// Wait closes the pipe, so reading has to end first: the answers come through one of our own.
	read, write := io.Pipe()
	p.answers = json.NewDecoder(bufio.NewReader(read))
	go func() {
		_, _ = io.Copy(write, out)
		p.err = c.Wait()
		_ = write.CloseWithError(fmt.Errorf("the %s ended: %v %s", kind, p.err, said))
		close(p.ended)
	}()
	return p, nil
}

// ask gives the peer an order and waits for the answer.
func (p *peer) ask(order, answer any) error {
	if err := json.NewEncoder(p.in).Encode(order); err != nil {
		return err
	}
	return p.answers.Decode(answer)
}

// stop ends the peer and waits for it. It may be called again.
func (p *peer) stop() {
	_ = p.in.Close()
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		_ = p.command.Process.Kill()
		<-p.ended
	}
}

// lastLines keeps the end of what a process says.
type lastLines struct {
	mu   sync.Mutex
	text []byte
}

const mostKept = 16 << 10

func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if len(l.text) > 2*mostKept {
		l.text = append(l.text[:0], l.text[len(l.text)-mostKept:]...)
	}
	return len(p), nil
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// count tells how many lines have a text in what is kept.
func (l *lastLines) count(text string) int {
	return strings.Count(l.String(), text)
}

// exitOf says in words how a process ended.
func exitOf(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return "killed by " + status.Signal().String()
		}
	}
	return fmt.Sprint(err)
}
