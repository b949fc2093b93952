package failover

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// idleEach is how many sessions are open through each target and do nothing.
const idleEach = 5

// idleSessions are those, by target.
type idleSessions struct {
	connections [][]net.Conn
	ended       []*atomic.Int64
	joined      *sync.WaitGroup
}

// holdSessions opens them through all targets but the client that tries all members, which has no service between. Whoever gets them
// closes them, also those that come with an error.
func (a *arena) holdSessions(ctx context.Context) (idleSessions, error) {
	idle := idleSessions{joined: &sync.WaitGroup{}}
	for _, t := range a.targets {
		ended := &atomic.Int64{}
		idle.connections, idle.ended = append(idle.connections, nil), append(idle.ended, ended)
		for range idleEach {
			if t.tries {
				break
			}
			c, err := open(ctx, t.url)
			if err != nil {
				return idle, fmt.Errorf("a session through %s: %w", t.name, err)
			}
			last := len(idle.connections) - 1
			idle.connections[last] = append(idle.connections[last], c)
			idle.joined.Go(func() {
				// Nothing is asked, so whatever ends the reading is the session's end. What the server says of itself isn't.
				for buffer := make([]byte, 1024); ; {
					if _, err := c.Read(buffer); err != nil {
						ended.Add(1)
						return
					}
				}
			})
		}
	}
	return idle, nil
}

// open logs in and gives the bare connection.
func open(ctx context.Context, url string) (net.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	hijacked, err := conn.PgConn().Hijack()
	if err != nil {
		return nil, err
	}
	// pgconn leaves the deadline of the login where it had one.
	return hijacked.Conn, hijacked.Conn.SetDeadline(time.Time{})
}

// count gives how many sessions a target had, and how many of them have ended.
func (s idleSessions) count(target int) (sessions, ended int) {
	return len(s.connections[target]), int(s.ended[target].Load())
}

func (s idleSessions) close() {
	for _, all := range s.connections {
		for _, c := range all {
			c.Close()
		}
	}
	s.joined.Wait()
}
