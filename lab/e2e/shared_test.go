package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// nameServerPort is where the pgporters of the shared cluster tell names.
const nameServerPort = "5353"

// shared is a cluster of three for several tests, one after the other: bringing one up costs more than to put one in order.
type shared struct {
	*cluster
	// token and ca are what commands need at the control addresses, credentials the directory that has them.
	token, ca, credentials string
}

// TestShared are the tests that need three ordinary members and leave them so that they can be put in order. Each can be run alone.
func TestShared(t *testing.T) {
	t.Parallel()
	const octet = 81
	dir := credentials(t, fmt.Sprintf("127.0.%d", octet))
	s := shared{token: filepath.Join(dir, "control.token"), ca: filepath.Join(dir, "control.crt"), credentials: dir}
	s.cluster = up(t, octet, sandbox.Config{Fall: patient, BinaryArgs: []string{
		"--dns=*:" + nameServerPort,
		"--control", "*", "--control-token-file", s.token, "--control-tls-cert", s.ca, "--control-tls-key", filepath.Join(dir, "control.key"),
	}})
	for _, test := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"reload from elsewhere", s.reloadFromElsewhere},
		{"HAProxy", s.haproxy},
		{"shadow", s.shadow},
		{"takeover", s.takeover},
		{"monitoring", s.monitoring},
		{"failover under load", s.failoverUnderLoad},
		{"doctor", s.doctor},
		{"operations", s.operations},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.settle(t)
			test.do(t)
			if t.Failed() {
				s.showLogs()
			}
		})
	}
	s.t = t
}

// settle has everything run and pg-test-1 lead, whatever the test before has left.
func (s shared) settle(t *testing.T) {
	t.Helper()
	s.t = t
	for _, m := range s.members() {
		for _, kind := range []string{"/patroni", "/pgbouncer", "/pgporter"} {
			if _, running := s.PID(m + kind); !running {
				if err := s.Start(t.Context(), m+kind); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	one := s.member(1)
	var leader string
	eventually(t, afterFailover, func(ctx context.Context) error {
		i, err := ask(ctx, one, direct)
		leader = i.address
		return err
	})
	if leader != one {
		if _, err := s.Switchover(t.Context(), "pg-test-1"); err != nil {
			t.Fatal(err)
		}
	}
	s.expect(afterFailover,
		serves{primary, []instance{at(one, false)}},
		serves{replica, []instance{at(s.member(2), true), at(s.member(3), true)}},
		serves{direct, []instance{at(one, false)}},
		serves{offline, []instance{at(s.member(3), true)}})
}
