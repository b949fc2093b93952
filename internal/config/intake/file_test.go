package intake

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// sampleFile is a file with everything that one may hold.
func sampleFile() File {
	return File{
		Made:     Made{By: "1.2.3", At: time.Date(2026, 3, 1, 3, 4, 5, 0, time.UTC), From: "pigsty.yml"},
		Accepted: &Accepted{At: time.Date(2026, 3, 1, 4, 0, 0, 0, time.UTC), Source: "/srv/pigsty.yml", Sender: "dba@infra", From: "10.10.10.10:4711", File: strings.Repeat("ab", 32)},
		Node: model.Node{
			Plan: sample().Plan,
			Etcd: map[string]model.Etcd{"pg-test": {Endpoints: []string{"https://10.10.10.10:2379"}, CAFile: "/pg/cert/ca.crt", CertFile: "/pg/cert/server.crt", KeyFile: "/pg/cert/server.key",
				User: "pg-test", Password: "Hidden.1"}},
			Base: &model.Base{Node: "pg-test-1", User: "haproxy", Group: "haproxy", PIDFile: "/run/haproxy.pid", ClientTimeout: "24h", ServerTimeout: "24h", StatsIP: "*", StatsPort: 9101,
				MetricsPath: "/metrics", Auth: true, AdminUser: "admin", AdminPassword: "Hidden.2"},
		},
	}
}

func encoded(t *testing.T, f File) string {
	t.Helper()
	text, err := f.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestFilesAreReadAsTheyWereWritten(t *testing.T) {
	native := sampleFile()
	native.Base, native.Etcd, native.Accepted = nil, nil, nil
	for name, f := range map[string]File{"with everything": sampleFile(), "with a plan alone": native} {
		text := encoded(t, f)
		if strings.Contains(text, "Hidden") {
			t.Errorf("%s: it holds a password:\n%s", name, text)
		}
		got, problems := DecodeFile("plan.json", []byte(text))
		if len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
		}
		f.Format, f.Node = Format, f.Node.WithoutSecrets()
		f.SHA256, _ = Digest(f.Node)
		if !reflect.DeepEqual(got, f) {
			t.Errorf("%s: read it is another:\n%+v\n%+v", name, got, f)
		}
	}
	f := sampleFile()
	f.Plan.Clusters[0].Members[0].Vars["tags"] = "\u202e\U000e0041\x7f"
	text := encoded(t, f)
	if got, problems := DecodeFile("plan.json", []byte(text)); len(problems) > 0 || !reflect.DeepEqual(got.Plan, f.Plan) || !safetext.Is(strings.ReplaceAll(text, "\n", "")) {
		t.Errorf("with characters that don't show: %v\n%s", problems, text)
	}
	for _, want := range []string{`"password_file": "/etc/pgporter/etcd-pg-test.password"`, `"password_file": "/etc/pgporter/haproxy.password"`, `"selector": "[? pg_seq > ` + "`1`]\""} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// TestDigest: the same content has the same, whoever made it when, however it is laid out, and whatever the passwords are.
func TestDigest(t *testing.T) {
	f := sampleFile()
	digest := func(edit func(*File)) string {
		t.Helper()
		g := sampleFile()
		edit(&g)
		read, problems := DecodeFile("", []byte(encoded(t, g)))
		if problems.Err() != nil {
			t.Fatal(problems)
		}
		return read.SHA256
	}
	same, err := Digest(f.Node)
	if err != nil || len(same) != 64 {
		t.Fatal(same, err)
	}
	for name, edit := range map[string]func(*File){
		"made later": func(f *File) { f.Made.At = f.Made.At.Add(time.Hour) }, "by another": func(f *File) { f.Made.By = "2" },
		"from elsewhere": func(f *File) { f.Made.From = "x" }, "never accepted": func(f *File) { f.Accepted = nil },
		"with other passwords": func(f *File) { f.Base.AdminPassword = "other" },
	} {
		if got := digest(edit); got != same {
			t.Errorf("%s: another digest", name)
		}
	}
	for name, edit := range map[string]func(*File){
		"another port": func(f *File) { f.Plan.Clusters[0].Definitions[0].Port++ }, "another etcd": func(f *File) { f.Etcd["pg-test"].Endpoints[0] = "https://10.10.10.11:2379" },
		"another page": func(f *File) { f.Base.StatsPort++ }, "no etcd": func(f *File) { f.Etcd = nil },
	} {
		if got := digest(edit); got == same {
			t.Errorf("%s: the same digest", name)
		}
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(encoded(t, f))); err != nil {
		t.Fatal(err)
	}
	if _, problems := DecodeFile("plan.json", compact.Bytes()); len(problems) > 0 {
		t.Errorf("without blanks: %v", problems)
	}
}

func TestFilesThatCantBeUsed(t *testing.T) {
	whole := encoded(t, sampleFile())
	// where gives file, line and column of a word of a text.
	// With a brace before it it is where the object begins in which the word is.
	where := func(text, word string) string {
		d := &document{name: "plan.json", text: []byte(text)}
		inside, isObject := strings.CutPrefix(word, "{…")
		at := strings.Index(text, inside)
		if isObject && at >= 0 {
			at = strings.LastIndex(text[:at], "{")
		}
		if at < 0 {
			t.Fatalf("no %q in the file", word)
		}
		return d.position(at).String()
	}
	replace := func(old, sent string) string { return strings.Replace(whole, old, sent, 1) }
	end := strings.LastIndex(whole, `"haproxy"`)
	for _, test := range []struct {
		name, text string
		// at is a word of the text that the problem is at; empty for the whole file.
		at, want string
	}{
		{"nothing", "", "", "plan.json: error: the file is empty; the whole file, as `pgporter plan` writes it"},
		{"an inventory", "all:\n  children:\n", "all", "this is no plan; what `pgporter plan` writes"},
		{"another kind of JSON", ` {"a": 1}`, "", "this is no plan: it has no format"},
		{"a list", ` []`, "[]", "this is no plan; what"},
		{"a newer format", replace(`"format": 1`, `"format": 2, "colour": "red"`), "2, ", "the plan is of format 2, written by pgporter 1.2.3, and this pgporter reads format 1; a plan made by a pgporter of this node's version, or a newer pgporter here"},
		{"cut off", whole[:end], "", "error: the file ends in the middle of the plan; the whole file"},
		{"cut off in a name", whole[:end+4], "", "error: the file ends in the middle of the plan; the whole file"},
		{"without its last brace", strings.TrimSuffix(whole, "}\n"), "", "error: the file ends in the middle of the plan"},
		{"a comma too many", replace(`"node": "10.10.10.11",`, `"node": "10.10.10.11",,`), ",\n    \"clusters\"", "the file isn't whole, or was changed: invalid character ','"},
		{"something behind it", whole + "{}", "{}", "the file isn't whole, or was changed: invalid character '{' after top-level value"},
		{"zeros, as after a crash", whole[:end] + strings.Repeat("\x00", 100), "\x00", "the file isn't whole, or was changed: invalid character "},
		{"bytes that are no text", replace("dba@infra", "dba@\xff"), "\xff", "the byte 0xff is no UTF-8"},
		{"changed by hand", replace(`"port": 5433`, `"port": 5439`), `"` + sum64(t), "the plan isn't the one that was written: its sha256 is another; the whole file, as `pgporter plan` writes it; whoever changes it on purpose takes the line with sha256 out"},
		{"a field from the future", replace(`"port": 5433`, `"colour": "red", "port": 5433`), `"colour"`, `the field "colour" isn't known to this version; one of all_backups, allow, backup,`},
		{"a misspelt field", replace(`"selector"`, `"selectr"`), `"selectr"`, `the field "selectr" isn't known to this version; did you mean selector`},
		{"a field in capitals", replace(`"plan"`, `"Plan"`), `"Plan"`, `the field "Plan" isn't known to this version; did you mean plan`},
		{"a field twice", replace(`"port": 5433`, `"port": 5433, "port": 1`), `"port": 1`, `the field "port" is here twice; one of them`},
		{"a password", replace(`"user": "pg-test"`, `"user": "pg-test", "password": "x"`), `"password"`, `the field "password" isn't known to this version`},
		{"a text for a number", replace(`"port": 5433`, `"port": "5433"`), `"5433"`, `plan.clusters[0].services[0].port is a text; a whole number`},
		{"half a port", replace(`"port": 5433`, `"port": 5433.5`), `5433.5`, `plan.clusters[0].services[0].port is 5433.5; a whole number`},
		{"a number for a text", replace(`"name": "pg-test"`, `"name": 5`), `5,`, `plan.clusters[0].name is a number; a text`},
		{"an object for a list", replace(`"members": [`, `"members": {"a": [`+"]},\n\"x\": ["), `{"a"`, `plan.clusters[0].members is an object; a list`},
		{"a list for an object", replace(`"made": {`, `"made": [1], "x": {`), `[1]`, `made is a list; an object`},
		{"yes for true", replace(`"auth": true`, `"auth": "yes"`), `"yes"`, `haproxy.auth is a text; true or false`},
		{"options that aren't any", replace("inter 2s", "intre 2s"), `"intre`, `plan.clusters[0].services[0].options: option intre isn't an option`},
		{"no address", replace("10.10.10.3/24", "10.10.10.3"), `"10.10.10.3"`, `plan.clusters[0].vip.address: `},
		{"no time", replace("2026-03-01T03:04:05Z", "today"), `"today"`, `made.at: `},
		{"a number that is none", replace(`"pg_seq": 1`, `"pg_seq": 1e999`), "1e999", "plan.clusters[0].members[0].vars.pg_seq is out of range"},
		{"a service's port", replace(`"port": 5433`, `"port": 70000`), `{…"name": "primary"`, "service pg-test-primary: port is 70000: 1 to 65535"},
		{"a member's weight", strings.Replace(whole, `"weight": 100`, `"weight": 300`, 2), `{…"name": "pg-test-2"`, "cluster pg-test: member pg-test-2: weight is 300"},
		{"an endpoint", replace("https://10.10.10.10", "ftp://10.10.10.10"), `{…"endpoints"`, `etcd of pg-test: endpoint "ftp://10.10.10.10:2379": a URL`},
		{"a password in another file", replace("/etc/pgporter/etcd-pg-test.password", "/etc/shadow"), `{…"endpoints"`, `etcd of pg-test: password_file is "/etc/shadow": a file /etc/pgporter/NAME.password`},
		{"a password above", replace("/etc/pgporter/haproxy.password", "/etc/pgporter/../x.password"), `{…"node": "pg-test-1"`, `haproxy: password_file is "/etc/pgporter/../x.password"`},
		{"a key somewhere", replace("/pg/cert/server.key", "server.key"), `{…"endpoints"`, `etcd of pg-test: file "server.key": a path that begins with /`},
		{"a page's port", replace(`"stats_port": 9101`, `"stats_port": 0`), `{…"node": "pg-test-1"`, `haproxy: stats_port is 0: 1 to 65535`},
		{"a time of HAProxy's", replace(`"client_timeout": "24h"`, `"client_timeout": "24x"`), `{…"node": "pg-test-1"`, `haproxy: client_timeout is "24x": a time as in 24h`},
		{"a maker", replace(`"by": "1.2.3"`, `"by": "1\u001b[2J"`), `{…"by"`, `made.by: printable text`},
		{"a sender", replace(`"sender": "dba@infra"`, `"sender": "a\nb"`), `{…"at": "2026-03-01T04`, `accepted: printable texts`},
		{"a cluster elsewhere", replace(`"name": "pg-far"`, `"name": "a.b"`), `{…"name": "a.b"`, `cluster "a.b" elsewhere: its name`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.text == whole {
				t.Fatal("the test doesn't alter the file")
			}
			want := test.want
			if test.at != "" {
				want = where(test.text, test.at) + ": error: " + want
			}
			_, problems := DecodeFile("plan.json", []byte(test.text))
			if problems.Err() == nil || !strings.Contains(problems.Error(), want) {
				t.Errorf("got  %v\nwant %s", problems, want)
			}
		})
	}
	// All at once.
	_, problems := DecodeFile("plan.json", []byte(strings.NewReplacer(`"port": 5433`, `"port": "x"`, `"made"`, `"mode"`, `"ttl": 30`, `"ttl": {}`).Replace(whole)))
	if len(problems) < 3 {
		t.Errorf("of several mistakes only %v", problems)
	}
	// Many are cut, and take no time.
	many := replace(`"made": {`, `"made": {`+strings.Repeat(`"x":1,`, 100_000))
	if _, problems := DecodeFile("plan.json", []byte(many)); len(problems) == 0 || len(problems) > maxProblems {
		t.Errorf("of 100,000 mistakes %d are told", len(problems))
	}
	deep := replace(`"pg_seq": 1`, `"pg_seq": `+strings.Repeat("[", 1_000_000)+strings.Repeat("]", 1_000_000))
	if _, problems := DecodeFile("plan.json", []byte(deep)); !strings.Contains(problems.Error(), "exceeded max depth") {
		t.Errorf("a million lists in each other: %v", problems)
	}
	if _, problems := DecodeFile("plan.json", bytes.Repeat([]byte(" "), MaxFileBytes+1)); !strings.Contains(problems.Error(), "plan.json: error: the file has 67108865 bytes, more than 67108864") {
		t.Errorf("too much: %v", problems)
	}
}

// sum64 is the sample's checksum.
func sum64(t *testing.T) string {
	t.Helper()
	sum, err := Digest(sampleFile().Node)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// A file without its checksum is one that somebody has changed, which is his good right.
func TestFilesThatWereChangedByHand(t *testing.T) {
	whole := encoded(t, sampleFile())
	text := strings.Replace(strings.Replace(whole, `  "sha256": "`+sum64(t)+"\",\n", "", 1), `"port": 5433`, `"port": 5439`, 1)
	f, problems := DecodeFile("plan.json", []byte(text))
	if problems.Err() != nil || len(problems) != 1 || f.Plan.Clusters[0].Definitions[0].Port != 5439 {
		t.Fatalf("got %v, %+v", problems, f.Plan)
	}
	if want := "plan.json:1:1: warning: the plan has no sha256: it was changed by hand"; !strings.HasPrefix(problems[0].String(), want) {
		t.Errorf("got %s", problems[0])
	}
}

// What an order may not say, since it comes from elsewhere, a file on the node may, as the inventory may that it was made from.
func TestFilesMaySayWhatInventoriesMay(t *testing.T) {
	f := sampleFile()
	f.Plan.TCPServices[0].Options = []string{"errorfile 503 /etc/haproxy/503.http"}
	f.Plan.TCPServices[0].Balance = "hash src"
	f.Plan.TCPServices[0].Servers[0].Options = "ssl crt /etc/haproxy/x.pem"
	if _, problems := DecodeFile("plan.json", []byte(encoded(t, f))); len(problems) > 0 {
		t.Error(problems)
	}
	// But not what leaves its line, nor, for the native engine, what only HAProxy can do.
	for want, edit := range map[string]func(*File){
		"is more than one line":         func(f *File) { f.Plan.TCPServices[0].Options = []string{"option tcplog\nlisten x"} },
		"isn't supported by the native": func(f *File) { f.Base = nil; f.Plan.TCPServices[0].Protocol = "http" },
		"static-rr is not supported":    func(f *File) { f.Base = nil; f.Plan.Clusters[0].Definitions[0].Balance = "static-rr" },
	} {
		f := sampleFile()
		edit(&f)
		if text, err := f.Encode(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q\n%s", err, want, text)
		}
	}
}

// TestPlansOfInventoriesAreFiles writes what planning makes of every sound inventory that it is tested with, for both engines.
func TestPlansOfInventoriesAreFiles(t *testing.T) {
	written := 0
	for _, dir := range []string{"good", "warn", "haproxy", "site"} {
		paths, err := filepath.Glob(filepath.Join("..", "plan", "testdata", dir, "*.yml"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %d inventories, %v", dir, len(paths), err)
		}
		for _, path := range paths {
			inv, problems := inventory.Read(path)
			if inv == nil || problems.Err() != nil {
				continue
			}
			for _, needs := range []plan.Needs{{}, {Etcd: true, Names: true}, {HAProxy: true}, {HAProxy: true, Etcd: true, Names: true}} {
				nodes, problems := plan.AllForRun(inv, needs)
				if problems.Err() != nil {
					continue
				}
				for _, n := range nodes {
					one, problems := plan.ForRun(inv, n.Plan.Node, needs)
					if problems.Err() != nil || !reflect.DeepEqual(one, n) {
						t.Errorf("%s, %s, %+v: alone it is planned otherwise: %v\n%+v\n%+v", path, n.Plan.Node, needs, problems, one, n)
					}
					text, err := File{Made: Made{By: "test", From: filepath.Base(path)}, Node: n}.Encode()
					if err != nil {
						t.Errorf("%s, %s: %v", path, n.Plan.Node, err)
						continue
					}
					got, problems := DecodeFile(path, text)
					if len(problems) > 0 || !reflect.DeepEqual(got.Node, n) {
						t.Errorf("%s, %s: written it is another, %v\n%+v\n%+v", path, n.Plan.Node, problems, got.Node, n)
					}
					written++
				}
			}
		}
	}
	if written < 40 {
		t.Errorf("only %d plans were written", written)
	}
}

// FuzzDecodeFile looks for files that make the reader panic, that are admitted though they can't be written again, and for problems
// that are nowhere in the file.
func FuzzDecodeFile(f *testing.F) {
	sample := sampleFile()
	for _, edit := range []func(){
		func() {},
		func() { sample.Accepted = nil },
		func() { sample.Base, sample.Etcd = nil, nil },
		func() { sample.Plan.Clusters[0].VIP.Address = netip.MustParsePrefix("fd00::1/64") },
		func() { sample.Plan.Clusters = nil; sample.Plan.Names, sample.Plan.Elsewhere = nil, nil },
	} {
		edit()
		text, err := sample.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		// A fuzzer doesn't find checksums.
		f.Add([]byte(strings.Replace(string(text), `"sha256"`, `"sha257"`, 1)))
		f.Add(append([]byte("{\"format\": 1,\n"), text[strings.Index(string(text), `  "made"`):]...))
		f.Add([]byte(strings.Replace(string(text), "{\n  \"format\": 1,\n", "{\"format\":1,", 1)[:len(text)/2]))
	}
	for _, text := range []string{"", "{}", `{"format": 1}`, `{"format": 1, "made": {}, "plan": {"node": "a", "clusters": null}}`, `{"format":1,"format":"2","plan":[[[{}]]]}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file, problems := DecodeFile("plan.json", text)
		lines := bytes.Count(text, []byte("\n")) + 1
		for _, p := range problems {
			if p.Pos.File != "plan.json" || p.Pos.Line > lines || p.Pos.Line > 0 && p.Pos.Column < 1 || p.What == "" {
				t.Fatalf("%+v", p)
			}
		}
		if problems.Err() != nil {
			return
		}
		again, err := file.Encode()
		if err != nil {
			t.Fatalf("it was read, but can't be written: %v\n%s", err, text)
		}
		back, problems := DecodeFile("plan.json", again)
		if len(problems) > 0 {
			t.Fatalf("written it can't be read: %v\n%s", problems, again)
		}
		if third, err := back.Encode(); err != nil || !bytes.Equal(third, again) {
			t.Fatalf("written again it is another: %v\n%s\n%s", err, again, third)
		}
	})
}
