package internal_test

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documents are README.md and docs/*.md, by their paths from the repository's root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, name := range append(names, "../README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[strings.TrimPrefix(filepath.ToSlash(name), "../")] = string(text)
	}
	return texts
}

var (
	// inRepository is a path below one of the repository's folders, be it in prose or in a command.
	inRepository = regexp.MustCompile("(?m)(?:^|[\\s`(=])(?:\\./)?((?:cmd|docs|internal|lab|packages|scripts|systemd)/[\\w.*/-]+)")
	// linked is where a link or a picture leads, without the part of the page.
	linked = regexp.MustCompile(`\]\(([^)#\s]+)`)
	// bareFile is a file of Go without its folder, which nobody finds among some hundred.
	bareFile = regexp.MustCompile("`[\\w-]+\\.go`")
)

// Files move and their names change: whoever follows a document has to arrive.
func TestDocumentsNamePathsThatExist(t *testing.T) {
	seen := 0
	for document, text := range documents(t) {
		named := map[string]bool{}
		for _, found := range inRepository.FindAllStringSubmatch(text, -1) {
			named[strings.TrimSuffix(strings.TrimRight(found[1], "."), "/")] = true
		}
		for _, found := range linked.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(found[1], "://") {
				named[path.Join(path.Dir(document), found[1])] = true
			}
		}
		for _, name := range slices.Sorted(maps.Keys(named)) {
			seen++
			if there, err := filepath.Glob(filepath.Join("..", name)); err != nil || len(there) == 0 {
				t.Errorf("%s names %s, which isn't there", document, name)
			}
		}
		for _, name := range bareFile.FindAllString(text, -1) {
			t.Errorf("%s names %s without its folder", document, name)
		}
	}
	if seen < 50 {
		t.Errorf("only %d paths are named: this test doesn't find them any more", seen)
	}
}

const architecture = "docs/architecture.md"

var (
	// district is the heading of a table of rooms, and roomRow a row of it: the room's name and what it holds.
	district = regexp.MustCompile("^### `([\\w/]+)`: .+\\?$")
	roomRow  = regexp.MustCompile("^\\| `([\\w/]+)` \\| (.+) \\|$")
)

// The tables of rooms are what a newcomer finds the way by: each room stands in its district's, and each that is pure says so.
func TestArchitectureNamesEveryRoom(t *testing.T) {
	described := map[string]string{}
	in := ""
	for line := range strings.Lines(documents(t)[architecture]) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			in = ""
		}
		if found := district.FindStringSubmatch(line); found != nil {
			in = found[1]
		}
		found := roomRow.FindStringSubmatch(line)
		if in == "" || found == nil {
			continue
		}
		// A district that is a room itself stands in its own table.
		at := in
		if found[1] != path.Base(in) {
			at = path.Join(in, found[1])
		}
		if described[at] != "" {
			t.Errorf("%s has %s twice", architecture, at)
		}
		described[at] = found[2]
	}
	for _, at := range slices.Sorted(maps.Keys(rooms)) {
		switch holds, named := described[at]; {
		case !named:
			t.Errorf("%s has no row for %s", architecture, at)
		case rooms[at].pure != strings.HasSuffix(holds, "; pure"):
			t.Errorf("%s says of %s %q: whether it is pure is %t", architecture, at, holds, rooms[at].pure)
		}
	}
	for _, at := range slices.Sorted(maps.Keys(described)) {
		if _, is := rooms[at]; !is {
			t.Errorf("%s has a row for %s, which is no room", architecture, at)
		}
	}
}

// pictured are the words of a picture, and lines of them are in one element each.
var pictured = regexp.MustCompile(`<(?:text|tspan)[^>]*>([^<]+)<`)

// The picture beside the tables has the same rooms, by the last part of their paths.
func TestPictureShowsEveryRoom(t *testing.T) {
	text, err := os.ReadFile("../docs/architecture.svg")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, found := range pictured.FindAllStringSubmatch(string(text), -1) {
		for _, word := range strings.Fields(found[1]) {
			shown[word] = true
		}
	}
	for _, at := range slices.Sorted(maps.Keys(rooms)) {
		if !shown[path.Base(at)] {
			t.Errorf("docs/architecture.svg doesn't show %s", at)
		}
	}
}
