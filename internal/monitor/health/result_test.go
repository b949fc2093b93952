package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

func TestCodeOf(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Err: err} }
	for _, c := range []struct {
		err       error
		connected bool
		want      string
	}{
		{dial(os.NewSyscallError("connect", syscall.ECONNREFUSED)), true, "L4CON"},
		{dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH)), true, "L4CON"},
		{syscall.ENETUNREACH, false, "L4CON"},
		{dial(os.ErrDeadlineExceeded), true, "L4TOUT"},
		{context.DeadlineExceeded, false, "L4TOUT"},
		{fmt.Errorf("reading: %w", os.ErrDeadlineExceeded), true, "L7TOUT"},
		{&tls.RecordHeaderError{Msg: "no TLS"}, true, "L7RSP"},
		{tls.RecordHeaderError{Msg: "no TLS"}, true, "L6RSP"},
		{&tls.CertificateVerificationError{Err: errors.New("unknown")}, true, "L6RSP"},
		{io.ErrUnexpectedEOF, true, "L7RSP"},
		{syscall.EMFILE, false, "SOCKERR"},
	} {
		if got := CodeOf(c.err, c.connected); got != c.want {
			t.Errorf("%v (connected: %v) is %s, not %s", c.err, c.connected, got, c.want)
		}
	}
}

// What HAProxy would say of a server, from its first check on.
func TestLast(t *testing.T) {
	o := &model.Options{Rise: 3, Fall: 2, Inter: time.Second, FastInter: time.Second, DownInter: time.Second}
	m := NewMachine("/replica", o, 0)
	at := time.Unix(0, 0)
	answer := func(status int, role string) Outcome {
		return Outcome{Answer: patroni.Answer{Status: status, Role: role, State: patroni.StateRunning}}
	}
	steps := []struct {
		o    Outcome
		want Last
	}{
		{answer(200, "replica"), Last{"L7OK", 200, "200 replica running", 4}},
		{answer(503, "replica"), Last{"L7STS", 503, "503 replica running", 3}},
		{answer(503, "replica"), Last{"L7STS", 503, "503 replica running", 0}},
		{answer(200, "replica"), Last{"L7OK", 200, "200 replica running", 1}},
		{answer(200, "replica"), Last{"L7OK", 200, "200 replica running", 2}},
		{answer(200, "replica"), Last{"L7OK", 200, "200 replica running", 4}},
		{Outcome{Silence: "connection refused", Dead: true, Code: "L4CON"}, Last{"L4CON", 0, "silent: connection refused", 3}},
		{Outcome{Silence: "HTML", Code: "L7RSP"}, Last{"L7RSP", 0, "silent: HTML", 3}},
		{Outcome{Silence: "too many questions", NotAsked: true}, Last{"SOCKERR", 0, "silent: too many questions", 3}},
	}
	if got := m.Last(); got != (Last{"INI", 0, "not checked yet", 0}) {
		t.Errorf("before the first it is %+v", got)
	}
	for i, step := range steps {
		at = at.Add(time.Second)
		m, _ = m.Feed(step.o, Backing{}, at)
		if got := m.Last(); got.Code != step.want.Code || got.Status != step.want.Status || got.Text != step.want.Text || i < 7 && got.Health != step.want.Health {
			t.Errorf("step %d: %+v, not %+v", i, got, step.want)
		}
	}
}
