package throughput

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"github.com/pgporter/pgporter/lab/fakepatroni"
)

// Ports of the members of many clusters: not those of a cluster that may run on the machine, since they are open at all its addresses.
const (
	crowdPatroni   = 15008
	crowdPostgres  = 15432
	crowdPgBouncer = 16432
)

// members runs as the members of so many clusters until ctx or the standard input ends, and writes what they were asked so far, as
// JSON, for each byte that comes in.
func members(ctx context.Context, clusters string) error {
	n, err := strconv.Atoi(clusters)
	if err != nil {
		return refused{err}
	}
	crowd, err := fakepatroni.NewCrowd(n)
	if err != nil {
		return refused{err}
	}
	var listeners []net.Listener
	for _, port := range []int{crowdPatroni, crowdPostgres, crowdPgBouncer} {
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // ends with the process at the latest
		defer stop()
		said, asked := json.NewEncoder(os.Stdout), make([]byte, 1)
		for {
			if _, err := os.Stdin.Read(asked); err != nil {
				return
			}
			if err := said.Encode(crowd.Counts()); err != nil {
				return
			}
		}
	}()
	return crowd.Serve(ctx, listeners[0], listeners[1:]...)
}

// crowd are the members of many clusters, a process of their own.
type crowd struct {
	command *exec.Cmd
	in      io.WriteCloser
	said    *json.Decoder
}

// startCrowd starts the members of so many clusters.
func (s *stage) startCrowd(ctx context.Context, clusters int) (*crowd, error) {
	c := &crowd{command: s.ownProcess(ctx, "members", strconv.Itoa(clusters))}
	c.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the benchmark
	c.command.Stderr = s.config.Progress
	var err error
	if c.in, err = c.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.said = json.NewDecoder(out)
	if err := c.command.Start(); err != nil {
		return nil, err
	}
	if _, err := c.counts(); err != nil { // they are there
		c.stop()
		return nil, fmt.Errorf("the members of %d clusters: %w", clusters, err)
	}
	return c, nil
}

// counts asks what the members were asked so far.
func (c *crowd) counts() (fakepatroni.Counts, error) {
	var counts fakepatroni.Counts
	if _, err := c.in.Write([]byte{'?'}); err != nil {
		return counts, err
	}
	err := c.said.Decode(&counts)
	return counts, err
}

func (c *crowd) stop() {
	c.in.Close()     //nolint:errcheck // they have ended then
	c.command.Wait() //nolint:errcheck // what they were asked is known already
}
