package jinja

import "strings"

// refusals say, for what templates of playbooks may use and those of inventories may not here, what to write instead.
var refusals = map[string]string{}

// refusal is the failure of what isn't supported. Nothing that isn't known is ever passed over.
func refusal(offset int, what string) failure {
	if refusals[what] == "" {
		return failAt(offset, "the %s is not supported", what)
	}
	return failAt(offset, "the %s is not supported: %s", what, refusals[what])
}

func init() {
	const (
		spellOut = "write the result out"
		glue     = "put the parts together with ~"
		cut      = "take the text apart with split and an index, or change it with replace"
		variable = "make it a variable of the inventory"
		items    = "list them in a variable, and use map, select or selectattr"
	)
	for _, row := range []struct{ kind, names, advice string }{
		{"statement", "for endfor", "pick items with map, select or selectattr and join them, or write them out"},
		{"statement", "set endset with endwith macro endmacro call endcall block endblock do", variable},
		{"statement", "filter endfilter", "write {{ … | filter }}"},
		{"statement", "raw endraw", "give the value the tag !unsafe, with which it is no template"},
		{"statement", "include import from extends", "a template can't read files: " + variable},
		{"function", "lookup query q", "a template can't read files, the environment or programs: " + variable},
		{"function", "now lipsum cycler joiner", "a value must not change by itself: " + spellOut},
		{"function", "range dict namespace", "write the list as [1, 2], the mapping as {'key': value}"},
		{"operator", "**", spellOut},
		{"filter", "regex_replace regex_search regex_findall regex_escape", cut},
		{"test", "match search regex", "use in, ==, .startswith() or .endswith()"},
		{"filter", "format center indent wordwrap quote", glue},
		{"text method", "format zfill center ljust rjust", glue},
		{"text method", "rsplit splitlines partition rpartition find index rfind count lstrip rstrip removeprefix removesuffix", cut},
		{"text method", "capitalize title swapcase isdigit isalpha isalnum isnumeric encode", "write the text as it is wanted"},
		{"filter", "capitalize title wordcount basename dirname splitext path_join b64encode b64decode hash password_hash random shuffle", spellOut},
		{"filter", "to_json tojson to_nice_json from_json to_yaml to_nice_yaml from_yaml json_query ipaddr ipv4 ipv6", "write the value in YAML"},
		{"filter", "combine dict2items items2dict dictsort items", "write the mapping out, or with YAML's merge key <<"},
		{"filter", "union intersect difference symmetric_difference flatten groupby batch slice zip zip_longest product", items},
		{"filter", "round abs sum pow log root", spellOut + "; int cuts a fraction off"},
		{"filter", "min max", "use sort with first or last"},
		{"filter", "reverse", "write the items in that order; an index may count from the end, as in [-1]"},
		{"filter", "attr", "write value['name']"},
		{"filter", "mandatory", "leave it out: what isn't defined is an error"},
		{"test", "odd even divisibleby", "compare with %, as in x % 2 == 0"},
		{"test", "subset superset issubset issuperset all any", "use in, or select and length"},
		{"test", "truthy falsy lower upper sameas", "use ==, with the filter bool, lower or upper, or the value itself"},
		{"list method", "index count append extend insert pop remove reverse sort copy clear", items},
		{"mapping method", "copy update pop popitem setdefault clear fromkeys", "look keys up with ['key'], get, keys, values or items"},
	} {
		for name := range strings.FieldsSeq(row.names) {
			refusals[row.kind+" "+name] = row.advice
		}
	}
	refusals["chain of comparisons"] = "write a < b and b < c"
	refusals["chain of tests"] = "put the first test in parentheses"
	refusals["slice [from:to]"] = "use first, last or indexes, as in x[0] ~ x[1]"
	refusals["operator % of a text"] = glue
	refusals["operator * of a text"] = spellOut + "; only numbers have a sign"
	refusals["operator * of a list"] = spellOut
}
