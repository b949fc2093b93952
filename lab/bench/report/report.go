// Package report is what benchmarks write: sections of a document between marks that people put there, charts beside them, and what
// they were measured on. It knows no figures of its own.
package report

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Report is a document some of whose sections a benchmark writes.
type Report struct {
	Path string
	// Kind is the benchmark's; the sections of others have another. System is what it ran on (see System): a document has the
	// same sections for several.
	Kind, System string
}

// Systems are those that the project's document has sections for.
var Systems = []string{"Debian 12", "Debian 13"}

// marks are the two comments between which a section lies; what is around them is written by people.
func (s Report) marks(name string) (begin, end string) {
	mark := s.Kind + ": " + name + ", " + s.System
	return "<!-- " + mark + " -->\n", "<!-- /" + mark + " -->\n"
}

// chart is where a section's chart is, from the document's directory.
func (s Report) chart(name string) string {
	return "charts/" + name + "-" + strings.ReplaceAll(strings.ToLower(s.System), " ", "-") + ".svg"
}

// Draw writes a section's chart beside the document, and gives the line that shows it there.
func (s Report) Draw(name string, c Chart) (string, error) {
	path := filepath.Join(filepath.Dir(s.Path), s.chart(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(path, []byte(c.SVG()), 0o644); err != nil {
		return "", err
	}
	return fmt.Sprintf("![%s; the table below has the figures](%s)\n", c.Title, s.chart(name)), nil
}

// find gives where a section's text begins and ends.
func (s Report) find(text, name string) (from, to int, err error) {
	begin, end := s.marks(name)
	from = strings.Index(text, begin)
	to = strings.Index(text, end)
	if from < 0 || to < from || strings.Count(text, begin) != 1 || strings.Count(text, end) != 1 {
		return 0, 0, fmt.Errorf("%s: no place for section %q: it goes between one line %q and, below it, one line %q", s.Path, name, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return from + len(begin), to, nil
}

// Check says whether the document has the lines of each section.
func (s Report) Check(names ...string) error {
	text, err := os.ReadFile(s.Path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, _, err := s.find(string(text), name); err != nil {
			return err
		}
	}
	return nil
}

// Write replaces sections of the document, by name, by others.
func (s Report) Write(sections map[string]string) error {
	read, err := os.ReadFile(s.Path)
	if err != nil {
		return err
	}
	text := string(read)
	for name, section := range sections {
		from, to, err := s.find(text, name)
		if err != nil {
			return err
		}
		text = text[:from] + section + text[to:]
	}
	return os.WriteFile(s.Path, []byte(text), 0o644)
}
