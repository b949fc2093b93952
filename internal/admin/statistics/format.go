package statistics

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// CSV writes rows as HAProxy's page and `show stat` do: the names of the columns behind `# `, a line for each row, and a comma behind each
// field.
func CSV(w io.Writer, rows []Row) error {
	var b strings.Builder
	b.WriteString("# ")
	for i := range Columns {
		b.WriteString(Columns[i].Name)
		b.WriteByte(',')
	}
	b.WriteByte('\n')
	for i := range rows {
		for c := range Columns {
			b.WriteString(quoted(Columns[c].Of(&rows[i]).String()))
			b.WriteByte(',')
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Page is the status as HAProxy's page has it at its path followed by `;csv`.
func Page(s api.Status) []byte {
	var b bytes.Buffer
	_ = CSV(&b, Rows(&s))
	return b.Bytes()
}

// quoted puts what could be taken for more than one field, or for none, in quotation marks.
func quoted(field string) string {
	if !strings.ContainsAny(field, "\",\r\n") {
		return field
	}
	return `"` + strings.ReplaceAll(field, `"`, `""`) + `"`
}

// Typed writes a line for each value of each row, as `show stat typed` does: whose it is, what, and of which type. With about its meaning
// follows.
func Typed(w io.Writer, rows []Row, about bool) error {
	var b strings.Builder
	for i := range rows {
		r := &rows[i]
		for c := range Columns {
			column := &Columns[c]
			v := column.Of(r)
			if v.Type == "" {
				continue
			}
			fmt.Fprintf(&b, "%c.%d.%d.%d.%s.1:%s:%s:%s%s\n", r.Kind.String()[0], r.ID, r.ServerID, column.Position, column.Name, column.tags[r.Kind], v.Type, v, explained(about, column.About))
		}
		b.WriteByte('\n')
	}
	// The empty line between rows ends the last one, too.
	_, err := io.WriteString(w, strings.TrimSuffix(b.String(), "\n"))
	return err
}

func explained(about bool, meaning string) string {
	if !about {
		return ""
	}
	return ":" + strconv.Quote(meaning)
}

// entry is a value in HAProxy's JSON.
type entry struct {
	Object  string `json:"objType,omitempty"`
	ProxyID *int   `json:"proxyId,omitempty"`
	ID      *int   `json:"id,omitempty"`
	Field   place  `json:"field"`
	Process int    `json:"processNum"`
	Tags    tags   `json:"tags"`
	Value   typed  `json:"value"`
	Meaning string `json:"desc,omitempty"`
}

type place struct {
	Position int    `json:"pos"`
	Name     string `json:"name"`
}

type tags struct {
	Origin string `json:"origin"`
	Nature string `json:"nature"`
	Scope  string `json:"scope"`
}

type typed struct {
	Type  string          `json:"type"`
	Value json.RawMessage `json:"value"`
}

// words says HAProxy's three letters in its words.
func words(letters string) tags {
	origins := map[byte]string{'M': "Metric", 'S': "Status", 'K': "Key", 'C': "Config", 'P': "Product"}
	natures := map[byte]string{'A': "Age", 'a': "Avg", 'C': "Counter", 'D': "Duration", 'G': "Gauge", 'L': "Limit", 'M': "Max", 'N': "Name", 'O': "Output", 'R': "Rate"}
	scopes := map[byte]string{'P': "Process", 'S': "Service"}
	return tags{origins[letters[0]], natures[letters[1]], scopes[letters[2]]}
}

func raw(v Value) json.RawMessage {
	if v.Type != "str" {
		return json.RawMessage(v.String())
	}
	quoted, err := json.Marshal(v.Text)
	if err != nil {
		return json.RawMessage(`""`)
	}
	return quoted
}

// JSON writes rows as `show stat json` does.
func JSON(w io.Writer, rows []Row) error {
	all := make([][]entry, 0, len(rows))
	for i := range rows {
		r := &rows[i]
		var entries []entry
		for c := range Columns {
			column := &Columns[c]
			v := column.Of(r)
			if v.Type == "" {
				continue
			}
			entries = append(entries, entry{Object: r.Kind.String(), ProxyID: &r.ID, ID: &r.ServerID, Field: place{column.Position, column.Name}, Process: 1,
				Tags: words(column.tags[r.Kind]), Value: typed{v.Type, raw(v)}})
		}
		all = append(all, entries)
	}
	return line(w, all)
}

func line(w io.Writer, all any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(all)
}

// InfoText writes what is told of the process as `show info` does.
func InfoText(w io.Writer, all []Info, exact, about bool) error {
	var b strings.Builder
	for _, i := range all {
		_, value := i.shown(exact)
		fmt.Fprintf(&b, "%s: %s%s\n", i.Name, value, explained(about, i.About))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// InfoTyped writes it as `show info typed` does.
func InfoTyped(w io.Writer, all []Info, exact, about bool) error {
	var b strings.Builder
	for _, i := range all {
		typ, value := i.shown(exact)
		fmt.Fprintf(&b, "%d.%s.1:%s:%s:%s%s\n", i.Position, i.Name, i.Tags, typ, value, explained(about, i.About))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// InfoJSON writes it as `show info json` does.
func InfoJSON(w io.Writer, all []Info) error {
	entries := make([]entry, 0, len(all))
	for _, i := range all {
		entries = append(entries, entry{Field: place{i.Position, i.Name}, Process: 1, Tags: words(i.Tags), Value: typed{i.Value.Type, raw(i.Value)}})
	}
	return line(w, entries)
}
