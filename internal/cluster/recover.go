package cluster

import "time"

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
