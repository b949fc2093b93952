package proxy

import (
	"fmt"
	"time"
)

// TCPService is what a service for something else than PostgreSQL goes by. Its clients are connected as soon as they are accepted,
// since in many protocols the server speaks first; nothing that either side says is looked at.
type TCPService struct {
	// Recheck has a server's health looked at out of turn, instead of Config.Recheck. It is called like that one.
	Recheck func(member string)
	// Once says that a client whose server didn't take it is not led to another one.
	Once bool
	// Connect limits a connection attempt, Queue the wait for a server; 0 is the Engine's ConnectTimeout and Hold. Where the
	// Engine holds nobody, Queue doesn't either.
	Connect, Queue time.Duration
	// Idle is how long both sides of a session may say nothing; 0 is for ever. A session ends at most a quarter of it later.
	Idle time.Duration
}

// TCPEndpoint is an Endpoint that goes by a Raw.
type TCPEndpoint struct {
	Endpoint
	TCPService
}

// tcp is what the service goes by if it isn't PostgreSQL's, and else nil.
func (d *dispatcher) tcp() *TCPService { return d.assigned.Load().tcp }

// hear finds out what a client wants.
func (d *dispatcher) hear(c *client) error {
	if d.tcp() != nil {
		c.kind = notStartup
		return nil
	}
	return c.hear(d.here, d.engine.cfg.OpeningTimeout)
}

// hold is how long a client may wait for a server.
func (d *dispatcher) hold() time.Duration {
	if raw := d.tcp(); raw != nil && raw.Queue > 0 && d.engine.cfg.Hold > 0 {
		return raw.Queue
	}
	return d.engine.cfg.Hold
}

// connectTimeout limits a connection attempt.
func (d *dispatcher) connectTimeout() time.Duration {
	if raw := d.tcp(); raw != nil && raw.Connect > 0 {
		return raw.Connect
	}
	return d.engine.cfg.ConnectTimeout
}

// once tells whether a client has only one try.
func (d *dispatcher) once() bool {
	raw := d.tcp()
	return raw != nil && raw.Once
}

// recheck has a server's health looked at out of turn.
func (d *dispatcher) recheck(member string) {
	raw := d.tcp()
	switch {
	case raw == nil:
		d.engine.cfg.Recheck(d.endpoint().Cluster, member)
	case raw.Recheck != nil:
		raw.Recheck(member)
	}
}

// reject closes a client that no server took. There are no words that every protocol has, so the log has them, at most
// once a second.
func (d *dispatcher) reject(c *client, no *refusal) {
	c.close()
	d.mu.Lock()
	say, missed := d.rejections.ready(time.Now())
	d.mu.Unlock()
	if say {
		d.engine.log.Warn("closed a client that no server takes", "service", d.name, "client", c.from.String(), "reason", no.message,
			"detail", no.detail, "clients_since_last_line", missed+1)
	}
}

// shortestIdleLook is the least time between two looks at idle sessions.
const shortestIdleLook = 10 * time.Millisecond

// watchIdle ends sessions whose sides have nothing to say, until the service is gone.
func (d *dispatcher) watchIdle() {
	for {
		task := d.assigned.Load()
		var look <-chan time.Time
		if task.tcp.Idle > 0 {
			look = time.After(max(task.tcp.Idle/8, shortestIdleLook))
		}
		select {
		case <-d.here.Done():
			return
		case <-task.replaced:
		case now := <-look:
			d.endIdle(task.tcp.Idle, now)
		}
	}
}

// endIdle ends the sessions that have moved nothing for a time.
func (d *dispatcher) endIdle(idle time.Duration, now time.Time) {
	d.mu.Lock()
	ended := d.endSessions(func(s *session) string {
		if s.flow == nil {
			return ""
		}
		toServer, toClient := s.flow.Bytes()
		if moved := toServer + toClient; s.movedAt.IsZero() || moved != s.moved {
			s.moved, s.movedAt = moved, now
			return ""
		}
		if now.Sub(s.movedAt) < idle {
			return ""
		}
		return fmt.Sprintf("neither side has sent anything for %s", idle)
	})
	d.mu.Unlock()
	d.logEnded(ended)
}
