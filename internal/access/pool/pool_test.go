package pool

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"/var/run/postgresql:6432": "/var/run/postgresql:6432", "127.0.0.1:6432": "127.0.0.1:6432", "[::1]:6432": "[::1]:6432", "pool.example.org:6432": "pool.example.org:6432",
		"/a:b:6432": "/a:b:6432", "127.0.0.1": "", ":6432": "", "/run:0": "", "/run:65536": "", "/run": "", "::1:6432": "", "": "", "a,b:6432": "", "run/x:6432": "",
	} {
		a, err := ParseAddress(text)
		if got := a.String(); err == nil && got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestQuoted(t *testing.T) {
	if got := quoted(`my "db`); got != `"my ""db"` {
		t.Errorf("got %s", got)
	}
}

func TestMarks(t *testing.T) {
	m := marksOf(t.TempDir(), Address{"/var/run/postgresql", 6432})
	for _, names := range [][]string{nil, {"a", "b\nc"}, {"a"}, nil} {
		if err := m.write(names); err != nil {
			t.Fatal(err)
		}
		if got, err := m.read(); err != nil || !slices.Equal(got, names) {
			t.Errorf("read %q, %v; want %q", got, err, names)
		}
	}
	if err := os.WriteFile(string(m), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.read(); err == nil || !strings.Contains(err.Error(), "pgporter-paused-") {
		t.Errorf("nonsense: %v", err)
	}
}

func TestBusyLines(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	var servers, clients []map[string]string
	for i := range mostBusy + 5 {
		at := now.Add(-time.Duration(i) * time.Second).Format("2006-01-02 15:04:05 MST")
		servers = append(servers, map[string]string{"database": "meta", "state": "active", "link": fmt.Sprint("c", i), "request_time": at})
		clients = append(clients, map[string]string{"ptr": fmt.Sprint("c", i), "user": "app", "addr": "10.0.0.9", "port": fmt.Sprint(1000 + i), "application_name": "etl\x1b[31m"})
	}
	servers = append(servers,
		map[string]string{"database": "meta", "state": "idle", "link": ""},
		map[string]string{"database": "logs", "state": "active", "link": "u", "request_time": "2026-11-30 11:00:00 XYZ"},
		map[string]string{"database": "logs", "state": "active", "link": "nobody"})
	clients = append(clients, map[string]string{"ptr": "u", "user": "batch", "addr": "unix", "port": "6432"})
	all := busyLines(servers, clients, now)
	if lines := all["meta"]; len(lines) != mostBusy || !strings.HasPrefix(lines[0], "app from 10.0.0.9:1024, its last statement 24s ago, application etl") || strings.Contains(lines[0], "\x1b") {
		t.Errorf("got %d lines, %q", len(lines), lines[:1])
	}
	// Whose zone isn't known says nothing of how long.
	if lines := all["logs"]; !slices.Equal(lines, []string{"batch from unix"}) {
		t.Errorf("got %q", lines)
	}
}
