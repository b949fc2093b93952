package overload

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// api is a thread of Patroni's API: one question and its answer.
func (m *Member) api(conn net.Conn) {
	c := m.cluster
	c.change(func() {
		m.counts.Threads++
		m.counts.Most = max(m.counts.Most, m.counts.Threads)
	})
	defer c.change(func() { m.counts.Threads-- })
	request, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	c.mu.Lock()
	m.counts.Questions = append(m.counts.Questions, time.Now())
	c.mu.Unlock()
	path := request.URL.Path
	if withoutSQL[path] {
		c.mu.Lock()
		c.await(func() bool { return m.trouble != Halted })
		c.mu.Unlock()
		m.work(costWithout)
	} else if !m.query() {
		return
	}
	status, body := m.answer(path)
	if gone(conn) {
		c.change(func() { m.counts.Left++ })
		return
	}
	head := fmt.Sprintf("HTTP/1.0 %d %s\r\n", status, http.StatusText(status))
	if body != nil {
		head += "Server: BaseHTTP/0.6 Python/3.13.5\r\nDate: " + time.Now().UTC().Format(http.TimeFormat) + "\r\nContent-Type: application/json\r\n"
	}
	if request.Method != http.MethodGet {
		body = nil
	}
	_, _ = conn.Write(append([]byte(head+"\r\n"), body...))
}

// query asks PostgreSQL when it is its turn; false says that the cluster was closed before.
func (m *Member) query() bool {
	c := m.cluster
	c.mu.Lock()
	turn := m.came
	m.came++
	ours := c.await(func() bool { return m.done == turn && m.trouble != Hangs && m.trouble != Halted })
	cost := costKnown
	if m != c.primary && (c.unlocked() || m.refused) {
		cost = costDear
	}
	c.mu.Unlock()
	if ours {
		m.work(cost)
	}
	c.change(func() { m.done++ })
	return ours
}

// gone says that the other end, and not this one, has closed a connection.
func gone(conn net.Conn) bool {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return false
	}
	var n int
	var failed error
	err = raw.Control(func(fd uintptr) {
		n, _, failed = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err == nil && (failed == nil && n == 0 || failed != nil && !errors.Is(failed, syscall.EAGAIN))
}

// withoutSQL are the paths that are answered without asking PostgreSQL; they have no body, or one that isn't about the member.
var withoutSQL = map[string]bool{"/liveness": true, "/readiness": true, "/config": true, "/history": true, "/failsafe": true}

// status is what a body says of a member; see Patroni's REST API documentation, "Monitoring endpoint".
type status struct {
	State         string         `json:"state"`
	Started       string         `json:"postmaster_start_time"`
	Role          string         `json:"role"`
	ServerVersion int            `json:"server_version"`
	XLog          map[string]any `json:"xlog"`
	// Timeline is null where it couldn't be found out.
	Timeline         *int              `json:"timeline"`
	ReplicationState string            `json:"replication_state,omitempty"`
	Unlocked         bool              `json:"cluster_unlocked,omitempty"`
	Failsafe         bool              `json:"failsafe_mode_is_active,omitempty"`
	LastSeen         int64             `json:"dcs_last_seen"`
	SystemID         string            `json:"database_system_identifier"`
	Patroni          map[string]string `json:"patroni"`
}

const (
	position = 83888696
	systemID = "7713544548659962333"
	started  = "2026-11-29 10:52:30.410252+00:00"
)

// answer is what Patroni says to a path now. It looks for the role as a part of the path, in this order (do_GET in api.py).
func (m *Member) answer(path string) (int, []byte) {
	c := m.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	leads, replica := c.leader == m, c.primary != m
	pass := false
	has := func(words ...string) bool {
		for _, word := range words {
			if strings.Contains(path, word) {
				return true
			}
		}
		return false
	}
	switch {
	case path == "/liveness", path == "/patroni":
		pass = true
	case path == "/readiness":
		pass = leads || replica && !c.blind
	case has("standby_leader", "standby-leader"):
	case path == "/", has("leader", "master", "primary", "read-write"):
		pass = leads
	case has("replica"):
		pass = replica
	case path == "/async", path == "/asynchronous":
		pass = replica && !c.blind
	case has("read-only-sync"), has("read-only-quorum"):
		pass = leads && !c.blind
	case has("read-only"):
		pass = leads || replica
	case has("health"):
		pass = true
	}
	code := http.StatusServiceUnavailable
	if pass {
		code = http.StatusOK
	}
	if withoutSQL[path] {
		return code, nil
	}
	s := status{State: "running", Started: started, Role: "primary", ServerVersion: 170012, XLog: map[string]any{"location": position}, Timeline: &c.timeline,
		Unlocked: c.unlocked(), Failsafe: c.blind, LastSeen: time.Now().Unix(), SystemID: systemID,
		Patroni: map[string]string{"version": "4.0.7", "scope": Name, "name": m.Name}}
	if c.blind {
		s.LastSeen = c.lost.Unix()
	}
	if replica {
		s.Role, s.ReplicationState = "replica", "streaming"
		s.XLog = map[string]any{"received_location": position, "replayed_location": position, "replayed_timestamp": nil, "paused": false}
		if m.refused {
			s.Timeline = nil
		}
	}
	body, err := json.Marshal(s)
	if err != nil {
		panic(err) // it is made of texts and numbers
	}
	return code, body
}
