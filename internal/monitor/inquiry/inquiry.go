// Package inquiry decides when a respondent is asked what: the REST API of a member's Patroni, or a port. It is pure: the time
// comes in, and what is due goes out; who asks, and what an answer means, is the affair of others.
//
// What stands before a cluster must not take it down. A question to a replica costs some 3 ms of processor in peace and 50 ms
// while its leader is unknown, since Patroni opens a replication connection for each then; work on a question goes on when the
// asker has left; and asking again what hasn't been answered yet turns a slow API into one that answers nobody. So there is a
// budget, and it holds in every state (Schedule's methods keep it, whatever they are told):
//
//   - One question is under way at most. One that is late is waited for, not asked again.
//   - Over Window there are at most twice as many questions as in peace (Ask.Quiet apart). A burst is paid for by the rest of the
//     window: questions out of turn follow each other at intervals that double, up to the quiet pace. Where one will be wanted, those in
//     turn wait for it (Rest).
//   - After an answer that was dear (Ended.Dear: the next one costs a backend again) half the quiet pace, and nothing out of turn that
//     is closer than the quiet pace: never more than in peace, and as a rule less. That ends with what made it dear (Spared).
//   - After an answer that took long the pause is several times that long, so that all askers together, however many there
//     are, take a part of what a respondent can do and not all.
//
// Respondents asked by many nodes are asked at different times: each node draws its pauses from a seed of its own. What one node asks
// of several respondents (the members of a cluster, their ports) it asks together where nothing is lost by that, because each time that
// it wakes costs it more than the question: they draw the same pauses, and whoever has come to be asked alone joins them again (Start).
package inquiry

import (
	"slices"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/health"
)

// The bounds. With Patroni's API in the worst state that was measured (50 ms of work a question) four nodes that ask once a
// second take a fifth of one core.
const (
	// Window is the time over which questions are counted.
	Window = 5 * time.Second
	// excess is how many times as many questions as in peace there may be in a Window.
	excess = 2
	// kept is how many times of questions are kept to see to that. Where the quiet pace allows more in a Window, the same rate is kept to in
	// a part of it.
	kept = 16
	// gap is the least time from the start of a question to the start of the next.
	gap = 100 * time.Millisecond
	// idleShare is how many times as long as the last answer took the respondent is left alone after it, at most idleMost;
	// urgentShare and urgentMost are the same for a question out of turn.
	idleShare, urgentShare = 3, 1
	idleMost, urgentMost   = Window, time.Second
	// soonShare is the part of the quiet pace after which an answer that is waited for is asked for first.
	soonShare = 8
	// spread is the time over which first questions are spread.
	spread = 100 * time.Millisecond
	// again is how long after a question that couldn't be put it is tried once more.
	again = 250 * time.Millisecond
)

// Ask is one question with its pace.
type Ask struct {
	Target health.Target
	// Quiet is the time from one question to the next in peace: the budget is reckoned from it.
	Quiet time.Duration
	// Pace is the same as it is wanted now.
	Pace time.Duration
}

// Schedule is when a respondent is asked. Its methods change it, since they are called for every question; Clone gives one of its
// own. The zero Schedule asks nothing.
type Schedule struct {
	asks []entry
	// busy says that a question is under way, under which, asked when it was put. It may be one that isn't asked any more.
	busy  bool
	under health.Target
	asked time.Time
	// free is when the respondent may be asked again at the earliest, freeUrgent the same out of turn.
	free, freeUrgent time.Time
	// starts are the times of the last questions, the newest last. most may be within span.
	starts [kept]time.Time
	most   int
	span   time.Duration
	// dear is of the last answer.
	dear bool
	// news is when a question out of turn was wanted because something was noticed; zero if none is. closely says that the
	// respondent is looked at closely.
	news    time.Time
	closely bool
	// since is when the close look began; rest is until when nothing is asked in turn.
	since, rest time.Time
	// pause is from the last question to the next one out of turn, early when the last such one was put.
	pause time.Duration
	early time.Time
	// random is what pauses are drawn from that are nobody else's.
	random Random
	// Counts are for status and metrics.
	Counts Counts
}

// Counts are totals.
type Counts struct {
	// Asked are the questions put; Extra those of them that were out of turn.
	Asked, Extra uint64
	// Late are the answers that came after silence had been noticed.
	Late uint64
	// HeldBack are the questions out of turn that the budget has put off, and those that this node couldn't put.
	HeldBack uint64
}

// entry is an Ask with its times.
type entry struct {
	Ask
	// due is when it is to be asked next.
	due time.Time
	// last is when it was put last.
	last time.Time
}

// New makes the Schedule of one respondent. seed makes its pauses its own: another for each node and respondent.
func New(seed uint64) Schedule { return Schedule{random: Seeded(seed)} }

// Random is a generator of Parts. It is a value that each draw changes.
type Random uint64

// Seeded makes a Random; another seed gives other Parts.
func Seeded(seed uint64) Random { return Random(seed | 1) }

// Draw gives a Part.
func (r *Random) Draw() Part {
	// splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return Part(z >> 44)
}

// Part is one of a time: of wholeParts.
type Part uint32

const wholeParts = 1 << 20

func (p Part) of(d time.Duration) time.Duration { return time.Duration(p) * d / wholeParts }

// jittered is a pause of about d, never less: at most an eighth longer.
func jittered(d time.Duration, p Part) time.Duration { return d + p.of(d/8) }

// Clone gives a copy that has nothing in common with the Schedule.
func (s *Schedule) Clone() Schedule {
	c := *s
	c.asks = slices.Clone(s.asks)
	return c
}

// Set replaces what is asked. What was asked before keeps its times, also the question under way. What is new is asked soon.
func (s *Schedule) Set(asks []Ask, now time.Time) {
	if len(asks) == 0 {
		s.asks = nil
		return
	}
	next := make([]entry, 0, len(asks))
	for _, a := range asks {
		e := entry{Ask: a, due: now.Add(s.random.Draw().of(spread))}
		if i := s.find(a.Target); i >= 0 {
			e = s.asks[i]
			e.Ask = a
		}
		next = append(next, e)
	}
	s.asks = next
	// How many questions there are in a Window of peace.
	quiet := 0.0
	for _, e := range next {
		quiet += float64(Window) / float64(e.Quiet)
	}
	s.most, s.span = max(int(excess*quiet), 1), Window
	if s.most > kept {
		s.span = time.Duration(float64(Window) * kept / (excess * quiet))
		s.most = kept
	}
}

// IsZero says that nobody has made the Schedule yet.
func (s *Schedule) IsZero() bool { return s.asks == nil && s.random == 0 }

// Keep is Set of one question, which does nothing where that is asked already but change its pace.
func (s *Schedule) Keep(a Ask, now time.Time) {
	if len(s.asks) == 1 && s.asks[0].Target == a.Target && s.asks[0].Quiet == a.Quiet {
		s.Paced(a.Target, a.Pace)
		return
	}
	s.Set([]Ask{a}, now)
}

// Last is when the first question was put last; idle says that none is under way or about to be put.
func (s *Schedule) Last() (at time.Time, idle bool) {
	if len(s.asks) == 0 {
		return at, false
	}
	return s.asks[0].last, !s.busy && s.news.IsZero()
}

// Urgent says that a question out of turn is wanted, and not put yet.
func (s *Schedule) Urgent() bool { return !s.news.IsZero() }

// Dear says that the next answer will cost a lot.
func (s *Schedule) Dear() bool { return s.dear }

func (s *Schedule) find(t health.Target) int {
	return slices.IndexFunc(s.asks, func(e entry) bool { return e.Target == t })
}

// Paced changes the pace of a question, counted from when it was put last. A target that isn't asked is ignored.
func (s *Schedule) Paced(t health.Target, pace time.Duration) {
	i := s.find(t)
	if i < 0 || s.asks[i].Pace == pace {
		return
	}
	e := &s.asks[i]
	e.Pace = pace
	if !e.last.IsZero() {
		e.due = e.last.Add(jittered(pace, s.random.Draw()))
	}
}

// Pace is how often a question is to be put; false if it isn't asked.
func (s *Schedule) Pace(t health.Target) (time.Duration, bool) {
	i := s.find(t)
	if i < 0 {
		return 0, false
	}
	return s.asks[i].Pace, true
}

// Noticed wants the first question out of turn: something was seen that the last answer doesn't explain. One that is under way may
// have begun before that, so there will be another after it.
func (s *Schedule) Noticed(now time.Time) {
	if !s.news.IsZero() || len(s.asks) == 0 {
		return
	}
	s.news = now
	if now.Sub(s.early) > Window/2 {
		s.pause = gap
	}
	if at, _ := s.urgent(); !s.busy && s.allowed(at, s.most).After(now) {
		s.Counts.HeldBack++
	}
}

// Told is Noticed of what the respondent itself has made known. It comes seldom and is true, so that the question follows the last
// one as soon as any may.
func (s *Schedule) Told(now time.Time) {
	s.pause = gap
	s.Noticed(now)
}

// Closely begins or ends a time in which the first question is put again and again, at growing intervals, because its answer is
// waited for. It isn't there yet when the wait begins, so the first one is put soon after that.
func (s *Schedule) Closely(on bool, now time.Time) {
	if on && !s.closely {
		s.pause, s.since = s.soon(), now
	}
	s.closely = on
}

// soon is the first of the intervals that grow. There are so few questions in a Window that they reach from there to a second or two.
func (s *Schedule) soon() time.Duration {
	if len(s.asks) == 0 {
		return gap
	}
	return max(s.asks[0].Quiet/soonShare, gap)
}

// Rest has nothing asked in turn until a time, which leaves what the budget allows for then; the zero Time ends it.
func (s *Schedule) Rest(until time.Time) { s.rest = until }

// Spared says that the next answer costs little now, whatever the last one was.
func (s *Schedule) Spared() { s.dear = false }

// Due is when Start has something to put, and whether that is in turn, at a pace that nothing has hastened; any is false while it has
// nothing, as with a question under way.
func (s *Schedule) Due() (at time.Time, inTurn, any bool) {
	if s.busy || len(s.asks) == 0 {
		return time.Time{}, false, false
	}
	i, at, early := s.pick()
	e := &s.asks[i]
	return at, !early && e.Pace >= e.Quiet && !e.last.IsZero(), true
}

// pick finds the question that is due first, when that is, and whether it is out of turn.
func (s *Schedule) pick() (index int, at time.Time, early bool) {
	for i := range s.asks {
		due := later(s.asks[i].due, s.free)
		if !s.asks[i].last.IsZero() {
			due = later(due, s.rest)
		}
		if s.dear && !s.asks[i].last.IsZero() {
			due = later(due, s.asks[i].last.Add(2*s.asks[i].Quiet))
		}
		// Of those that have waited for the same the one that is due for longer.
		if i == 0 || due.Before(at) || due.Equal(at) && s.asks[i].due.Before(s.asks[index].due) {
			index, at = i, due
		}
	}
	if wanted, any := s.urgent(); any && wanted.Before(at) {
		most := s.most
		if s.news.IsZero() {
			// Looking closely leaves one for news.
			most = max(most-1, 1)
		}
		if wanted = s.allowed(wanted, most); wanted.Before(at) {
			return 0, wanted, true
		}
	}
	return index, s.allowed(at, s.most), false
}

// urgent is when the first question is wanted out of turn.
func (s *Schedule) urgent() (at time.Time, any bool) {
	first := &s.asks[0]
	quiet := first.last.Add(first.Quiet)
	switch {
	case !s.news.IsZero() && s.dear:
		at = later(s.news, quiet)
	case !s.news.IsZero():
		at = later(s.news, first.last.Add(max(min(s.pause, first.Quiet), gap)))
	case s.closely && !s.dear:
		at = later(first.last.Add(min(s.pause, first.Quiet)), s.since.Add(s.soon()))
	default:
		return at, false
	}
	return later(at, s.freeUrgent), true
}

// allowed is when a question may be put that is wanted at a time: when there are fewer than most before it.
func (s *Schedule) allowed(at time.Time, most int) time.Time {
	if oldest := s.starts[kept-most]; !oldest.IsZero() {
		return later(at, oldest.Add(s.span))
	}
	return at
}

// Start gives the question that is due now, which is under way then; false if none is. Who is asked at the same time is given the same
// part, so that they will be due together again. along says that the node asks somebody else at this moment anyway: then it gives also
// what only waits for the part that was added to its pace.
func (s *Schedule) Start(now time.Time, part Part, along bool) (t health.Target, any bool) {
	if s.busy || len(s.asks) == 0 {
		return t, false
	}
	i, at, early := s.pick()
	if now.Before(at) {
		if i = s.paced(now); !along || i < 0 {
			return t, false
		}
		early = false
	}
	return s.put(i, early, now, part), true
}

// paced finds the question whose pace has passed, and is due before others of that kind; -1 if there is none, or nothing may be put.
func (s *Schedule) paced(now time.Time) int {
	first := -1
	if s.dear || !s.news.IsZero() || now.Before(later(s.free, s.rest)) || s.allowed(now, s.most).After(now) {
		return first
	}
	for i := range s.asks {
		e := &s.asks[i]
		if (e.last.IsZero() || !now.Before(e.last.Add(e.Pace))) && (first < 0 || e.due.Before(s.asks[first].due)) {
			first = i
		}
	}
	return first
}

// put has a question under way.
func (s *Schedule) put(i int, early bool, now time.Time, part Part) health.Target {
	e := &s.asks[i]
	if early {
		// The first of its kind has the same pause after it as before it.
		if now.Sub(s.early) <= Window/2 {
			s.pause = min(2*s.pause, max(e.Quiet, gap))
		}
		s.early = now
	}
	copy(s.starts[:], s.starts[1:])
	s.starts[kept-1] = now
	if early {
		s.Counts.Extra++
	}
	if i == 0 {
		s.news = time.Time{}
	}
	s.Counts.Asked++
	first := e.last.IsZero()
	e.last = now
	switch {
	case first:
		// What was asked together at the start drifts apart.
		e.due = now.Add(e.Pace/4 + part.of(e.Pace-e.Pace/4))
	case e.Pace > e.Quiet:
		// It waits for others to go along with, who come by more often.
		e.due = now.Add(jittered(e.Pace, wholeParts))
	default:
		e.due = now.Add(jittered(e.Pace, part))
	}
	s.busy, s.under, s.asked = true, e.Target, now
	return e.Target
}

// Ended is how a question came to an end.
type Ended struct {
	Target health.Target
	// NotAsked says that this node couldn't put it, for a reason of its own.
	NotAsked bool
	// Dear says that the next answer will cost a lot.
	Dear bool
	// Cheap says that answering is no work, however long it took.
	Cheap bool
	// Late says that silence had been noticed before.
	Late bool
}

// End takes the end of a question. One that isn't under way changes nothing.
func (s *Schedule) End(e Ended, now time.Time) {
	if !s.busy || s.under != e.Target {
		return
	}
	took := max(now.Sub(s.asked), 0)
	s.busy = false
	if e.NotAsked {
		s.Counts.HeldBack++
		s.free = now.Add(jittered(again, s.random.Draw()))
		s.freeUrgent = s.free
		return
	}
	if e.Late {
		s.Counts.Late++
	}
	s.dear = e.Dear
	if e.Cheap {
		s.free, s.freeUrgent = now, now
		return
	}
	s.free = now.Add(min(idleShare*took, idleMost))
	s.freeUrgent = now.Add(min(urgentShare*took, urgentMost))
}

// UnderWay is the question under way and when it was put; false if there is none.
func (s *Schedule) UnderWay() (t health.Target, since time.Time, ok bool) {
	return s.under, s.asked, s.busy
}

// Stood takes notice that this node stood still for a time: the respondent isn't to be blamed for it.
func (s *Schedule) Stood(d time.Duration) {
	if s.busy {
		s.asked = s.asked.Add(d)
	}
}

// later is the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
