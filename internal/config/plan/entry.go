package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// entryKey is a key that a mapping may have, with how a reader reads its value.
type entryKey[R any] struct {
	name string
	read func(r *R, v inventory.Value)
	// emptiable says that the key may stand there with no value.
	emptiable bool
}

// requiredKeys is how many keys at the head of each list of keys are required.
const requiredKeys = 3

// entryReader reads one mapping of a list: what a service definition, a TCP service and its servers have in common.
type entryReader struct {
	p *planner
	// kind is what the entry is, label what messages call it.
	kind, label string
	sound       bool
	// older are the keys that an entry had in earlier Pigsty versions, with what they are called today; empty where nothing stands for
	// one any more.
	older map[string]string
}

// readEntry reads a mapping by a list of keys, all of it even if a part is wrong.
func readEntry[R any](reader *R, r *entryReader, keys []entryKey[R], v inventory.Value) {
	known := make([]string, 0, len(keys))
	for _, k := range keys {
		known = append(known, k.name)
	}
	required := fmt.Sprintf("%s, %s and %s", keys[0].name, keys[1].name, keys[2].name)
	if v.Kind() != inventory.Map {
		if r.p.readable(v, r.label) {
			r.p.problems.Errorf(diag.WrongType, v.Pos(), "a mapping with "+required, "%s is %s", r.label, v.Describe())
		}
		r.sound = false
		return
	}
	values := map[string]inventory.Value{}
	var renamed []string
	for _, e := range v.Entries() {
		if today, older := r.older[e.Name]; older {
			renamed = append(renamed, today)
			r.renamed(e, today)
			continue
		}
		if !slices.Contains(known, e.Name) {
			if !e.Key.Quotable() {
				r.fail(diag.KeyUnknown, e.Key.Pos(), suggestion("", known), "a template makes a key that a %s hasn't", r.kind)
				continue
			}
			r.fail(diag.KeyUnknown, e.Key.Pos(), suggestion(e.Name, known), "a %s has no key %q", r.kind, e.Name)
			continue
		}
		values[e.Name] = e.Value
	}
	for i, k := range keys {
		value, set := values[k.name]
		switch {
		case !set && slices.Contains(renamed, k.name):
		case !set && i < requiredKeys:
			r.fail(diag.KeyMissing, v.Pos(), required+" at least", "%s is missing", k.name)
		case !set:
		case value.Kind() == inventory.Null && !k.emptiable:
			r.fail(diag.KeyMissing, value.Pos(), "a value, or not the key either", "%s is empty", k.name)
		default:
			if !r.p.readable(value, r.label+": "+k.name) {
				r.sound = false
				continue
			}
			if r.short(value, k.name) {
				k.read(reader, value)
			}
		}
	}
}

// renamed reports a key by its name of earlier Pigsty versions.
func (r *entryReader) renamed(e inventory.Entry, today string) {
	if today == "" {
		r.fail(diag.OlderName, e.Key.Pos(), "nothing in its place: checks ask Patroni at patroni_port, and 200 passes", "%s is a key of older Pigsty versions", e.Name)
		return
	}
	r.fail(diag.OlderName, e.Key.Pos(), today, "%s is a key of older Pigsty versions, which goes by another name today", e.Name)
}

// short tells whether a key's texts are short enough to be read.
func (r *entryReader) short(v inventory.Value, key string) bool {
	text, _ := v.Text()
	length := len(text)
	if v.Kind() == inventory.List {
		for _, item := range v.Items() {
			line, _ := item.Text()
			length += 1 + len(line)
		}
	}
	if length > maxEntryText {
		r.fail(diag.TooLarge, v.Pos(), "", "%s has %d bytes, more than %d", key, length, maxEntryText)
		return false
	}
	if !r.p.spend(v.Pos(), length/textWork) {
		r.sound = false
		return false
	}
	return true
}

// fail reports what makes the entry unusable.
func (r *entryReader) fail(code diag.Code, pos diag.Position, want, format string, args ...any) {
	r.sound = false
	r.p.problems.Errorf(code, pos, want, "%s: %s", r.label, fmt.Sprintf(format, args...))
}

func (r *entryReader) name(v inventory.Value) string {
	name, ok := v.Name()
	if !ok || !model.IsName(name) {
		r.fail(diag.NameInvalid, v.Pos(), "letters, digits, dashes, dots and underscores", "name is %s", v.Describe())
	}
	return name
}

func (r *entryReader) number(v inventory.Value, key string, least, most int) int {
	n, ok := v.WholeNumber()
	if !ok || n < int64(least) || n > int64(most) {
		r.fail(rangeOf(key), v.Pos(), fmt.Sprintf("a whole number from %d to %d", least, most), "%s is %s", key, v.Describe())
		return 0
	}
	return int(n)
}

// rangeOf is the kind of problem that a number out of its range is.
func rangeOf(name string) diag.Code {
	if strings.HasSuffix(name, "port") {
		return diag.PortOutOfRange
	}
	return diag.NumberOutOfRange
}

// address reads what to listen on.
func (r *entryReader) address(v inventory.Value) string {
	text, isText := v.Text()
	if text == "*" {
		return text
	}
	address, err := netip.ParseAddr(text)
	if !isText || err != nil || address.Zone() != "" {
		r.fail(diag.AddressInvalid, v.Pos(), `an address, or "*" for every address of the node`, "ip is %s", v.Describe())
		return ""
	}
	return address.String()
}

// networks reads where clients may come from.
func (r *entryReader) networks(v inventory.Value) model.Networks {
	const want = "a list of networks and addresses, as in [10.0.0.0/8, 192.168.1.7]; without the key every client may come"
	if v.Kind() != inventory.List {
		r.fail(diag.WrongType, v.Pos(), want, "allow is %s", v.Describe())
		return nil
	}
	items := v.Items()
	switch {
	case len(items) == 0:
		r.fail(diag.NetworkInvalid, v.Pos(), want, "allow is empty, so that nobody may come")
	case len(items) > model.MaxNetworks:
		r.fail(diag.TooLarge, v.Pos(), "larger networks", "allow has %d entries, more than %d", len(items), model.MaxNetworks)
		return nil
	}
	var all model.Networks
	for _, item := range items {
		text, isText := item.Text()
		network, right, err := model.ParseNetwork(text)
		switch {
		case !isText:
			r.fail(diag.NetworkInvalid, item.Pos(), want, "an entry of allow is %s", item.Describe())
		case err != nil && !item.Quotable():
			r.fail(diag.NetworkInvalid, item.Pos(), want, "an entry of allow, which a template makes, %v", err)
		case err != nil && right != "":
			r.fail(diag.NetworkInvalid, item.Pos(), right, "allow: %s %v", item.Describe(), err)
		case err != nil:
			r.fail(diag.NetworkInvalid, item.Pos(), want, "allow: %s %v", item.Describe(), err)
		default:
			all = append(all, network)
		}
	}
	return all
}

// serverWords reads HAProxy's words for servers.
func (r *entryReader) serverWords(v inventory.Value, key string) string {
	text, isText := v.Text()
	if !isText {
		r.fail(diag.WrongType, v.Pos(), "a text with HAProxy's server options, as in 'inter 2s fall 3'", "%s is %s", key, v.Describe())
		return ""
	}
	_, wrong := model.ParseOptions(text)
	r.refuse(diag.ServerOption, v, wrong, key+": ")
	r.shows(v, key, text)
	return text
}

// blanks are those that a text of several words may have.
var blanks = strings.NewReplacer("\t", " ", "\n", " ", "\r", " ")

// shows refuses words that look like others than they are, or like none: files that are rendered have them as they are.
func (r *entryReader) shows(v inventory.Value, key, text string) bool {
	shows := safetext.Is(blanks.Replace(text))
	if !shows {
		r.fail(diag.TextInvalid, v.Pos(), "letters, digits and signs", "%s: there is a character that doesn't show", key)
	}
	return shows
}

// refuse reports what is wrong with the words of a text.
func (r *entryReader) refuse(code diag.Code, v inventory.Value, wrong []model.OptionProblem, prefix string) {
	for _, o := range wrong {
		if !v.Quotable() {
			r.fail(code, v.Pos(), o.Want, "%san option that a template makes can't be used", prefix)
			continue
		}
		r.fail(code, v.At(o.Offset), o.Want, "%soption %s %s", prefix, o.Word, o.What)
	}
}

// called is the name of an entry, if messages may call it so: one that a template makes has to be fit for a plan.
func called(entry inventory.Value) (string, bool) {
	v, _ := entry.Get("name")
	name, ok := v.Name()
	return name, ok && (v.Quotable() || v.Tainted() == "" && model.IsName(name))
}
