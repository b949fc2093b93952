package tcpcheck

import (
	"fmt"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// machine is the health of one server of one service, by HAProxy's rules: `fall` failures in a row put it down, `rise`
// passes in a row bring it back. It differs in the beginning: a server that is checked is down until its first pass, which is
// enough. It is a value; feed gives the next one.
type machine struct {
	options *model.Options
	// checked says that there are results to wait for; a server without a check is up.
	checked bool
	// heard says that there was a result, passed that there was a pass.
	heard, passed bool
	up            bool
	// streak counts the results that speak against up.
	streak health.Streak
	// last are the words of the latest result, cause those of the one that put the server down.
	last, cause string
	// result is the latest one, but for what it says of the server.
	result view.Result
}

func newMachine(o *model.Options, checked bool) machine {
	return machine{options: o, checked: checked, up: !checked && !o.Disabled}
}

// reconfigure gives the machine with other options, and with or without a check. What it has seen stays seen.
func (m machine) reconfigure(o *model.Options, checked bool) machine {
	was := m.options.Disabled
	m.options = o
	switch {
	case o.Disabled:
		m.up = false
	case !checked:
		m.up, m.streak = true, health.Streak{}
	case was:
		// Back from maintenance it is as good as new.
		return newMachine(o, true)
	case !m.checked:
		// It may have sessions, and nothing is known against it.
		m.heard, m.passed, m.last = true, true, "not yet checked"
	}
	m.checked = checked
	return m
}

// feed takes the result of a check that ended now; words describe it.
func (m machine) feed(pass bool, words string, now time.Time) machine {
	if m.options.Disabled || !m.checked {
		return m
	}
	m.heard, m.last = true, words
	var enough bool
	switch {
	case pass && m.up:
		m.streak = health.Streak{}
	case pass:
		if m.streak, enough = m.streak.Pass(m.options); enough || !m.passed {
			m.up, m.streak, m.passed = true, health.Streak{}, true
		}
	case !m.up:
		m.streak, m.cause = health.Streak{}, words
	default:
		if m.streak, enough = m.streak.Fail(m.options, now); enough {
			m.cause = fmt.Sprintf("%s (%d in a row)", words, m.streak.Count())
			m.up, m.streak = false, health.Streak{}
		}
	}
	return m
}

// reason says why the server is up or down, in words for an operator.
func (m machine) reason() string {
	switch {
	case m.options.Disabled:
		return "disabled: in maintenance"
	case !m.checked:
		return "it is not checked"
	case !m.heard:
		return view.NotChecked
	case m.up && m.streak.Count() > 0:
		return fmt.Sprintf("%s (%d of %d)", m.last, m.streak.Count(), m.options.Fall)
	case m.up:
		return m.last
	case m.streak.Count() > 0:
		return fmt.Sprintf("%s (pass %d of %d)", m.last, m.streak.Count(), m.options.Rise)
	}
	return m.cause
}

// next is the interval from the last check to the next: inter when settled, downinter when down, fastinter in between.
func (m machine) next() time.Duration {
	switch {
	case m.streak.Count() > 0 || !m.heard:
		return m.options.FastInter
	case m.up:
		return m.options.Inter
	}
	return m.options.DownInter
}

// check is what the latest check brought, as HAProxy would say it; nothing of a server that isn't checked.
func (m machine) check() view.Result {
	switch {
	case !m.checked:
		return view.Result{}
	case !m.heard || m.result.Code == "":
		return view.Result{Code: "INI", Text: m.reason()}
	}
	r := m.result
	if m.up {
		r.Health = m.options.Rise + m.options.Fall - 1 - min(m.streak.Count(), m.options.Fall-1)
	} else {
		r.Health = min(m.streak.Count(), m.options.Rise-1)
	}
	return r
}

// resultOf puts an outcome into HAProxy's words.
func resultOf(o health.Outcome, words string) view.Result {
	r := view.Result{Code: o.Code, Status: o.Answer.Status, Text: words}
	switch {
	case o.Silence != "":
	case r.Status != 0:
		r.Code = health.CodePass
	}
	return r
}
