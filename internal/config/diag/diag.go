// Package diag says what is wrong with an input, where, and what would be right.
//
// A reader of configuration collects Problems as it goes and returns them all at once, so that a DBA mends a file in one
// pass. The package does no I/O and imports nothing of ours: every package may use it.
package diag

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Position is a point in an input. Line and Column count from 1; a Line of 0 means the whole file.
type Position struct {
	File   string
	Line   int
	Column int
}

// String gives file:line:col, or the file alone when the position inside it isn't known.
func (p Position) String() string {
	file := safetext.Line(p.File)
	if file == "" {
		file = "-"
	}
	if p.Line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d:%d", file, p.Line, p.Column)
}

// Severity tells whether an input may be used in spite of a Problem.
type Severity int

const (
	// Error means that the input can't be used as it is.
	Error Severity = iota
	// Warning means that the input can be used but probably doesn't do what its writer wants.
	Warning
)

// String is the severity's word as it stands in messages.
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// Problem is one thing that is wrong with an input. Neither text ends in a full stop, and neither holds a secret. Errorf and Warnf
// make each a short line of which every character shows (safetext.Line), whatever it quotes.
type Problem struct {
	// Code is the kind of the problem.
	Code     Code
	Pos      Position
	Severity Severity
	// What is wrong, naming the object: `service "replica": port 70000 is out of range`.
	What string
	// Want is what would be right: `a number from 1 to 65535`. May be empty.
	Want string
}

// String gives `file:line:col: error: what; want [code]`.
func (p Problem) String() string {
	text := fmt.Sprintf("%s: %s: %s", p.Pos, p.Severity, p.What)
	if p.Want != "" {
		text += "; " + p.Want
	}
	return fmt.Sprintf("%s [%s]", text, p.Code)
}

// Problems are all that was found wrong with an input. As an error they print one to a line.
type Problems []Problem

// Errorf adds an error. A verb %w is not supported: a Problem is for a person to read.
func (ps *Problems) Errorf(code Code, pos Position, want, format string, args ...any) {
	ps.add(code, pos, Error, want, fmt.Sprintf(format, args...))
}

// Warnf adds a warning.
func (ps *Problems) Warnf(code Code, pos Position, want, format string, args ...any) {
	ps.add(code, pos, Warning, want, fmt.Sprintf(format, args...))
}

func (ps *Problems) add(code Code, pos Position, severity Severity, want, what string) {
	*ps = append(*ps, Problem{Code: code, Pos: pos, Severity: severity, What: safetext.Line(what), Want: safetext.Line(want)})
}

// mostShown is how many problems are listed: nobody mends more of them in one pass.
const mostShown = 1000

// Error lists the problems, one to a line, in the order of their positions; of more than mostShown the first.
func (ps Problems) Error() string {
	sorted := ps.Sorted()
	lines := make([]string, 0, min(len(sorted), mostShown)+1)
	for _, p := range sorted[:min(len(sorted), mostShown)] {
		lines = append(lines, p.String())
	}
	if more := len(sorted) - mostShown; more > 0 {
		lines = append(lines, fmt.Sprintf("… and %d more problems", more))
	}
	return strings.Join(lines, "\n")
}

// Sorted gives the problems by file, line and column, each once. Problems at one position stay in the order they were found.
func (ps Problems) Sorted() Problems {
	sorted := slices.Clone(ps)
	slices.SortStableFunc(sorted, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.Pos.File, b.Pos.File), cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Column, b.Pos.Column))
	})
	seen := make(map[Problem]bool, len(sorted))
	return slices.DeleteFunc(sorted, func(p Problem) bool {
		again := seen[p]
		seen[p] = true
		return again
	})
}

// Err gives the problems as an error if at least one is an error (warnings included then), otherwise nil.
func (ps Problems) Err() error {
	if slices.ContainsFunc(ps, func(p Problem) bool { return p.Severity == Error }) {
		return ps
	}
	return nil
}

// Warnings gives those that don't forbid the use of the input; of more than mostShown the first, and a last one that says how
// many there are besides.
func (ps Problems) Warnings() Problems {
	warnings := slices.DeleteFunc(ps.Sorted(), func(p Problem) bool { return p.Severity != Warning })
	if more := len(warnings) - mostShown; more > 0 {
		last := Problem{Code: MoreWarnings, Pos: Position{File: warnings[mostShown].Pos.File}, Severity: Warning, What: fmt.Sprintf("there are %d more warnings", more)}
		warnings = append(warnings[:mostShown], last)
	}
	return warnings
}
