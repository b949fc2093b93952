// Package jmespath compiles and evaluates the expressions that say which members of a cluster carry a service.
//
// The language is JMESPath (https://jmespath.org/specification.html) as Pigsty users have it through Ansible's json_query,
// that is python3-jmespath's reading of it, which the Go libraries don't share: a literal in backticks may be a word without
// quotes (`primary`), texts are ordered by < and >, and a comparison of a text with a number is an error instead of null.
// Where Python's result depends on the order in which an object's keys were written, ours sorts the keys.
//
// Compile refuses what can be seen to be wrong before any member is known: syntax, unknown functions, the number of
// arguments. Select evaluates and insists on a list of members, each at most once. The package is pure: no I/O, no clock;
// what it is given is never changed, and an expression that would need too many steps ends with an error.
package jmespath

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Error says what is wrong with an expression or with its result, and where in it.
type Error struct {
	// Offset is the position in the expression, in bytes from 0.
	Offset int
	// Column is the same position in characters from 1.
	Column int
	// What is wrong, without the position.
	What string
}

// Error gives `column 8: unknown function nofunc`.
func (e *Error) Error() string { return fmt.Sprintf("column %d: %s", e.Column, e.What) }

// Selector is an expression with what was compiled of it, or with why it can't be. It may be used by several goroutines at
// once. In JSON and YAML it is its text, and compiled as it is read. A nil Selector is none.
type Selector struct {
	text string
	root *node
	// err is set where root isn't.
	err error
}

// Read compiles an expression, and keeps what is wrong with it for whoever looks at Err or evaluates it. An empty one is nil.
func Read(expression string) *Selector {
	if expression == "" {
		return nil
	}
	s, err := Compile(expression)
	if err != nil {
		return &Selector{text: expression, err: err}
	}
	return s
}

var errEmpty = &Error{Column: 1, What: "the expression is empty"}

// Compile reads an expression. The error is an *Error.
func Compile(expression string) (*Selector, error) {
	if strings.TrimSpace(expression) == "" {
		return nil, errEmpty
	}
	root, err := parse(expression)
	if err != nil {
		return nil, located(expression, err)
	}
	return &Selector{text: expression, root: root}, nil
}

// Err says why the expression can't be used: an *Error, or nil.
func (s *Selector) Err() error {
	if s == nil {
		return errEmpty
	}
	return s.err
}

// None tells whether there is no expression.
func (s *Selector) None() bool { return s.String() == "" }

// String is the expression as it was written.
func (s *Selector) String() string {
	if s == nil {
		return ""
	}
	return s.text
}

// MarshalText gives the expression as it was written.
func (s *Selector) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is Read. It takes any text, so that all that is wrong with what is read can be reported at once.
func (s *Selector) UnmarshalText(text []byte) error {
	if read := Read(string(text)); read != nil {
		*s = *read
	} else {
		*s = Selector{err: errEmpty}
	}
	return nil
}

// Select gives the indices of the members that the expression selects, in the order of its result. The members are JSON
// objects (numbers are float64); they are told apart by identity, so none may be in the list twice. A result that isn't a
// list of members, null included, is an *Error.
func (s *Selector) Select(members []map[string]any) ([]int, error) {
	return s.SelectWithin(NewBudget(), members)
}

// SelectWithin is Select at the cost of a Budget that several evaluations share.
func (s *Selector) SelectWithin(b *Budget, members []map[string]any) ([]int, error) {
	result, err := s.search(b, members)
	if err != nil {
		return nil, err
	}
	return s.indices(result, members)
}

// SelectBackup is Select for a backup expression, where null means that there are no backups.
func (s *Selector) SelectBackup(members []map[string]any) ([]int, error) {
	return s.SelectBackupWithin(NewBudget(), members)
}

// SelectBackupWithin is SelectBackup at the cost of a Budget that several evaluations share.
func (s *Selector) SelectBackupWithin(b *Budget, members []map[string]any) ([]int, error) {
	result, err := s.search(b, members)
	if err != nil || result == nil {
		return nil, err
	}
	return s.indices(result, members)
}

func (s *Selector) search(b *Budget, members []map[string]any) (any, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	list := make([]any, len(members))
	for i, m := range members {
		list[i] = m
	}
	in := interpreter{steps: maxSteps, shared: b}
	result, err := in.eval(s.root, list)
	if err != nil {
		return nil, located(s.text, err)
	}
	return result, nil
}

func (s *Selector) indices(result any, members []map[string]any) ([]int, error) {
	fail := func(format string, args ...any) ([]int, error) {
		return nil, &Error{Column: 1, What: fmt.Sprintf(format, args...)}
	}
	list, isList := result.([]any)
	if !isList {
		return fail("the result is %s instead of a list of members", describe(result))
	}
	known := make(map[uintptr]int, len(members))
	for i, m := range members {
		known[reflect.ValueOf(m).Pointer()] = i
	}
	selected, taken := make([]int, 0, len(list)), make([]bool, len(members))
	for _, item := range list {
		m, isObject := item.(map[string]any)
		if !isObject {
			return fail("the result holds %s instead of members", describe(item))
		}
		i, isMember := known[reflect.ValueOf(m).Pointer()]
		if !isMember {
			return fail("the result holds an object that the expression made instead of members")
		}
		if taken[i] {
			return fail("the result holds the same member twice")
		}
		taken[i] = true
		selected = append(selected, i)
	}
	return selected, nil
}

// failure is an error at a byte offset of an expression that whoever finds it doesn't know.
type failure struct {
	offset int
	what   string
}

func (f *failure) Error() string { return f.what }

func failAt(offset int, format string, args ...any) error {
	return &failure{offset, fmt.Sprintf(format, args...)}
}

func located(expression string, err error) error {
	f := &failure{what: err.Error()}
	errors.As(err, &f)
	offset := min(f.offset, len(expression))
	return &Error{Offset: offset, Column: utf8.RuneCountInString(expression[:offset]) + 1, What: f.what}
}

// describe names a value's type with its article.
func describe(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case float64:
		return "a number"
	case string:
		return "a text"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("a %T", v)
}
