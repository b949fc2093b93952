package intake

import (
	"bytes"
	"encoding"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pgporter/pgporter/internal/config/diag"
)

// document is a JSON text in which every problem has its place. encoding/json tells of the first one only, and of most without
// where it is.
type document struct {
	name     string
	text     []byte
	problems diag.Problems
}

// report notes a problem at an offset of the text; -1 is the whole file. Nobody mends more than maxProblems of them.
func (d *document) report(offset int, want, format string, args ...any) {
	if len(d.problems) < maxProblems {
		d.problems.Errorf(diag.PlanInvalid, d.position(offset), want, format, args...)
	}
}

// position gives line and column, in characters, of an offset.
func (d *document) position(offset int) diag.Position {
	if offset < 0 {
		return diag.Position{File: d.name}
	}
	before := d.text[:min(offset, len(d.text))]
	line := before[bytes.LastIndexByte(before, '\n')+1:]
	return diag.Position{File: d.name, Line: 1 + bytes.Count(before, []byte("\n")), Column: 1 + utf8.RuneCount(line)}
}

// place is where the value of a field of the outermost object begins; 0 if it isn't there.
func (d *document) place(field string) int {
	w := d.walker()
	w.token()
	for w.decoder.More() {
		key, _ := w.token()
		at := w.next()
		w.value("", nil)
		if key == field {
			return at
		}
	}
	return 0
}

// walk holds the text, which is JSON, against the type of a value, and reports what isn't of it: fields that aren't known or are
// there twice, and values of another kind. It gives where each value begins, by paths as in plan.clusters[0].name.
func (d *document) walk(v any) map[string]int {
	w := d.walker()
	w.value("", reflect.TypeOf(v))
	return w.places
}

type walker struct {
	*document
	decoder *json.Decoder
	places  map[string]int
}

func (d *document) walker() *walker {
	w := &walker{d, json.NewDecoder(bytes.NewReader(d.text)), map[string]int{}}
	w.decoder.UseNumber()
	return w
}

// next is where the next token begins.
func (w *walker) next() int {
	at := int(w.decoder.InputOffset())
	for at < len(w.text) && strings.IndexByte(" \t\r\n,:", w.text[at]) >= 0 {
		at++
	}
	return at
}

func (w *walker) token() (json.Token, int) {
	at := w.next()
	// It can't fail: the text is JSON.
	token, _ := w.decoder.Token()
	return token, at
}

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

// value goes through one value. A nil type, like that of an interface, is whatever it is.
func (w *walker) value(path string, t reflect.Type) {
	token, at := w.token()
	w.places[path] = at
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t != nil && t.Kind() == reflect.Interface {
		t = nil
	}
	isText := t != nil && reflect.PointerTo(t).Implements(textType)
	kind := reflect.Invalid
	if t != nil {
		kind = t.Kind()
	}
	switch token := token.(type) {
	case nil:
	case json.Delim:
		if token == '{' {
			if t != nil && (isText || kind != reflect.Struct && kind != reflect.Map) {
				w.mistaken(path, at, "an object", t)
				t = nil
			}
			w.object(path, t)
		} else {
			var of reflect.Type
			if kind == reflect.Slice {
				of = t.Elem()
			} else if t != nil {
				w.mistaken(path, at, "a list", t)
			}
			for i := 0; w.decoder.More(); i++ {
				w.value(path+"["+strconv.Itoa(i)+"]", of)
			}
		}
		w.token()
	case string:
		switch {
		case isText:
			if err := reflect.New(t).Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(token)); err != nil {
				w.report(at, "", "%s: %v", path, err)
			}
		case t != nil && kind != reflect.String:
			w.mistaken(path, at, "a text", t)
		}
	case bool:
		if t != nil && kind != reflect.Bool {
			w.mistaken(path, at, "true or false", t)
		}
	case json.Number:
		w.number(path, at, token, t)
	}
}

// object goes through the fields of an object up to its end.
func (w *walker) object(path string, t reflect.Type) {
	var known map[string]reflect.Type
	if t != nil && t.Kind() == reflect.Struct {
		known = fieldsOf(t)
	}
	seen := map[string]bool{}
	for w.decoder.More() {
		token, at := w.token()
		key := token.(string)
		var of reflect.Type
		switch {
		case known != nil:
			var is bool
			if of, is = known[key]; !is {
				w.report(at, wantField(key, known), "the field %q isn't known to this version", key)
			}
		case t != nil:
			of = t.Elem()
		}
		if seen[key] {
			w.report(at, "one of them", "the field %q is here twice", key)
		}
		seen[key] = true
		inner := key
		if path != "" {
			inner = path + "." + key
		}
		w.value(inner, of)
	}
}

// wantField says what a field that isn't known may have been meant for.
func wantField(key string, known map[string]reflect.Type) string {
	names := slices.Sorted(maps.Keys(known))
	if near := diag.Nearest(key, names); near != "" {
		return "did you mean " + near
	}
	return "one of " + strings.Join(names, ", ") + ", or a newer pgporter here"
}

func (w *walker) number(path string, at int, n json.Number, t reflect.Type) {
	switch {
	case t == nil:
		if _, err := n.Float64(); err != nil {
			w.report(at, "a number that isn't so large", "%s is out of range", path)
		}
	case t.Kind() == reflect.Int:
		if _, err := strconv.Atoi(string(n)); err != nil {
			w.report(at, "a whole number", "%s is %s", path, n)
		}
	default:
		w.mistaken(path, at, "a number", t)
	}
}

// mistaken reports a value of another kind than its type.
func (w *walker) mistaken(path string, at int, is string, t reflect.Type) {
	want := "an object"
	switch t.Kind() {
	case reflect.String:
		want = "a text"
	case reflect.Bool:
		want = "true or false"
	case reflect.Int:
		want = "a whole number"
	case reflect.Slice:
		want = "a list"
	}
	if reflect.PointerTo(t).Implements(textType) {
		want = "a text"
	}
	w.report(at, want, "%s is %s", path, is)
}

// fieldsOf are the fields that JSON has of a struct, those of embedded ones included.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" && name != "-" {
			fields[name] = f.Type
		}
	}
	return fields
}
