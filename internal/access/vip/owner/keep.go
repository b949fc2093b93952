package owner

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Want is an address that a node is to keep.
type Want struct {
	model.VirtualIP
	// Cluster is whose leader it follows, TTL how long that one's leader key outlives its holder.
	Cluster string
	TTL     time.Duration
	// Keyed says that the leader key is watched in the DCS: until it was heard, nobody knows who has the address.
	Keyed bool
	// Repeat is how many announcements a round has; DefaultRepeat if 0.
	Repeat int
}

// Times of announcements, probes and complaints.
const (
	// DefaultRepeat is how often the address is announced in a round. There is a second round roundGap after the first.
	DefaultRepeat = 5
	repeatGap     = 200 * time.Millisecond
	roundGap      = 5 * time.Second
	// probeGap is from one question whether somebody else has the address to the next.
	probeGap = 10 * time.Second
	// doubtGap is how long after somebody else was heard first he is asked again: he may just be giving the address up, or this
	// node may be about to.
	doubtGap = time.Second
	// defendGap is the least time between two answers to another's announcement.
	defendGap = 2 * time.Second
	// othersLast is how long another holder that was heard counts as one, and how often it is complained of.
	othersLast = 30 * time.Second
	// retryGap is how long after something failed it is tried again.
	retryGap = time.Second
	// renewGap is by how much a lifetime has to grow for it to be renewed.
	renewGap = 2 * time.Second
	// margin is how much sooner than another member may be elected the address has to be gone. The kernel ends lifetimes up to
	// a second late.
	margin = 2 * time.Second
)

// Sight is what is to be seen of an address at one moment.
type Sight struct {
	View *view.View
	Link Link
	// Claimants have said since the last step that they have the address; not this node's own.
	Claimants []MAC
}

// Link is the network interface.
type Link struct {
	// Name is the interface's; empty with a Problem, which says why it can't be used.
	Name    string
	Problem string
	// Up says that frames can be sent.
	Up bool
	// Bound says whether the address is on it, by its exact prefix.
	Bound Bound
}

// Bound is how an address is on an interface.
type Bound int

const (
	// Absent: it isn't.
	Absent Bound = iota
	// Leased: it is there for a time, as pgporter puts it there.
	Leased
	// Lasting: it is there for ever, as anybody else puts it there.
	Lasting
)

// Actions are what a step wants done, in this order. When Release or Bind fails the rest is void, and State.Failed is due.
type Actions struct {
	// Release says why the address is to be taken away; empty if it isn't.
	Release string
	// Bind is for how many seconds from now the address is to be there, be it there already or not; 0 leaves it as it is.
	Bind int
	// Announce and Probe are the frames of those names.
	Announce, Probe bool
	Log             []Message
}

// Message is a line of the log.
type Message struct {
	Level slog.Level
	Text  string
}

func (a *Actions) logf(level slog.Level, format string, args ...any) {
	a.Log = append(a.Log, Message{level, fmt.Sprintf(format, args...)})
}

// State is what is known of one address. It is a value: Step gives the next one and leaves the old as it was.
type State struct {
	want Want
	// holds says that this node put the address where it is, since when, and why it may.
	holds bool
	since time.Time
	why   string
	// until is when the lifetime that it was given ends.
	until time.Time
	// certain is how far the last claim reaches that was proven.
	certain time.Time
	// rounds are the announcements that are still to be made, in order.
	rounds []time.Time
	// up says that frames could be sent at the last step.
	up              bool
	probed, defends time.Time
	// others are who else said to have the address while this node did.
	others map[MAC]other
	// problem is what was last said to be wrong, and trouble of which kind that is; retry is when to try again what failed.
	problem string
	trouble trouble
	retry   time.Time
	link    string
}

// other is somebody else who said to have the address: when first, when last, and when that was complained of.
type other struct{ first, last, complained time.Time }

// lasting says that it wasn't for the moment in which an address moves.
func (o other) lasting() bool { return o.last.Sub(o.first) >= doubtGap }

// trouble is the kind of a problem.
type trouble int

const (
	none trouble = iota
	// noLink: there is no interface to be used.
	noLink
	// misplaced: another program has put the address where it doesn't belong.
	misplaced
	// failing: the system refused what was to be done.
	failing
)

// Begin makes the State of an address of which nothing is known yet.
func Begin(w Want) State { return State{want: w.settled()} }

func (w Want) settled() Want {
	if w.Repeat <= 0 {
		w.Repeat = DefaultRepeat
	}
	return w
}

// Follow takes a new declaration of the same address: who has it goes on.
func (s State) Follow(w Want) State {
	s.want = w.settled()
	return s
}

// Status is what there is to tell of an address.
type Status struct {
	// Holds says that this node has it, Since since when and Until for how long at least.
	Holds        bool
	Since, Until time.Time
	Interface    string
	// Why says why this node has it, or hasn't.
	Why string
	// Problem is what an operator should mend; empty for nothing.
	Problem string
	// Others have the address too, as far as was heard in the last 30 s.
	Others []MAC
}

// Status tells how the address is.
func (s State) Status() Status {
	t := Status{Holds: s.holds, Why: s.why, Problem: s.problem, Interface: s.link}
	for mac, o := range s.others {
		if o.lasting() {
			t.Others = append(t.Others, mac)
		}
	}
	slices.SortFunc(t.Others, func(a, b MAC) int { return slices.Compare(a[:], b[:]) })
	if s.holds {
		t.Since, t.Until = s.since, s.until
	}
	return t
}

// Deadline is when a step is due though nothing was seen to change; false if there is no such time. Beside that the
// interface is to be looked at every second.
func (s State) Deadline() (time.Time, bool) {
	if len(s.rounds) > 0 {
		return s.rounds[0], true
	}
	return time.Time{}, false
}

// Step takes what is seen into account. It is pure: the same state, sight and time give the same result.
func Step(s State, seen Sight, now time.Time) (State, Actions) {
	var a Actions
	s.rounds = slices.Clone(s.rounds)
	s.others = maps.Clone(s.others)
	if s.link = seen.Link.Name; seen.Link.Problem != "" {
		s.unusable(seen.Link.Problem, &a)
		return s, a
	}
	if s.trouble == noLink {
		s.mended(&a)
	}
	may := s.judge(seen.View, now)
	seconds := int(may.until.Sub(now) / time.Second)
	holds := s.holds
	switch {
	case now.Before(s.retry):
		return s, a
	case seconds >= 1:
		s.keep(seen.Link, may, seconds, now, &a)
	default:
		if !may.until.IsZero() {
			may.why += ", but that is too long ago"
		}
		s.yield(seen.Link, may, &a)
	}
	s.why = may.why
	if !s.holds {
		s.rounds, s.others = nil, nil
		s.up = seen.Link.Up
		return s, a
	}
	s.listen(seen.Claimants, holds, now, &a)
	s.speak(seen.Link.Up, now, &a)
	return s, a
}

// unusable notes an interface on which nothing can be had.
func (s *State) unusable(problem string, a *Actions) {
	if s.holds {
		a.logf(slog.LevelError, "%s: the virtual address %s is lost: %s", s.want.Cluster, s.want.Address, problem)
	} else if s.problem != problem {
		a.logf(slog.LevelError, "%s: the virtual address %s can't be kept here, everything else goes on: %s", s.want.Cluster, s.want.Address, problem)
	}
	s.holds, s.until, s.rounds, s.others = false, time.Time{}, nil, nil
	s.problem, s.trouble, s.why = problem, noLink, problem
}

// mended notes that what was wrong isn't any more.
func (s *State) mended(a *Actions) {
	a.logf(slog.LevelInfo, "%s: the virtual address %s can be kept here now", s.want.Cluster, s.want.Address)
	s.problem, s.trouble, s.retry = "", none, time.Time{}
}

// keep has the address there until the claim ends.
func (s *State) keep(link Link, may claim, seconds int, now time.Time, a *Actions) {
	if s.trouble == misplaced {
		s.mended(a)
	}
	fresh := !s.holds || link.Bound == Absent
	switch {
	case s.trouble == failing:
		// It is tried again without a word.
	case !s.holds && link.Bound == Lasting:
		a.logf(slog.LevelWarn, "%s: the virtual address %s was on %s already, without an end: another program put it there (does vip-manager run here?); it is kept from now on, as %s",
			s.want.Cluster, s.want.Address, link.Name, may.why)
	case !s.holds:
		a.logf(slog.LevelInfo, "%s: the virtual address %s is on %s now: %s", s.want.Cluster, s.want.Address, link.Name, may.why)
	case link.Bound == Absent:
		a.logf(slog.LevelWarn, "%s: the virtual address %s was taken from %s by somebody else (does vip-manager run here?), or its time was over; it is there again: %s",
			s.want.Cluster, s.want.Address, link.Name, may.why)
	case link.Bound == Lasting:
		a.logf(slog.LevelWarn, "%s: somebody else made the virtual address %s on %s last for ever (does vip-manager run here?); it has an end again", s.want.Cluster, s.want.Address, link.Name)
	}
	if !s.holds {
		s.holds, s.since = true, now
	}
	end := now.Add(time.Duration(seconds) * time.Second)
	if gain := end.Sub(s.until); fresh || link.Bound == Lasting || gain >= renewGap || gain <= -time.Second {
		a.Bind, s.until = seconds, end
	}
	if fresh {
		s.announce(now)
	}
}

// yield has the address gone. One that lasts for ever and isn't this node's is left alone, and reported: pgporter doesn't fight
// another program.
func (s *State) yield(link Link, may claim, a *Actions) {
	if s.trouble == misplaced && link.Bound != Lasting {
		s.mended(a)
	}
	switch {
	case !s.holds && link.Bound == Leased && may.leave:
	case s.trouble == failing && link.Bound == Leased:
		a.Release = may.why
	case s.holds && link.Bound == Absent:
		a.logf(slog.LevelWarn, "%s: the virtual address %s is gone from %s, its time was over: %s", s.want.Cluster, s.want.Address, link.Name, may.why)
	case s.holds, link.Bound == Leased:
		a.Release = may.why
		a.logf(slog.LevelInfo, "%s: the virtual address %s is released: %s", s.want.Cluster, s.want.Address, may.why)
	case link.Bound == Lasting:
		problem := fmt.Sprintf("it is on %s though %s; another program put it there (does vip-manager run here?)", link.Name, may.why)
		if s.trouble != misplaced {
			a.logf(slog.LevelError, "%s: the virtual address %s isn't where it belongs: %s", s.want.Cluster, s.want.Address, problem)
		}
		s.problem, s.trouble = problem, misplaced
	}
	s.holds, s.until = false, time.Time{}
}

// listen takes in who else says to have the address. That somebody had it before this node is no news.
func (s *State) listen(claimants []MAC, holds bool, now time.Time, a *Actions) {
	maps.DeleteFunc(s.others, func(_ MAC, o other) bool { return now.Sub(o.last) >= othersLast })
	for _, mac := range claimants {
		if !holds {
			continue
		}
		o, known := s.others[mac]
		if !known {
			if s.others == nil {
				s.others = map[MAC]other{}
			}
			o.first, s.probed = now, now.Add(doubtGap-probeGap)
		}
		o.last = now
		s.others[mac] = o
		if !o.lasting() {
			continue
		}
		if o.complained.IsZero() || now.Sub(o.complained) >= othersLast {
			o.complained = now
			s.others[mac] = o
			a.logf(slog.LevelError, "%s: %s has the virtual address %s too, which belongs here: %s", s.want.Cluster, mac, s.want.Address, s.why)
		}
		if now.Sub(s.defends) >= defendGap {
			s.defends, a.Announce = now, true
		}
	}
}

// speak has the address announced when that is due, and others asked.
func (s *State) speak(up bool, now time.Time, a *Actions) {
	if up && !s.up && len(s.rounds) == 0 {
		s.announce(now)
	}
	s.up = up
	if !up {
		// What can't be sent is sent when it can.
		s.rounds = nil
		return
	}
	for len(s.rounds) > 0 && !now.Before(s.rounds[0]) {
		s.rounds, a.Announce = s.rounds[1:], true
	}
	if now.Sub(s.probed) >= probeGap {
		s.probed, a.Probe = now, true
	}
}

// announce begins the rounds of announcements.
func (s *State) announce(now time.Time) {
	s.rounds, s.probed = nil, time.Time{}
	for round := range 2 {
		for i := range s.want.Repeat {
			s.rounds = append(s.rounds, now.Add(time.Duration(round)*roundGap+time.Duration(i)*repeatGap))
		}
	}
	slices.SortFunc(s.rounds, time.Time.Compare)
}

// Failed takes in that what a step wanted couldn't be done; sending is no part of that.
func (s State) Failed(wanted Actions, err error, now time.Time) (State, Actions) {
	var a Actions
	problem := err.Error()
	if problem != s.problem {
		a.logf(slog.LevelError, "%s: the virtual address %s: %s", s.want.Cluster, s.want.Address, problem)
	}
	s.problem, s.trouble, s.retry, s.why = problem, failing, now.Add(retryGap), problem
	// Whatever is there now is looked at anew.
	s.holds, s.until, s.rounds = wanted.Release != "", time.Time{}, nil
	return s, a
}

// Done takes in that what a step wanted was done.
func (s State) Done() (State, Actions) {
	var a Actions
	if s.trouble == failing {
		s.mended(&a)
	}
	return s, a
}
