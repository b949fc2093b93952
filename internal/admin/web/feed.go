package web

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/beat"
)

// Times of the feed.
const (
	// tick is how often what is looked at is looked up, while somebody looks.
	tick = time.Second
	// pace is how often it is noted for charts, whether somebody looks or not: a multiple of beat.Gap, so that no idle process is woken for
	// it alone.
	pace = 2 * beat.Gap
	// points are how many of those are kept: ten minutes.
	points = int(10 * time.Minute / pace)
)

// Bounds of what the feed keeps and sends.
const (
	// mostCharted are the services that are noted for charts: 2.4 MB for all their points. Charts of further ones begin when a page is opened.
	mostCharted = 1000
	// rowBytes is how much of the list one viewer is sent in a second, but for what is worth telling at once. What goes through a thousand
	// busy clusters is told less often than through ten.
	rowBytes = 64 << 10
)

// Happenings are the daemon's events.
type Happenings interface {
	// Events gives those that are kept with a number above after, the oldest first; EventsChanged is closed with the next.
	Events(after uint64) []api.Event
	EventsChanged() <-chan struct{}
}

// Feed is what all viewers of the page are sent. However many there are, the status is asked for once a second, and what they are sent is
// made once; while nobody looks, only the charts' points are noted.
type Feed struct {
	status func() api.Status
	// events may be nil.
	events Happenings

	mu sync.Mutex
	// viewers are those who look; looked is signalled when the first comes.
	viewers int
	looked  chan struct{}
	// newest is what they see; fresh is closed when there is a newer one.
	newest *scene
	fresh  chan struct{}
	// history is what was noted.
	history history
}

// NewFeed makes a Feed. It lives while Run runs.
func NewFeed(status func() api.Status, events Happenings) *Feed {
	return &Feed{status: status, events: events, looked: make(chan struct{}, 1), fresh: make(chan struct{}), history: history{of: map[string]*track{}}}
}

// Run looks until ctx ends.
func (f *Feed) Run(ctx context.Context) {
	noted := beat.Every(pace)
	defer noted.Stop()
	look := time.NewTicker(tick)
	look.Stop()
	defer look.Stop()
	looking := false
	// Rates of the first who looks are since the start.
	first := f.status()
	var last sample
	lastNoted := sampleOf(&first)
	for {
		select {
		case <-ctx.Done():
			return
		case <-noted.C:
			s := f.status()
			now := sampleOf(&s)
			f.note(&s, lastNoted, now)
			lastNoted = now
			noted.Again()
			continue
		case <-f.looked:
			if looking {
				continue
			}
			looking = true
			look.Reset(tick)
		case <-look.C:
			if f.count() == 0 {
				looking = false
				look.Stop()
				// Who comes next isn't shown what was long ago, nor rates since then.
				last = sample{}
				f.show(nil)
				continue
			}
		}
		s := f.status()
		now := sampleOf(&s)
		if last.of == nil {
			// Who comes first is shown rates since the last point.
			last = lastNoted
		}
		next, err := newScene(&s, last, now, f.current())
		if err != nil {
			continue // what can't be said in JSON isn't shown
		}
		last = now
		f.show(next)
	}
}

func (f *Feed) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.viewers
}

func (f *Feed) current() *scene {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.newest
}

func (f *Feed) show(s *scene) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.newest = s
	close(f.fresh)
	f.fresh = make(chan struct{})
}

// enter counts a viewer; whoever entered leaves.
func (f *Feed) enter() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.viewers++
	select {
	case f.looked <- struct{}{}:
	default:
	}
}

func (f *Feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.viewers--
}

// watch gives what is to be seen, nil if that isn't known yet, and what is closed when there is something newer.
func (f *Feed) watch() (*scene, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.newest, f.fresh
}

// scene is everything at one moment, as it is sent. It doesn't change.
type scene struct {
	number uint64
	at     time.Time
	head   []byte
	all    flow
	// rows are the list's, in order. told is each row's text as viewers have it, standings the part of it that is worth telling at once.
	names     []string
	told      map[string][]byte
	standings map[string][]byte
	// changed are rows that were told anew with this scene, gone those that there are no more.
	changed, gone []string
	// rest is until when numbers alone aren't told.
	rest time.Time

	status      *api.Status
	before, now sample
	mu          sync.Mutex
	details     map[string][]byte
	full, part  []byte
}

// newScene makes what is seen of a status after another scene, which may be nil.
func newScene(s *api.Status, before, now sample, last *scene) (*scene, error) {
	next := &scene{at: s.Now, status: s, before: before, now: now, told: map[string][]byte{}, standings: map[string][]byte{}, details: map[string][]byte{}}
	if last != nil {
		next.number, next.rest = last.number+1, last.rest
	}
	var err error
	if next.head, err = headOf(s); err != nil {
		return nil, err
	}
	rows, all := overviews(s, before, now)
	next.all = all
	resting := last != nil && s.Now.Before(last.rest)
	size := 0
	for _, row := range rows {
		text, err := json.Marshal(row)
		if err != nil {
			return nil, err
		}
		standing, err := json.Marshal(struct {
			standing
			Up [][2]any
		}{row.standing, ups(row.Services)})
		if err != nil {
			return nil, err
		}
		next.names = append(next.names, row.Name)
		next.standings[row.Name] = standing
		had, was := []byte(nil), false
		if last != nil {
			had, was = last.told[row.Name]
		}
		switch {
		case was && bytes.Equal(had, text):
		case was && resting && bytes.Equal(last.standings[row.Name], standing):
			text = had
		default:
			next.changed = append(next.changed, row.Name)
			size += len(text)
		}
		next.told[row.Name] = text
	}
	if last != nil {
		for _, name := range last.names {
			if _, is := next.told[name]; !is {
				next.gone = append(next.gone, name)
			}
		}
		if len(last.names) > 0 && !slices.Equal(withoutAll(last.names, next.gone), next.names) {
			// Of another order of theirs viewers are told with all rows.
			next.changed = next.names
		}
	}
	if !resting {
		next.rest = s.Now.Add(tick * time.Duration(size/rowBytes))
	}
	return next, nil
}

func ups(services []serviceOverview) [][2]any {
	all := make([][2]any, 0, len(services))
	for _, s := range services {
		all = append(all, [2]any{s.Up, s.Serving})
	}
	return all
}

func withoutAll(names, gone []string) []string {
	if len(gone) == 0 {
		return names
	}
	out := map[string]bool{}
	for _, name := range gone {
		out[name] = true
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return out[name] })
}

// list is the message with the rows: all of them, or what has changed since the scene before; nil if nothing has.
func (s *scene) list(all bool) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if all {
		if s.full == nil {
			s.full = s.joined(`{"all":[`, s.names, nil)
		}
		return s.full
	}
	if len(s.changed) == 0 && len(s.gone) == 0 {
		return nil
	}
	if s.part == nil {
		if len(s.changed) == len(s.names) {
			s.part = s.joined(`{"all":[`, s.names, nil)
		} else {
			s.part = s.joined(`{"changed":[`, s.changed, s.gone)
		}
	}
	return s.part
}

func (s *scene) joined(begin string, names, gone []string) []byte {
	var b bytes.Buffer
	b.WriteString(begin)
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(s.told[name])
	}
	b.WriteByte(']')
	if len(gone) > 0 {
		text, _ := json.Marshal(gone) // texts can always be
		b.WriteString(`,"gone":`)
		b.Write(text)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// detail is all of one cluster, `{"gone":NAME}` if there is none of that name.
func (s *scene) detail(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, made := s.details[name]
	if !made {
		var is bool
		if text, is = detailOf(s.status, s.before, s.now, name); !is {
			text, _ = json.Marshal(map[string]string{"gone": name})
			return text // not kept: there are more names than clusters
		}
		s.details[name] = text
	}
	return text
}

// moment is what is told each time: the time, and what goes through all.
func (s *scene) moment() []byte {
	p := s.status.Process
	text, _ := json.Marshal(struct {
		Now time.Time `json:"now"`
		flow
		Connections int     `json:"connections"`
		Idle        float64 `json:"idle_percent"`
		Memory      uint64  `json:"memory_bytes"`
		Files       int     `json:"files_open"`
	}{s.at, s.all, p.Connections, p.Idle, p.MemoryBytes, p.OpenFiles})
	return text
}

// point is what charts show of a service at one moment.
type point struct{ sessions, queued, rate, in, out, connect float32 }

// track is the points of one service, a ring.
type track struct {
	points [points]point
	// since is the number of the first one that there is.
	since int
}

// history is what was noted of the services, and of all together under the empty name.
type history struct {
	of map[string]*track
	// noted is how many times it was noted, last when.
	noted int
	last  time.Time
}

// note notes a point of each service.
func (f *Feed) note(s *api.Status, before, now sample) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &f.history
	seen := map[string]bool{"": true}
	put := func(name string, fl flow) {
		t := h.of[name]
		if t == nil {
			if len(h.of) > mostCharted {
				return
			}
			t = &track{since: h.noted}
			h.of[name] = t
		}
		connect := float32(math.NaN())
		if fl.Connect != nil {
			connect = float32(*fl.Connect)
		}
		t.points[h.noted%points] = point{float32(fl.Sessions), float32(fl.Queued), float32(fl.Rate), float32(fl.In), float32(fl.Out), connect}
	}
	var all flow
	each(s, func(_ string, services []api.Service) {
		for i := range services {
			service := &services[i]
			fl := now.since(before, serverName{service.FullName, ""})
			fl.Sessions, fl.Queued = service.Sessions, service.Queued
			all.add(fl)
			seen[service.FullName] = true
			put(service.FullName, fl)
		}
	})
	put("", all)
	h.noted, h.last = h.noted+1, now.at
	for name := range h.of {
		if !seen[name] {
			delete(h.of, name)
		}
	}
}

// series is the history of one service, as it is sent: lists of as many numbers, the newest last; no connect is null.
type series struct {
	Sessions []float32  `json:"sessions"`
	Queued   []float32  `json:"held"`
	Rate     []float32  `json:"rate"`
	In       []float32  `json:"in"`
	Out      []float32  `json:"out"`
	Connect  []*float32 `json:"connect"`
}

// past is what was noted of some services: the newest point at Last, one each Step seconds before.
type past struct {
	Last time.Time         `json:"last"`
	Step float64           `json:"step"`
	Of   map[string]series `json:"of"`
}

// past gives what was noted of the services of a cluster; of all together, under an empty name, if the cluster's name is empty.
func (f *Feed) past(cluster string) past {
	names := []string{""}
	if s, _ := f.watch(); cluster != "" {
		names = nil
		status := (*api.Status)(nil)
		if s != nil {
			status = s.status
		} else {
			now := f.status()
			status = &now
		}
		each(status, func(name string, services []api.Service) {
			if name == cluster {
				for _, service := range services {
					names = append(names, service.FullName)
				}
			}
		})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &f.history
	p := past{Last: h.last, Step: pace.Seconds(), Of: map[string]series{}}
	for _, name := range names {
		t := h.of[name]
		if t == nil {
			continue
		}
		s := series{Sessions: []float32{}, Queued: []float32{}, Rate: []float32{}, In: []float32{}, Out: []float32{}, Connect: []*float32{}}
		for i := max(t.since, h.noted-points); i < h.noted; i++ {
			at := t.points[i%points]
			s.Sessions, s.Queued, s.Rate = append(s.Sessions, at.sessions), append(s.Queued, at.queued), append(s.Rate, at.rate)
			s.In, s.Out = append(s.In, at.in), append(s.Out, at.out)
			if math.IsNaN(float64(at.connect)) {
				s.Connect = append(s.Connect, nil)
			} else {
				s.Connect = append(s.Connect, &at.connect)
			}
		}
		p.Of[name] = s
	}
	return p
}
