package cluster

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/resolve"
	"github.com/pgporter/pgporter/internal/monitor/health"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// begun is a cluster of one member, a primary, with a service of the given options and one with the defaults.
func begun(t *testing.T, options string, tls bool) (State, time.Time) {
	t.Helper()
	c, _ := declared("single")
	c.Members[0].PatroniTLS = tls
	c.Definitions = c.Definitions[:2]
	var problems []model.OptionProblem
	if c.Definitions[1].Options, problems = model.ParseOptions(norm + " " + options); problems != nil {
		t.Fatal(problems)
	}
	resolver, err := resolve.New(c)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Unix(0, 0)
	s, a := Begin(Planned{Cluster: c, Resolver: resolver}, 1, start)
	if a.Refused != nil {
		t.Fatal(a.Refused)
	}
	return s, start
}

func TestTargetsFollowOptions(t *testing.T) {
	const plain, secure = "http://10.10.10.11:8008", "https://10.10.10.11:8008"
	for _, test := range []struct {
		options string
		tls     bool
		// base and words are of the service with the options; the other one is asked as the inventory says.
		base  string
		words patroni.TLS
	}{
		{"check", false, plain, patroni.TLS{}},
		// Words about TLS where none is spoken make no check another one.
		{"ca-file /a verify none", false, plain, patroni.TLS{}},
		{"check-ssl", false, secure, patroni.TLS{}},
		{"check-ssl", true, secure, patroni.TLS{}},
		{"check-ssl no-check-ssl", true, secure, patroni.TLS{}},
		{"ca-file /a crt /b check-sni c verifyhost d", true, secure, patroni.TLS{CAFile: "/a", CertFile: "/b", SNI: "c", VerifyHost: "d"}},
		{"verify none", true, secure, patroni.TLS{NoVerify: true}},
		{"addr 10.9.9.9", false, "http://10.9.9.9:8008", patroni.TLS{}},
		{"addr fd00::9 check-ssl ca-file @system-ca", false, "https://[fd00::9]:8008", patroni.TLS{CAFile: patroni.SystemCA}},
	} {
		s, _ := begun(t, test.options, test.tls)
		other := plain
		if test.tls {
			other = secure
		}
		want := []health.Target{{Member: "pg-test-1", Base: other, Path: primaryQuestion}}
		// The member's API is asked its one question, in whatever words; somebody else is asked for the path.
		switch own := test.base == plain || test.base == secure; {
		case !own:
			want = append(want, health.Target{Member: "pg-test-1", Base: test.base, Path: "/read-only", TLS: test.words})
		case test.base != other || test.words != patroni.TLS{}:
			want = append(want, health.Target{Member: "pg-test-1", Base: test.base, Path: primaryQuestion, TLS: test.words})
		}
		got := s.asked()
		if !slices.Equal(got, want) {
			t.Errorf("%s: checks %+v, want %+v", test.options, got, want)
		}
	}
}

// What is said at another address is about the server, in that service, and not about the member: its role is asked of itself.
func TestAnswersFromElsewhere(t *testing.T) {
	s, now := begun(t, "addr 10.9.9.9", false)
	c := s.cluster
	c.Definitions = c.Definitions[1:]
	resolver, err := resolve.New(c)
	if err != nil {
		t.Fatal(err)
	}
	s, _ = Begin(Planned{Cluster: c, Resolver: resolver}, 1, now)
	own, elsewhere := health.Target{}, health.Target{}
	for _, target := range s.asked() {
		if target.Path == primaryQuestion {
			own = target
		} else {
			elsewhere = target
		}
	}
	if own.Base != "http://10.10.10.11:8008" || elsewhere.Base != "http://10.9.9.9:8008" {
		t.Fatalf("checks %+v", s.asked())
	}
	answer := func(target health.Target, words string) {
		now = now.Add(time.Second)
		s, _ = stepped(s, Checked{health.Result{Target: target, Outcome: script(strings.Fields(words)).on(target.Path), Ended: now}}, now)
	}
	answer(own, "lock primary running")
	answer(elsewhere, "replica running")
	svc := s.view.Services[0]
	if m := s.view.Members[0]; m.Live != model.Primary || m.Answer != "200 primary running" || !svc.Health[0].Up {
		t.Errorf("member %+v, server %+v", m, svc.Health[0])
	}
	answer(elsewhere, "lagging replica running")
	if m, h := s.view.Members[0], s.view.Services[0].Health[0]; m.Answer != "200 primary running" || h.Up || h.Reason != "503 replica running (1 of 3)" {
		t.Errorf("member %+v, server %+v", m, h)
	}
}

// A check whose TLS doesn't work says nothing against a member that answers another one; one that answers no check is silent.
func TestSilenceOfOneTLSOnly(t *testing.T) {
	s, now := begun(t, "check-ssl", false)
	var plain, secure health.Target
	for _, target := range s.asked() {
		if strings.HasPrefix(target.Base, "https:") {
			secure = target
		} else {
			plain = target
		}
	}
	var lines []string
	hear := func(target health.Target, words string) {
		now = now.Add(time.Second)
		var a Actions
		s, a = stepped(s, Checked{health.Result{Target: target, Outcome: script(strings.Fields(words)).on(target.Path), Ended: now}}, now)
		for _, m := range a.Log {
			if strings.Contains(m.Text, "Patroni of") {
				lines = append(lines, m.Text)
			}
		}
	}
	for range 3 {
		hear(plain, "lock primary running")
		hear(secure, "silent not TLS")
	}
	if m := s.view.Members[0]; m.Answer != "200 primary running" || len(lines) != 0 || s.view.Services[1].Health[0].Up {
		t.Errorf("member %+v, said %q", m, lines)
	}
	hear(plain, "silent gone")
	hear(plain, "lock primary running")
	if want := []string{"pg-test: Patroni of pg-test-1 doesn't answer: gone", "pg-test: Patroni of pg-test-1 answers again: 200 primary running"}; !slices.Equal(lines, want) {
		t.Errorf("said %q, want %q", lines, want)
	}
}

func TestReadable(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "none.crt")
	empty := filepath.Join(t.TempDir(), "empty.crt")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		options string
		tls     bool
		want    string
	}{
		{"", true, ""},
		{"ca-file " + absent, false, ""},
		{"ca-file " + absent, true, "service pg-test-replica: options: CA file: open " + absent + ": no such file or directory"},
		{"check-ssl verify none crt " + absent, false, "service pg-test-replica: options: client certificate: open " + absent + ": no such file or directory"},
		{"check-ssl ca-file " + empty, false, "service pg-test-replica: options: CA file " + empty + " holds no certificate"},
		{"check-ssl ca-file " + patroni.SystemCA, false, ""},
	} {
		s, _ := begun(t, test.options, test.tls)
		got := ""
		if err := Readable(s.cluster); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.options, got, test.want)
		}
	}
}
