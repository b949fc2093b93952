package fakepatroni

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
)

// TestCrowd: one listener is many members, each with its role, its name and its own count.
func TestCrowd(t *testing.T) {
	const clusters = 300
	crowd, err := NewCrowd(clusters)
	if err != nil {
		t.Fatal(err)
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp4", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	patroni, postgres, pgbouncer := listen(), listen(), listen()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- crowd.Serve(ctx, patroni, postgres, pgbouncer) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	port := func(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
	for _, c := range []struct {
		cluster, member int
		method, path    string
		status          int
	}{
		{0, 0, "GET", "/primary", 200}, {0, 0, "OPTIONS", "/primary", 200}, {0, 1, "GET", "/primary", 503}, {299, 2, "GET", "/replica?lag=1MB", 200},
		{299, 2, "OPTIONS", "/read-only", 200}, {250, 0, "GET", "/replica", 503},
	} {
		request, err := http.NewRequest(c.method, fmt.Sprintf("http://%s:%d%s", Address(c.cluster, c.member), port(patroni), c.path), nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != c.status || answer.ProtoMinor != 0 {
			t.Errorf("%+v: %s %s, %v", c, answer.Proto, answer.Status, err)
		}
		if c.method != "GET" {
			if len(text) > 0 {
				t.Errorf("%+v has a body: %s", c, text)
			}
			continue
		}
		var said struct {
			Role    string
			Patroni struct{ Scope, Name string }
		}
		if err := json.Unmarshal(text, &said); err != nil || said.Role != role(c.member) || said.Patroni.Scope != ClusterName(c.cluster) || len(text) < 400 || len(text) > 900 {
			t.Errorf("%+v: %d bytes %s, %v", c, len(text), text, err)
		}
	}
	for _, l := range []net.Listener{postgres, pgbouncer} {
		conn, err := net.Dial("tcp", net.JoinHostPort(Address(299, 2).String(), strconv.Itoa(port(l))))
		if err != nil {
			t.Fatal(err)
		}
		var n [1]byte
		if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, n[:]); err != nil || n[0] != 'N' {
			t.Errorf("%q, %v", n, err)
		}
		conn.Close()
	}
	// Who isn't a member gets nothing.
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port(patroni)))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes for a stranger", n)
	}
	conn.Close()
	got := crowd.Counts()
	for i, want := range map[int]int64{0: 2, 1: 1, 250 * 3: 1, 299*3 + 2: 2, 2: 0} {
		if got.Asked[i] != want {
			t.Errorf("member %d was asked %d times, not %d", i, got.Asked[i], want)
		}
	}
	if got.Knocked[299*3+2] != 2 {
		t.Errorf("%d knocks", got.Knocked[299*3+2])
	}
	if _, err := NewCrowd(0); err == nil {
		t.Error("no clusters")
	}
}
