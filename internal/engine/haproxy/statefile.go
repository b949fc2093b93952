package haproxy

import (
	"fmt"
	"strings"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// stateHead is the beginning of a server-state file: the version and the names of the columns (management guide 2.6,
// section 9.3).
const stateHead = stateVersion + `
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord
`

// opinion is what a cluster's Board says of a server in a service.
type opinion int

const (
	// unknown: the member hasn't been asked yet, or no Board speaks of the server.
	unknown opinion = iota
	down
	up
)

// opinions gives what Views say of each server.
func opinions(views []*view.View) map[serverID]opinion {
	said := map[serverID]opinion{}
	for _, v := range views {
		asked := map[string]bool{}
		for _, m := range v.Members {
			asked[m.Name] = m.Answer != view.NotChecked
		}
		for _, s := range v.Services {
			for i, server := range s.Servers {
				o := down
				switch {
				case s.Health[i].Up:
					o = up
				case !asked[server.Member] || s.Health[i].Reason == view.NotChecked:
					o = unknown
				}
				said[serverID{s.FullName, server.Member}] = o
			}
		}
	}
	return said
}

// stateFile is the state with which a new worker begins. A server of which something is said is that: its member has been
// asked a moment ago, more than a status code was looked at, and what has changed since the worker before heard of it is
// in it. Others keep the state that the worker before had; those that it didn't know begin as down if anything checks them.
//
// What an operator set by the runtime API (maintenance, drain, a weight) is kept, but for servers that were parked: those
// were put into maintenance by us. What the Boards have as ordered goes before it. Lines are made anew, not copied: HAProxy would take address and port from them.
//
// stopped are the servers that begin as down.
func stateFile(l *layout, said map[serverID]opinion, given map[serverID]view.Order, before map[serverID]serverState, parked map[serverID]bool) (file string, stopped []serverID) {
	var text strings.Builder
	text.WriteString(stateHead)
	for id, p := range l.proxies {
		for n, s := range p.servers {
			at := serverID{p.name, s.name}
			was, known := before[at]
			if known && (was.Port != s.port || !sameHost(was.Address, s.host)) {
				was, known = serverState{}, false
			}
			op := opRunning
			switch {
			case said[at] == down, !known && said[at] != up && s.checked:
				op = opStopped
			case said[at] == unknown && known && (was.Op == opStopped || was.Op == opStopping):
				op = opStopped
			}
			if op == opStopped {
				stopped = append(stopped, at)
			}
			admin, weight := 0, s.weight
			if known && !parked[at] {
				admin = was.Admin & (adminMaintenance | adminDrain)
				// A weight that isn't the file's was set by hand, unless the file's has changed too.
				if was.Weight != was.Initial && was.Initial == s.weight {
					weight = was.Weight
				}
			}
			switch given[at].State {
			case view.Drain:
				admin |= adminDrain
			case view.Maintenance:
				admin |= adminMaintenance
			}
			if given[at].Weighed {
				weight = given[at].Weight
			}
			since := 0
			if known && op == was.Op {
				since = was.Since
			}
			check := 0
			if s.checked {
				check = 6
			}
			fmt.Fprintf(&text, "%d %s %d %s %s %d %d %d %d %d 1 0 0 %d 0 0 0 - %d -\n",
				id+2, p.name, n+1, s.name, addressOf(s, was), op, admin, weight, s.weight, since, check, s.port)
		}
	}
	return text.String(), stopped
}

// addressOf is what to write as a server's address: for a host name the last that HAProxy knew.
func addressOf(s server, was serverState) string {
	if !sameHost("", s.host) {
		return s.host
	}
	if was.Address != "" {
		return was.Address
	}
	return "-"
}
