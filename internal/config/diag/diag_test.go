package diag

import (
	"strings"
	"testing"
)

func TestProblemsAreSortedAndSaidOnce(t *testing.T) {
	var ps Problems
	at := func(line, column int) Position { return Position{File: "pigsty.yml", Line: line, Column: column} }
	ps.Errorf(PortOutOfRange, at(7, 9), "a number from 1 to 65535", "port %d is out of range", 70000)
	ps.Warnf(NoServer, at(3, 2), "", "nobody is selected")
	ps.Errorf(PortOutOfRange, at(7, 9), "a number from 1 to 65535", "port %d is out of range", 70000)
	ps.Errorf(InventoryEmpty, Position{File: "pigsty.yml"}, "", "no hosts")
	want := `pigsty.yml: error: no hosts [inventory-empty]
pigsty.yml:3:2: warning: nobody is selected [service-without-server]
pigsty.yml:7:9: error: port 70000 is out of range; a number from 1 to 65535 [port-out-of-range]`
	if got := ps.Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestOnlyErrorsForbidUse(t *testing.T) {
	var ps Problems
	if ps.Err() != nil {
		t.Error("no problem is an error")
	}
	ps.Warnf(NoServer, Position{}, "", "odd")
	if ps.Err() != nil {
		t.Error("a warning forbids use")
	}
	ps.Errorf(WrongType, Position{}, "", "wrong")
	if ps.Err() == nil {
		t.Error("an error doesn't forbid use")
	}
	if w := ps.Warnings(); len(w) != 1 || w[0].What != "odd" {
		t.Errorf("warnings: %v", w)
	}
}

// Whatever a problem quotes, it is one short line; and there is an end of them.
func TestAttackProblemsAreShortLines(t *testing.T) {
	var ps Problems
	hostile := "\x1b[2J\u202e\nnext" + strings.Repeat("A", 60_000)
	for i := range 5000 {
		ps.Errorf(WrongType, Position{File: "a\x1b\nb.yml", Line: i + 1, Column: 1}, hostile, "it is %s", hostile)
		ps.Warnf(WrongType, Position{File: "a\x1b\nb.yml", Line: i + 1, Column: 1}, hostile, "it is %s", hostile)
	}
	text := ps.Error()
	if lines := strings.Count(text, "\n") + 1; lines != mostShown+1 || strings.ContainsAny(text, "\x1b\u202e") || len(text) > 3_000_000 {
		t.Errorf("%d lines of %d bytes: %.300q", lines, len(text), text)
	}
	if warnings := ps.Warnings(); len(warnings) != mostShown+1 || warnings[mostShown].What != "there are 4000 more warnings" {
		t.Errorf("%d warnings", len(warnings))
	}
}
