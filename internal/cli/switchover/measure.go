package switchover

import (
	"fmt"
	"time"
)

// slow is from when on it is worth saying what a part is made of.
const slow = time.Second

// measure says where the seconds went, and what makes them more. What is said of Patroni is from its ha.py and postgresql/__init__.py
// (3.0.2).
func (r *run) measure() {
	c := r.change
	if c == nil || c.leadingAt.IsZero() || c.refused() {
		return
	}
	stopped := c.leadingAt
	if !c.stoppedAt.IsZero() && c.stoppedAt.Before(stopped) {
		stopped = c.stoppedAt
	}
	r.report.StopSeconds = stopped.Sub(c.asked).Seconds()
	r.report.PromotionSeconds = c.leadingAt.Sub(stopped).Seconds()
	hint := func(format string, args ...any) {
		r.report.Hints = append(r.report.Hints, fmt.Sprintf(format, args...))
	}
	if last := r.report.Steps[len(r.report.Steps)-1]; last.Name == "serve" {
		r.report.OwnSeconds = last.After + last.Seconds - c.leadingAt.Sub(r.began).Seconds()
	}
	if stopped.Sub(c.asked) >= slow {
		if r.skipped("checkpoint") {
			hint("the stop: an account that may CHECKPOINT (pg_checkpoint from PostgreSQL 15 on) leaves it less to write (--pg-credentials)")
		}
		hint("the stop: PostgreSQL writes a checkpoint, archives what is left, and waits until every WAL sender has sent all of it: a slow archive_command and followers that lag make it longer")
	}
	if stopped.Equal(c.leadingAt) {
		hint("%s led before the port of %s was closed: it was still archiving", r.found.to, r.found.from)
	}
	promotion := c.leadingAt.Sub(stopped)
	if promotion >= slow {
		hint("the promotion: Patroni on %s looks once a second whether PostgreSQL has stopped, and gives up the leader key then: up to 1 s is that", r.found.from)
	}
	if promotion >= 2*slow {
		hint("the promotion: before it %s asks every member's REST API how far it is, and one that doesn't answer costs up to 2 s; then it replays what it has received", r.found.to)
	}
}
