package model

import "testing"

// TestParseLag: what Patroni's parse_int made of the same, with base unit B.
func TestParseLag(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, " 7 ": 7, "+7": 7, "-7": -7, "007": 7, "010": 8, "0x10": 16, "-0x1F": -31, "0x400 MB": 1 << 30, "010kB": 8 << 10,
		"10B": 10, "10kB": 10 << 10, "10MB": 10 << 20, "10GB": 10 << 30, "10TB": 10 << 40, "10 MB": 10 << 20, "-1kB": -1024,
		"1.5": 2, "0.5": 0, "2.5": 2, ".5": 0, ".6": 1, "1.5kB": 1536, "1.0001kB": 1024, "1.3MB": 1331 << 10, "1.0004GB": 1 << 30, "1.4B": 1, "1e3": 1000, "1E3kB": 1024000,
		"1.5e-1kB": 154, "99999999999999999999": FarthestLag, "-99999999999999999999": -FarthestLag, "9999999TB": FarthestLag, "1e300": FarthestLag,
	} {
		if got, counts, err := ParseLag(text); got != want || !counts || err != nil {
			t.Errorf("ParseLag(%q) = %d, %v, %v, want %d", text, got, counts, err, want)
		}
	}
	for _, text := range []string{"", "x", "MB", "10mb", "10KB", "10PB", "08", "0x", "0xg", "1.", "1.MB", "1e", "1EB", "-.5", "e5", "--1", "1_000", "10 M B", "1 e3", "0x1.5.", "٣", "."} {
		if got, counts, err := ParseLag(text); counts || err != nil {
			t.Errorf("ParseLag(%q) = %d, %v", text, got, err)
		}
	}
	if _, _, err := ParseLag("1e400"); err == nil {
		t.Error("1e400: Patroni doesn't survive it")
	}
}

// Whatever is written, a limit fits.
func FuzzParseLag(f *testing.F) {
	for _, text := range []string{"1MB", "010kB", "0x10", "1.5e3", ".5TB", "-1", "1M", "1e400", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		limit, counts, err := ParseLag(text)
		if limit > FarthestLag || limit < -FarthestLag || (err != nil || !counts) && limit != 0 {
			t.Errorf("%q: %d, %v, %v", text, limit, counts, err)
		}
	})
}
