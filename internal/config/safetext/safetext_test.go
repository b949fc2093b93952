package safetext

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestAttackTextIsShownAsWhatItIs(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "",
		"200 primary running":     "200 primary running",
		"größer, 高可用, 👍":          "größer, 高可用, 👍",
		"\x1b[2J\x1b]0;title\x07": `\u001b[2J\u001b]0;title\u0007`,
		"a\u202eb\u2066c":         `a\u202eb\u2066c`,
		"zero\u200bwidth\ufeff":   `zero\u200bwidth\ufeff`,
		"line\nline\r\ttab":       `line\nline\r\ttab`,
		"c1 \u009b31m \x9b31m":    `c1 \u009b31m \x9b31m`,
		"tag \U000e0041":          `tag \udb40\udc41`,
		"filler \u3164 \u2028":    `filler \u3164 \u2028`,
		"\x7f\x00":                `\u007f\u0000`,
	} {
		if got := Line(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
		if Is(text) != (text == want) {
			t.Errorf("%q: Is says %v", text, Is(text))
		}
	}
}

func TestAttackTextIsShort(t *testing.T) {
	if got, want := Short(strings.Repeat("a", 60_000), 5), "aaaaa… (60000 bytes)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := Short("ab高可用", 4), "ab… (11 bytes)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := Line(strings.Repeat("\x1b", 60_000)); len(got) > 7*Most {
		t.Errorf("%d bytes", len(got))
	}
	if got := Text(strings.Repeat("\n", 60_000)); strings.Count(got, "\n") > mostLines || !strings.HasSuffix(got, "bytes more)") {
		t.Errorf("%d lines", strings.Count(got, "\n"))
	}
	if got, want := Text("one\ntwo\x1b\n"), "one\ntwo\\u001b\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// What goes through a Writer in a JSON text means the same behind it.
func TestAttackWriterKeepsJSON(t *testing.T) {
	const text = "a\u202eb \u009b \U000e0041 高\x7f"
	encoded, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	w := Writer(&out)
	for i := range encoded {
		if _, err := w.Write(encoded[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if !Is(out.String()) {
		t.Errorf("%q has what doesn't show", out.String())
	}
	var back string
	if err := json.Unmarshal([]byte(out.String()), &back); err != nil || back != text {
		t.Errorf("%q, %v", back, err)
	}
}

func TestAttackDeepReachesEveryText(t *testing.T) {
	type inner struct{ Text string }
	v := struct {
		Text  string
		Of    []inner
		At    *inner
		Tags  map[string]string
		Whole int
	}{"\x1b", []inner{{"\u202e"}}, &inner{"\n"}, map[string]string{"a": "\r"}, 1}
	Deep(&v)
	if v.Text != `\u001b` || v.Of[0].Text != `\u202e` || v.At.Text != `\n` || v.Tags["a"] != `\r` {
		t.Errorf("%+v", v)
	}
}

func FuzzLine(f *testing.F) {
	f.Add("a\u202e\xff高")
	f.Fuzz(func(t *testing.T, text string) {
		if got := Short(text, 20); !Is(got) || !utf8.ValidString(got) || len(got) > 20*6+40 {
			t.Errorf("%q: %q", text, got)
		}
		var out strings.Builder
		if _, err := Writer(&out).Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if left := strings.NewReplacer("\n", "", "\t", "").Replace(out.String()); !Is(left) {
			t.Errorf("%q: %q", text, left)
		}
	})
}

func TestSecretsNames(t *testing.T) {
	for name, want := range map[string]bool{
		"pg_admin_password": true, "PGPASSWD": true, "s3_key": true, "api-token": true, "dba_pw": true, "vault.secret": true,
		"PATRONI_PASSWORD": true, "minio_secret_key": true, "api-key": true, "auth.token": true, "tokens": true, "db_pass": true, "pg_role": false,
		"pg_seq": false, "keyspace": false, "passive": false, "monkeys": false, "monkey": false, "compass": false, "pg_offline_query": false,
	} {
		if IsSecret(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

func BenchmarkLineOrdinary(b *testing.B) {
	for b.Loop() {
		Line("streaming")
	}
}
