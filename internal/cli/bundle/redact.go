package bundle

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/pgporter/pgporter/internal/config/safetext"
)

// hidden stands where a secret was.
const hidden = "(secret)"

// A Redactor takes secrets out of texts: those that it knows, wherever they stand, and what says by its name or form that it is one. The
// zero value knows none.
type Redactor struct {
	known []string
}

// least is how long a known secret is that is looked for in texts: shorter ones are parts of ordinary words, and what has a name is
// hidden whatever its length.
const least = 5

// Know has values be hidden from now on, as they are and as URLs, JSON and base64 write them.
func (r *Redactor) Know(secrets ...string) {
	for _, s := range secrets {
		s = strings.TrimSpace(s)
		if len(s) < least {
			continue
		}
		for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s), strings.Trim(fmt.Sprintf("%q", s), `"`), base64.StdEncoding.EncodeToString([]byte(s))} {
			if !slices.Contains(r.known, form) {
				r.known = append(r.known, form)
			}
		}
	}
	// A secret that holds another is hidden whole.
	slices.SortStableFunc(r.known, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
}

// Known hides the secrets that are known, and nothing else: for texts of our own, whose form has to stay.
func (r *Redactor) Known(text string) string {
	for _, s := range r.known {
		text = strings.ReplaceAll(text, s, hidden)
	}
	return inURL.ReplaceAllString(text, "${1}"+hidden+"@")
}

var (
	// inURL is a password between a user's name and the host.
	inURL = regexp.MustCompile(`(://[^/@:\s"']*:)[^/@\s"']+@`)
	// named begins something that is set to a value, as a variable, a setting of libpq's, JSON or YAML, or as a flag; value is what follows.
	named = regexp.MustCompile(`([A-Za-z_][A-Za-z0-9_.-]*)\\?["']?\s*[=:]\s*|--?([A-Za-z][A-Za-z0-9-]*)\s+`)
	value = regexp.MustCompile(`^(?:"(?:[^"\\]|\\.)*"|\\"(?:[^"\\]|\\[^"])*\\"|'[^']*'|[^\s'"\\]+)`)
	// brought is what a request shows.
	brought = regexp.MustCompile(`(?i)\b(bearer|basic)(\s+)([A-Za-z0-9._~+/=-]{8,})`)
	// private is a private key.
	private = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)`)
	// hashed is a password as PostgreSQL stores it.
	hashed = regexp.MustCompile(`SCRAM-SHA-256\$[^\s"']+|\bmd5[0-9a-f]{32}\b`)
)

// Text hides the secrets that are known, and what looks like one by its name or form.
func (r *Redactor) Text(text string) string {
	text = private.ReplaceAllString(r.Known(text), hidden)
	text = hashed.ReplaceAllString(text, hidden)
	text = brought.ReplaceAllString(text, "${1}${2}"+hidden)
	return setToSecrets(text)
}

// setToSecrets hides the values of what has a secret's name. A value of what hasn't may have such in itself.
func setToSecrets(text string) string {
	var out strings.Builder
	for {
		at := named.FindStringSubmatchIndex(text)
		if at == nil {
			out.WriteString(text)
			return out.String()
		}
		name := ""
		for group := 2; group < len(at); group += 2 {
			if at[group] >= 0 {
				name = text[at[group]:at[group+1]]
			}
		}
		out.WriteString(text[:at[1]])
		text = text[at[1]:]
		// A flag may have no value, and be before another.
		noValue := at[2] < 0 && strings.HasPrefix(text, "-")
		if found := value.FindString(text); found != "" && !noValue && !strings.HasPrefix(found, hidden) && namesSecret(name) {
			out.WriteString(hidden)
			text = text[len(found):]
		}
	}
}

// namesSecret says that what is set has a secret as its value. A name of a file has none, and that of a cluster's key neither.
func namesSecret(name string) bool {
	lower := strings.ToLower(name)
	for _, is := range []string{"file", "path", "leader_key", "leader-key", "tls-key", "tls_key", "etcd-key", "client-key"} {
		if strings.HasSuffix(lower, is) {
			return false
		}
	}
	return safetext.IsSecret(name)
}

// YAML gives a document without its comments, with all that is under a name of a secret hidden, however it is written, and what is hidden
// there is known from then on. JSON is YAML.
func (r *Redactor) YAML(text []byte) (string, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var documents []*yaml.Node
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			// The parser's words may quote what it can't read.
			return "", errors.New("it can't be read as YAML")
		}
		documents = append(documents, &document)
	}
	for _, d := range documents {
		r.learn(d, false, map[*yaml.Node]bool{})
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	for _, d := range documents {
		hide(d, false, map[*yaml.Node]bool{})
		if err := encoder.Encode(d); err != nil {
			return "", errors.New("it can't be written as YAML")
		}
	}
	if err := encoder.Close(); err != nil {
		return "", errors.New("it can't be written as YAML")
	}
	return r.Text(out.String()), nil
}

// learn takes note of all values under names of secrets, also where an alias brings them there from elsewhere.
func (r *Redactor) learn(n *yaml.Node, secret bool, above map[*yaml.Node]bool) {
	if above[n] {
		return
	}
	above[n] = true
	defer delete(above, n)
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			r.learn(n.Content[i+1], secret || safetext.IsSecret(n.Content[i].Value), above)
		}
	case yaml.ScalarNode:
		if secret && !strings.Contains(n.Value, "{{") {
			r.Know(n.Value)
		}
	case yaml.AliasNode:
		// Only what is a secret here is more to know: elsewhere its own place tells.
		if secret && n.Alias != nil {
			r.learn(n.Alias, true, above)
		}
	default:
		for _, c := range n.Content {
			r.learn(c, secret, above)
		}
	}
}

// hide puts the placeholder for every value under a name of a secret, and takes comments off.
func hide(n *yaml.Node, secret bool, above map[*yaml.Node]bool) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			hide(n.Content[i], false, above)
			hide(n.Content[i+1], secret || safetext.IsSecret(n.Content[i].Value), above)
		}
	case yaml.ScalarNode:
		if secret {
			n.Value, n.Tag, n.Style = hidden, "!!str", 0
		}
	case yaml.AliasNode:
		if secret {
			*n = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: hidden}
		}
	default:
		for _, c := range n.Content {
			hide(c, secret, above)
		}
	}
}
