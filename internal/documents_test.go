package internal_test

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
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

// headings are those of a document, as what follows # in a link to them.
func headings(text string) map[string]bool {
	found := map[string]bool{}
	code := false
	for line := range strings.Lines(text) {
		code = code != strings.HasPrefix(line, "```")
		title, is := strings.CutPrefix(strings.TrimLeft(strings.TrimSpace(line), "#"), " ")
		if code || !is || !strings.HasPrefix(line, "#") {
			continue
		}
		found[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, title)] = true
	}
	return found
}

// link is where a link leads: a path, which is empty within a page, and a part of it.
var link = regexp.MustCompile(`\]\(([\w./-]*)(?:#([^)\s]+))?\)`)

// Whoever follows a link comes to a part that is there, and every page is come to from README.md.
func TestLinksArriveAndNoPageIsAlone(t *testing.T) {
	all := documents(t)
	linked := map[string][]string{}
	for document, text := range all {
		for _, found := range link.FindAllStringSubmatch(text, -1) {
			to := document
			if found[1] != "" {
				to = path.Join(path.Dir(document), found[1])
			}
			linked[document] = append(linked[document], to)
			if part := found[2]; part != "" && !headings(all[to])[part] {
				t.Errorf("%s links to %s#%s, which isn't there", document, to, part)
			}
		}
	}
	reached := map[string]bool{}
	var follow func(string)
	follow = func(document string) {
		if reached[document] {
			return
		}
		reached[document] = true
		for _, to := range linked[document] {
			follow(to)
		}
	}
	follow("README.md")
	for _, document := range slices.Sorted(maps.Keys(all)) {
		if !reached[document] {
			t.Errorf("no link leads to %s", document)
		}
	}
}

// What a page answers stands below its title.
func TestPagesBeginWithWhatTheyAnswer(t *testing.T) {
	begins := regexp.MustCompile(`^# .+\n\n[A-Za-z*].*\w`)
	for document, text := range documents(t) {
		if !begins.MatchString(text) {
			t.Errorf("%s begins with %.80q", document, text)
		}
	}
}

// The figures that README.md shows are those of the benchmark, in the same columns.
func TestReadmeShowsTheBenchmark(t *testing.T) {
	all := documents(t)
	_, measured, _ := strings.Cut(all["docs/benchmarks.md"], "<!-- failover: switchover, Debian 12 -->")
	measured, _, _ = strings.Cut(measured, "<!-- /failover")
	cells := func(line string) []string {
		all := strings.Split(strings.Trim(line, "|\n"), "|")
		for i := range all {
			all[i] = strings.TrimSpace(all[i])
		}
		return all
	}
	var rows [][]string
	for line := range strings.Lines(measured) {
		rows = append(rows, cells(line))
	}
	_, shown, _ := strings.Cut(all["README.md"], "\n| Through |")
	shown, _, _ = strings.Cut("| Through |"+shown, "\n\n")
	seen := 0
	var columns []string
	for line := range strings.Lines(shown) {
		row := cells(line)
		if columns == nil {
			columns = row
			continue
		}
		if strings.HasPrefix(row[0], "---") {
			continue
		}
		seen++
		header := rows[slices.IndexFunc(rows, func(r []string) bool { return r[0] == "Through" })]
		i := slices.IndexFunc(rows, func(r []string) bool { return r[0] == row[0] })
		if i < 0 {
			t.Errorf("the benchmark has no row %q", row[0])
			continue
		}
		for j, column := range columns {
			if at := slices.Index(header, column); at < 0 || rows[i][at] != row[j] {
				t.Errorf("README.md has %q for %s through %s, the benchmark %q", row[j], column, row[0], rows[i])
			}
		}
	}
	if seen != 4 {
		t.Errorf("README.md shows %d rows", seen)
	}
}

// namedDocument is a document as a comment, a script or a package names it.
var namedDocument = regexp.MustCompile(`docs/[\w-]+\.md`)

// What names a document outside of the documents names one that is there.
func TestSourcesNameDocumentsThatExist(t *testing.T) {
	all := documents(t)
	seen := 0
	for _, top := range []string{"../Makefile", "../cmd", "../internal", "../lab", "../packages", "../scripts", "../systemd"} {
		err := filepath.WalkDir(top, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() || strings.Contains(name, "/testdata/") {
				return err
			}
			text, err := os.ReadFile(name)
			for _, document := range namedDocument.FindAllString(string(text), -1) {
				seen++
				if all[document] == "" {
					t.Errorf("%s names %s, which isn't there", name, document)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 20 {
		t.Errorf("only %d are named: this test doesn't find them any more", seen)
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
