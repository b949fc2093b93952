package inventory

import (
	"maps"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/pgporter/pgporter/internal/config/safetext"
)

// confession is a text that says itself that a secret is in it: a URL with a password, libpq's settings with one, a private key.
var confession = regexp.MustCompile(`://[^/@:\s]*:[^/@\s{]+@|(?i:\bpassword\s*=\s*[^\s{])|-----BEGIN [A-Z ]*PRIVATE KEY-----`)

// Secret names the secret that the value is, or is made of; empty if it is none. Secrets are what is under a name that looks like
// one's (safetext.IsSecret), wherever else it stands by an alias, a text that says that a password is in it, and what a template
// makes of such.
func (v Value) Secret() string {
	if v.secret == "" && v.node != nil {
		return v.doc.secrets[v.node]
	}
	return v.secret
}

// Tainted is Secret, also of a value of which a part is made of a secret and has a name that doesn't say so.
func (v Value) Tainted() string {
	if secret := v.Secret(); secret != "" || v.node != nil && len(v.doc.secrets) == 0 {
		return secret
	}
	for _, item := range v.Items() {
		if secret := item.Tainted(); secret != "" {
			return secret
		}
	}
	for _, e := range v.Entries() {
		if secret := e.Value.Tainted(); secret != "" && !safetext.IsSecret(e.Name) {
			return secret
		}
	}
	return ""
}

// Secrets are the names of all variables in which a secret is written out, sorted. What is encrypted isn't, and what a template
// makes is where its parts are.
func (inv *Inventory) Secrets() []string {
	found := map[string]bool{}
	look := func(layers ...map[string]Value) {
		for _, vars := range layers {
			for name, v := range vars {
				found[name] = found[name] || v.confesses()
			}
		}
	}
	for _, g := range inv.groups {
		look(g.vars, g.fileVars)
	}
	for _, h := range inv.hosts {
		look(h.vars, h.fileVars)
	}
	maps.DeleteFunc(found, func(_ string, is bool) bool { return !is })
	return slices.Sorted(maps.Keys(found))
}

// confesses tells whether a secret is written out in a value.
func (v Value) confesses() bool {
	switch v.Kind() {
	case List:
		return slices.ContainsFunc(v.Items(), Value.confesses)
	case Map:
		return slices.ContainsFunc(v.Entries(), func(e Entry) bool { return e.Value.confesses() })
	case Text, Int, Float:
		text, _ := v.Name()
		return v.node != nil && v.Secret() != "" && text != "" && !v.doc.templated[v.node]
	}
	return false
}

// Quotable tells whether messages may show the value: it stands in the file as it is, and is no secret. What a template makes may be
// made of a secret that isn't known for one.
func (v Value) Quotable() bool { return !v.templated && v.Secret() == "" }

// unquoted names a value that isn't Quotable.
func (v Value) unquoted() string {
	var what string
	switch v.Kind() {
	case Null:
		return "empty"
	case List:
		return "a list"
	case Map:
		return "a mapping"
	case Failed:
		return "a template that can't be evaluated"
	case Bool:
		what = "a boolean"
	case Int, Float:
		what = "a number"
	case Text, Encrypted, UnknownTag:
		what = "a text"
	}
	if v.templated {
		return what + " that a template makes"
	}
	return what + " that isn't shown"
}

// tag names the value's YAML tag.
func (v Value) tag() string {
	if !v.Quotable() {
		return "a YAML tag"
	}
	return "the YAML tag " + v.node.ShortTag()
}

// findSecrets finds what is a secret in a variable.
func (e Entry) findSecrets() {
	if e.Value.node == nil {
		return
	}
	name := ""
	if safetext.IsSecret(e.Name) {
		name = e.Name
	}
	e.Value.doc.findSecrets(e.Value.node, name)
}

// findSecrets notes that a node, with all below it, is under a secret's name, or looks for such names below it if that is empty.
func (d *document) findSecrets(n *yaml.Node, secret string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.searched[n] && secret == "" || d.secrets[n] != "" {
		return
	}
	d.searched[n] = true
	if secret == "" && n.Kind == yaml.ScalarNode && confession.MatchString(n.Value) {
		secret = "a password in a text"
	}
	if secret != "" {
		d.secrets[n] = secret
	}
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			d.findSecrets(item, secret)
		}
	}
	for _, p := range d.maps[n] {
		name := secret
		if key := d.value(p.key).keyName(); name == "" && safetext.IsSecret(key) {
			name = key
		}
		d.findSecrets(p.value, name)
	}
}
