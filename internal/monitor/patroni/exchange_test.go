package patroni

import (
	"encoding/json"
	"io"
	"strings"
	"syscall"
	"testing"
)

func TestMore(t *testing.T) {
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, test := range []struct {
		received string
		want     int
	}{
		{"", 1},
		{"HTTP/1.0 200 OK\r\nContent-", 1},
		{"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n", UntilClosed},
		{"HTTP/1.0 503 Service Unavailable\r\nServer: x\r\n\r\n{}", UntilClosed},
		{"HTTP/1.1 200 OK\r\n\r\n{}", UntilClosed},
		{"HTTP/1.0 200 OK\r\ncontent-LENGTH: 10\r\n\r\n{}", 8},
		{"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n0123456789", 0},
		{"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n0123456789more", 0},
		{"HTTP/1.0 200 OK\nContent-Length: 10\n\n", 10},
		{"HTTP/1.0 200 OK\r\nContent-Length: 9999999999999\r\n\r\n", maxBody + 1},
		{"HTTP/1.0 204 No Content\r\n\r\n", 0},
		{"HTTP/1.0 200 OK\r\nno field\r\n\r\n", 0},
		{"HTTP/1.0 200 OK\r\nContent-Length: ten\r\n\r\n", 0},
		{"SSH-2.0", 1},
		{"SSH-2.0-OpenSSH\r\n", 0},
		{chunked, 1},
		{chunked + "2\r\n{", 1},
		{chunked + "2\r\n{}\r\n", 1},
		{chunked + "2\r\n{}\r\n0\r\n", 1},
		{chunked + "2\r\n{}\r\n0\r\n\r\n", 0},
		{chunked + "no chunk\r\n", 0},
	} {
		if got := More([]byte(test.received)); got != test.want {
			t.Errorf("%q: %d, want %d", test.received, got, test.want)
		}
	}
}

func TestReadAnswer(t *testing.T) {
	const head = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
	for _, test := range []struct {
		received string
		err      error
		want     string
	}{
		{head + `{"role": "replica", "state": "running"}`, io.EOF, "200 replica running"},
		{head + `{"role": "replica", "state": "running"}`, nil, "200 replica running"},
		{head + `{"role": "replica", "state": "running"}`, syscall.ECONNRESET, "the answer broke off: connection reset"},
		{"", syscall.ECONNRESET, "connection reset"},
		{"", syscall.ECONNREFUSED, "connection refused"},
		{"", io.EOF, "connection closed without an answer"},
	} {
		answer, err := ReadAnswer([]byte(test.received), test.err)
		got := answer.Words()
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%q and %v: %q, want %q", test.received, test.err, got, test.want)
		}
	}
}

func TestPlain(t *testing.T) {
	for base, want := range map[string]string{
		"http://10.10.10.11:8008": "10.10.10.11:8008", "http://[fd00::11]:8008": "[fd00::11]:8008", "http://[fe80::11%25eth0]:8008": "",
		"https://10.10.10.11:8008": "", "http://db1:8008": "", "http://10.10.10.11": "",
	} {
		request, err := NewRequest(base, "primary")
		if err != nil {
			t.Fatal(err)
		}
		to, is := request.Plain()
		if is != (want != "") || is && to.String() != want {
			t.Errorf("%s: %v, %t", base, to, is)
		}
		if !strings.HasPrefix(string(request.Text), "GET /primary HTTP/1.1\r\n") {
			t.Errorf("%s: %q", base, request.Text)
		}
	}
}

// FuzzFields: a field is what encoding/json makes of it, though most are read without it.
func FuzzFields(f *testing.F) {
	for _, raw := range []string{`"running"`, `""`, `"a\"b"`, `"\u00e4"`, `"ä"`, "\"\xff\"", `null`, `true`, `false`, `0`, `-0`, `12`, `-7`, `1.0`, `1e3`, `9223372036854775807`, `9223372036854775808`, `[]`, `{}`, `{"a": 1}`, `" "`} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var o object
		if json.Unmarshal([]byte(`{"x": `+string(raw)+`}`), &o) != nil {
			return
		}
		value := o["x"]
		var text string
		if json.Unmarshal(value, &text) != nil {
			text = ""
		}
		var number int64
		if json.Unmarshal(value, &number) != nil {
			number = 0
		}
		var truth bool
		if json.Unmarshal(value, &truth) != nil {
			truth = false
		}
		if o.text("x") != text || o.number("x") != number || o.truth("x") != truth {
			t.Errorf("%s: %q %d %t, want %q %d %t", value, o.text("x"), o.number("x"), o.truth("x"), text, number, truth)
		}
	})
}
