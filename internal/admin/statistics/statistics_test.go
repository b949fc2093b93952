package statistics

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/admin/api"
)

var update = flag.Bool("update", false, "write the golden files")

// told is the status that the golden files are made of: servers in each state, with and without checks, limits and orders.
func told(t *testing.T) *api.Status {
	t.Helper()
	content, err := os.ReadFile("testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	var s api.Status
	if err := json.Unmarshal(content, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

func TestGolden(t *testing.T) {
	s := told(t)
	rows, info := Rows(s), Process(s)
	for file, write := range map[string]func(io.Writer) error{
		"stat.csv":        func(w io.Writer) error { return CSV(w, rows) },
		"stat.typed":      func(w io.Writer) error { return Typed(w, rows, false) },
		"stat.json":       func(w io.Writer) error { return JSON(w, rows) },
		"info.txt":        func(w io.Writer) error { return InfoText(w, info, false, false) },
		"info.float.desc": func(w io.Writer) error { return InfoText(w, info, true, true) },
		"info.typed":      func(w io.Writer) error { return InfoTyped(w, info, false, false) },
		"info.json":       func(w io.Writer) error { return InfoJSON(w, info) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", file)
		if *update {
			if err := os.WriteFile(golden, b.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%s isn't as it was; -update writes it anew", file)
		}
	}
}

// What readers of the CSV rely on: names behind `# `, as many fields in each line, quoted where need be.
func TestCSVIsRead(t *testing.T) {
	var b bytes.Buffer
	s := told(t)
	if err := CSV(&b, Rows(s)); err != nil {
		t.Fatal(err)
	}
	in := csv.NewReader(&b)
	lines, err := in.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(lines[0][0], "# ") || len(lines[0]) != len(Columns)+1 {
		t.Fatalf("the header is %q", lines[0])
	}
	column := map[string]int{}
	for i, name := range lines[0] {
		column[strings.TrimPrefix(name, "# ")] = i
	}
	got := map[string]string{}
	for _, line := range lines[1:] {
		got[line[column["pxname"]]+"/"+line[column["svname"]]] = line[column["status"]] + " weight " + line[column["weight"]] + " last " + line[column["last_chk"]]
	}
	for of, want := range map[string]string{
		"pg-test-primary/FRONTEND":  "OPEN weight  last ",
		"pg-test-primary/BACKEND":   "UP weight 100 last ",
		"pg-test-primary/pg-test-1": "UP weight 100 last 200 primary running",
		"pg-test-primary/pg-test-2": "DOWN weight 100 last 503 replica running",
		"pg-test-primary/pg-test-3": `DOWN 1/2 weight 0 last silent: "nobody", he said`,
		"pg-test-replica/BACKEND":   "UP weight 15 last ",
		"pg-test-replica/pg-test-2": "UP 1/2 weight 15 last 200 replica running",
		"pg-test-replica/pg-test-3": "DRAIN weight 100 last 200 replica running",
		"pg-test-replica/pg-test-4": "MAINT weight 100 last ",
		"pg-test-replica/pg-test-5": "DOWN weight 100 last 503 replica running",
		"pg-test-offline/FRONTEND":  "STOP weight  last ",
		"pg-test-offline/BACKEND":   "DOWN weight 0 last ",
		"minio/m1":                  "no check weight 1 last ",
		"minio/m2":                  "DOWN weight 1 last not checked yet",
	} {
		if got[of] != want {
			t.Errorf("%s is %q, not %q", of, got[of], want)
		}
	}
}

func TestFilter(t *testing.T) {
	rows := Rows(told(t))
	names := func(f Filter) string {
		var all []string
		for _, r := range f.Of(rows) {
			all = append(all, r.Proxy+"/"+r.Name)
		}
		return strings.Join(all, " ")
	}
	for _, c := range []struct {
		filter Filter
		want   string
	}{
		{Filter{ID: 2, Kinds: 4, Server: 3}, "pg-test-primary/pg-test-3"},
		{Filter{ID: 4, Kinds: -1, Server: -1}, "pg-test-offline/FRONTEND pg-test-offline/BACKEND"},
		{Filter{Proxy: "minio", ID: -1, Kinds: 2, Server: -1}, "minio/BACKEND"},
		{Filter{Proxy: "pg-test-replica", ID: -1, Kinds: 4, Server: -1, Up: true}, "pg-test-replica/pg-test-1 pg-test-replica/pg-test-2 pg-test-replica/pg-test-3"},
		{Filter{Proxy: "pg-test-replica", ID: -1, Kinds: 4, Server: -1, NoMaint: true}, "pg-test-replica/pg-test-1 pg-test-replica/pg-test-2 pg-test-replica/pg-test-3 pg-test-replica/pg-test-5"},
		{Filter{ID: 99, Kinds: -1, Server: -1}, ""},
	} {
		if got := names(c.filter); got != c.want {
			t.Errorf("%+v gives %s", c.filter, got)
		}
	}
	if len(All.Of(rows)) != len(rows) {
		t.Error("All leaves something out")
	}
}
