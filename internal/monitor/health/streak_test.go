package health

import (
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
)

func TestStreak(t *testing.T) {
	o := &model.Options{FastInter: time.Second, Fall: 3, Rise: 2}
	start := time.Now()
	var s Streak
	for _, step := range []struct {
		after time.Duration
		count int
		full  bool
	}{
		{0, 1, false},
		{899 * time.Millisecond, 1, false}, // out of turn
		{900 * time.Millisecond, 2, false},
		{1700 * time.Millisecond, 2, false}, // from the last that counted
		{1800 * time.Millisecond, 3, true},
		{1900 * time.Millisecond, 3, false},
		{5 * time.Second, 4, true},
	} {
		var full bool
		if s, full = s.Fail(o, start.Add(step.after)); s.Count() != step.count || full != step.full {
			t.Errorf("a failure after %s: %d, %v; want %d, %v", step.after, s.Count(), full, step.count, step.full)
		}
	}
	s, full := Streak{}.Pass(o)
	if s.Count() != 1 || full {
		t.Errorf("a pass: %d, %v", s.Count(), full)
	}
	if s, full = s.Pass(o); s.Count() != 2 || !full {
		t.Errorf("two passes: %d, %v", s.Count(), full)
	}
}
