package tcpcheck

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// A server that couldn't be asked, since this node had no descriptor for it, stays what it was, however often that is, and the log says
// so once.
func TestAttackNoDescriptors(t *testing.T) {
	server := answering(t, "127.0.0.1", "HTTP/1.0 200 OK\r\n\r\n")
	w := watch(t)
	w.replace(service("127.0.0.1", server.port, "check inter 10ms fastinter 10ms downinter 10ms fall 2", "option httpchk"))
	w.until("up", func(v *view.View) bool { return serversUp(v) == "x: a up" })
	// Files below the limit that are open already stay so.
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 0, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := net.Dial("tcp", "127.0.0.1:1")
	seen := w.Board().View()
	eventuallyLogged(t, w, "can't be checked")
	rounds := w.Beats()
	for w.Beats() < rounds+2 && serversUp(w.Board().View()) == "x: a up" {
		time.Sleep(time.Millisecond)
	}
	if got := w.Board().View(); serversUp(got) != "x: a up" || got.Services[0].Health[0].Epoch != seen.Services[0].Health[0].Epoch {
		t.Errorf("the server is %s", serversUp(got))
	}
	if restored := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); restored != nil {
		t.Fatal(restored)
	}
	if err == nil || !strings.Contains(err.Error(), syscall.EMFILE.Error()) {
		t.Errorf("there were descriptors: %v", err)
	}
	if n := strings.Count(w.log.String(), "can't be checked"); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
}

func eventuallyLogged(t *testing.T, w *watching, text string) {
	t.Helper()
	rounds := w.Beats()
	for !strings.Contains(w.log.String(), text) {
		if w.Beats() > rounds+60 {
			t.Errorf("the log has no %q", text)
			return
		}
		time.Sleep(time.Millisecond)
	}
}
