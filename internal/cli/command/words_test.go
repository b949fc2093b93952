package command

import (
	"testing"
	"time"
)

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "0s", 59*time.Second + 400*time.Millisecond: "59s", 61 * time.Second: "1m01s", 25 * time.Hour: "1d01h", 2*time.Hour + 5*time.Second: "2h00m"} {
		if got := Age(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
	for n, want := range map[float64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 9999: "10 kB", 12_345_678: "12 MB", 999_600: "1.0 MB", 5e15: "5000 TB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%g: %s, want %s", n, got, want)
		}
	}
	if Plural(1, "session") != "1 session" || Plural(0, "session") != "0 sessions" {
		t.Error("plurals")
	}
}
