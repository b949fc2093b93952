package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Task is what clients are to do.
type Task struct {
	Do Deed `json:"do"`
	// Address is the service's, Rude that of the service for those who want no session.
	Address string `json:"address,omitempty"`
	Rude    string `json:"rude,omitempty"`
	// Count is how many sessions or clients, From the number of the first, Workers how many at a time.
	Count   int    `json:"count,omitempty"`
	From    int    `json:"from,omitempty"`
	Workers int    `json:"workers,omitempty"`
	Seed    uint64 `json:"seed,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`
	// Stay is how long a turn takes.
	Stay time.Duration `json:"stay,omitempty"`
}

// Deed is a kind of Task.
type Deed string

// The deeds.
const (
	// Bulk moves Bytes each way at once through one session.
	Bulk Deed = "bulk"
	// Scripts has Count sessions go by their scripts, and a tenth as many clients that are rude.
	Scripts Deed = "scripts"
	// Hold opens Count sessions and keeps them; further Holds add to them.
	Hold Deed = "hold"
	// Ask has every session that is kept answer.
	Ask Deed = "ask"
	// Drop ends all sessions that are kept.
	Drop Deed = "drop"
	// Storm has Count clients come at once, each of which stays for Stay if it is served.
	Storm Deed = "storm"
	// Crowd has Count clients come at once who stay; Harvest looks what has become of them, waiting until all know.
	Crowd   Deed = "crowd"
	Harvest Deed = "harvest"
	// Mute has Count clients come who say nothing and are kept like sessions.
	Mute Deed = "mute"
)

// Done is what became of a Task.
type Done struct {
	// Served are sessions that were had to their end (of Hold, Ask, Crowd: that are open), Refused the clients that were sent
	// that there are too many, Rude those that were rude, Cancels their CancelRequests.
	Served, Refused, Rude, Cancels int64
	// Sent and Passed are the bytes of scripts that this side wrote and read.
	Sent, Passed      int64
	BulkSent, BulkGot tally
	// Connecting is how long it took until everybody was connected, Took the whole.
	Connecting, Took time.Duration
	Failures         int64
	First            []string `json:",omitempty"`
}

// clients does Tasks. What it keeps open lasts from one to the next.
type clients struct {
	crowd sync.WaitGroup
	// mu guards what follows.
	mu      sync.Mutex
	kept    []*net.TCPConn
	crowded Done
}

// takeKept empties what is kept, or copies it.
func (c *clients) takeKept(all bool) []*net.TCPConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := slices.Clone(c.kept)
	if all {
		c.kept = nil
	}
	return kept
}

func (d *Done) fail(err error) {
	d.Failures++
	if len(d.First) < maxListed {
		d.First = append(d.First, err.Error())
	}
}

func (c *clients) do(ctx context.Context, task Task) Done {
	began := time.Now()
	var done Done
	switch task.Do {
	case Bulk:
		done = c.bulk(ctx, task)
	case Scripts:
		done = c.scripts(ctx, task)
	case Hold:
		done = c.hold(ctx, task)
	case Mute:
		done = c.mute(ctx, task)
	case Ask:
		done = c.ask()
	case Drop:
		kept := c.takeKept(true)
		done.Served = int64(len(kept))
		for _, conn := range kept {
			_ = conn.Close()
		}
	case Storm:
		done = c.storm(ctx, task)
	case Crowd:
		c.gather(ctx, task)
	case Harvest:
		c.crowd.Wait()
		c.mu.Lock()
		done, c.crowded = c.crowded, Done{}
		c.mu.Unlock()
	default:
		done.fail(fmt.Errorf("no such task: %q", task.Do))
	}
	done.Took = time.Since(began)
	return done
}

// mute connects clients that say nothing.
func (c *clients) mute(ctx context.Context, task Task) (done Done) {
	for range task.Count {
		conn, err := dial(ctx, task.Address)
		if err != nil {
			done.fail(err)
			continue
		}
		done.Served++
		c.mu.Lock()
		c.kept = append(c.kept, conn)
		c.mu.Unlock()
	}
	return done
}

// dial connects, and gives up after sideTime.
func dial(ctx context.Context, address string) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: sideTime, KeepAlive: -1}
	conn, err := dialer.DialContext(ctx, "tcp4", address)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(sideTime))
	return conn.(*net.TCPConn), nil
}

// begin opens a session with an aim.
func begin(ctx context.Context, address, aim string, asksTLS bool) (*net.TCPConn, error) {
	conn, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	if asksTLS {
		no := make([]byte, 1)
		if _, err = conn.Write(sslRequest); err == nil {
			_, err = io.ReadFull(conn, no)
		}
		if err == nil && no[0] != 'N' {
			err = fmt.Errorf("the answer to a request for encryption is %q", no)
		}
	}
	if err == nil {
		_, err = conn.Write(startup(aim))
	}
	if err == nil {
		err = greeted(conn)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

func (c *clients) bulk(ctx context.Context, task Task) (done Done) {
	conn, err := begin(ctx, task.Address, fmt.Sprintf("%s %d %d", aimBulk, task.Bytes, task.Seed), false)
	if err == nil {
		_ = conn.SetDeadline(time.Time{})
		defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
		done.BulkSent, done.BulkGot, err = exchange(conn, task.Bytes, stream(task.Seed), stream(task.Seed+1))
		_ = conn.Close()
	}
	if err != nil {
		done.fail(err)
	}
	return done
}

func (c *clients) scripts(ctx context.Context, task Task) (done Done) {
	var mu sync.Mutex
	var next atomic.Int64
	var all sync.WaitGroup
	for range task.Workers {
		all.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= task.Count || ctx.Err() != nil {
					return
				}
				number := uint64(task.From + n)
				s, err := play(ctx, task, number)
				rude, cancelled := false, false
				if n%10 == 9 {
					how := rudeness(number/10) % rudenesses
					rude, cancelled = true, how == cancels
					if rudeErr := beRude(ctx, task.Rude, how); rudeErr != nil {
						err = errors.Join(err, fmt.Errorf("rude client (%d) at session %d: %w", how, number, rudeErr))
					}
				}
				mu.Lock()
				done.Served++
				done.Sent += s.sent
				done.Passed += s.passed
				if rude {
					done.Rude++
				}
				if cancelled {
					done.Cancels++
				}
				if err != nil {
					done.fail(err)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return done
}

// play does the client's side of a session.
func play(ctx context.Context, task Task, number uint64) (side, error) {
	script := scriptOf(task.Seed, number)
	conn, err := begin(ctx, task.Address, fmt.Sprintf("%s %d %d", aimScript, task.Seed, number), script.asksTLS)
	if err != nil {
		return side{}, fmt.Errorf("session %d: %w", number, err)
	}
	s := side{conn: conn, out: script.upContent, in: script.downContent, outLen: script.up, inLen: script.down,
		piece: script.piece, stall: script.clientStalls, ending: script.ending}
	err = s.play()
	_ = conn.Close()
	if err != nil {
		return s, fmt.Errorf("client's side of session %d (%+v): %w", number, script, err)
	}
	return s, nil
}

// beRude comes to a service and doesn't behave.
func beRude(ctx context.Context, address string, how rudeness) error {
	conn, err := dial(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	packet := startup(aimNothing)
	switch how {
	case connectsOnly:
	case breaksOff, breaksOffHard:
		_, err = conn.Write(packet[:len(packet)/2])
	case asksAndGoes:
		_, err = conn.Write(sslRequest)
	case resetsAtOnce, leavesAtOnce:
		_, err = conn.Write(packet)
	case cancels:
		if _, err = conn.Write(cancelRequest); err == nil {
			if n, _ := io.Copy(io.Discard, conn); n > 0 {
				err = fmt.Errorf("a cancel request got an answer of %d bytes", n)
			}
		}
	}
	if how == breaksOffHard || how == resetsAtOnce {
		_ = conn.SetLinger(0)
	}
	return err
}

// atATime is how many clients connect at once where the order doesn't matter.
const atATime = 50

func (c *clients) hold(ctx context.Context, task Task) (done Done) {
	var all sync.WaitGroup
	var next atomic.Int64
	for range atATime {
		all.Go(func() {
			for next.Add(1) <= int64(task.Count) && ctx.Err() == nil {
				conn, err := begin(ctx, task.Address, aimEcho, false)
				c.mu.Lock()
				if err != nil {
					done.fail(err)
				} else {
					c.kept = append(c.kept, conn)
				}
				c.mu.Unlock()
			}
		})
	}
	all.Wait()
	done.Served = int64(len(c.kept))
	return done
}

func (c *clients) ask() (done Done) {
	question, answer := []byte("are you there?"), make([]byte, 14)
	for i, conn := range c.takeKept(false) {
		_ = conn.SetDeadline(time.Now().Add(sideTime))
		_, err := conn.Write(question)
		if err == nil {
			_, err = io.ReadFull(conn, answer)
		}
		if err == nil && string(answer) != string(question) {
			err = fmt.Errorf("it says %q", answer)
		}
		if err != nil {
			done.fail(fmt.Errorf("session %d of those that are kept: %w", i, err))
			continue
		}
		done.Served++
	}
	return done
}

func (c *clients) storm(ctx context.Context, task Task) (done Done) {
	began := time.Now()
	var mu sync.Mutex
	var all sync.WaitGroup
	for range task.Count {
		all.Go(func() {
			conn, err := dial(ctx, task.Address)
			mu.Lock()
			done.Connecting = max(done.Connecting, time.Since(began))
			mu.Unlock()
			if err == nil {
				err = takeTurn(conn, task.Stay)
			}
			mu.Lock()
			defer mu.Unlock()
			var no errRefused
			switch {
			case err == nil:
				done.Served++
			case errors.As(err, &no) && no.code == tooMany:
				done.Refused++
			default:
				done.fail(err)
			}
		})
	}
	all.Wait()
	return done
}

// takeTurn has a session of the aim turn, stays for a time and ends it.
func takeTurn(conn *net.TCPConn, stay time.Duration) error {
	defer conn.Close()
	if _, err := conn.Write(startup(aimTurn)); err != nil {
		return err
	}
	if err := greeted(conn); err != nil {
		return err
	}
	time.Sleep(stay)
	if _, err := conn.Write([]byte{'q'}); err != nil {
		return err
	}
	// The server ends first: only then there is room for another.
	if n, err := io.Copy(io.Discard, conn); n > 0 || err != nil {
		return fmt.Errorf("at the end of a turn: %d bytes, %w", n, err)
	}
	return nil
}

// gather has clients come without waiting for what becomes of them.
func (c *clients) gather(ctx context.Context, task Task) {
	for range task.Count {
		c.crowd.Go(func() {
			conn, err := begin(ctx, task.Address, aimEcho, false)
			c.mu.Lock()
			defer c.mu.Unlock()
			var no errRefused
			switch {
			case err == nil:
				c.kept = append(c.kept, conn)
				c.crowded.Served++
			case errors.As(err, &no) && no.code == tooMany:
				c.crowded.Refused++
			case errors.Is(err, syscall.ECONNREFUSED):
				c.crowded.fail(fmt.Errorf("nobody listens: %w", err))
			default:
				c.crowded.fail(err)
			}
		})
	}
}
