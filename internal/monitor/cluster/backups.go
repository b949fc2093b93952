package cluster

import (
	"fmt"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// takeBack ends the sessions on a service's backups when a regular server has come up, if the options want that
// (on-marked-up shutdown-backup-sessions). One without weight takes nobody, so nothing is taken back for it. A backup that
// has become a regular server, because roles have changed, has come up in that sense too.
func (s *State) takeBack(svc *view.Service) {
	back := ""
	for i, carrier := range svc.Servers {
		key := serverKey{svc.FullName, carrier.Member}
		v := s.servers[key]
		usable := svc.Health[i].Up && !carrier.Backup && carrier.Weight > 0
		if usable && !v.usable {
			back = carrier.Member
		}
		v.usable = usable
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
