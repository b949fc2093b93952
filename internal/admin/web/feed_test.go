package web

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgporter/pgporter/internal/access/gate"
	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/beat"
)

// told is one message of a stream.
type told struct{ event, data string }

// heard reads messages until holds is true of one.
func heard(t *testing.T, from *bufio.Reader, holds func(told) bool) told {
	t.Helper()
	var m told
	for {
		line, err := from.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended: %v", err)
		}
		switch line = strings.TrimSuffix(line, "\n"); {
		case strings.HasPrefix(line, "event: "):
			m = told{event: line[7:]}
		case strings.HasPrefix(line, "data: "):
			m.data = line[6:]
		case line == "" && holds(m):
			return m
		}
	}
}

func of(event string) func(told) bool { return func(m told) bool { return m.event == event } }

// opened begins a stream.
func opened(t *testing.T, at, cluster string) *bufio.Reader {
	t.Helper()
	res, err := http.Get("http://" + at + "/haproxy/pg-test-1/stream?cluster=" + cluster)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" || res.Header.Get("X-Accel-Buffering") != "no" {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	return bufio.NewReader(res.Body)
}

func TestStream(t *testing.T) {
	w := newWorld(3)
	s := show(t, w)
	in := opened(t, s.at, "pg-test")
	if m := heard(t, in, of("head")); !strings.Contains(m.data, `"node":"pg-test-1"`) || strings.Contains(m.data, "pg-test-primary") {
		t.Errorf("the head: %s", m.data)
	}
	var list struct {
		All     []overview `json:"all"`
		Changed []overview `json:"changed"`
		Gone    []string   `json:"gone"`
	}
	if err := json.Unmarshal([]byte(heard(t, in, of("list")).data), &list); err != nil || len(list.All) != 3 || list.All[0].Primary != "pg-test-1" || list.All[0].Is != Well {
		t.Errorf("the list: %+v, %v", list, err)
	}
	var d detail
	if err := json.Unmarshal([]byte(heard(t, in, of("cluster")).data), &d); err != nil || d.Cluster.Name != "pg-test" || len(d.Flows) != 14 {
		t.Errorf("the cluster: %+v, %v", d, err)
	}
	w.fail(1, "silent: connection refused")
	heard(t, in, func(m told) bool {
		return m.event == "list" && strings.Contains(m.data, "pg-test-1 is down: silent: connection refused") && strings.Contains(m.data, `"is":"ill"`)
	})
	w.switchTo(2)
	// Whichever comes first.
	event, primary := false, false
	heard(t, in, func(m told) bool {
		event = event || m.event == "events" && strings.Contains(m.data, "pg-test-2 is primary now")
		primary = primary || m.event == "list" && strings.Contains(m.data, `"primary":"pg-test-2"`)
		return event && primary
	})
	w.mu.Lock()
	w.clusters = 2
	w.mu.Unlock()
	// Where all that are left have changed, too, all are told.
	heard(t, in, func(m told) bool {
		return m.event == "list" && (strings.Contains(m.data, `"gone":["pg-002"]`) || strings.HasPrefix(m.data, `{"all":`) && !strings.Contains(m.data, "pg-002"))
	})
	// Who comes later sees what happened before.
	later := opened(t, s.at, "none")
	if m := heard(t, later, of("events")); strings.Count(m.data, `"id":`) != 3 {
		t.Errorf("what happened: %s", m.data)
	}
	if m := heard(t, later, of("cluster")); m.data != `{"gone":"none"}` {
		t.Errorf("of a cluster that isn't there: %s", m.data)
	}
}

// However many look, the status is asked for once a second; while nobody looks it is asked for every six. What was noted is for charts.
func TestFeedAsksSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(2)
		f := NewFeed(w.Status, w)
		ctx, cancel := context.WithCancel(t.Context())
		var joined sync.WaitGroup
		joined.Go(func() { f.Run(ctx) })
		defer joined.Wait()
		defer cancel()
		asked := func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			n := w.asked
			w.asked = 0
			return n
		}
		time.Sleep(20 * time.Minute)
		if n := asked(); n != 1+int(20*time.Minute/pace) {
			t.Errorf("asked %d times while nobody looked", n)
		}
		for range 100 {
			f.enter()
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := asked(); n < 60 || n > 75 {
			t.Errorf("asked %d times in a minute", n)
		}
		for range 100 {
			f.leave()
		}
		time.Sleep(2 * time.Second)
		asked()
		time.Sleep(time.Minute)
		if n := asked(); n != int(time.Minute/pace) {
			t.Errorf("asked %d times after they had left", n)
		}
		if s, _ := f.watch(); s != nil {
			t.Error("it is still shown")
		}
		p := f.past("pg-test")
		primary := p.Of["pg-test-primary"]
		if len(p.Of) != 4 || len(primary.Sessions) != points || primary.Rate[points-1] != 4 || primary.Connect[5] == nil || p.Step != 2*beat.Gap.Seconds() {
			t.Errorf("of %d services %d points, rate %v", len(p.Of), len(primary.Sessions), primary.Rate[points-1])
		}
		if all := f.past("").Of[""]; len(all.Rate) != points || all.Rate[3] != 26 {
			t.Errorf("of all: %v", all.Rate)
		}
		if text, err := json.Marshal(p); err != nil || len(text) > 100_000 {
			t.Errorf("%d bytes, %v", len(text), err)
		}
	})
}

// A thousand busy clusters don't send each viewer a megabyte a second, and a cluster that falls ill among them is told at once.
func TestListOfManyClusters(t *testing.T) {
	w := newWorld(1000)
	var last *scene
	var before sample
	sent, full := 0, 0
	began := time.Now()
	for i := range 40 {
		s := w.Status()
		// What the time brings, without waiting for it.
		s.Now = began.Add(time.Duration(i) * time.Second)
		for k := range s.Clusters {
			for v := range s.Clusters[k].Services {
				s.Clusters[k].Services[v].ToClient += int64(i * (i + 1) * 1000)
			}
		}
		ill := i == 25
		if ill {
			s.Clusters[700].Contested = "two claim to lead"
		}
		now := sampleOf(&s)
		next, err := newScene(&s, before, now, last)
		if err != nil {
			t.Fatal(err)
		}
		list := next.list(last == nil)
		if last == nil {
			full = len(list)
		} else {
			sent += len(list)
		}
		if ill && !strings.Contains(string(list), "two claim to lead") {
			t.Error("a cluster that fell ill isn't told at once")
		}
		last, before = next, now
	}
	if a := sent / 39; a > 2*rowBytes || a < 1000 {
		t.Errorf("%d bytes a second", a)
	}
	if full > 1<<20 {
		t.Errorf("the whole list has %d bytes", full)
	}
	if detail := last.detail("pg-700"); len(detail) > 32<<10 {
		t.Errorf("one cluster has %d bytes", len(detail))
	}
	t.Logf("all: %d bytes, then %d a second", full, sent/39)
}

// An order of clusters that is another one is told.
func TestListInOrder(t *testing.T) {
	w := newWorld(3)
	w.silent = true
	s := w.Status()
	first, err := newScene(&s, sample{}, sampleOf(&s), nil)
	if err != nil {
		t.Fatal(err)
	}
	again := w.Status()
	same, err := newScene(&again, sampleOf(&s), sampleOf(&again), first)
	if err != nil || same.list(false) != nil {
		t.Errorf("nothing has changed: %s, %v", same.list(false), err)
	}
	s.Clusters[0], s.Clusters[2] = s.Clusters[2], s.Clusters[0]
	turned, err := newScene(&s, sample{}, sampleOf(&s), same)
	if err != nil || !strings.HasPrefix(string(turned.list(false)), `{"all":[{"name":"pg-002"`) {
		t.Errorf("turned: %.100s, %v", turned.list(false), err)
	}
}

// A thousand who open streams and never read, or say nothing at all, keep nobody from a scrape; a stream ends whose viewer doesn't read.
func TestAttackByStreams(t *testing.T) {
	w := newWorld(20)
	feed := NewFeed(w.Status, w)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const places = 24
	guarded := gate.New(l, gate.Of(places), nil)
	ctx, cancel := context.WithCancel(t.Context())
	var joined sync.WaitGroup
	joined.Go(func() { feed.Run(ctx) })
	joined.Go(func() {
		config := Config{Status: w.Status, Problems: none, Names: none, Feed: feed, Streams: places / 2, Events: w.Events}
		if err := Serve(ctx, guarded, Handler(config), nil, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	})
	defer joined.Wait()
	defer cancel()
	at := l.Addr().String()
	for i := range 1000 {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		word := "GET /stream?cluster=pg-test HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
		switch i % 3 {
		case 1:
			word = "GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + strings.Repeat("a", 64<<10)
		case 2:
			word = "G"
		}
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(conn, word)
		if n := guarded.Count(); n > places {
			t.Fatalf("%d connections", n)
		}
		if i%100 == 99 {
			res, err := http.Get("http://" + at + "/services")
			if err != nil {
				t.Fatalf("after %d: %v", i, err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode != 200 || !strings.Contains(string(body), "pg-test-primary up") {
				t.Fatalf("after %d: %d %v", i, res.StatusCode, err)
			}
			if n := feed.count(); n > places/2 {
				t.Errorf("%d streams", n)
			}
		}
	}
}

// Judgements are sentences.
func TestJudge(t *testing.T) {
	w := newWorld(1)
	for name, test := range map[string]struct {
		edit func(*api.Cluster)
		is   Judgement
		want string
	}{
		"well":      {func(*api.Cluster) {}, Well, "[]"},
		"contested": {func(c *api.Cluster) { c.Contested = "a and b claim to lead" }, Ill, "[a and b claim to lead]"},
		"no server": {func(c *api.Cluster) { c.Services[0].Up = false; c.Services[0].Servers[0].Serving = false }, Ill, "[primary: no server takes clients]"},
		"no server by order": {func(c *api.Cluster) {
			c.Services[3].Up = false
			c.Services[3].Servers[0].Order = &api.Ordered{State: api.Drain}
		}, Ill, "[offline: no server takes clients, 1 of 1 by order]"},
		"a shadow":       {func(c *api.Cluster) { c.Services[0].Up, c.Services[0].Shadow = false, true }, Well, "[]"},
		"none selected":  {func(c *api.Cluster) { c.Services[3].Servers = nil }, Look, "[offline: no member is selected for it]"},
		"somebody waits": {func(c *api.Cluster) { c.Services[1].Queued = 1 }, Look, "[replica: 1 client waits]"},
		"held": {func(c *api.Cluster) {
			c.Hold = &api.Hold{ID: "one", To: "pg-test-2", By: "root (uid 0)", Since: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Waiting: 1}
		}, Look, "[held for a switchover to pg-test-2 by root (uid 0) since 12:00:00Z; 1 client waits]"},
		"etcd is lost":    {func(c *api.Cluster) { c.LeaderKey.Lost = "timed out" }, Look, "[etcd can't be asked for the leader key: timed out]"},
		"nobody holds it": {func(c *api.Cluster) { c.LeaderKey.Holder = "" }, Look, "[nobody holds the leader key]"},
		"a remark":        {func(c *api.Cluster) { c.Members[1].Remark = "its API is slow" }, Look, "[pg-test-2: its API is slow]"},
		"the virtual address": {func(c *api.Cluster) {
			c.VIP = &api.VirtualIP{Address: "10.10.10.2/24", Others: []string{"02:00:00:00:00:01"}}
		}, Ill, "[others have the virtual address 10.10.10.2/24, too: 02:00:00:00:00:01]"},
		"many": {func(c *api.Cluster) {
			for range 9 {
				c.Members = append(c.Members, api.Member{Name: "x", Remark: "y"})
			}
		}, Look, "[x: y x: y x: y x: y x: y x: y and 3 more]"},
	} {
		s := w.Status()
		c := &s.Clusters[0]
		test.edit(c)
		is, words := judge(c, s.Now)
		if got := fmt.Sprint(words); is != test.is || got != test.want {
			t.Errorf("%s: %s %s, want %s %s", name, is, got, test.is, test.want)
		}
	}
	w.down[1] = "silent: connection refused"
	s := w.Status()
	if is, words := judge(&s.Clusters[0], s.Now); is != Ill || fmt.Sprint(words) != "[primary: no server takes clients, and 7 clients wait, the longest for 1.7s default: no server takes clients, and 7 clients wait, the longest for 1.7s pg-test-1 is down: silent: connection refused]" {
		t.Errorf("%s %s", is, words)
	}
}
