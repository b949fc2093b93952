package chaos

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestDoorExcuses: a session at the door of n, last on a, that asked at 58 s and ended at 60 s. From 59 s on b leads.
func TestDoorExcuses(t *testing.T) {
	on := func(k kind, member string, from, to float64) deed {
		return deed{kind: k, member: member, parts: k.parts(member), from: sec(from), to: sec(to)}
	}
	itself := on(endedItself, "n", 59, 60)
	itself.parts = []string{"n/door"}
	for name, test := range map[string]struct {
		deeds  []deed
		silent string
		how    string
		want   string
	}{
		"nothing":                          {},
		"Patroni alone was faster":         {deeds: []deed{on(switchover, "", 57, 61)}, how: "57P01 terminating connection", want: "Patroni stopped its server before the pause was there"},
		"a drained one cuts nothing":       {deeds: []deed{on(drainedSwitchover, "", 57, 61)}, how: "57P01 terminating connection"},
		"a switchover":                     {deeds: []deed{on(switchover, "", 57, 61)}},
		"a drained one":                    {deeds: []deed{on(drainedSwitchover, "", 57, 61)}},
		"the command was killed":           {deeds: []deed{on(abandonedSwitchover, "", 57, 58)}},
		"its pgporter was upgraded":        {deeds: []deed{on(upgrade, "n", 57, 61)}},
		"the pool behind was killed":       {deeds: []deed{on(killPgBouncer, "a", 57, 61)}},
		"its door was killed":              {deeds: []deed{on(killDoor, "n", 59, 61)}, want: "the door was away"},
		"its door ended by itself":         {deeds: []deed{itself}, want: "the door was away"},
		"another's door was killed":        {deeds: []deed{on(killDoor, "m", 59, 61)}},
		"its pgporter hung":                {deeds: []deed{on(haltPgporter, "n", 59, 61)}, want: "pgporter was away"},
		"another's pgporter hung":          {deeds: []deed{on(haltPgporter, "m", 59, 61)}},
		"whom it was on was killed":        {deeds: []deed{on(killPostgres, "a", 59, 59)}, want: "a leader was away"},
		"who leads now came back lately":   {deeds: []deed{on(crash, "b", 30, 40)}, want: "a leader was away"},
		"who leads now came back long ago": {deeds: []deed{on(crash, "b", 1, 5)}},
		"a bystander was killed":           {deeds: []deed{on(crash, "c", 30, 40)}},
		"etcd was away":                    {deeds: []deed{on(killEtcd, "", 50, 52)}, want: "etcd was away"},
		"the node was cut off":             {silent: "n", want: "the network"},
		"who leads was cut off":            {silent: "b", want: "the network"},
		"a bystander was cut off":          {silent: "c"},
	} {
		s := doorSession{node: "n", member: "a", asked: sec(58), ended: sec(60), how: test.how}
		silent := func(node string, _, _ time.Time) time.Duration {
			if node == test.silent {
				return time.Second
			}
			return 0
		}
		if got := s.excuse(test.deeds, history(0.0, "a", 59.0, "b"), silent, []string{"a", "b", "c"}); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestDoorSessionsEnd(t *testing.T) {
	d := &doors{}
	for _, err := range []error{
		&pgconn.PgError{Severity: "ERROR", Code: "25006"}, context.DeadlineExceeded, context.Canceled,
	} {
		d.failed(doorSession{}, err)
	}
	if len(d.ended) > 0 {
		t.Errorf("a session that goes on, or that its client ended, counts: %v", d.ended)
	}
	d.failed(doorSession{}, &pgconn.PgError{Severity: "FATAL", Code: "08P01"})
	d.failed(doorSession{}, errors.New("EOF"))
	if len(d.ended) != 2 {
		t.Errorf("%d of 2 sessions ended", len(d.ended))
	}
}

func TestPauses(t *testing.T) {
	d := &doors{field: &field{}, paused: map[string]time.Time{}}
	d.see("n/door", []string{"test", "meta"}, sec(0))
	d.see("m/door", []string{"test"}, sec(1))
	d.see("n/door", []string{"test"}, sec(2))
	d.see("n/door", nil, sec(200))
	d.see("m/door", nil, sec(5))
	if len(d.pauses) != 3 || len(d.paused) != 0 {
		t.Errorf("%d pauses are over, %d last", len(d.pauses), len(d.paused))
	}
	wrong := d.judgePauses(t.Context())
	if want := []string{"n/door test was paused for 200.0s from " + clock(sec(0)) + " on"}; !slices.Equal(wrong, want) {
		t.Errorf("%q, want %q", wrong, want)
	}
	d.field.deeds = []deed{{kind: killPgporter, member: "n", parts: []string{"n/pgporter"}, from: sec(10), to: sec(190)}}
	if wrong := d.judgePauses(t.Context()); wrong != nil {
		t.Errorf("its pgporter was away: %q", wrong)
	}
}
