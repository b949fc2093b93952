package model

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options are the `default-server` words of a service, with HAProxy's names and meaning. Fields that the text doesn't set
// hold HAProxy's own defaults (configuration manual 2.6, section 5.2), except where a comment says otherwise.
type Options struct {
	// Text is what the definition says, as it would be rendered for HAProxy. It is all that JSON carries.
	Text string
	// Inter is the time between two checks of a healthy server; FastInter while its state may be about to change;
	// DownInter while it is down. The latter two are Inter where the text doesn't set them.
	Inter     time.Duration
	FastInter time.Duration
	DownInter time.Duration
	// Rise and Fall are the runs of consecutive results that bring a server up and down.
	Rise int
	Fall int
	// ShutdownSessions (on-marked-down shutdown-sessions) ends a server's sessions when it goes down.
	ShutdownSessions bool
	// ShutdownBackupSessions (on-marked-up shutdown-backup-sessions) ends the sessions on backups when a regular server
	// whose weight isn't 0 comes up.
	ShutdownBackupSessions bool
	// SlowStart is how long a server that came back is given less than its share.
	SlowStart time.Duration
	// MaxConn and MaxQueue limit a server's sessions and the clients that wait for it; 0 is no limit.
	MaxConn  int
	MaxQueue int
	// Weight is for servers whose member has none of its own.
	Weight int
	// Backup makes every server a backup: the first usable one takes all.
	Backup bool
	// SendProxy and SendProxyV2 open each connection to a server with a header of the PROXY protocol that names the client.
	// The second goes before the first where both are set.
	SendProxy, SendProxyV2 bool
	// Check says that servers are checked, Disabled that they are in maintenance: nobody is connected to one.
	Check, Disabled bool
	// CheckAddr is where checks go instead of the server's address; the zero Addr is there. CheckPort is likewise for the
	// port, with 0.
	CheckAddr netip.Addr
	CheckPort int
	// CheckTLS is how checks speak TLS.
	CheckTLS CheckTLS
	// HAProxyOnly are words that HAProxy knows and the native engine doesn't, or with values that it can't use.
	HAProxyOnly []OptionProblem
	// Unfit are words that the native engine refuses on the servers of a PostgreSQL service, though they mean something
	// elsewhere.
	Unfit []OptionProblem
}

// CheckTLS are the words about TLS of checks. HAProxy has them for all connections to a server; those of a service's clients
// are passed on as they are.
type CheckTLS struct {
	// On (check-ssl) has checks speak TLS also where nothing else says so.
	On bool
	// CAFile is the PEM file, or the directory of such files, of the authorities that a certificate is verified against;
	// SystemCA stands for the machine's. Empty is whatever is used where nothing is said.
	CAFile string
	// NoVerify (verify none) takes any certificate.
	NoVerify bool
	// CertFile (crt) is a PEM file with a certificate to show and its key, which may also be in a file of that name and .key.
	CertFile string
	// SNI (check-sni) is the name to ask for. The certificate has to carry it, or VerifyHost where it is empty; with neither
	// the certificate's names aren't looked at.
	SNI, VerifyHost string
}

// SystemCA is the CAFile that means the authorities that the machine trusts.
const SystemCA = "@system-ca"

// OptionProblem is a word of an options text that can't be used.
type OptionProblem struct {
	// Offset is where the word starts in the text, in bytes.
	Offset int
	// Word is the option's name.
	Word string
	// What is wrong, and what would be right.
	What, Want string
}

// Defaults of options that HAProxy has when nothing is said (configuration manual 2.6, section 5.2).
const (
	defaultInter = 2 * time.Second
	defaultRise  = 2
	defaultFall  = 3
)

// maxTime is HAProxy's upper bound of a time: 2^31-1 milliseconds.
const maxTime = (1<<31 - 1) * time.Millisecond

// ParseOptions reads the words of a `default-server` line. All problems are returned at once; words that only HAProxy can
// follow are no problem here but listed in HAProxyOnly and Unfit, since only the engine can refuse them.
func ParseOptions(text string) (Options, []OptionProblem) {
	o := Options{Text: text, Inter: defaultInter, Rise: defaultRise, Fall: defaultFall, Weight: 1}
	var problems []OptionProblem
	words := fields(text)
	last := map[string]word{}
	for i := 0; i < len(words); i++ {
		w := words[i]
		last[w.text] = w
		if set, known := optionFlags[w.text]; known {
			set(&o)
			continue
		}
		if set, known := optionWords[w.text]; known {
			if i+1 == len(words) {
				problems = append(problems, OptionProblem{w.offset, w.text, "has no value", "a value after the word"})
				break
			}
			i++
			err := set(&o, words[i].text)
			var unusable *nativeError
			switch {
			case errors.As(err, &unusable):
				o.HAProxyOnly = append(o.HAProxyOnly, OptionProblem{words[i].offset, w.text, unusable.what, orHAProxy(unusable.want)})
			case err != nil:
				what, want, _ := strings.Cut(err.Error(), "; ")
				problems = append(problems, OptionProblem{words[i].offset, w.text, what, want})
			}
			continue
		}
		name := w.text
		if strings.HasPrefix(name, typedWord+"(") {
			name = typedWord
		}
		if f, known := haproxyWords[name]; known {
			o.HAProxyOnly = append(o.HAProxyOnly, OptionProblem{w.offset, w.text, "isn't supported by the native engine", orHAProxy(f.want)})
			i += f.args
			continue
		}
		want, elsewhere := linesOfServices[w.text]
		if !elsewhere {
			want = nearestOption(w.text)
		}
		problems = append(problems, OptionProblem{w.offset, w.text, "isn't an option of HAProxy's servers", want})
	}
	if o.FastInter == 0 {
		o.FastInter = o.Inter
	}
	if o.DownInter == 0 {
		o.DownInter = o.Inter
	}
	for _, u := range unfitWords {
		if w, said := last[u.word]; said && u.holds(o) {
			o.Unfit = append(o.Unfit, OptionProblem{w.offset, u.word, u.what, u.want})
		}
	}
	return o, problems
}

// ParseServerOptions reads the words of a `server` line that has own after the service's `default-server` words defaults.
// What is wrong with those is theirs and isn't reported again: offsets are into own.
func ParseServerOptions(defaults, own string) (Options, []OptionProblem) {
	o, problems := ParseOptions(defaults + "\n" + own)
	o.Text = own
	ofOwn := func(all []OptionProblem) []OptionProblem {
		var kept []OptionProblem
		for _, p := range all {
			if p.Offset -= len(defaults) + 1; p.Offset >= 0 {
				kept = append(kept, p)
			}
		}
		return kept
	}
	o.HAProxyOnly, o.Unfit = ofOwn(o.HAProxyOnly), ofOwn(o.Unfit)
	return o, ofOwn(problems)
}

// Refused are the words that the native engine can't follow in a PostgreSQL service, in the order of the text.
func (o Options) Refused() []OptionProblem {
	return slices.SortedStableFunc(slices.Values(slices.Concat(o.HAProxyOnly, o.Unfit)), func(a, b OptionProblem) int { return a.Offset - b.Offset })
}

// MarshalText gives the words as they were written.
func (o Options) MarshalText() ([]byte, error) { return []byte(o.Text), nil }

// UnmarshalText reads the words again; a word that can't be used is an error.
func (o *Options) UnmarshalText(text []byte) error {
	parsed, problems := ParseOptions(string(text))
	if len(problems) > 0 {
		return fmt.Errorf("option %s %s", problems[0].Word, problems[0].What)
	}
	*o = parsed
	return nil
}

type word struct {
	text   string
	offset int
}

func fields(text string) []word {
	var words []word
	start := -1
	for i := 0; i <= len(text); i++ {
		blank := i == len(text) || strings.IndexByte(" \t\r\n", text[i]) >= 0
		switch {
		case blank && start >= 0:
			words = append(words, word{text[start:i], start})
			start = -1
		case !blank && start < 0:
			start = i
		}
	}
	return words
}

// ParseTime reads a time as HAProxy does: a whole number with a unit (us, ms, s, m, h, d), milliseconds without one.
// A fraction is refused, as HAProxy refuses it.
func ParseTime(text string) (time.Duration, error) {
	digits := strings.TrimLeft(text, "0123456789")
	unit, known := map[string]time.Duration{"": time.Millisecond, "us": time.Microsecond, "ms": time.Millisecond,
		"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[digits]
	n, err := strconv.ParseInt(text[:len(text)-len(digits)], 10, 64)
	if !known || err != nil {
		return 0, fmt.Errorf("is %q; a whole number with a unit of us, ms, s, m, h or d, as in 500ms", text)
	}
	if n > int64(maxTime/unit) {
		return 0, fmt.Errorf("is %q; at most 24 days", text)
	}
	return time.Duration(n) * unit, nil
}

func parsePositiveTime(text string) (time.Duration, error) {
	d, err := ParseTime(text)
	if err == nil && d < time.Millisecond {
		return 0, fmt.Errorf("is %q; at least 1ms", text)
	}
	return d, err
}

func parseCount(text string, least, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("is %q; a whole number from %d to %d", text, least, most)
	}
	return n, nil
}

// ProxyVersion is the version of the PROXY protocol that servers want to be spoken to in; 0 is none.
func (o *Options) ProxyVersion() byte {
	switch {
	case o.SendProxyV2:
		return 2
	case o.SendProxy:
		return 1
	}
	return 0
}
