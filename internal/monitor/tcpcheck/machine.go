package tcpcheck

import (
	"fmt"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// machine is the health of one server of one service, by HAProxy's rules: `fall` failures in a row put it down, `rise`
// passes in a row bring it back. It differs in the beginning: a server that is checked is down until its first pass, which is
// enough. It is a value; feed gives the next one.
type machine struct {
	options *model.Options
	// checked says that there are results to wait for; a server without a check is up.
	checked bool
	// told says that there was a result, passed that there was a pass.
	heard, passed bool
	up            bool
	// run are the results in a row that speak against up, counted when the last of them was.
	run     int
	counted time.Time
	// last are the words of the latest result, cause those of the one that put the server down.
	last, cause string
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
		m.up, m.run = true, 0
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

// feed takes the result of a check that ended now; words describe it. Failures count at most once per fastinter, so that
// checks out of turn don't shorten what the options say.
func (m machine) feed(pass bool, words string, now time.Time) machine {
	if m.options.Disabled || !m.checked {
		return m
	}
	m.heard, m.last = true, words
	switch {
	case pass && m.up:
		m.run = 0
	case pass:
		m.run++
		if !m.passed || m.run >= m.options.Rise {
			m.up, m.run, m.passed = true, 0, true
		}
	case !m.up:
		m.run, m.cause = 0, words
	case m.run > 0 && now.Sub(m.counted) < m.options.FastInter-m.options.FastInter/10:
		// A tenth is allowed for checks that end earlier after their start than the one before.
	default:
		m.run++
		m.counted = now
		if m.run >= m.options.Fall {
			m.cause = fmt.Sprintf("%s (%d in a row)", words, m.run)
			m.up, m.run = false, 0
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
	case m.up && m.run > 0:
		return fmt.Sprintf("%s (%d of %d)", m.last, m.run, m.options.Fall)
	case m.up:
		return m.last
	case m.run > 0:
		return fmt.Sprintf("%s (pass %d of %d)", m.last, m.run, m.options.Rise)
	}
	return m.cause
}

// next is the interval from the last check to the next: inter when settled, downinter when down, fastinter in between.
func (m machine) next() time.Duration {
	switch {
	case m.run > 0 || !m.heard:
		return m.options.FastInter
	case m.up:
		return m.options.Inter
	}
	return m.options.DownInter
}
