package proxy

import (
	"time"

	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/relay"
)

// logBegan tells the session log of a session whose sockets are these, before any byte of it is moved.
func (d *dispatcher) logBegan(s *session, client, server int) {
	if d.logs(s, client, server) {
		d.engine.cfg.SessionLog.Began(*s.logged)
	}
}

// logs tells whether the session log is told of a session, and keeps what it is told then.
func (d *dispatcher) logs(s *session, client, server int) bool {
	log := d.engine.cfg.SessionLog
	if log == nil || !log.Wants(s.id) {
		return false
	}
	ends := relay.EndsOf(client, server)
	s.logged = &engine.Session{ID: s.id, Cluster: d.endpoint().Cluster, Service: d.name, Member: s.member, Client: s.client, Listen: ends.Listen, Local: ends.Local,
		Server: ends.Server, Began: s.began}
	return true
}

// logEnd tells the session log of a session's end. The session is in no table any more.
func (d *dispatcher) logEnd(s *session, end relay.End) {
	if s.logged == nil {
		return
	}
	s.logged.ToServer, s.logged.ToClient = end.ToServer, end.ToClient
	d.engine.cfg.SessionLog.Ended(*s.logged, time.Now(), engine.EndReasons[s.reason(end)], end.Cause)
}
