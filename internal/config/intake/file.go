package intake

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Format is the version of a plan's file that is written and read. A change that older versions can't follow raises it.
const Format = 1

// MaxFileBytes bounds a plan's file: it is an order with room between its words.
const MaxFileBytes = 4 * MaxBytes

// File is a plan's file: what a node runs from, who made it when, and, where a node keeps what it has accepted, who brought it.
// It is made for the engine of which it has what that needs: with a Base for HAProxy, without for the native one.
type File struct {
	Format int `json:"format"`
	// SHA256 is the Digest of the Node. A file that somebody changed by hand has none.
	SHA256 string `json:"sha256,omitempty"`
	Made   Made   `json:"made"`
	// Accepted is there where a node has kept the plan that it accepted.
	Accepted *Accepted `json:"accepted,omitempty"`
	model.Node
}

// Made says who made a plan: the version of the program, when, and the inventory's name, without the path to it.
type Made struct {
	By   string    `json:"by"`
	At   time.Time `json:"at"`
	From string    `json:"from"`
}

// Accepted says when a node took a plan, and how that came there.
type Accepted struct {
	At time.Time `json:"at"`
	// Source is the path of the file that was read, or what the sender calls his. Sender and From, an address, are whose it was;
	// both are empty for one that the node read itself.
	Source string `json:"source"`
	Sender string `json:"sender,omitempty"`
	From   string `json:"from,omitempty"`
	// File is the digest of what the node's own file said then; empty if it couldn't be read.
	File string `json:"file,omitempty"`
}

// Digest is the SHA-256 of all that a node runs from, in hexadecimal digits, whoever made it when. Passwords aren't in it.
func Digest(n model.Node) (string, error) {
	text, err := encode(n.WithoutSecrets(), "")
	if err != nil {
		return "", fmt.Errorf("the plan for %s: %w", n.Plan.Node, err)
	}
	return sum(text)
}

// sum is the Digest of a text with a Node's fields among others: of each of them, without blanks, behind its name and length.
func sum(text []byte) (string, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return "", err
	}
	all := sha256.New()
	for _, name := range []string{"plan", "etcd", "haproxy", "page"} {
		var compact bytes.Buffer
		if name == "page" && fields[name] == nil {
			// Plans of releases that knew of none keep their sums.
			continue
		}
		if fields[name] != nil {
			if err := json.Compact(&compact, fields[name]); err != nil {
				return "", err
			}
		}
		fmt.Fprintf(all, "%s %d\n", name, compact.Len())
		all.Write(compact.Bytes())
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}

// encode gives a value's JSON with selectors as they are written, since < and > needn't be hidden from anybody's HTML, and with characters
// that don't show written out.
func encode(v any, indent string) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(safetext.Writer(&text))
	encoder.SetIndent("", indent)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return text.Bytes(), err
}

// Encode gives the file's text as DecodeFile reads it, without passwords and with its checksum. What couldn't be read isn't written.
func (f File) Encode() ([]byte, error) {
	var err error
	f.Format, f.Node = Format, f.Node.WithoutSecrets()
	if f.SHA256, err = Digest(f.Node); err != nil {
		return nil, err
	}
	text, err := encode(f, "  ")
	if err != nil {
		return nil, fmt.Errorf("the plan for %s: %w", f.Plan.Node, err)
	}
	_, problems := DecodeFile("", text)
	var wrong []error
	for _, p := range problems {
		wrong = append(wrong, fmt.Errorf("the plan for %s: %s", f.Plan.Node, p.What))
	}
	return text, errors.Join(wrong...)
}

// anew is how a file that can't be used is come by again.
const anew = "the whole file, as `pgporter plan` writes it"

// DecodeFile reads a plan's file, which the problems call name, and holds it against everything that a plan promises. It is trusted
// as the inventory is that it was made from: what an order may not say, it may. A file without checksum is taken with a warning.
func DecodeFile(name string, text []byte) (File, diag.Problems) {
	d := &document{name: name, text: text}
	f := d.read()
	return f, d.problems.Sorted()
}

// read gives what is in the file, as far as it can be read.
func (d *document) read() File {
	var f File
	if len(d.text) > MaxFileBytes {
		d.report(-1, "the plan of one node", "the file has %d bytes, more than %d", len(d.text), MaxFileBytes)
		return f
	}
	if !utf8.Valid(d.text) {
		bad := 0
		for ; ; bad++ {
			if r, size := utf8.DecodeRune(d.text[bad:]); r == utf8.RuneError && size == 1 {
				break
			} else if size > 1 {
				bad += size - 1
			}
		}
		d.report(bad, anew, "the byte 0x%02x is no UTF-8", d.text[bad])
		return f
	}
	if !d.isJSON() || !d.isFormat() {
		return f
	}
	if places := d.walk(f); len(d.problems) == 0 {
		d.fill(&f, places)
	}
	return f
}

// isJSON finds out whether the text is one JSON object.
func (d *document) isJSON() bool {
	first := bytes.TrimLeft(d.text, " \t\r\n")
	at := len(d.text) - len(first)
	var whole json.RawMessage
	err := json.Unmarshal(d.text, &whole)
	var syntax *json.SyntaxError
	switch {
	case len(first) == 0:
		d.report(-1, anew, "the file is empty")
	case first[0] != '{':
		d.report(at, "what `pgporter plan` writes", "this is no plan")
	case err == nil:
		return true
	case !errors.As(err, &syntax):
		d.report(-1, anew, "the file can't be read: %v", err)
	case err.Error() == "unexpected end of JSON input":
		d.report(len(d.text), anew, "the file ends in the middle of the plan")
	default:
		d.report(max(0, int(syntax.Offset)-1), anew, "the file isn't whole, or was changed: %v", err)
	}
	return false
}

// isFormat finds out whether the file is of the Format that this version reads.
func (d *document) isFormat() bool {
	var head struct {
		Format *json.Number `json:"format"`
		Made   struct {
			By string `json:"by"`
		} `json:"made"`
	}
	// What else is wrong with it is said of each field.
	_ = json.Unmarshal(d.text, &head)
	switch {
	case head.Format == nil:
		d.report(0, "what `pgporter plan` writes", "this is no plan: it has no format")
	case *head.Format != json.Number(fmt.Sprint(Format)):
		by := ""
		if remark(head.Made.By) && head.Made.By != "" {
			by = ", written by pgporter " + head.Made.By
		}
		d.report(d.place("format"), "a plan made by a pgporter of this node's version, or a newer pgporter here",
			"the plan is of format %s%s, and this pgporter reads format %d", head.Format, by, Format)
	default:
		return true
	}
	return false
}

// fill reads the file into f and judges it; every field is of its kind. places are where the fields are.
func (d *document) fill(f *File, places map[string]int) {
	if err := json.Unmarshal(d.text, f); err != nil {
		d.report(-1, anew, "the file can't be read: %s", plainJSONError(err))
		return
	}
	digest, err := sum(d.text)
	switch at, said := places["sha256"]; {
	case err != nil:
		d.report(-1, anew, "the file can't be read: %v", err)
	case !said:
		d.problems.Warnf(diag.PlanByHand, d.position(0), anew, "the plan has no sha256: it was changed by hand, and nothing shows whether it is whole")
	case f.SHA256 != digest:
		d.report(at, anew+"; whoever changes it on purpose takes the line with sha256 out",
			"the plan isn't the one that was written: its sha256 is another")
	}
	c := newChecker()
	c.local = true
	c.file(f)
	for _, p := range c.problems {
		d.report(places[p.path], "", "%v", p.error)
	}
}
