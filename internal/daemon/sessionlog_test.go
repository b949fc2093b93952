package daemon

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/engine"
)

// logged is a session for a log.
func logged(id uint64) engine.Session {
	at := netip.MustParseAddrPort
	return engine.Session{ID: id, Cluster: "pg-test", Service: "pg-test-primary", Member: "pg-test-1", Client: at("10.0.0.7:5000"), Listen: at("10.10.10.11:5433"),
		Local: at("10.10.10.11:40000"), Server: at("[fd00::12]:5432"), Began: time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC), ToServer: 17, ToClient: 0}
}

func TestSessionLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.json")
	if err := os.WriteFile(path, []byte("what was there\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := OpenSessionLog(path, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	s := logged(4711)
	log.Began(s)
	log.Ended(s, s.Began.Add(1500*time.Millisecond), engine.EndKilled, errors.New("pg-test-1: by order of root\x1b[2J"))
	// A rotation moves the file away first.
	await := func(file string, lines int) string {
		t.Helper()
		for until := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			text, err := os.ReadFile(file)
			if err == nil && strings.Count(string(text), "\n") == lines {
				return string(text)
			}
			if time.Now().After(until) {
				t.Fatalf("%s: %q, %v", file, text, err)
			}
		}
	}
	const begins = `"id":4711,"cluster":"pg-test","service":"pg-test-primary","member":"pg-test-1","client":"10.0.0.7:5000","listen":"10.10.10.11:5433","local":"10.10.10.11:40000","server":"[fd00::12]:5432"`
	want := "what was there\n" +
		`{"time":"2026-12-01T08:00:00Z","event":"start",` + begins + "}\n" +
		`{"time":"2026-12-01T08:00:01.5Z","event":"end",` + begins + `,"bytes_to_server":17,"bytes_to_client":0,"seconds":1.5,"why":"killed","cause":"pg-test-1: by order of root\\u001b[2J"}` + "\n"
	if got := await(path, 3); got != want {
		t.Errorf("written:\n%swant:\n%s", got, want)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	log.Began(logged(4712))
	await(path+".1", 4)
	if err := log.Reopen(); err != nil {
		t.Fatal(err)
	}
	log.Began(logged(4713))
	if got := await(path, 1); !strings.Contains(got, `"id":4713`) {
		t.Errorf("the new file: %s", got)
	}
	// A directory in its place: the old one goes on.
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := log.Reopen(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("reopened a directory: %v", err)
	}
	log.Began(logged(4714))
	await(path+".2", 2)
	log.Close(time.Minute)
	if log.Dropped() != 0 {
		t.Errorf("%d lines dropped", log.Dropped())
	}
}

func TestSessionLogTakesWholeSessions(t *testing.T) {
	for _, part := range []float64{0, -1, 1.5} {
		if _, err := OpenSessionLog("-", &bytes.Buffer{}, part); err == nil {
			t.Errorf("a sample of %v is taken", part)
		}
	}
	for _, part := range []float64{0.01, 0.5, 1} {
		log, err := OpenSessionLog("-", &bytes.Buffer{}, part)
		if err != nil {
			t.Fatal(err)
		}
		again, err := OpenSessionLog("-", &bytes.Buffer{}, part)
		if err != nil {
			t.Fatal(err)
		}
		const all = 100_000
		n := 0
		for id := range uint64(all) {
			if log.Wants(id) != again.Wants(id) {
				t.Fatalf("session %d is wanted by one process and not by the next", id)
			}
			if log.Wants(id) {
				n++
			}
		}
		if got := float64(n) / all; got < part*0.9 || got > part*1.1 {
			t.Errorf("%v of all sessions for a sample of %v", got, part)
		}
		log.Close(time.Minute)
		again.Close(time.Minute)
	}
}

// TestSessionLogThatNobodyReads: a reader that hangs holds up nobody, and what is dropped is counted, and told once it reads.
func TestSessionLogThatNobodyReads(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	log, err := OpenSessionLog("-", write, 1)
	if err != nil {
		t.Fatal(err)
	}
	for id := uint64(0); log.Dropped() < 10; id++ {
		log.Began(logged(id))
	}
	dropped := log.Dropped()
	var got, told uint64
	lines := bufio.NewScanner(read)
	for told == 0 && lines.Scan() {
		var line struct {
			Event string
			Lines uint64
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%v in %s", err, lines.Text())
		}
		got++
		told = line.Lines
	}
	if told != dropped || got < 2 {
		t.Errorf("%d lines read, the last one tells of %d dropped, which were %d (%v)", got, told, dropped, fmt.Sprint(lines.Err()))
	}
	log.Close(time.Minute)
	read.Close()
	write.Close()
}

// TestSessionLogOfADaemon: a session is in the log from its beginning to its end, and the file is a new one after a reload.
func TestSessionLogOfADaemon(t *testing.T) {
	f := newFixture(t, address(63))
	path := filepath.Join(t.TempDir(), "sessions.json")
	log, err := OpenSessionLog(path, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	port := listen(t, address(64))
	at := port.Addr().String()
	port.Close()
	_, number, _ := net.SplitHostPort(at)
	r := start(t, f, address(64), f.inventory("primary:"+number), false, func(c *Config) { c.SessionLog = log })
	r.until("up", func(s *api.Status) bool { return len(s.Clusters) == 1 && s.Clusters[0].Services[0].Up })
	session := func(file string, last string) {
		t.Helper()
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Write([]byte("a line\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
		r.until("a session", func(s *api.Status) bool { return s.Clusters[0].Services[0].Sessions == 1 })
		conn.Close()
		r.until("none", func(s *api.Status) bool { return s.Clusters[0].Services[0].Sessions == 0 })
		for until := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			text, _ := os.ReadFile(file)
			if strings.Contains(string(text), last) {
				if !strings.Contains(string(text), `"client":"`+conn.LocalAddr().String()+`"`) {
					t.Errorf("no line of %s in %s", conn.LocalAddr(), text)
				}
				return
			}
			if time.Now().After(until) {
				t.Fatalf("%s has %s", file, text)
			}
		}
	}
	session(path, `"bytes_to_server":7,"bytes_to_client":7`)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	r.reload <- nil
	r.until("read again", func(s *api.Status) bool { return s.Config.Generation == 2 })
	session(path, `"event":"end","id":2,`)
	r.stop()
	<-r.ended
	log.Close(patience)
}
