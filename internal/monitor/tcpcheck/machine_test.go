package tcpcheck

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
)

var update = flag.Bool("update", false, "write the transcripts anew")

// TestTranscripts plays what is written in testdata and writes behind each line what comes of it: whether the server is up,
// the time to the next check, and the reason.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d transcripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := play(string(text))
			if err != nil {
				t.Fatalf("%s:%v", file, err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, have := strings.Split(string(text), "\n"), strings.Split(got, "\n")
			for i := range want {
				if want[i] != have[i] {
					t.Errorf("%s:%d:\n want %s\n have %s", file, i+1, want[i], have[i])
				}
			}
		})
	}
}

func play(text string) (string, error) {
	var m machine
	var options model.Options
	began := false
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		input, _, _ := strings.Cut(line, "=>")
		words := strings.Fields(input)
		if len(words) == 0 || words[0] == "#" {
			began = began && len(words) > 0
			continue
		}
		switch words[0] {
		case "options":
			var problems []model.OptionProblem
			if options, problems = model.ParseOptions(strings.Join(words[1:], " ")); len(problems) > 0 {
				return "", fmt.Errorf("%d: %v", i+1, problems)
			}
			if m.options == nil || !began {
				m.options = nil
				continue
			}
			own := options
			m = m.reconfigure(&own, own.Check)
		case "start":
			began = true
			own := options
			m = newMachine(&own, own.Check)
		default:
			at, err := time.ParseDuration(words[0])
			if err != nil || len(words) < 3 || words[1] != "pass" && words[1] != "fail" {
				return "", fmt.Errorf("%d: want TIME pass|fail WORDS", i+1)
			}
			began = true
			m = m.feed(words[1] == "pass", strings.Join(words[2:], " "), time.Unix(1000, 0).Add(at))
		}
		status := "down"
		if m.up {
			status = "up"
		}
		lines[i] = fmt.Sprintf("%-45s => %-4s | next %-4s | %s", strings.TrimRight(input, " "), status, m.next(), m.reason())
	}
	return strings.Join(lines, "\n"), nil
}
