package service

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/spelling"
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
	// SlowStart is how long a server that came back is given less than its share.
	SlowStart time.Duration
	// MaxConn and MaxQueue limit a server's sessions and the clients that wait for it; 0 is no limit.
	MaxConn  int
	MaxQueue int
	// Weight is for servers whose member has none of its own.
	Weight int
	// Foreign are words that HAProxy knows and the native engine doesn't.
	Foreign []OptionProblem
}

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

// foreignWords are server options of HAProxy 2.6 that the native engine refuses by name, with the number of arguments
// each takes.
var foreignWords = map[string]int{
	"addr": 1, "agent-addr": 1, "agent-check": 0, "agent-inter": 1, "agent-port": 1, "agent-send": 1, "allow-0rtt": 0,
	"alpn": 1, "backup": 0, "ca-file": 1, "check": 0, "check-alpn": 1, "check-proto": 1, "check-send-proxy": 0,
	"check-sni": 1, "check-ssl": 0, "check-via-socks4": 0, "ciphers": 1, "ciphersuites": 1, "cookie": 1, "crl-file": 1,
	"crt": 1, "disabled": 0, "enabled": 0, "error-limit": 1, "force-sslv3": 0, "force-tlsv10": 0, "force-tlsv11": 0,
	"force-tlsv12": 0, "force-tlsv13": 0, "id": 1, "init-addr": 1, "log-proto": 1, "max-reuse": 1, "minconn": 1,
	"namespace": 1, "no-agent-check": 0, "no-backup": 0, "no-check": 0, "no-check-ssl": 0, "no-send-proxy": 0,
	"no-send-proxy-v2": 0, "no-ssl": 0, "no-sslv3": 0, "no-tls-tickets": 0, "no-tlsv10": 0, "no-tlsv11": 0,
	"no-tlsv12": 0, "no-tlsv13": 0, "no-verifyhost": 0, "non-stick": 0, "npn": 1, "observe": 1, "on-error": 1,
	"on-marked-up": 1, "pool-low-conn": 1, "pool-max-conn": 1, "pool-purge-delay": 1, "port": 1, "proto": 1,
	"proxy-v2-options": 1, "redir": 1, "resolve-net": 1, "resolve-opts": 1, "resolve-prefer": 1, "resolvers": 1,
	"send-proxy": 0, "send-proxy-v2": 0, "send-proxy-v2-ssl": 0, "send-proxy-v2-ssl-cn": 0, "shard": 1, "sni": 1,
	"socks4": 1, "source": 1, "ssl": 0, "ssl-max-ver": 1, "ssl-min-ver": 1, "ssl-reuse": 0, "stick": 0, "tcp-ut": 1,
	"tfo": 0, "tls-tickets": 0, "track": 1, "usesrc": 1, "verify": 1, "verifyhost": 1, "ws": 1,
}

// optionWords set one field each from the word's argument.
var optionWords = map[string]func(o *Options, arg string) error{
	"inter":     func(o *Options, arg string) (err error) { o.Inter, err = parsePositiveTime(arg); return },
	"fastinter": func(o *Options, arg string) (err error) { o.FastInter, err = parsePositiveTime(arg); return },
	"downinter": func(o *Options, arg string) (err error) { o.DownInter, err = parsePositiveTime(arg); return },
	"slowstart": func(o *Options, arg string) (err error) { o.SlowStart, err = ParseTime(arg); return },
	"rise":      func(o *Options, arg string) (err error) { o.Rise, err = parseCount(arg, 1, 1<<31-1); return },
	"fall":      func(o *Options, arg string) (err error) { o.Fall, err = parseCount(arg, 1, 1<<31-1); return },
	"maxconn":   func(o *Options, arg string) (err error) { o.MaxConn, err = parseCount(arg, 0, 1<<31-1); return },
	"maxqueue":  func(o *Options, arg string) (err error) { o.MaxQueue, err = parseCount(arg, 0, 1<<31-1); return },
	"weight":    func(o *Options, arg string) (err error) { o.Weight, err = parseCount(arg, 0, 256); return },
	"on-marked-down": func(o *Options, arg string) error {
		if arg != "shutdown-sessions" {
			return fmt.Errorf("is %q; the word shutdown-sessions", arg)
		}
		o.ShutdownSessions = true
		return nil
	},
}

// ParseOptions reads the words of a `default-server` line. All problems are returned at once; words that HAProxy knows and
// the native engine doesn't are no problem here but listed in Foreign, since only the engine can refuse them.
func ParseOptions(text string) (Options, []OptionProblem) {
	o := Options{Text: text, Inter: defaultInter, Rise: defaultRise, Fall: defaultFall, Weight: 1}
	var problems []OptionProblem
	words := fields(text)
	for i := 0; i < len(words); i++ {
		w := words[i]
		if set, known := optionWords[w.text]; known {
			if i+1 == len(words) {
				problems = append(problems, OptionProblem{w.offset, w.text, "has no value", "a value after the word"})
				break
			}
			i++
			if err := set(&o, words[i].text); err != nil {
				what, want, _ := strings.Cut(err.Error(), "; ")
				problems = append(problems, OptionProblem{words[i].offset, w.text, what, want})
			}
			continue
		}
		if args, known := foreignWords[w.text]; known {
			o.Foreign = append(o.Foreign, OptionProblem{w.offset, w.text, "isn't supported by the native engine", "leave it out"})
			i += args
			continue
		}
		problems = append(problems, OptionProblem{w.offset, w.text, "isn't an option of HAProxy's servers", nearestOption(w.text)})
	}
	if o.FastInter == 0 {
		o.FastInter = o.Inter
	}
	if o.DownInter == 0 {
		o.DownInter = o.Inter
	}
	return o, problems
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

// nearestOption says which option a misspelt word most probably means; empty if none is near.
func nearestOption(misspelt string) string {
	known := slices.AppendSeq(slices.Collect(maps.Keys(optionWords)), maps.Keys(foreignWords))
	slices.Sort(known)
	if near := spelling.Nearest(misspelt, known); near != "" {
		return "did you mean " + near
	}
	return ""
}
