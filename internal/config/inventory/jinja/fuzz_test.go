package jinja

import (
	"errors"
	"testing"
	"time"
)

// FuzzTemplate looks for templates that panic, take long, make too much, or fail without a position.
func FuzzTemplate(f *testing.F) {
	for _, path := range []string{"testdata/templates.txt"} {
		for _, tc := range cases(f, path) {
			f.Add(tc.source)
		}
	}
	f.Fuzz(func(t *testing.T, source string) {
		if len(source) > 2000 || !Is(source) {
			return
		}
		started := time.Now()
		compiled, err := NewTotal().Compile(source)
		var v any
		if err == nil {
			v, err = compiled.Value(newFixture(t, "testdata/variables.json"), NewTotal().NewBudget())
		}
		if took := time.Since(started); took > time.Minute {
			t.Fatalf("it took %s", took)
		}
		failed := (*Error)(nil)
		switch {
		case err == nil:
			if text, ok := v.(string); ok && len(text) > maxText+len(source) {
				t.Fatalf("it made a text of %d bytes", len(text))
			}
			describeResult(v)
		case !errors.As(err, &failed) || failed.What == "":
			t.Fatalf("the error %v has no position or text", err)
		}
	})
}
