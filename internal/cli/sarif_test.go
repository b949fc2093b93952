package cli

import (
	"bytes"
	"encoding/json"
	"net/url"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pgporter/pgporter/internal/config/diag"
)

// at finds what is in JSON behind keys, and fails where the standard wants it and it isn't there.
func at[T any](t *testing.T, v any, keys ...string) T {
	t.Helper()
	for _, key := range keys {
		object, is := v.(map[string]any)
		if !is {
			t.Fatalf("%v: %q can't be in %T", keys, key, v)
		}
		if v, is = object[key]; !is {
			t.Fatalf("%v: there is no %q", keys, key)
		}
	}
	value, is := v.(T)
	if !is {
		t.Fatalf("%v is a %T", keys, v)
	}
	return value
}

// What SARIF 2.1.0 requires of a log, and what it says of the values that we write (sections 3.13 to 3.31, 3.49 and 3.50).
func TestSARIFIsWhatTheStandardWants(t *testing.T) {
	for _, path := range []string{"../config/plan/testdata/bad/service-values.yml", "../config/plan/testdata/bad/yaml-syntax.yml", "nowhere.yml", "testdata/documented.yml"} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := Main([]string{"check", path, "-o", "sarif"}, nil, &stdout, &stderr)
			if stderr.Len() > 0 {
				t.Errorf("status %d, and on standard error: %s", status, &stderr)
			}
			var log any
			if err := json.Unmarshal(stdout.Bytes(), &log); err != nil {
				t.Fatal(err)
			}
			if version := at[string](t, log, "version"); version != "2.1.0" {
				t.Errorf("version %q", version)
			}
			if schema := at[string](t, log, "$schema"); schema != sarifSchema {
				t.Errorf("schema %q", schema)
			}
			runs := at[[]any](t, log, "runs")
			if len(runs) != 1 {
				t.Fatalf("%d runs", len(runs))
			}
			run := runs[0]
			if name := at[string](t, run, "tool", "driver", "name"); name != "pgporter" {
				t.Errorf("the driver is %q", name)
			}
			if at[string](t, run, "tool", "driver", "version") == "" {
				t.Error("no version")
			}
			if home, err := url.Parse(at[string](t, run, "tool", "driver", "informationUri")); err != nil || !home.IsAbs() {
				t.Errorf("informationUri: %v", err)
			}
			if kind := at[string](t, run, "columnKind"); kind != "utf16CodeUnits" && kind != "unicodeCodePoints" {
				t.Errorf("columnKind %q", kind)
			}
			rules := at[[]any](t, run, "tool", "driver", "rules")
			var ids []string
			for _, r := range rules {
				id := at[string](t, r, "id")
				if _, known := diag.KindOf(diag.Code(id)); !known || slices.Contains(ids, id) {
					t.Errorf("rule %q", id)
				}
				ids = append(ids, id)
				for _, text := range []string{"shortDescription", "fullDescription", "help"} {
					if at[string](t, r, text, "text") == "" {
						t.Errorf("%s: no %s", id, text)
					}
				}
				if help, err := url.Parse(at[string](t, r, "helpUri")); err != nil || !help.IsAbs() {
					t.Errorf("%s: helpUri: %v", id, err)
				}
			}
			results := at[[]any](t, run, "results")
			if (len(results) > 0) != (path != "testdata/documented.yml") {
				t.Errorf("%d results", len(results))
			}
			for _, r := range results {
				id, index := at[string](t, r, "ruleId"), int(at[float64](t, r, "ruleIndex"))
				if index < 0 || index >= len(ids) || ids[index] != id {
					t.Errorf("rule %d isn't %q", index, id)
				}
				if level := at[string](t, r, "level"); !slices.Contains([]string{"none", "note", "warning", "error"}, level) {
					t.Errorf("level %q", level)
				}
				if at[string](t, r, "message", "text") == "" {
					t.Error("no message")
				}
				for _, l := range at[[]any](t, r, "locations") {
					physical := at[map[string]any](t, l, "physicalLocation")
					uri := at[string](t, physical, "artifactLocation", "uri")
					if parsed, err := url.Parse(uri); err != nil || parsed.IsAbs() {
						t.Errorf("uri %q: %v", uri, err)
					}
					if _, has := physical["region"]; has && (at[float64](t, physical, "region", "startLine") < 1 || at[float64](t, physical, "region", "startColumn") < 1) {
						t.Errorf("region %v", physical["region"])
					}
				}
			}
		})
	}
}
