package plan

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// algorithms are HAProxy's (configuration manual 2.6, section 4.2, balance), each with the form of what may follow its name.
var algorithms = map[string]*regexp.Regexp{
	"roundrobin": regexp.MustCompile(`^$`),
	"static-rr":  regexp.MustCompile(`^$`),
	"leastconn":  regexp.MustCompile(`^$`),
	"first":      regexp.MustCompile(`^$`),
	"source":     regexp.MustCompile(`^$`),
	"random":     regexp.MustCompile(`^(\(([1-9][0-9]{0,6})?\))?$`),
	"rdp-cookie": regexp.MustCompile(`^(\([^()\s]*\))?$`),
	"hash":       regexp.MustCompile(`^ +\S.*$`),
	"uri":        regexp.MustCompile(`^( +(len +[0-9]+|depth +[0-9]+|whole|path-only))*$`),
	"url_param":  regexp.MustCompile(`^ +\S+( +check_post( +[0-9]+)?)?$`),
	"hdr":        regexp.MustCompile(`^\([^()\s]+\)( +use_domain_only)?$`),
}

// needHTTP are the algorithms that only mode http has; in mode tcp HAProxy warns and goes on with roundrobin.
var needHTTP = []string{"hdr", "uri", "url_param"}

// algorithmName is where an algorithm's name ends and its arguments begin.
var algorithmName = regexp.MustCompile(`^[a-z_-]*`)

// balance reads an algorithm of a service in a mode (tcp or http); label is the service's in messages.
func (p *planner) balance(v inventory.Value, label, mode string) (string, bool) {
	names := slices.Sorted(maps.Keys(algorithms))
	if !p.haproxy {
		names = slices.DeleteFunc(names, func(n string) bool { return !model.Balance(n).Native() })
	}
	text, isText := v.Text()
	text = strings.Join(strings.Fields(text), " ")
	name := algorithmName.FindString(text)
	form, known := algorithms[name]
	switch {
	case !isText || !known:
		p.problems.Errorf(diag.BalanceInvalid, v.Pos(), suggestion(name, names), "%s: balance is %s, which is no algorithm of HAProxy's", label, v.Describe())
		return "", false
	case !p.haproxy && !model.Balance(name).Native():
		if !v.Quotable() {
			text = name
		}
		p.problems.Errorf(diag.NativeUnsupported, v.Pos(), suggestion("", names), "%s: balance %s is not supported by the native engine", label, text)
		return "", false
	case !form.MatchString(text[len(name):]):
		p.problems.Errorf(diag.BalanceInvalid, v.Pos(), "what HAProxy's manual says of it", "%s: balance is %s, and %s doesn't take that", label, v.Describe(), name)
		return "", false
	case mode == "tcp" && slices.Contains(needHTTP, name):
		p.problems.Warnf(diag.BalanceNeedsHTTP, v.Pos(), "source, or another that needs no HTTP",
			"%s: balance %s is for mode http; HAProxy goes by roundrobin instead", label, name)
	}
	return text, true
}
