package cli

import (
	"bytes"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

func TestStatusOfAShadow(t *testing.T) {
	began := time.Date(2026, 11, 30, 3, 0, 0, 0, time.Local)
	after := func(seconds float64) time.Time { return began.Add(time.Duration(seconds * float64(time.Second))) }
	ended, until, answered := after(4.8), after(2.1), after(9)
	d := api.Disagreement{Text: "pg-test-primary: HAProxy led new clients to pg-test-1 for 2.1s, pgporter would have led nobody there", Since: began, Until: &until,
		Clients: 1, Failed: 3, Right: "pgporter", Because: "pg-test-2 held the leader key afterwards"}
	lasting := api.Disagreement{Text: "pg-test-replica: HAProxy led new clients to pg-test-2 and still does, pgporter would have led nobody there", Clients: 2,
		Right: "unknown", Because: "the leader key says nothing of this service"}
	s := &api.Status{Shadow: &api.Shadow{
		HAProxy: "/run/haproxy.sock", Asked: 12, Unanswered: 1, Answered: &answered, Absent: []string{"pg-test-extra"}, Taken: []string{"pg-test-offline"}, Both: []string{"pg-test-offline"},
		Right: api.Right{PGPorter: 1}, Standing: []api.Disagreement{lasting}, Dropped: 1,
		Events: []api.ShadowEvent{{Number: 2, Cluster: "pg-test", What: "the leader changed from pg-test-1 to pg-test-2", Began: began, Ended: &ended, Dropped: 4,
			Steps: []api.ShadowStep{
				{Of: "pgporter", Service: "pg-test-primary", Server: "pg-test-1", Did: "ends its sessions", Why: "503 demoted stopping", Sessions: 1},
				{After: 1.62, Of: "leader key", Server: "pg-test-2", Did: "is held by it", Why: "before it: pg-test-1"},
				{After: 2.1, Of: "haproxy", Service: "pg-test-primary", Server: "pg-test-1", Did: "leads no new clients to it", Why: "DOWN"},
			},
			Disagreements: []api.Disagreement{d},
		}, {Number: 3, What: "web-1 went", Began: after(20)}},
	}}
	const want = `shadow of HAProxy (/run/haproxy.sock), asked 12 times, 1 in vain: 3 events, pgporter was right 1, HAProxy 0, unknown 0
HAProxy hasn't, so not compared: pg-test-extra
taken from HAProxy and served here: pg-test-offline
HAProxy listens for these, too, each new client gets to one of the two: pg-test-offline
now: pg-test-replica: HAProxy led new clients to pg-test-2 and still does, pgporter would have led nobody there (HAProxy led 2 clients there); who was right isn't known: the leader key says nothing of this service
event 2, 03:00:00.0: pg-test: the leader changed from pg-test-1 to pg-test-2, over after 4.8s
    +0.0s  pgporter    pg-test-primary pg-test-1: ends its sessions, 1 session at HAProxy (503 demoted stopping)
    +1.6s  leader key  pg-test-2 (before it: pg-test-1)
    +2.1s  haproxy     pg-test-primary pg-test-1: leads no new clients to it (DOWN)
  pg-test-primary: HAProxy led new clients to pg-test-1 for 2.1s, pgporter would have led nobody there (HAProxy led 1 client there, 3 connections failed); pgporter was right: pg-test-2 held the leader key afterwards
  4 lines more
event 3, 03:00:20.0: web-1 went, goes on
`
	var got bytes.Buffer
	printShadow(&got, s, painter(false))
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &got, want)
	}
	for _, test := range []struct {
		shadow api.Shadow
		want   string
	}{
		{api.Shadow{HAProxy: "h"}, "shadow of HAProxy (h), which hasn't been asked yet: 0 events, pgporter was right 0, HAProxy 0, unknown 0\n"},
		{api.Shadow{HAProxy: "h", Silent: "it hangs"}, "shadow of HAProxy (h), which doesn't answer: it hangs: 0 events, pgporter was right 0, HAProxy 0, unknown 0\n"},
	} {
		got.Reset()
		printShadow(&got, &api.Status{Shadow: &test.shadow}, painter(false))
		if got.String() != test.want {
			t.Errorf("got %q, want %q", &got, test.want)
		}
	}
}
