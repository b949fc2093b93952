package throughput

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
		still  int     // how many runs at first have nothing to count
		want   float64 // the run that counts
		counts disturbances
		text   string
	}{
		{"quiet", []int64{0}, 0, 1, disturbances{runs: 1}, ""},
		{"at the bound", []int64{5}, 0, 1, disturbances{runs: 1}, ""},
		{"twice disturbed", []int64{6, 90, 3}, 0, 3, disturbances{runs: 1, again: 2},
			"; 2 runs done again, since other machines took more than 5 % of the processors meanwhile"},
		{"held up for the whole of a run", []int64{99, 3}, 1, 2, disturbances{runs: 1, again: 1},
			"; 1 run done again, since other machines took more than 5 % of the processors meanwhile"},
		{"always", []int64{50, 50, 50, 50, 50, 50, 50, 50}, 0, 8, disturbances{runs: 1, again: 7, kept: 1},
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
					if done++; done <= test.still {
						return nil, errStill
					}
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
	for _, test := range []struct {
		failure error
		stolen  int64
		runs    int
	}{{broken, 50, 1}, {errStill, 0, 1}, {errStill, 50, mostTries}} {
		synctest.Test(t, func(t *testing.T) {
			var machine ticks
			runs := 0
			_, err := new(disturbances).undisturbed(t.Context(), func() (ticks, error) { return machine, nil }, func() ([]float64, error) {
				machine.all, machine.stolen = machine.all+100, machine.stolen+test.stolen
				runs++
				return nil, test.failure
			})
			if !errors.Is(err, test.failure) || runs != test.runs {
				t.Errorf("%v with %d %% stolen: %v after %d runs", test.failure, test.stolen, err, runs)
			}
		})
	}
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
