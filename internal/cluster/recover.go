package cluster

import (
	"fmt"
	"time"

	"github.com/pgporter/pgporter/internal/state"
)

// recover notes that a server is down, or up again after it was. One that only paused hasn't failed (HAProxy's manual,
// "slowstart": only a server that was seen as failed starts slowly).
func (v server) recover(stands standing, now time.Time) server {
	switch {
	case stands == down:
		v.failed = true
	case stands == up && v.failed:
		v.failed, v.recovered = false, now
	}
	return v
}

// takeBack ends the sessions on a service's backups when a regular server has come up, if the options want that
// (on-marked-up shutdown-backup-sessions). One without weight takes nobody, so nothing is taken back for it. A backup that
// has become a regular server, because roles have changed, has come up in that sense too.
func (s *State) takeBack(svc *state.Service) {
	back := ""
	for i, carrier := range svc.Servers {
		key := serverKey{svc.FullName, carrier.Member}
		v := s.servers[key]
		leads := svc.Health[i].Up && !carrier.Backup && carrier.Weight > 0
		if leads && !v.leading {
			back = carrier.Member
		}
		v.leading = leads
		s.servers[key] = v
	}
	if back == "" || !svc.Options.ShutdownBackupSessions {
		return
	}
	for i, carrier := range svc.Servers {
		if !carrier.Backup {
			continue
		}
		key := serverKey{svc.FullName, carrier.Member}
		v := s.expire(s.servers[key], fmt.Sprintf("a backup, and %s is up (on-marked-up shutdown-backup-sessions)", back))
		s.servers[key] = v
		svc.Health[i].Epoch, svc.Health[i].Ended = v.epoch, v.ended
	}
}
