package patroni

import (
	"maps"
	"reflect"
	"strings"
	"testing"
)

// TestTo is the table of what follows from one answer. Where a row says nothing of a path it is 503, derived.
func TestTo(t *testing.T) {
	const (
		leaders  = " / /primary /master /read-write /db-primary/x /primary?tag_a=b /leader "
		readers  = " /read-only /read-only-sync /read-only-synchronous /read-only-quorum "
		replicas = " /replica /replica/x /read-only /async /asynchronous "
		ready    = " /health /healthz /readiness "
		standby  = " /standby-leader /standby_leader "
		// hidden paths are 200 in a Patroni that sees the DCS.
		hidden = " /read-only-sync /read-only-synchronous /read-only-quorum "
		all    = leaders + readers + replicas + ready + standby + " /sync /synchronous /quorum /patroni /patroni/primary /nonsense /sync/ /x-read-only-sync /PRIMARY "
	)
	answer := func(status int, role, state string, more ...func(*Answer)) Answer {
		a := Answer{Status: status, Role: role, State: state, Version: "4.0.7"}
		for _, change := range more {
			change(&a)
		}
		return a
	}
	unlocked := func(a *Answer) { a.ClusterUnlocked = true }
	paused := func(a *Answer) { a.Pause = true }
	synced := func(a *Answer) { a.SyncStandby = true }
	quorum := func(a *Answer) { a.QuorumStandby = true }
	closed := func(a *Answer) { a.Tags = map[string]string{"noloadbalance": "true"} }
	version := func(v string) func(*Answer) { return func(a *Answer) { a.Version = v } }
	for _, test := range []struct {
		name    string
		answer  Answer
		standby bool
		// pass are the paths with 200, unsettled and underivable those that are so.
		pass, unsettled, underivable string
	}{
		{name: "leader", answer: answer(200, "primary", "running"), pass: leaders + readers + ready},
		{name: "replica", answer: answer(503, "replica", "running"), pass: replicas + ready},
		{name: "replica of 3.0.2", answer: answer(503, "replica", "running", version("3.0.2")), pass: replicas + ready + " /read-only-quorum "},
		{name: "leader of 3.0.2", answer: answer(200, "primary", "running", version("3.0.2")), pass: leaders + readers + ready},
		{name: "no version", answer: answer(503, "replica", "running", version("")), pass: replicas + ready},
		{name: "replica of 4.1", answer: answer(503, "replica", "running", version("4.1.4")), pass: replicas + " /health /healthz ", underivable: " /readiness "},
		{name: "starting replica of 4.1", answer: answer(503, "replica", "starting", version("4.1.4"))},
		{name: "leader of 4.1", answer: answer(200, "primary", "running", version("4.1.0")), pass: leaders + readers + ready},
		{
			name: "before standbys were told", answer: answer(503, "replica", "running", version("3.0.1")), pass: " /replica /replica/x /read-only /read-only-quorum " + ready,
			underivable: " /sync /synchronous /async /asynchronous /read-only-sync /read-only-synchronous ",
		},
		{name: "noloadbalance on a replica", answer: answer(503, "replica", "running", closed), pass: ready},
		{name: "noloadbalance on the leader", answer: answer(200, "primary", "running", closed), pass: leaders + readers + ready},
		{
			name: "synchronous standby", answer: answer(503, "replica", "running", synced),
			pass: " /replica /replica/x /read-only /sync /synchronous /read-only-sync /read-only-synchronous " + ready,
		},
		{
			name: "synchronous standby of 3.0.2", answer: answer(503, "replica", "running", synced, version("3.0.2")),
			pass: " /replica /replica/x /read-only /sync /synchronous /read-only-sync /read-only-synchronous /read-only-quorum " + ready,
		},
		{name: "standby of a quorum", answer: answer(503, "replica", "running", quorum), pass: " /replica /replica/x /read-only /quorum /read-only-quorum " + ready},
		{name: "switchover, old leader", answer: answer(200, "primary", "stopping"), pass: leaders + readers + " /readiness "},
		{name: "switchover, demoted", answer: answer(503, "demoted", "stopping")},
		{name: "switchover, new leader", answer: answer(200, "replica", "running"), pass: leaders + readers + replicas + ready},
		{name: "PostgreSQL crashed on the leader", answer: answer(200, "primary", "crashed"), pass: leaders + readers + " /readiness "},
		{name: "Patroni's query failed on the leader", answer: answer(200, "primary", "unknown"), pass: leaders + readers + " /readiness "},
		{name: "Patroni's query failed on a replica", answer: answer(503, "replica", "unknown"), pass: " /readiness "},
		{name: "PostgreSQL starts on a replica", answer: answer(503, "replica", "starting")},
		{name: "Patroni restarted over a primary", answer: answer(503, "primary", "running"), pass: ready},
		{name: "reinitialized", answer: answer(503, "uninitialized", "creating replica")},
		{name: "DCS away, leader", answer: answer(200, "primary", "running", unlocked), pass: leaders + readers + ready, unsettled: hidden},
		{name: "DCS away, stopping leader", answer: answer(200, "primary", "stopping", unlocked), pass: leaders + readers + " /readiness ", unsettled: hidden},
		{name: "DCS away, replica", answer: answer(503, "replica", "running", unlocked), pass: replicas + ready, unsettled: " /async /asynchronous /readiness "},
		{name: "DCS away, replica that starts", answer: answer(503, "replica", "starting", unlocked)},
		{name: "DCS away, replica of 3.0.2", answer: answer(503, "replica", "running", unlocked, version("3.0.2")), pass: replicas + ready + " /read-only-quorum ", unsettled: " /async /asynchronous /readiness "},
		{
			name: "key gone, synchronous standby: it sees the DCS", answer: answer(503, "replica", "running", unlocked, synced),
			pass: " /replica /replica/x /read-only /sync /synchronous /read-only-sync /read-only-synchronous " + ready,
		},
		{name: "DCS away in pause, leader", answer: answer(200, "primary", "running", unlocked, paused), pass: leaders + readers + ready, unsettled: hidden + " /readiness "},
		{name: "DCS away in pause, replica", answer: answer(503, "replica", "running", unlocked, paused), pass: replicas + ready, unsettled: " /async /asynchronous /readiness "},

		{name: "standby cluster, leader", standby: true, answer: answer(200, "standby_leader", "running"), pass: " /leader " + standby + readers + ready},
		{name: "standby cluster, leader that still reads as a replica", standby: true, answer: answer(200, "replica", "running"), pass: " /leader " + standby + readers + ready},
		{name: "standby cluster, leader that starts", standby: true, answer: answer(200, "replica", "starting"), pass: " /leader " + standby + readers + " /readiness "},
		{name: "standby cluster, replica", standby: true, answer: answer(503, "replica", "running"), pass: replicas + ready},
		{name: "standby cluster, primary", standby: true, answer: answer(503, "primary", "running"), pass: ready, unsettled: " /leader "},
		{name: "standby cluster, stopping primary", standby: true, answer: answer(503, "primary", "stopping"), unsettled: " /leader /readiness "},
		{name: "standby cluster, being promoted", standby: true, answer: answer(503, "promoted", "running"), pass: ready, unsettled: " /leader "},
		{name: "standby cluster, former leader", standby: true, answer: answer(503, "standby_leader", "running"), pass: ready},
		{
			name: "standby cluster that isn't known for one", answer: answer(503, "standby_leader", "running"), pass: ready,
			unsettled: " /leader /read-only /read-only-sync /read-only-synchronous /read-only-quorum " + standby,
		},
		{name: "no answer of Patroni's", answer: answer(500, "", ""), unsettled: all},
		{name: "a proxy's answer", answer: answer(502, "replica", "running"), unsettled: all},
		{name: "no body", answer: answer(200, "", ""), pass: " /primary ", unsettled: all},
	} {
		t.Run(test.name, func(t *testing.T) {
			has := func(list, path string) bool { return strings.Contains(list, " "+path+" ") }
			for path := range strings.FieldsSeq(all) {
				if !Derivable(path) {
					t.Fatalf("%s isn't derivable", path)
				}
				want, wanted := test.answer, Derived
				want.Status = 503
				if has(test.pass, path) {
					want.Status = 200
				}
				asked := EndpointPrimary
				if test.standby {
					asked = EndpointStandbyLeader
				}
				switch e := EndpointOf(path); {
				case e == asked:
					want.Status = test.answer.Status
				case e == EndpointPatroni:
					want.Status = 200
				case has(test.underivable, path):
					wanted = Underivable
				case has(test.unsettled, path):
					wanted = Unsettled
				}
				got, how := test.answer.To(ParsePath(path), Facts{StandbyCluster: test.standby})
				if how != wanted || how == Derived && !reflect.DeepEqual(got, want) {
					t.Errorf("%s: %s %v, want %d %v", path, got.Words(), how, want.Status, wanted)
				}
			}
		})
	}
}

// TestToQuery is what the words of a query do to an answer of a replica, or of a leader.
func TestToQuery(t *testing.T) {
	replica := Answer{
		Status: 503, Role: RoleReplica, State: StateRunning, Version: "4.0.7", Replayed: 10_000_000,
		Tags: map[string]string{"clonefrom": "true", "nr": "7", "zone": "A b", "foo": "bar"},
	}
	leader := replica
	leader.Status, leader.Role, leader.Replayed = 200, RolePrimary, 0
	for _, test := range []struct {
		path     string
		position int64
		// replica and leader are their status.
		replica, leader int
	}{
		{"/replica?lag=1MB", 0, 200, 503}, // No position is known: nobody lags.
		{"/replica?lag=1MB", 10_000_000 + 1<<20, 200, 503},
		{"/replica?lag=1MB", 10_000_001 + 1<<20, 503, 503},
		{"/replica?lag=0", 10_000_000, 200, 503},
		{"/replica?lag=0", 10_000_001, 503, 503},
		{"/replica?lag=0", 9_000_000, 200, 503},
		{"/replica?lag=-1", 10_000_000, 503, 503},
		{"/replica?lag=nonsense", 1 << 60, 200, 503},
		{"/replica?lag=1MB&lag=1", 10_000_002, 200, 503}, // The first counts.
		{"/replica?lag=&lag=1", 10_000_002, 503, 503},    // One without a value is none.
		{"/replica?lag=", 10_000_002, 200, 503},
		{"/replica?", 10_000_002, 200, 503},
		{"/replica?lag=1%4DB", 10_000_001 + 1<<20, 503, 503},
		{"/replica?lag=999999999999999999999999", 1<<63 - 1, 200, 503},
		{"/replica?lag=-999999999999999999999999", 1, 503, 503},
		{"/read-only?lag=1", 10_000_002, 503, 200},
		{"/async?lag=1", 10_000_002, 503, 503},
		{"/async?lag=2", 10_000_002, 200, 503},
		{"/primary?lag=1", 10_000_002, 503, 200},
		{"/health?lag=1", 10_000_002, 200, 200},
		{"/nonsense?lag=1", 10_000_002, 503, 503},
		{"/replica?tag_clonefrom=true", 0, 200, 503},
		{"/replica?tag_clonefrom=True", 0, 503, 503},
		{"/replica?tag_nr=7&tag_foo=bar", 0, 200, 503},
		{"/replica?tag_nr=7&tag_foo=baz", 0, 503, 503},
		{"/replica?tag_zone=A+b", 0, 200, 503},
		{"/replica?tag_zone=A%20b", 0, 200, 503},
		{"/replica?tag_zone=a+b", 0, 503, 503},
		{"/replica?tag_none=1", 0, 503, 503},
		{"/replica?tag_none=", 0, 200, 503},
		{"/replica?tag_=1", 0, 503, 503},
		{"/replica?tag_foo=bar&lag=1", 10_000_002, 503, 503},
		{"/health?tag_foo=baz", 0, 503, 503},
		{"/health?tag_foo=bar", 0, 200, 200},
		{"/read-only?tag_foo=baz", 0, 503, 503},
		{"/read-only-quorum?tag_foo=bar", 0, 503, 200},
		{"/primary?tag_foo=baz", 0, 503, 200},
		{"/leader?tag_foo=baz", 0, 503, 200},
		{"/standby-leader?tag_foo=bar", 0, 503, 503},
		{"/patroni?tag_foo=baz&lag=1", 10_000_002, 200, 200},
	} {
		for _, a := range []struct {
			Answer
			want int
		}{{replica, test.replica}, {leader, test.leader}} {
			got, how := a.To(ParsePath(test.path), Facts{Position: test.position})
			if how != Derived || got.Status != a.want {
				t.Errorf("%s of %s at %d: %d %v, want %d", test.path, a.Role, test.position, got.Status, how, a.want)
			}
		}
	}
	// A tag that isn't there refuses whether the DCS is seen or not.
	replica.ClusterUnlocked = true
	if got, how := replica.To(ParsePath("/async?tag_foo=baz"), Facts{}); got.Status != 503 || how != Derived {
		t.Errorf("unlocked, another tag: %d %v", got.Status, how)
	}
	if _, how := replica.To(ParsePath("/async?tag_foo=bar"), Facts{}); how != Unsettled {
		t.Errorf("unlocked, its tag: %v", how)
	}
}

func TestDerivable(t *testing.T) {
	for path, want := range map[string]struct{ derivable, position bool }{
		"": {true, false}, "/": {true, false}, "/replica": {true, false}, "/replica?lag=1MB": {true, true}, "/read-only-sync?lag=0": {true, true},
		"/async?tag_a=b&lag=1e3": {true, true}, "/replica?lag=1mb": {true, false}, "/replica?lag=": {true, false}, "/primary?lag=1": {true, false},
		"/leader?lag=1": {true, false}, "/health?lag=1": {true, false}, "/patroni?lag=1": {true, false}, "/nonsense": {true, false},
		"/readiness": {true, false}, "/readiness?": {true, false}, "/readiness?lag=1": {}, "/readiness?mode=apply": {}, "/readiness?tag_a=b": {},
		"/liveness": {}, "/liveness/primary": {}, "/cluster": {}, "/history": {}, "/config": {}, "/metrics": {}, "/failsafe": {},
		"/replica?replication_state=streaming": {}, "/replica?lag=1&mode=apply": {}, "/replica?Lag=1": {}, "/replica?lag": {true, false},
		"/replica?tag_nosync=true": {}, "/replica?lag=1e999": {}, "/replica?lag=%zz": {}, "/replica?lag=1;tag_a=b": {}, "/replica?tag_a=%01": {},
		"/replica?tag_a=%ff": {}, "/replica;x": {}, "/replica#x": {}, "//replica": {}, "/%72eplica": {}, "/repl ica": {},
		"/primary?x=y": {},
	} {
		if got := Derivable(path); got != want.derivable {
			t.Errorf("Derivable(%q) = %v", path, got)
		}
		if got := NeedsPosition(path); got != want.position {
			t.Errorf("NeedsPosition(%q) = %v", path, got)
		}
		if _, how := (Answer{Status: 503, Role: RoleReplica}).To(ParsePath(path), Facts{}); (how == Underivable) == want.derivable {
			t.Errorf("%q is %v", path, how)
		}
	}
}

// FuzzTo: whatever a member says and is asked, some things hold.
func FuzzTo(f *testing.F) {
	f.Add(503, "replica", "running", "4.0.7", "/async?lag=1MB&tag_a=b", int64(10), int64(5), uint8(0))
	f.Add(200, "primary", "stopping", "3.0.2", "/read-only-quorum", int64(0), int64(0), uint8(3))
	f.Add(503, "standby_leader", "running", "4.1.4", "/readiness", int64(1)<<62, int64(-1), uint8(16))
	f.Fuzz(func(t *testing.T, status int, role, state, version, path string, position, replayed int64, flags uint8) {
		flag := func(n int) bool { return flags>>n&1 == 1 }
		a := Answer{
			Status: status, Role: role, State: state, Version: version, Replayed: replayed,
			ClusterUnlocked: flag(0), Pause: flag(1), SyncStandby: flag(2), QuorumStandby: flag(3), Tags: map[string]string{"a": "b"},
		}
		facts := Facts{StandbyCluster: flag(4), Position: position}
		if flag(5) {
			a.Tags["noloadbalance"] = "true"
		}
		tags := maps.Clone(a.Tags)
		to := func(path string) (int, Derivation) {
			got, how := a.To(ParsePath(path), facts)
			rest := got
			rest.Status = a.Status
			if !reflect.DeepEqual(rest, a) || !maps.Equal(a.Tags, tags) {
				t.Errorf("To(%q) changes more than the status: %+v became %+v", path, a, got)
			}
			return got.Status, how
		}
		passes := func(path string) bool {
			got, how := to(path)
			return got == 200 && how != Underivable
		}
		got, how := to(path)
		if !Derivable(path) && how != Underivable {
			t.Errorf("%q is %v, though it isn't derivable", path, how)
		}
		if NeedsPosition(path) && !Derivable(path) {
			t.Errorf("%q needs a position, but isn't derivable", path)
		}
		if how == Derived && got != status && got != 200 && got != 503 {
			t.Errorf("%q is %d", path, got)
		}
		if got, how := to("/patroni"); got != 200 || how != Derived {
			t.Errorf("/patroni is %d %v", got, how)
		}
		asked := "/primary"
		if facts.StandbyCluster {
			asked = "/standby-leader"
		}
		if got, how := to(asked); got != status || how != Derived {
			t.Errorf("what was asked is %d %v, not %d", got, how, status)
		}
		if role == "" || status != 200 && status != 503 {
			return
		}
		if got, how := to("/nonsense"); got != 503 || how != Derived {
			t.Errorf("/nonsense is %d %v", got, how)
		}
		if facts.StandbyCluster && passes("/leader") && passes("/replica") || passes("/primary") && passes("/standby-leader") {
			t.Error("one member leads and follows, or leads two kinds of cluster")
		}
		if passes("/read-only") != (passes("/leader") || passes("/replica")) {
			t.Error("/read-only isn't what leads or follows")
		}
		if passes("/replica") && !passes("/health") || passes("/replica?lag=1") && !passes("/replica") || passes("/replica?tag_c=d") {
			t.Error("a word of the query, or that nothing runs, makes a check laxer")
		}
		for _, narrower := range []string{"/sync", "/quorum", "/async"} {
			if passes(narrower) && !passes("/replica") {
				t.Errorf("%s passes where /replica doesn't", narrower)
			}
		}
		for path, narrower := range map[string]string{"/read-only-sync": "/sync", "/read-only-quorum": "/quorum"} {
			if passes(narrower) && !passes(path) || passes(path) && !passes("/read-only") {
				t.Errorf("%s isn't between %s and /read-only", path, narrower)
			}
		}
		for _, settled := range []string{"/replica", "/health", "/sync", "/quorum"} {
			if _, how := to(settled); how == Unsettled {
				t.Errorf("%s is unsettled", settled)
			}
		}
	})
}
