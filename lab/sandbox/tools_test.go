package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNewestPostgres(t *testing.T) {
	for name, c := range map[string]struct {
		installed string // files below the folder; a trailing ! is for one that can't be run
		want      int
	}{
		"the only one":                {"15/bin/postgres", 15},
		"by number and not by letter": {"9.6/bin/postgres 13/bin/postgres 17/bin/postgres 16/bin/postgres", 17},
		"a client alone is no server": {"15/bin/postgres 17/bin/psql", 15},
		"what can't be run is none":   {"15/bin/postgres 17/bin/postgres!", 15},
		"too old":                     {"12/bin/postgres", 0},
		"nothing":                     {"", 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range strings.Fields(c.installed) {
				file, broken := strings.CutSuffix(file, "!")
				mode := os.FileMode(0o755)
				if broken {
					mode = 0o644
				}
				path := filepath.Join(dir, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, mode); err != nil {
					t.Fatal(err)
				}
			}
			bin, version, err := newestPostgres(dir)
			if c.want == 0 {
				if want := "no PostgreSQL from 13 on in " + filepath.Join(dir, "VERSION", "bin"); err == nil || err.Error() != want {
					t.Errorf("got %s, %d, %v; want the error %s", bin, version, err, want)
				}
				return
			}
			if err != nil || version != c.want || !strings.HasPrefix(bin, dir) {
				t.Errorf("got %s, %d, %v; want %d", bin, version, err, c.want)
			}
		})
	}
}
