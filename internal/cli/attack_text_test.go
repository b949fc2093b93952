package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/intake"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// hostile is a text that does to a terminal what it can: escape sequences of 7 and 8 bits, characters that turn the line round, blank
// ones, line ends, and a great many of it.
var hostile = "evil\x1b[2J\x1b]0;owned\x07\x9b31m\u009b31m\u202ethgil\u2066\u200b\ufeff\u2028\r\nnext line\tthen\x7f\x00\U000e0041" + strings.Repeat("A", 60_000)

// quoted is the same for YAML's double quotes, which have escapes for what can't stand in a file as it is.
var quoted = strings.NewReplacer("\x1b", `\e`, "\x9b", "", "\u009b", `\u009b`, "\u2028", `\u2028`, "\r", `\r`, "\n", `\n`, "\t", `\t`, "\x7f", `\x7f`, "\x00", `\0`, "\x07", `\a`).Replace(hostile)

// unfit says what of an output no terminal should get: characters that don't show, and long lines.
func unfit(said map[string]string) []string {
	var found []string
	for what, text := range said {
		if len(text) > 1<<20 {
			found = append(found, fmt.Sprintf("%s: %d bytes", what, len(text)))
		}
		for line := range strings.Lines(text) {
			// A table's cells are apart by blanks, a diff's lines may have tabs.
			shown := strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "\t", " ")
			// What a selector looks at is in a plan as it is.
			long := len(shown) > 12_000 && !strings.HasPrefix(what, "services") && !strings.HasPrefix(what, "plan") && !strings.HasPrefix(what, "rendered")
			if !safetext.Is(shown) || long {
				found = append(found, fmt.Sprintf("%s: %d bytes: %.300q", what, len(shown), shown))
				break
			}
		}
	}
	slices.Sort(found)
	return found
}

// Whatever an inventory says, commands print what shows, and not too much of it.
func TestAttackHostileInventory(t *testing.T) {
	dir := t.TempDir()
	tried := 0
	try := func(inventory string) {
		t.Helper()
		// Problems are the same for all commands; the others take turns.
		tried++
		rest := commands[3:]
		if found := unfit(said(t, dir, inventory, commands[0], commands[1], commands[2], rest[tried%len(rest)], "render --base --keep-going --out rendered")); len(found) > 0 {
			t.Errorf("%.3000s\n%s", strings.ReplaceAll(inventory, quoted, "…"), strings.Join(found, "\n"))
		}
	}
	short := strings.TrimRight(quoted, "A")
	texts := []string{quoted, short, `\u202e`, `option \u202e`, `inter \e[2J`, `/primary?\u202e`, `[?pg_role == \u202e]`, `x\u200b`}
	for i, place := range places {
		some := []string{texts[0], texts[1], texts[2+i%(len(texts)-2)]}
		if strings.HasSuffix(place.form, "options: %s") || strings.HasSuffix(place.form, "default: %s") {
			some = append(texts, `log-format \u202e`, `check-sni \u202e`, `sni \e[2J`)
		}
		for _, text := range some {
			inventory := leaky(place.part, fmt.Sprintf(place.form, `"`+text+`"`))
			if place.part == "host" {
				inventory = strings.Replace(inventory, `selector: "[]"`, "selector: "+selectors[i%len(selectors)], 1)
			}
			try(inventory)
		}
	}
	for i, text := range texts {
		well := leaky("vars", "")
		for _, old := range []string{"127.0.62.61:", "pg-test:", "hosts:", "pg_seq:", "pg_services:", "innocent:", "name:", "children:"} {
			try(strings.Replace(well, old, `"`+text+`": `, 1))
		}
		try(leaky("service", fmt.Sprintf(`, "%s": 1`, text)))
		try(leaky("host", fmt.Sprintf(`, "%s": 1, "%s": 2`, text, text)))
		try(leaky("vars", fmt.Sprintf(`some: "{{ '%s' | nosuch('%s') }}"`+"\n    pg_rto: \"{{ some }}\"", text, text)))
		try(leaky("vars", fmt.Sprintf(`pg_rto: "{{ %s }}"`, text)))
		try(leaky("vars", fmt.Sprintf(`pg_rto: !<%s> x`, strings.TrimRight(strings.Map(func(r rune) rune {
			if r < ' ' || r == '\\' {
				return -1
			}
			return r
		}, text), "A"))))
		try(leaky("service selector", fmt.Sprintf(`"[?az == %s(%s)]"`, text, text)))
		try(text)
		try(fmt.Sprintf("all: { hosts: { \"%s\": { pg_cluster: a, pg_seq: %d, pg_role: primary } } }", text, i))
		try("[all]\n" + text + "\n")
		try(fmt.Sprintf(`{"_meta": {"hostvars": {%q: {"pg_cluster": %q}}}, "all": {"hosts": [%[1]q], "children": [%[1]q]}}`, hostile, "x"))
	}
}

// Names of files are others' too.
func TestAttackHostileFileNames(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"\x1b[2J\u202e.yml", "a\nb.yml", "\xff\x9b31m"} {
		if err := os.MkdirAll(filepath.Join(dir, "group_vars", name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "group_vars", name, name+".yml"), []byte("a: [\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("all: {"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, words := range []string{"check -i", "services -i", "url pg-test -i", "render --out out -i", "reload pg-test --token-file x -i", "check -i nosuch", "nosuch", "check --nosuch", "check --engine", "status --admin", "services --node"} {
			var out, problems bytes.Buffer
			Main(append(strings.Fields(words), path), strings.NewReader(""), &out, &problems)
			if found := unfit(map[string]string{words: out.String(), words + " (stderr)": problems.String()}); len(found) > 0 {
				t.Error(strings.Join(found, "\n"))
			}
		}
	}
}

// fill makes every text below a value hostile, with one item in each list and map.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Type().Field(i).Type.String() != "time.Time" {
				fill(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.String:
		v.SetString(hostile)
	case reflect.Int:
		v.SetInt(1)
	case reflect.Bool:
		v.SetBool(true)
	}
}

// Whoever listens at the admin address may be anybody.
func TestAttackHostileStatus(t *testing.T) {
	var status api.Status
	fill(reflect.ValueOf(&status).Elem())
	text, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(map[string]any{"started": hostile, "pid": 1})
	if err != nil {
		t.Fatal(err)
	}
	head := "HTTP/1.1 200 OK\r\n\r\n"
	for _, answer := range []string{
		head + string(text), head + string(raw), head + hostile, "HTTP/1.1 503 x\r\n\r\n" + hostile, "HTTP/1.1 500 " + strings.NewReplacer("\r", "", "\n", "").Replace(hostile) + "\r\n\r\n", hostile, "HTTP/1.1 302 x\r\nLocation: ://" + strings.TrimRight(hostile, "A") + "\r\n\r\n",
	} {
		address := speaks(t, func(conn net.Conn) {
			request := make([]byte, 4096)
			if _, err := conn.Read(request); err == nil {
				_, _ = io.WriteString(conn, answer)
			}
		})
		for _, words := range []string{"status", "status -o json", "status -o yaml", "health"} {
			var out, problems bytes.Buffer
			Main(append(strings.Fields(words), "--admin", address), strings.NewReader(""), &out, &problems)
			if out.Len()+problems.Len() == 0 {
				t.Errorf("%s says nothing", words)
			}
			if found := unfit(map[string]string{words: out.String(), words + " (stderr)": problems.String()}); len(found) > 0 {
				t.Errorf("%.50q:\n%s", answer, strings.Join(found, "\n"))
			}
		}
	}
}

// A line of the log is one line, and has an end, in both formats.
func TestAttackHostileLog(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log := slog.New(newHandler(safetext.Writer(&out), format, nil))
		for _, text := range []string{hostile, hostile[:100]} {
			out.Reset()
			log.Warn("it is "+text, "text", text, "error", errors.New(text), "wrapped", fmt.Errorf("a: %w", errors.New(text)), slog.Group("in", "it", text))
			if found := unfit(map[string]string{format: strings.ReplaceAll(out.String(), strings.Repeat("A", 1000), "")}); len(found) > 0 || out.Len() > 50_000 || strings.Count(out.String(), "\n") != 1 {
				t.Errorf("%d bytes, %d lines\n%s", out.Len(), strings.Count(out.String(), "\n"), strings.Join(found, "\n"))
			}
		}
	}
}

// speaks serves connections on a loopback port until the test ends.
func speaks(t *testing.T, serve func(conn net.Conn)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return listener.Addr().String()
}

// A node that has been taken over answers what it likes.
func TestAttackHostileNode(t *testing.T) {
	var changes api.Changes
	fill(reflect.ValueOf(&changes).Elem())
	refuses := func(intake.Order, bool) (api.Taken, error) { return api.Taken{}, fmt.Errorf("%s", hostile) }
	takes := func(o intake.Order, dryRun bool) (api.Taken, error) {
		return api.Taken{Version: hostile, Node: o.Plan.Node, Generation: 2, DryRun: dryRun, Changes: changes}, nil
	}
	n := startNodes(t, map[string]answerer{"127.0.62.51": refuses, "127.0.62.52": takes, "127.0.62.53": takes}, map[string]api.Node{
		"127.0.62.53": {Version: hostile, Node: hostile, Engine: hostile, Generation: 1},
	})
	for _, args := range [][]string{{"pg-test"}, {"pg-test", "--dry-run"}, {"pg-test", "-o", "json"}} {
		_, out, problems := n.reload(trio, args...)
		if found := unfit(map[string]string{"reload": out, "reload (stderr)": problems}); len(found) > 0 || out == "" {
			t.Errorf("%v\n%s", out == "", strings.Join(found, "\n"))
		}
	}
}

// A server that doctor tries, and a Patroni that it asks, may be anybody's.
func TestAttackHostileServer(t *testing.T) {
	short := hostile[:2000]
	patroni := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(map[string]any{
			"role": hostile, "state": hostile, "server_version": 170000, "timeline": nil, "patroni": map[string]string{"version": hostile, "name": hostile, "scope": hostile}, "tags": map[string]string{hostile: hostile},
			"members": []map[string]any{{"name": hostile, "role": hostile, "state": hostile, "host": hostile, "api_url": hostile}},
		}); err != nil {
			t.Error(err)
		}
	}))
	defer patroni.Close()
	_, patroniPort, _ := net.SplitHostPort(patroni.Listener.Addr().String())
	for name, serve := range map[string]func(b *pgproto3.Backend) []pgproto3.BackendMessage{
		"refuses": func(*pgproto3.Backend) []pgproto3.BackendMessage {
			return []pgproto3.BackendMessage{&pgproto3.ErrorResponse{Severity: hostile, Code: short, Message: hostile, Detail: hostile, Hint: hostile}}
		},
		"full": func(*pgproto3.Backend) []pgproto3.BackendMessage {
			return []pgproto3.BackendMessage{&pgproto3.ErrorResponse{Severity: "FATAL", Code: "53300", Message: hostile, Detail: hostile}}
		},
		"answers": func(b *pgproto3.Backend) []pgproto3.BackendMessage {
			b.Send(&pgproto3.AuthenticationOk{})
			b.Send(&pgproto3.ParameterStatus{Name: "in_hot_standby", Value: hostile})
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			if b.Flush() != nil {
				return nil
			}
			if _, err := b.Receive(); err != nil {
				return nil
			}
			row := &pgproto3.DataRow{}
			description := &pgproto3.RowDescription{}
			for _, column := range []string{hostile, "1", "f", hostile, hostile} {
				row.Values = append(row.Values, []byte(column))
				description.Fields = append(description.Fields, pgproto3.FieldDescription{Name: []byte("c"), DataTypeOID: 25})
			}
			return []pgproto3.BackendMessage{description, row, &pgproto3.CommandComplete{CommandTag: []byte(short)}, &pgproto3.ReadyForQuery{TxStatus: 'I'}}
		},
		"nonsense": nil,
	} {
		address := speaks(t, func(conn net.Conn) {
			head := make([]byte, 8)
			if _, err := io.ReadFull(conn, head); err != nil {
				return
			}
			if serve == nil {
				_, _ = io.WriteString(conn, hostile)
				return
			}
			if binary.BigEndian.Uint32(head[4:]) == 80877103 {
				_, _ = conn.Write([]byte("N"))
				head = nil
			}
			b := pgproto3.NewBackend(io.MultiReader(bytes.NewReader(head), conn), conn)
			if _, err := b.ReceiveStartupMessage(); err != nil {
				return
			}
			for _, message := range serve(b) {
				b.Send(message)
			}
			// The client may have gone.
			_ = b.Flush()
			_, _ = conn.Read(make([]byte, 100))
		})
		_, port, _ := net.SplitHostPort(address)
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		inventory := fmt.Sprintf("pg-test: { hosts: { 127.0.0.1: { pg_seq: 1, pg_role: primary, pg_port: %d, patroni_port: %s } }, vars: { pg_cluster: pg-test, pg_databases: [ { name: app } ] } }\n", number, patroniPort)
		all := said(t, t.TempDir(), inventory, "doctor pg-test --service postgres --timeout 3s", "doctor pg-test --service postgres --timeout 3s -o json")
		if found := unfit(all); len(found) > 0 || all["doctor pg-test --service postgres --timeout 3s"] == "" {
			t.Errorf("%s: %v\n%s", name, all["doctor pg-test --service postgres --timeout 3s (stderr)"], strings.Join(found, "\n"))
		}
	}
}
