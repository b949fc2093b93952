package plan

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/model"
)

// Patroni passes over whatever it doesn't understand behind a path: a limit that it can't read is none, and the check passes
// everywhere (do_GET in api.py).

// checkQuery tells of the words of one check's query, at their places in its value.
type checkQuery struct {
	p     *planner
	at    place
	label string
	// path is what they are behind, asks what it asks.
	path string
	asks asked
	// seen are the names before.
	seen map[string]bool
}

// asked is what a path asks, as far as its query depends on it.
type asked int

const (
	// ofReplicas looks at lag= and tags.
	ofReplicas asked = iota
	// ofLeader looks at neither.
	ofLeader
	// ofHealth looks at tags.
	ofHealth
)

// asks says what a path that Patroni knows asks, in the order in which Patroni looks for its words.
func asks(path string) asked {
	has := func(word string) bool { return strings.Contains(path, word) }
	switch {
	case path == "/" || slices.ContainsFunc([]string{"leader", "master", "primary", "read-write"}, has):
		return ofLeader
	case has("replica"), has("read-only"), slices.Contains(wholePaths, path[1:]):
		return ofReplicas
	}
	return ofHealth
}

// notPath finds what begins a query elsewhere, but is a part of the path for Patroni.
var notPath = regexp.MustCompile(`[&=;%]|/+lag\b`)

// warnOfQuery tells what of a check, which begins at a place, Patroni passes over or reads in another way than it looks.
func (p *planner) warnOfQuery(at place, label, check string) {
	path, query, _ := strings.Cut(check, "?")
	q := checkQuery{p, at, label, path, asks(path), map[string]bool{}}
	if found := notPath.FindStringIndex(path); found != nil {
		q.warn(diag.LagWithoutLimit, found[0], "a ? between the path and what it asks, as in /replica?lag=10MB",
			"check %s: Patroni takes %q for a part of the path, and it limits nothing", path, path[found[0]:])
	}
	offset := len(path) + 1
	for part := range strings.SplitSeq(query, "&") {
		if part != "" {
			q.word(offset, part)
		}
		offset += len(part) + 1
	}
}

// warn adds a warning at an offset of the value. What a template made isn't quoted.
func (q checkQuery) warn(code diag.Code, offset int, want, format string, args ...any) {
	if q.at.unquoted || !q.at.value.Quotable() {
		q.p.problems.Warnf(code, q.at.value.Pos(), "lag=10MB, or tag_NAME=VALUE, behind a path of replicas", "%s: check, which a template makes, has a word that Patroni passes over or reads otherwise", q.label)
		return
	}
	q.p.problems.Warnf(code, q.at.position(offset), want, "%s: "+format, append([]any{q.label}, args...)...)
}

// unquoted is a text without its URL's escapes; one that has wrong ones stays as it is, as with Python.
func unquoted(text string) string {
	if plain, err := url.QueryUnescape(text); err == nil {
		return plain
	}
	return text
}

// word looks at one name=value. Of several with a value the first counts, and those without one count for nothing (parse_qs).
func (q checkQuery) word(offset int, part string) {
	name, value, _ := strings.Cut(part, "=")
	name, value = unquoted(name), unquoted(value)
	tag, isTag := strings.CutPrefix(name, "tag_")
	const lagWant = "bytes, or a number with B, kB, MB, GB or TB in just these letters, as in lag=10MB"
	switch {
	case name != "lag" && !isTag:
		q.unknown(offset, name)
	case value == "" && isTag:
		q.warn(diag.CheckWordIgnored, offset, "a value, as in tag_zone=a", "check %s: %s has no value, and Patroni passes over it", q.path, name)
	case value == "":
		q.warn(diag.LagWithoutLimit, offset, lagWant, "check %s: %s has no value, and so there is no limit", q.path, name)
	case q.seen[name]:
		q.warn(diag.CheckWordIgnored, offset, "one of them", "check %s: %s stands there twice, and Patroni takes the first", q.path, name)
	case q.asks == ofLeader:
		q.warn(diag.CheckWordIgnored, offset, "a path of replicas, or the path alone", "check %s: Patroni doesn't look at %s on a path of the leader", q.path, name)
	case isTag:
		q.tag(offset, tag, value)
	case q.asks == ofHealth:
		q.warn(diag.CheckWordIgnored, offset, "/replica or /read-only with the lag, or the path alone", "check %s: Patroni doesn't look at lag on this path", q.path)
	default:
		q.lag(offset+len("lag="), value, lagWant)
	}
	if value != "" {
		q.seen[name] = true
	}
}

// queryNames are what a query may ask for. replication_state and mode are Patroni 4.1's.
var queryNames = []string{"lag", "replication_state", "mode"}

func (q checkQuery) unknown(offset int, name string) {
	first, _, _ := strings.Cut(strings.TrimLeft(q.path, "/"), "/")
	if name == "mode" && first == "readiness" || name == "replication_state" {
		return
	}
	want := "lag=10MB, or tag_NAME=VALUE for a tag of the members"
	lower := strings.ToLower(strings.ReplaceAll(name, "-", "_"))
	switch near := diag.Nearest(lower, queryNames[:1]); {
	case strings.HasPrefix(lower, "tag"), strings.HasPrefix(lower, "_tag"):
		want = "tag_NAME=VALUE"
	case near != "":
		want = "did you mean " + near
	case strings.Contains(lower, "lag"):
		want = "did you mean lag"
	}
	q.warn(diag.CheckWordIgnored, offset, want, "check %s: Patroni knows no %q and passes over it", q.path, name)
}

// octalLag is a number that begins with a zero.
var octalLag = regexp.MustCompile(`^[-+]?0[0-9]`)

func (q checkQuery) lag(offset int, value, want string) {
	limit, counts, err := model.ParseLag(value)
	trimmed := strings.TrimSpace(value)
	bare := strings.TrimLeft(trimmed, "+0123456789") == ""
	switch {
	case err != nil:
		q.warn(diag.LagUnlikely, offset, want, "check %s: Patroni fails at the lag %q, and never answers", q.path, value)
	case !counts:
		if unit := nearestUnit(trimmed); unit != "" {
			want = "did you mean lag=" + unit + "? Patroni reads " + want
		}
		q.warn(diag.LagWithoutLimit, offset, want, "check %s: Patroni can't read the lag %q, and so there is no limit", q.path, value)
	case limit < 0:
		q.warn(diag.LagUnlikely, offset, want, "check %s: with the lag %q, less than 0, no replica ever passes", q.path, value)
	case octalLag.MatchString(trimmed):
		q.warn(diag.LagUnlikely, offset, "the number without the zero before it", "check %s: Patroni reads the lag %q as octal: %d bytes", q.path, value, limit)
	case bare && limit > 0 && limit < 1024:
		q.warn(diag.LagUnlikely, offset, "a unit, as in lag=10MB", "check %s: the lag %q has no unit and is bytes, less than nearly any change writes", q.path, value)
	}
}

// nearestUnit writes a lag with the unit of Patroni's that its own looks like; empty if there is none.
func nearestUnit(value string) string {
	digits := strings.TrimRight(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit := strings.ToLower(strings.TrimSpace(value[len(digits):]))
	unit = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(unit, "ytes"), "yte"), "b")
	written := map[string]string{"k": "kB", "ki": "kB", "m": "MB", "mi": "MB", "g": "GB", "gi": "GB", "t": "TB", "ti": "TB"}[unit]
	if _, counts, err := model.ParseLag(digits + written); written == "" || !counts || err != nil {
		return ""
	}
	return digits + written
}

// onlyIfOn are tags that Patroni forgets where they are off (__main__.py, get_tags), so that no member has them with another value.
var onlyIfOn = []string{"clonefrom", "nofailover", "noloadbalance", "nosync", "nostream"}

func (q checkQuery) tag(offset int, tag, value string) {
	lower := strings.ToLower(value)
	switch {
	case tag == "":
		q.warn(diag.CheckNeverPasses, offset, "tag_NAME=VALUE", "check %s: tag_ names no tag, and never passes", q.path)
	case tag == "noloadbalance" && q.asks == ofReplicas:
		q.warn(diag.CheckNeverPasses, offset, "the path alone: it fails where noloadbalance is on", "check %s: tag_noloadbalance never passes: a replica that has the tag fails the path, and one that hasn't has no such tag", q.path)
	case slices.Contains(onlyIfOn, tag) && lower != "true":
		q.warn(diag.CheckNeverPasses, offset, "another tag of the members' own, which stands for the opposite", "check %s: tag_%s=%s never passes: Patroni drops the tag where it is off", q.path, tag, value)
	case value != lower && slices.Contains([]string{"true", "false"}, lower):
		q.warn(diag.CheckNeverPasses, offset, "tag_"+tag+"="+lower, "check %s: tag_%s=%s never passes: Patroni writes a boolean tag in small letters", q.path, tag, value)
	}
}
