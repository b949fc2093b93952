package bench

import (
	"fmt"
	"os"
	"strings"
)

// machineSection is the section that tells on what was measured.
const machineSection = "machine"

// A section of a document lies between two comments; what is around them is written by people.
func marks(name string) (begin, end string) {
	return "<!-- failover: " + name + " -->\n", "<!-- /failover: " + name + " -->\n"
}

// find gives where a section's text begins and ends.
func find(text, name string) (from, to int, err error) {
	begin, end := marks(name)
	from = strings.Index(text, begin)
	to = strings.Index(text, end)
	if from < 0 || to < from || strings.Count(text, begin) != 1 || strings.Count(text, end) != 1 {
		return 0, 0, fmt.Errorf("no place for section %q: it goes between one line %q and, below it, one line %q", name, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return from + len(begin), to, nil
}

// checkSections says whether a document has a place for each section.
func checkSections(path string, names []string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, name := range append([]string{machineSection}, names...) {
		if _, _, err := find(string(text), name); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// writeSections replaces sections of a document by others.
func writeSections(path string, sections map[string]string) error {
	read, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := string(read)
	for name, section := range sections {
		from, to, err := find(text, name)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		text = text[:from] + section + text[to:]
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
