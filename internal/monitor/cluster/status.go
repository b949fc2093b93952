package cluster

import "time"

// recover notes that a server is down, or up again after it was. One that only paused hasn't failed (HAProxy's manual,
// "slowstart": only a server that was seen as failed starts slowly).
func (v server) recover(next status, now time.Time) server {
	switch {
	case next == down:
		v.failed = true
	case next == up && v.failed:
		v.failed, v.recovered = false, now
	}
	return v
}

// settle gives a server a new epoch where its sessions ended.
func (s *State) settle(v server, ended bool) server {
	if ended {
		v = s.expire(v, v.machine.Verdict().Reason)
	}
	return v
}

// expire gives a server a new epoch, for a reason.
func (s *State) expire(v server, why string) server {
	s.epoch++
	v.epoch, v.ended = s.epoch, why
	return v
}
