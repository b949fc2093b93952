package model

import (
	"encoding/json"
	"testing"
	"time"
)

func TestParseHold(t *testing.T) {
	for text, want := range map[string]struct {
		hold      Hold
		canonical string
	}{
		"failover": {Hold{Failover: true}, "failover"},
		"0":        {Hold{}, "0"},
		"0s":       {Hold{}, "0"},
		"5s":       {Hold{For: 5 * time.Second}, "5s"},
		"500ms":    {Hold{For: 500 * time.Millisecond}, "500ms"},
		"90s":      {Hold{For: 90 * time.Second}, "1m30s"},
		"2m":       {Hold{For: 2 * time.Minute}, "2m"},
		"60m":      {Hold{For: time.Hour}, "1h"},
		"1m10s":    {Hold{For: 70 * time.Second}, "1m10s"},
	} {
		got, err := ParseHold(text)
		if err != nil || got != want.hold || got.String() != want.canonical {
			t.Errorf("%s is read as %+v (%s), %v", text, got, got, err)
		}
		if again, err := ParseHold(got.String()); err != nil || again != got {
			t.Errorf("%s is written as %s, which is read as %+v, %v", text, got, again, err)
		}
	}
	for text, want := range map[string]string{
		"": "is no time", "5": "is no time", "long": "is no time", "Failover": "is no time", "-1s": "isn't from 0 to 1h", "61m": "isn't from 0 to 1h",
		"9999999999h": "is no time",
	} {
		if got, err := ParseHold(text); err == nil || err.Error() != want {
			t.Errorf("%q is read as %+v, %v", text, got, err)
		}
	}
}

// TestHoldInJSON: a definition that says none has none, and what one says comes back.
func TestHoldInJSON(t *testing.T) {
	for text, want := range map[string]*Hold{`{"hold":"failover"}`: {Failover: true}, `{"hold":"0"}`: {}, `{"hold":"1m30s"}`: {For: 90 * time.Second}, `{}`: nil} {
		var read struct {
			Hold *Hold `json:"hold,omitempty"`
		}
		if err := json.Unmarshal([]byte(text), &read); err != nil {
			t.Fatal(err)
		}
		if (read.Hold == nil) != (want == nil) || want != nil && *read.Hold != *want {
			t.Errorf("%s is read as %v", text, read.Hold)
		}
		if again, err := json.Marshal(read); err != nil || string(again) != text {
			t.Errorf("%s comes back as %s, %v", text, again, err)
		}
	}
	var read struct{ Hold *Hold }
	if err := json.Unmarshal([]byte(`{"hold":"7"}`), &read); err == nil || err.Error() != `hold: "7" is no time` {
		t.Errorf("got %v", err)
	}
}
