package model

import (
	"slices"
	"strings"
)

// Authorities are the files that a text from elsewhere may name for ca-file: the machine's authorities, and those that Pigsty has
// on every node. They are only verified against; no other file is so little of a secret.
var Authorities = []string{SystemCA, "/etc/pki/ca.crt", "/pg/cert/ca.crt"}

// harmlessWords are those of HAProxy alone that name no file, script, variable, resolver or network of the machine, with how many
// values each takes.
var harmlessWords = map[string]int{
	"agent-check": 0, "agent-inter": 1, "agent-port": 1, "cookie": 1, "check-send-proxy": 0, "error-limit": 1, "max-reuse": 1, "minconn": 1,
	"no-agent-check": 0, "no-check-send-proxy": 0, "no-ssl": 0, "no-tfo": 0, "observe": 1, "on-error": 1, "pool-max-conn": 1, "pool-purge-delay": 1,
	"ssl": 0, "ssl-max-ver": 1, "ssl-min-ver": 1, "tcp-ut": 1, "tfo": 0,
}

// NotFromElsewhere gives the words of an options text that only an inventory may have which the machine itself reads. HAProxy runs
// as root, as a rule, and pgporter may: a word that names a file, a script, a variable or a resolver reaches what whoever sent the
// text may not see. What may be said is listed, so that words of later versions aren't among it.
func NotFromElsewhere(text string) []OptionProblem {
	var refused []OptionProblem
	refuse := func(w word, what string) {
		refused = append(refused, OptionProblem{w.offset, w.text, what, "say it in an inventory that the node reads itself"})
	}
	words := fields(text)
	for i := 0; i < len(words); i++ {
		w := words[i]
		_, flag := optionFlags[w.text]
		_, valued := optionWords[w.text]
		args, harmless := harmlessWords[w.text]
		switch {
		case flag:
			continue
		case valued:
			args = 1
		case !harmless:
			refuse(w, "isn't known to name no file, script, variable or resolver")
			i += haproxyWords[w.text].args
			continue
		}
		if len(words)-i-1 < args {
			refuse(w, "has no value")
			break
		}
		for _, value := range words[i+1 : i+1+args] {
			switch {
			case w.text == "ca-file" && !slices.Contains(Authorities, value.text):
				refuse(w, "names a file other than "+strings.Join(Authorities, ", "))
			case w.text == "crt":
				refuse(w, "names a file")
			case w.text != "ca-file" && !PlainWord(value.text):
				refuse(w, "has a value that isn't made of letters, digits and - _ . : only")
			}
		}
		i += args
	}
	return refused
}

// PlainWord tells whether a word of HAProxy's language stands for itself and is no path: without quotes, escapes, variables, formats,
// and without the @ behind which HAProxy has other kinds of addresses.
func PlainWord(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:", r))
	})
}
