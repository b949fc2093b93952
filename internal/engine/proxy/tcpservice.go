package proxy

import (
	"time"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// TCPService is what a service for something else than PostgreSQL goes by. Its clients are connected as soon as they are accepted,
// since in many protocols the server speaks first; nothing that either side says is looked at.
type TCPService struct {
	// Recheck has a server's health looked at out of turn, instead of Config.Recheck. It is called like that one. May be nil.
	Recheck func(member string)
	// Once says that a client whose server didn't take it is not connected with another one.
	Once bool
	// Connect limits a connection attempt, Queue the wait for a server; 0 is the Engine's ConnectTimeout and Hold. Where the
	// Engine lets nobody wait, Queue doesn't either.
	Connect, Queue time.Duration
	// Idle is how long both sides of a session may say nothing; 0 is for ever. A session ends at most a quarter of it later.
	Idle time.Duration
}

// TCPEndpoint is an Endpoint that goes by a TCPService.
type TCPEndpoint struct {
	Endpoint
	TCPService
}

// protocol is how such a service is carried by an engine.
func (t TCPService) protocol(e *Engine) protocol {
	p := protocol{
		name:    "tcp",
		reject:  (*service).closeUntold,
		recheck: t.Recheck,
		doubt:   func(string, string) {},
		hold:    e.cfg.Hold, connectTimeout: e.cfg.ConnectTimeout,
		once: t.Once,
		idle: t.Idle,
	}
	if p.recheck == nil {
		p.recheck = func(string) {}
	}
	p.await = func(v *view.Service) {
		for _, member := range members(v) {
			p.recheck(member)
		}
	}
	if t.Queue > 0 && p.hold > 0 {
		p.hold = t.Queue
	}
	if t.Connect > 0 {
		p.connectTimeout = t.Connect
	}
	return p
}

// closeUntold closes a client that no server took. There are no words that every protocol has, so the log has them, at most
// once a second.
func (s *service) closeUntold(c *client, no *refusal) {
	c.close()
	if say, missed := s.rejections.ready(time.Now()); say {
		s.engine.log.Warn("closed a client that no server takes", "service", s.name, "client", c.from.String(), "reason", no.message,
			"detail", no.detail, "clients_since_last_line", missed+1)
	}
}

// minIdleCheck is the least time between two looks at idle sessions.
const minIdleCheck = 10 * time.Millisecond

// idleCheck is how often sessions are looked at that may be idle for so long.
func idleCheck(idle time.Duration) time.Duration { return max(idle/8, minIdleCheck) }
