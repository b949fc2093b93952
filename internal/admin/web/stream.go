package web

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// Bounds of one viewer's stream.
const (
	// streamTime is how long a stream lasts: whoever looks on begins a new one.
	streamTime = 30 * time.Minute
	// writeTime is how long a viewer may take to read a message.
	writeTime = 10 * time.Second
	// quiet is how long nothing may be sent: whoever hears nothing for longer has lost the stream, and proxies close it.
	quiet = 5 * time.Second
	// mostEvents are sent at once; who comes is shown as many.
	mostEvents = 200
	// gather is how long events are gathered before they are sent.
	gather = 200 * time.Millisecond
)

// stream sends a viewer what happens, as server-sent events:
//
//	moment    each second: the time, and what goes through all
//	head      what is known of the node, when that changes
//	list      the clusters: {"all": […]}, later {"changed": […], "gone": […]}
//	cluster   all of the cluster that the parameter `cluster` names, when it changes
//	events    api.Event, in a list, the oldest first
//	again     the stream ends here, and another is to be begun
//
// A viewer who doesn't keep up misses what was between; nothing is kept for anybody.
func stream(f *Feed, most int) http.HandlerFunc {
	var open atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		defer open.Add(-1)
		if open.Add(1) > int64(most) {
			w.Header().Set("Retry-After", "10")
			plain(w, http.StatusServiceUnavailable)
			w.Write([]byte("there are as many streams as there may be: status has the same once\n"))
			return
		}
		f.enter()
		defer f.leave()
		h := w.Header()
		h.Set("Content-Type", "text/event-stream")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Accel-Buffering", "no") // nginx
		v := viewer{feed: f, writer: w, control: http.NewResponseController(w), cluster: r.FormValue("cluster")}
		// The server's own limit is for requests that are answered at once.
		_ = v.control.SetReadDeadline(time.Time{})
		v.look(r)
	}
}

// viewer is one who looks.
type viewer struct {
	feed    *Feed
	writer  http.ResponseWriter
	control *http.ResponseController
	cluster string

	// What was sent last.
	scene   *scene
	head    []byte
	detail  []byte
	event   uint64
	message bytes.Buffer
}

// look sends until the viewer leaves, reads too slowly, or the time is over.
func (v *viewer) look(r *http.Request) {
	end := time.NewTimer(streamTime)
	defer end.Stop()
	var eventsChanged <-chan struct{}
	var ready <-chan time.Time
	v.events(&eventsChanged)
	for {
		s, fresh := v.feed.watch()
		v.show(s)
		if v.send() != nil {
			return
		}
		silent := time.NewTimer(quiet)
		select {
		case <-r.Context().Done():
		case <-end.C:
			v.say("again", []byte("{}"))
			_ = v.send()
			return
		case <-fresh:
		case <-silent.C:
			v.say("moment", []byte("null"))
		case <-eventsChanged:
			eventsChanged, ready = nil, time.After(gather)
		case <-ready:
			ready = nil
			v.events(&eventsChanged)
		}
		silent.Stop()
		if r.Context().Err() != nil {
			return
		}
	}
}

// events adds those that the viewer doesn't know, and gives what is closed with the next.
func (v *viewer) events(changed *<-chan struct{}) {
	if v.feed.events == nil {
		return
	}
	*changed = v.feed.events.EventsChanged()
	found := v.feed.events.Events(v.event)
	if len(found) == 0 {
		return
	}
	v.event = found[len(found)-1].ID
	if v.cluster != "" && v.cluster != tcpRow && len(found) > mostEvents {
		// Of many, those of what is looked at go first.
		ours := slices.DeleteFunc(slices.Clone(found), func(e api.Event) bool { return e.Cluster != "" && e.Cluster != v.cluster })
		found = append(found[len(found)-mostEvents/2:], ours[max(0, len(ours)-mostEvents/2):]...)
		slices.SortFunc(found, func(a, b api.Event) int { return int(int64(a.ID) - int64(b.ID)) })
		found = slices.CompactFunc(found, func(a, b api.Event) bool { return a.ID == b.ID })
	}
	found = found[max(0, len(found)-mostEvents):]
	if text, err := json.Marshal(found); err == nil {
		v.say("events", text)
	}
}

// show adds what a scene has that the viewer doesn't know.
func (v *viewer) show(s *scene) {
	if s == nil || s == v.scene {
		return
	}
	if !bytes.Equal(s.head, v.head) {
		v.say("head", s.head)
		v.head = s.head
	}
	if list := s.list(v.scene == nil || s.number != v.scene.number+1); list != nil {
		v.say("list", list)
	}
	if v.cluster != "" {
		if detail := s.detail(v.cluster); !bytes.Equal(detail, v.detail) {
			v.say("cluster", detail)
			v.detail = detail
		}
	}
	v.say("moment", s.moment())
	v.scene = s
}

// say adds a message. JSON has no line ends in it.
func (v *viewer) say(event string, data []byte) {
	v.message.WriteString("event: ")
	v.message.WriteString(event)
	v.message.WriteString("\ndata: ")
	v.message.Write(data)
	v.message.WriteString("\n\n")
}

// send sends what was said.
func (v *viewer) send() error {
	if v.message.Len() == 0 {
		return nil
	}
	// A stream that isn't an http.Server's has no deadlines.
	_ = v.control.SetWriteDeadline(time.Now().Add(writeTime))
	_, err := v.writer.Write(v.message.Bytes())
	if err == nil {
		err = v.control.Flush()
	}
	if v.message.Reset(); v.message.Cap() > 1<<20 {
		v.message = bytes.Buffer{}
	}
	return err
}
