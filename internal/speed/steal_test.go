package speed

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

func TestDisturbedRunsAreDoneAgain(t *testing.T) {
	for _, test := range []struct {
		name   string
		stolen []int64 // of 100 ticks, run by run
		want   float64 // the run that counts
		counts disturbances
		text   string
	}{
		{"quiet", []int64{0}, 1, disturbances{runs: 1}, ""},
		{"at the bound", []int64{5}, 1, disturbances{runs: 1}, ""},
		{"twice disturbed", []int64{6, 90, 3}, 3, disturbances{runs: 1, again: 2},
			"; 2 runs done again, since other machines took more than 5 % of the processors meanwhile"},
		{"always", []int64{50, 50, 50, 50, 50, 50, 50, 50}, 8, disturbances{runs: 1, again: 7, kept: 1},
			"; 7 runs done again, since other machines took more than 5 % of the processors meanwhile; 1 of 1 run counts all the same"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var machine ticks
				done := 0
				var d disturbances
				values, err := d.undisturbed(t.Context(), func() (ticks, error) { return machine, nil }, func() ([]float64, error) {
					machine.all += 100
					machine.stolen += test.stolen[done]
					done++
					return []float64{float64(done)}, nil
				})
				if err != nil || !slices.Equal(values, []float64{test.want}) || d != test.counts || d.String() != test.text {
					t.Errorf("got %v, %v, %+v: %s", values, err, d, d)
				}
			})
		})
	}
}

func TestRunsEndWithAnError(t *testing.T) {
	broken := errors.New("broken")
	now := func() (ticks, error) { return ticks{}, broken }
	if _, err := new(disturbances).undisturbed(t.Context(), now, func() ([]float64, error) { return nil, nil }); !errors.Is(err, broken) {
		t.Errorf("without the machine's time: %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		var machine ticks
		_, err := new(disturbances).undisturbed(ctx, func() (ticks, error) { return machine, nil }, func() ([]float64, error) {
			machine.all, machine.stolen = machine.all+1, machine.stolen+1
			cancel(broken)
			return nil, nil
		})
		if !errors.Is(err, broken) {
			t.Errorf("ended while it waited: %v", err)
		}
	})
}
