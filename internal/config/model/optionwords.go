package model

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
)

// nativeError is a value that HAProxy takes and the native engine doesn't.
type nativeError struct{ what, want string }

func (e *nativeError) Error() string { return e.what + "; " + e.want }

// orHAProxy adds the other way out of a refusal by the native engine.
func orHAProxy(want string) string { return want + "; or HAProxy as the engine (--engine haproxy)" }

// optionFlags are words without a value.
var optionFlags = map[string]func(o *Options){
	"backup":           func(o *Options) { o.Backup = true },
	"no-backup":        func(o *Options) { o.Backup = false },
	"check":            func(o *Options) { o.Check = true },
	"no-check":         func(o *Options) { o.Check = false },
	"check-ssl":        func(o *Options) { o.CheckTLS.On = true },
	"no-check-ssl":     func(o *Options) { o.CheckTLS.On = false },
	"disabled":         func(o *Options) { o.Disabled = true },
	"enabled":          func(o *Options) { o.Disabled = false },
	"send-proxy":       func(o *Options) { o.SendProxy = true },
	"no-send-proxy":    func(o *Options) { o.SendProxy = false },
	"send-proxy-v2":    func(o *Options) { o.SendProxyV2 = true },
	"no-send-proxy-v2": func(o *Options) { o.SendProxyV2 = false },
}

// optionWords set one field each from the word's value.
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
	"on-marked-down": func(o *Options, arg string) (err error) {
		o.ShutdownSessions, err = parseOnly(arg, "shutdown-sessions")
		return
	},
	"on-marked-up": func(o *Options, arg string) (err error) {
		o.ShutdownBackupSessions, err = parseOnly(arg, "shutdown-backup-sessions")
		return
	},
	"addr":       func(o *Options, arg string) (err error) { o.CheckAddr, err = parseAddr(arg); return },
	"port":       func(o *Options, arg string) (err error) { o.CheckPort, err = parseCount(arg, 1, 65535); return },
	"ca-file":    func(o *Options, arg string) (err error) { o.CheckTLS.CAFile, err = parseFile(arg); return },
	"crt":        func(o *Options, arg string) (err error) { o.CheckTLS.CertFile, err = parseFile(arg); return },
	"check-sni":  func(o *Options, arg string) (err error) { o.CheckTLS.SNI, err = parseHost(arg); return },
	"verifyhost": func(o *Options, arg string) (err error) { o.CheckTLS.VerifyHost, err = parseHost(arg); return },
	"verify": func(o *Options, arg string) error {
		if arg != "none" && arg != "required" {
			return fmt.Errorf("is %q; none or required", arg)
		}
		o.CheckTLS.NoVerify = arg == "none"
		return nil
	},
}

// parseOnly reads a value that can be one word only.
func parseOnly(text, only string) (bool, error) {
	if text != only {
		return false, fmt.Errorf("is %q; the word %s", text, only)
	}
	return true, nil
}

// parseAddr reads an address. HAProxy also takes a name and looks it up once, when it starts.
func parseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, &nativeError{fmt.Sprintf("is %q", text), "an IP address"}
	}
	return addr.Unmap(), nil
}

// parseFile reads the name of a file. HAProxy looks for one that isn't absolute where it was started, or where its global
// section says.
func parseFile(text string) (string, error) {
	if text != SystemCA && !strings.HasPrefix(text, "/") || strings.ContainsAny(text, "\"'\\#") {
		return "", &nativeError{fmt.Sprintf("is %q", text), "an absolute path without quotes"}
	}
	return text, nil
}

// parseHost reads a host name as a certificate carries it.
func parseHost(text string) (string, error) {
	bad := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r))
	}
	if _, err := netip.ParseAddr(text); err == nil || strings.ContainsFunc(text, bad) || strings.Trim(text, ".") != text {
		return "", &nativeError{fmt.Sprintf("is %q", text), "a host name"}
	}
	return text, nil
}

// unfitWords are refused by the native engine on the servers of a PostgreSQL service, if what they ask for holds at the end.
var unfitWords = []struct {
	word       string
	holds      func(o Options) bool
	what, want string
}{
	{"disabled", func(o Options) bool { return o.Disabled }, "would keep every server in maintenance, so that nobody is ever connected to one",
		"leave it out, or the service"},
	{"no-check", func(o Options) bool { return !o.Check }, "has no effect: every server of a PostgreSQL service is checked", "leave it out"},
	{"port", func(o Options) bool { return o.CheckPort != 0 }, "has no effect: each member is checked at its own patroni_port", "leave it out"},
}

// linesOfServices are words that are options of HAProxy's services and not of their servers.
var linesOfServices = map[string]string{
	"allbackups": "leave it out: `option allbackups` is a line of its own, which haproxy_services may have",
	"redispatch": "leave it out: who can't connect to a server is connected to another anyway",
	"httpchk":    "leave it out: how a service is checked is said by its check",
	"balance":    "balance of the service, beside its options",
}

// haproxyWord is a word that only HAProxy can follow.
type haproxyWord struct {
	// args is how many values it takes.
	args int
	// want is what would be right here.
	want string
	// newer says that HAProxy 2.6 refuses it.
	newer bool
}

// typedWord is the one that has a value in parentheses before its value: set-proxy-v2-tlv-fmt(0x20) FORMAT.
const typedWord = "set-proxy-v2-tlv-fmt"

// haproxyWords are the server options of HAProxy 2.6 and 3.0 (haproxy -dKcfg lists them) that the native engine refuses by
// name. Those with a + before them are 3.0's and not 2.6's.
var haproxyWords = func() map[string]haproxyWord {
	all := map[string]haproxyWord{}
	for _, group := range []struct{ want, words string }{
		{"leave it out: Patroni's own check is asked, no agent", "agent-addr/1 agent-check agent-inter/1 agent-port/1 agent-send/1 no-agent-check"},
		{"leave it out: the TLS of clients is passed on as it is; for checks there is check-ssl", "ssl no-ssl"},
		{"check-sni for the name that checks ask for; the TLS of clients is passed on as it is", "sni/1"},
		{"leave it out: the TLS of clients is passed on as it is, and checks speak TLS 1.2 or later", "allow-0rtt alpn/1 ciphers/1 ciphersuites/1 " +
			"crl-file/1 +client-sigalgs/1 +curves/1 force-sslv3 force-tlsv10 force-tlsv11 force-tlsv12 force-tlsv13 no-ssl-reuse no-sslv3 no-tls-tickets no-tlsv10 no-tlsv11 " +
			"no-tlsv12 no-tlsv13 npn/1 +sigalgs/1 ssl-max-ver/1 ssl-min-ver/1 ssl-reuse tls-tickets"},
		{"leave it out: checks speak HTTP/1.1 to the member itself", "check-alpn/1 check-proto/1 check-send-proxy check-via-socks4 no-check-send-proxy"},
		{"send-proxy-v2", "proxy-v2-options/1 +" + typedWord + "/1 send-proxy-v2-ssl send-proxy-v2-ssl-cn"},
		{"leave it out: nothing sends it", "no-send-proxy-v2-ssl no-send-proxy-v2-ssl-cn"},
		{"leave it out: a server that fails a client is checked at once", "error-limit/1 observe/1 on-error/1"},
		{"leave it out: a member is checked once for all services", "track/1"},
		{"maxconn", "minconn/1"},
		{"leave it out: names are looked up at each connection", "init-addr/1 resolve-net/1 resolve-opts/1 resolve-prefer/1 resolvers/1"},
		{"leave it out: it is about HTTP", "cookie/1 max-reuse/1 +pool-conn-name/1 pool-low-conn/1 pool-max-conn/1 pool-purge-delay/1 proto/1 redir/1 ws/1"},
		{"leave it out: there are no stick tables; balance source keeps a client on a server", "non-stick stick"},
		{"leave it out: connections come from the address that the kernel chooses", "interface/1 namespace/1 socks4/1 source/1 usesrc/1"},
		{"leave it out: servers are told apart by their addresses", "+hash-key/1"},
		{"leave it out", "+guid/1 id/1 +log-bufsize/1 log-proto/1 no-tfo +shard/1 tcp-ut/1 tfo"},
	} {
		for _, w := range strings.Fields(group.words) {
			w, newer := strings.CutPrefix(w, "+")
			name, args, _ := strings.Cut(w, "/")
			all[name] = haproxyWord{args: len(args), want: group.want, newer: newer}
		}
	}
	return all
}()

// nearestOption says which option a misspelt word most probably means; empty if none is near.
func nearestOption(misspelt string) string {
	known := slices.Concat(slices.Collect(maps.Keys(optionFlags)), slices.Collect(maps.Keys(optionWords)), slices.Collect(maps.Keys(haproxyWords)))
	slices.Sort(known)
	if near := diag.Nearest(misspelt, known); near != "" {
		return "did you mean " + near
	}
	return ""
}
