package health

import (
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
)

// Streak counts the results in a row that speak against what is taken for true of a server or a port: failures while it is up,
// passes while it is down. It is a value; the zero Streak has counted none.
type Streak struct {
	count int
	// counted is when the last failure was.
	counted time.Time
}

// Count is how many were counted.
func (s Streak) Count() int { return s.count }

// Fail takes a failure that ended now, and says whether with it there are as many as `fall` wants. One per fastinter counts, the
// pace of the schedule, so that checks out of turn don't shorten what the options say.
func (s Streak) Fail(o *model.Options, now time.Time) (Streak, bool) {
	// A tenth is allowed for checks that end earlier after their start than the one before.
	if s.count > 0 && now.Sub(s.counted) < o.FastInter-o.FastInter/10 {
		return s, false
	}
	s = Streak{s.count + 1, now}
	return s, s.count >= o.Fall
}

// Pass takes a pass, and says whether with it there are as many as `rise` wants.
func (s Streak) Pass(o *model.Options) (Streak, bool) {
	s.count++
	return s, s.count >= o.Rise
}
