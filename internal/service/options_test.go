package service

import (
	"encoding/json"
	"fmt"
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
		{"weight 256 rise 2147483647", Options{Inter: 2 * time.Second, FastInter: 2 * time.Second, DownInter: 2 * time.Second, Rise: 2147483647, Fall: 3, Weight: 256}},
	} {
		got, problems := ParseOptions(tc.text)
		tc.want.Text = tc.text
		if len(problems) != 0 || len(got.Foreign) != 0 || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", tc.want) {
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

func TestForeignOptions(t *testing.T) {
	got, problems := ParseOptions("inter 3s send-proxy-v2 verify none observe layer4 fall 5 check-ssl track")
	words := make([]string, 0, len(got.Foreign))
	for _, f := range got.Foreign {
		words = append(words, fmt.Sprintf("%s@%d", f.Word, f.Offset))
	}
	if want := "send-proxy-v2@9 verify@23 observe@35 check-ssl@57 track@67"; strings.Join(words, " ") != want || len(problems) != 0 || got.Fall != 5 {
		t.Errorf("foreign words %v, problems %v, fall %d; want %s, none, 5", words, problems, got.Fall, want)
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
	for _, seed := range []string{pigsty, "inter 0.5s", "send-proxy verify none", "on-marked-down", "weight 256 fal 3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		options, problems := ParseOptions(text)
		for _, p := range append(problems, options.Foreign...) {
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
