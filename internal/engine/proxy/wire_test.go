package proxy

import (
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/handover"
)

var update = flag.Bool("update", false, "write the golden files")

// TestWireFormat holds what is handed over at what releases before this one write and read. A line that changes makes those
// take over less than they are given: fields may only come in addition.
func TestWireFormat(t *testing.T) {
	const golden = "testdata/handover.golden"
	at := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	bodies := []any{
		&handedService{Service: "pg-test-primary", Tickets: 12, Usable: true, Lost: at, Refused: 3, Left: handedCounts{Total: 1, ConnectFailures: 2, ToServer: 3, ToClient: 4},
			Counts: map[string]handedCounts{"pg-test-1": {Total: 5, ConnectFailures: 6, ToServer: 7, ToClient: 8}}},
		&handedService{Service: "pg-test-replica", Tickets: 12, Lost: at, Counts: map[string]handedCounts{"pg-test-2": {Total: 5, ConnectFailures: 6, ToServer: 7, ToClient: 8,
			Attempts: 9, Retries: 10, Redispatches: 11, ClientAborts: 12, ServerAborts: 13, Connecting: []uint64{14, 15}, ConnectSum: 16,
			Course: handedCourse{SessionsMax: 17, QueuedMax: 18, SessionRateMax: 19, Last: at, QueueTime: average{20, 21, 37}, ConnectTime: average{22, 23, 38}, SessionTime: average{24, 25, 39}}}},
			Whole: handedCourse{SessionsMax: 26}, Accepted: 27, AcceptRateMax: 28, ClientsMax: 29, Denied: 30, Cancels: 31, CancelsSent: 32,
			Ended: map[engine.EndReason]uint64{engine.EndKilled: 33}, Process: handedProcess{SessionIDs: 34, AcceptRateMax: 35, SessionRateMax: 36}},
		&handedSession{Service: "pg-test-primary", Member: "pg-test-1", Address: "10.10.10.11:6432", Client: "10.10.10.9:5000", ID: 12, Began: at, Moved: 9, MovedAt: at,
			ToServer: []byte("a\x00"), ToClient: []byte("b"), ClientEnded: true, ServerEnded: true, SentToServer: 10, SentToClient: 11},
		&handedClient{Service: "pg-test-primary", Declined: []string{"ssl"}, ToServer: 8, ToClient: 1, HoldUntil: at, Waits: at},
		&HealthStatus{"pg-test-primary": {"pg-test-1": {Up: true, Epoch: 2}}, "pg-test-replica": nil},
	}
	var lines []string
	for _, body := range bodies {
		text, err := json.Marshal(body)
		must(t, err)
		lines = append(lines, string(text))
	}
	got := strings.Join(lines, "\n") + "\n"
	if *update {
		must(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if got != string(want) {
		t.Errorf("written:\n%swant:\n%s", got, want)
	}
	for i, line := range strings.Split(strings.TrimSpace(string(want)), "\n") {
		read := reflect.New(reflect.TypeOf(bodies[i]).Elem())
		must(t, json.Unmarshal([]byte(line), read.Interface()))
		if !reflect.DeepEqual(read.Interface(), bodies[i]) {
			t.Errorf("%s\nis read as %+v", line, read.Elem())
		}
	}
}

// FuzzTakeOver has an engine take what another process may say, whatever that is.
func FuzzTakeOver(f *testing.F) {
	f.Add(serviceItem, `{"service": "pg-test-primary", "tickets": 1, "lost": "2026-11-22T08:00:00Z", "servers": {"a": {"sessions": 1}}}`)
	f.Add(sessionItem, `{"service": "pg-test-primary", "member": "a", "client": "nonsense", "to_server": "AA=="}`)
	f.Add(clientItem, `{"service": "pg-test-primary", "declined": ["ssl", "soup"]}`)
	f.Fuzz(func(t *testing.T, kind, body string) {
		e := New(Config{})
		defer e.kill()
		e.dispatchers["pg-test-primary"] = lone(e, Endpoint{})
		_, _, err := e.TakeOver([]handover.Item{{Kind: kind, Body: []byte(body)}}, nil)
		if kind != serviceItem && err == nil {
			t.Errorf("a %s without a socket is taken: %s", kind, body)
		}
	})
}
