package model

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// pigsty is what a service of Pigsty's has by default.
const pigsty = "inter 2s fastinter 1s downinter 2s rise 3 fall 3 on-marked-down shutdown-sessions slowstart 30s maxconn 3000 maxqueue 128 weight 100"

func TestParseOptions(t *testing.T) {
	for _, tc := range []struct {
		text string
		want Options
	}{
		{pigsty, Options{Inter: 2 * time.Second, FastInter: time.Second, DownInter: 2 * time.Second, Rise: 3, Fall: 3, ShutdownSessions: true,
			SlowStart: 30 * time.Second, MaxConn: 3000, MaxQueue: 128, Weight: 100}},
		{"", Options{Inter: 2 * time.Second, FastInter: 2 * time.Second, DownInter: 2 * time.Second, Rise: 2, Fall: 3, Weight: 1}},
		{"inter 500", Options{Inter: 500 * time.Millisecond, FastInter: 500 * time.Millisecond, DownInter: 500 * time.Millisecond, Rise: 2, Fall: 3, Weight: 1}},
		{"downinter 5s\tinter 1m \n", Options{Inter: time.Minute, FastInter: time.Minute, DownInter: 5 * time.Second, Rise: 2, Fall: 3, Weight: 1}},
		{"fall 1 fall 5 weight 0 maxconn 0 slowstart 0", Options{Inter: 2 * time.Second, FastInter: 2 * time.Second, DownInter: 2 * time.Second, Rise: 2, Fall: 5}},
		{"check backup send-proxy on-marked-up shutdown-backup-sessions addr ::ffff:10.0.0.1", Options{Inter: 2 * time.Second, FastInter: 2 * time.Second,
			DownInter: 2 * time.Second, Rise: 2, Fall: 3, Weight: 1, Check: true, Backup: true, SendProxy: true, ShutdownBackupSessions: true, CheckAddr: netip.MustParseAddr("10.0.0.1")}},
		{"backup no-backup check no-check check-ssl no-check-ssl disabled enabled send-proxy no-send-proxy send-proxy-v2 no-send-proxy-v2 verify none verify required port 1",
			Options{Inter: 2 * time.Second, FastInter: 2 * time.Second, DownInter: 2 * time.Second, Rise: 2, Fall: 3, Weight: 1, CheckPort: 1}},
		{"send-proxy-v2 check-ssl ca-file /a.crt verify none crt /b.pem check-sni a.example verifyhost b_1.example", Options{Inter: 2 * time.Second, FastInter: 2 * time.Second,
			DownInter: 2 * time.Second, Rise: 2, Fall: 3, Weight: 1, SendProxyV2: true,
			CheckTLS: CheckTLS{On: true, CAFile: "/a.crt", NoVerify: true, CertFile: "/b.pem", SNI: "a.example", VerifyHost: "b_1.example"}}},
		{"ca-file @system-ca", Options{Inter: 2 * time.Second, FastInter: 2 * time.Second, DownInter: 2 * time.Second, Rise: 2, Fall: 3, Weight: 1, CheckTLS: CheckTLS{CAFile: SystemCA}}},
		{"weight 256 rise 2147483647", Options{Inter: 2 * time.Second, FastInter: 2 * time.Second, DownInter: 2 * time.Second, Rise: 2147483647, Fall: 3, Weight: 256}},
	} {
		got, problems := ParseOptions(tc.text)
		tc.want.Text = tc.text
		got.Unfit = nil
		if len(problems) != 0 || len(got.HAProxyOnly) != 0 || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", tc.want) {
			t.Errorf("%q:\n got %+v, problems %v\nwant %+v", tc.text, got, problems, tc.want)
		}
	}
}

func TestParseOptionsProblems(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"inter 0.5s", `6 inter is "0.5s"; a whole number with a unit of us, ms, s, m, h or d, as in 500ms`},
		{"inter 0", `6 inter is "0"; at least 1ms`},
		{"inter 999us", `6 inter is "999us"; at least 1ms`},
		{"inter 25d", `6 inter is "25d"; at most 24 days`},
		{"inter 99999999999999999999", `6 inter is "99999999999999999999"; a whole number with a unit of us, ms, s, m, h or d, as in 500ms`},
		{"inter -1s", `6 inter is "-1s"; a whole number with a unit of us, ms, s, m, h or d, as in 500ms`},
		{"inter", `0 inter has no value; a value after the word`},
		{"rise 0", `5 rise is "0"; a whole number from 1 to 2147483647`},
		{"fall 1.5", `5 fall is "1.5"; a whole number from 1 to 2147483647`},
		{"weight 257", `7 weight is "257"; a whole number from 0 to 256`},
		{"maxconn many  maxqueue -1", "8 maxconn is \"many\"; a whole number from 0 to 2147483647\n23 maxqueue is \"-1\"; a whole number from 0 to 2147483647"},
		{"on-marked-down restart", `15 on-marked-down is "restart"; the word shutdown-sessions`},
		{"on-marked-up shutdown-sessions", `13 on-marked-up is "shutdown-sessions"; the word shutdown-backup-sessions`},
		{"verify optional", `7 verify is "optional"; none or required`},
		{"port 65536 port", "5 port is \"65536\"; a whole number from 1 to 65535\n11 port has no value; a value after the word"},
		{"allbackups", "0 allbackups isn't an option of HAProxy's servers; leave it out: `option allbackups` is a line of its own, which haproxy_services may have"},
		{"redispatch", "0 redispatch isn't an option of HAProxy's servers; leave it out: who can't connect to a server is connected to another anyway"},
		{"intre 2s", "0 intre isn't an option of HAProxy's servers; did you mean inter\n6 2s isn't an option of HAProxy's servers; did you mean ws"},
		{"completely-unknown", "0 completely-unknown isn't an option of HAProxy's servers; "},
	} {
		_, problems := ParseOptions(tc.text)
		lines := make([]string, 0, len(problems))
		for _, p := range problems {
			lines = append(lines, fmt.Sprintf("%d %s %s; %s", p.Offset, p.Word, p.What, p.Want))
		}
		if got := strings.Join(lines, "\n"); got != tc.want {
			t.Errorf("%q:\n got %s\nwant %s", tc.text, got, tc.want)
		}
	}
}

// Words are refused by the native engine with their positions: those it doesn't know, those with values that it can't use, and
// those that make no sense on the servers of PostgreSQL.
func TestRefusedOptions(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"inter 3s send-proxy-v2-ssl observe layer4 fall 5 track", "9 send-proxy-v2-ssl isn't supported by the native engine; send-proxy-v2\n" +
			"27 observe isn't supported by the native engine; leave it out: a server that fails a client is checked at once\n" +
			"49 track isn't supported by the native engine; leave it out: a member is checked once for all services"},
		{"sni str(a) check-sni a", "0 sni isn't supported by the native engine; check-sni for the name that checks ask for; the TLS of clients is passed on as it is"},
		{"source 10.0.0.1 interface lo usesrc client tfo", "0 source isn't supported by the native engine; leave it out: connections come from the address that the kernel chooses\n" +
			"16 interface isn't supported by the native engine; leave it out: connections come from the address that the kernel chooses\n" +
			"29 usesrc isn't supported by the native engine; leave it out: connections come from the address that the kernel chooses\n" +
			"43 tfo isn't supported by the native engine; leave it out"},
		{"set-proxy-v2-tlv-fmt(0x20) %[src] guid a hash-key addr", "0 set-proxy-v2-tlv-fmt(0x20) isn't supported by the native engine; send-proxy-v2\n" +
			"34 guid isn't supported by the native engine; leave it out\n" +
			"41 hash-key isn't supported by the native engine; leave it out: servers are told apart by their addresses"},
		{"port 80 disabled no-check", "0 port has no effect: each member is checked at its own patroni_port; leave it out\n" +
			"8 disabled would keep every server in maintenance, so that nobody is ever connected to one; leave it out, or the service\n" +
			"17 no-check has no effect: every server of a PostgreSQL service is checked; leave it out"},
		{"disabled no-check enabled check", ""},
		{"disabled enabled disabled", "17 disabled would keep every server in maintenance, so that nobody is ever connected to one; leave it out, or the service"},
		{"ca-file ca.crt crt '/a'", `8 ca-file is "ca.crt"; an absolute path without quotes` + "\n" + `19 crt is "'/a'"; an absolute path without quotes`},
		{"addr localhost addr fe80::1%lo", `5 addr is "localhost"; an IP address` + "\n" + `20 addr is "fe80::1%lo"; an IP address`},
		{"verifyhost 10.10.10.11 check-sni str(a) check-sni .", `11 verifyhost is "10.10.10.11"; a host name` + "\n" + `33 check-sni is "str(a)"; a host name` + "\n" +
			`50 check-sni is "."; a host name`},
	} {
		got, problems := ParseOptions(tc.text)
		var lines []string
		for _, r := range got.Refused() {
			want, found := strings.CutSuffix(r.Want, "; or HAProxy as the engine (--engine haproxy)")
			if unfit := slices.Contains(got.Unfit, r); found == unfit {
				t.Errorf("%q: %s wants %q, though the other engine is of help: %v", tc.text, r.Word, r.Want, !unfit)
			}
			lines = append(lines, fmt.Sprintf("%d %s %s; %s", r.Offset, r.Word, r.What, want))
		}
		if strings.Join(lines, "\n") != tc.want || len(problems) != 0 {
			t.Errorf("%q: refused\n%s\nproblems %v; want\n%s", tc.text, strings.Join(lines, "\n"), problems, tc.want)
		}
	}
}

// A server's own words come after the service's, and are all that it is blamed for.
func TestServerOptions(t *testing.T) {
	got, problems := ParseServerOptions("inter 5s downinter 9s fal 3 check observe layer4 send-proxy disabled", "inter 1s no-send-proxy no-check backup port 80 enabled track x rise 0")
	if got.Inter != time.Second || got.FastInter != time.Second || got.DownInter != 9*time.Second || got.SendProxy || got.Check || !got.Backup || got.Disabled ||
		got.CheckPort != 80 || got.Text != "inter 1s no-send-proxy no-check backup port 80 enabled track x rise 0" {
		t.Errorf("%+v", got)
	}
	if len(got.HAProxyOnly) != 1 || got.HAProxyOnly[0].Word != "track" || got.HAProxyOnly[0].Offset != 55 {
		t.Errorf("HAProxy's own %+v, want track at 55", got.HAProxyOnly)
	}
	if len(problems) != 1 || problems[0].Word != "rise" || problems[0].Offset != 68 {
		t.Errorf("problems %+v, want rise's at 68", problems)
	}
	if len(got.Unfit) != 2 || got.Unfit[0].Word != "no-check" || got.Unfit[0].Offset != 23 || got.Unfit[1].Word != "port" || got.Unfit[1].Offset != 39 {
		t.Errorf("unfit %+v, want no-check at 23 and port at 39", got.Unfit)
	}
}

// Every word is one of HAProxy's, and every one of HAProxy's is known, with as many values as it takes.
func TestWordsAreHAProxys(t *testing.T) {
	// Keywords are listed only for a configuration that could run.
	cfg := filepath.Join(t.TempDir(), "a.cfg")
	text := "defaults\n timeout connect 1s\n timeout client 1s\n timeout server 1s\nlisten a\n bind 127.0.0.1:9\n"
	if err := os.WriteFile(cfg, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("haproxy", "-dKcfg", "-c", "-f", cfg).CombinedOutput()
	if err != nil {
		t.Fatalf("haproxy: %v\n%s", err, out)
	}
	theirs := map[string]int{}
	for line := range strings.Lines(string(out)) {
		rest, found := strings.CutPrefix(strings.TrimSpace(line), "server <name> <addr> ")
		if !found {
			continue
		}
		name, values, _ := strings.Cut(rest, " ")
		theirs[name] = 0
		if values != "" {
			// A word that takes any number has at least one.
			n, err := strconv.Atoi(strings.TrimPrefix(values, "+"))
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			theirs[name] = max(n, 1)
		}
	}
	// usesrc and interface are values of source, which we read as words of their own.
	theirs["usesrc"], theirs["interface"] = 1, 1
	// Its value isn't counted, as it has a part of the word in parentheses, too.
	if _, known := theirs[typedWord]; known {
		theirs[typedWord] = 1
	}
	ours := map[string]int{}
	for name := range optionFlags {
		ours[name] = 0
	}
	for name := range optionWords {
		ours[name] = 1
	}
	for name, f := range haproxyWords {
		if _, again := ours[name]; again {
			t.Errorf("%s is both known and HAProxy's own", name)
		}
		ours[name] = f.args
	}
	if len(theirs) < 80 {
		t.Fatalf("HAProxy lists %d words only:\n%s", len(theirs), out)
	}
	for name := range linesOfServices {
		if _, word := theirs[name]; word {
			t.Errorf("%s is a word of HAProxy's servers", name)
		}
	}
	for name, n := range theirs {
		if m, known := ours[name]; !known || m != n {
			t.Errorf("HAProxy has %s with %d values; known %v, with %d", name, n, known, m)
		}
	}
	for name := range ours {
		if _, known := theirs[name]; !known && !haproxyWords[name].newer {
			t.Errorf("HAProxy has no %s", name)
		}
	}
}

func TestOptionsInJSON(t *testing.T) {
	options, _ := ParseOptions(pigsty)
	text, err := json.Marshal(options)
	if err != nil || string(text) != `"`+pigsty+`"` {
		t.Fatalf("%s, error %v", text, err)
	}
	var again Options
	if err := json.Unmarshal(text, &again); err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", options) {
		t.Errorf("read back: %+v, error %v; want %+v", again, err, options)
	}
	if err := json.Unmarshal([]byte(`"inter soon"`), &again); err == nil || !strings.Contains(err.Error(), "option inter is") {
		t.Errorf("a word that can't be used gives the error %v", err)
	}
}

func TestParseTime(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "7": 7 * time.Millisecond, "10us": 10 * time.Microsecond, "500ms": 500 * time.Millisecond, "2s": 2 * time.Second, "3m": 3 * time.Minute,
		"4h": 4 * time.Hour, "24d": 24 * 24 * time.Hour,
	} {
		if got, err := ParseTime(text); got != want || err != nil {
			t.Errorf("%q is %v, error %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "s", "1.5s", "1 s", "2S", "1w", "+1s", "25d", "9223372036854775807d"} {
		if got, err := ParseTime(text); err == nil {
			t.Errorf("%q is %v, want an error", text, got)
		}
	}
}

// FuzzParseOptions looks for texts that panic, whose problems are nowhere in them, or that mean something else once they
// have been through JSON.
func FuzzParseOptions(f *testing.F) {
	for _, seed := range []string{pigsty, "inter 0.5s", "send-proxy verify none ca-file x addr ::1 port 1", "on-marked-down", "disabled no-check check-sni a", "weight 256 fal 3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		options, problems := ParseOptions(text)
		for _, p := range append(problems, options.Refused()...) {
			if p.Offset < 0 || p.Offset >= len(text) || p.Word == "" || p.What == "" {
				t.Fatalf("%q: the problem %+v is nowhere", text, p)
			}
		}
		if len(problems) > 0 {
			return
		}
		if options.Inter < time.Millisecond || options.FastInter < time.Millisecond || options.DownInter < time.Millisecond || options.Rise < 1 ||
			options.Fall < 1 || options.Weight < 0 || options.Weight > 256 || options.MaxConn < 0 || options.MaxQueue < 0 || options.SlowStart < 0 {
			t.Fatalf("%q gives %+v", text, options)
		}
		var again Options
		if err := again.UnmarshalText([]byte(text)); err != nil || fmt.Sprint(again) != fmt.Sprint(options) {
			t.Fatalf("%q gives %+v, and then %+v (error %v)", text, options, again, err)
		}
	})
}
