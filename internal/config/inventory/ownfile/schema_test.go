package ownfile_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/inventory/ownfile"
)

var update = flag.Bool("update", false, "write the schema anew")

const (
	published = "../../../../docs/pgporter.schema.json"
	reference = "../../../../docs/pgporter-yml.md"
	examples  = "../../plan/testdata"
)

// The schema that is published is the one of the keys that are read.
func TestPublishedSchema(t *testing.T) {
	if *update {
		if err := os.WriteFile(published, ownfile.Schema(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(published)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, ownfile.Schema()) {
		t.Errorf("%s isn't that of the keys that are read: -update writes it anew", published)
	}
}

// schema is the published one, compiled.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(ownfile.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("pgporter.schema.json", document); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("pgporter.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// validate is what an editor would do with a file.
func validate(t *testing.T, s *jsonschema.Schema, text string) error {
	t.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return s.Validate(value)
}

// What documents show, and what tests take for right, is right by the schema too.
func TestExamplesFollowTheSchema(t *testing.T) {
	s := schema(t)
	texts := map[string]string{}
	document, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	for i, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(document), -1) {
		if strings.Contains(block[1], "pgporter: 1") {
			texts[reference+string(rune('a'+i))] = block[1]
		}
	}
	for _, pattern := range []string{"good/pgporter-yml*.yml", "warn/pgporter-yml*.yml"} {
		paths, err := filepath.Glob(filepath.Join(examples, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			texts[path] = string(text)
		}
	}
	if len(texts) < 4 {
		t.Errorf("only %d examples are found", len(texts))
	}
	for where, text := range texts {
		if err := validate(t, s, text); err != nil {
			t.Errorf("%s: %v", where, err)
		}
		if _, problems := inventory.Parse("f.yml", []byte(text)); problems.Err() != nil {
			t.Errorf("%s: %v", where, problems)
		}
	}
}

// The schema and the reader refuse the same: what is wrong with a file's form.
func TestSchemaRefusesWhatTheReaderRefuses(t *testing.T) {
	s := schema(t)
	const right = "pgporter: 1\nclusters: { a: { members: { b: { host: 10.0.0.1 } } } }\n"
	if err := validate(t, s, right); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{
		"pgporter: 2\nclusters: { a: { members: { b: { host: 10.0.0.1 } } } }\n",
		"pgporter: 1\n",
		"pgporter: 1\nclusters: {}\n",
		"pgporter: 1\nclusters: [a]\n",
		right + "default: {}\n",
		right + "defaults: { scope: a }\n",
		right + "haproxy: { port: 1 }\n",
		"pgporter: 1\nclusters: { a: { members: {} } }\n",
		"pgporter: 1\nclusters: { a: { members: { b: {} } } }\n",
		"pgporter: 1\nclusters: { a: { members: { b: { host: 10.0.0.1, rol: replica } } } }\n",
		"pgporter: 1\nclusters: { a: { members: { b: { host: 10.0.0.1 } }, nodes: [] } }\n",
		"pgporter: 1\nclusters: { a: { members: { b: { host: 10.0.0.1 } }, vip: { interface: eth0 } } }\n",
		"pgporter: 1\nclusters: { a: { members: { b: { host: 10.0.0.1, tags: { zone: [a] } } } } }\n",
		"pgporter: 1\nclusters: { a: { members: { b: { host: 10.0.0.1 } }, users: [{ name: a, password: b }] } }\n",
	} {
		if err := validate(t, s, wrong); err == nil {
			t.Errorf("the schema takes\n%s", wrong)
		}
		if _, problems := inventory.Parse("f.yml", []byte(wrong)); problems.Err() == nil {
			t.Errorf("the reader takes\n%s", wrong)
		}
	}
}

// tablesBegin and tablesEnd are around what TestReference writes.
const (
	tablesBegin = "<!-- The tables are written by the test of internal/config/inventory/ownfile, with -update. -->\n"
	tablesEnd   = "<!-- end of the tables -->\n"
)

// The tables of the reference are those of the keys that are read.
func TestReference(t *testing.T) {
	document, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(document), tablesBegin)
	_, after, ended := strings.Cut(rest, tablesEnd)
	if !begun || !ended {
		t.Fatalf("%s has no place for the tables", reference)
	}
	var tables strings.Builder
	shared, _ := ownfile.Find(ownfile.File, "defaults")
	var own []ownfile.Key
	for _, k := range ownfile.Cluster() {
		if _, both := ownfile.Find(shared.Keys, k.Name); !both {
			own = append(own, k)
		}
	}
	services, _ := ownfile.Find(shared.Keys, "services")
	table(&tables, "At the top", "", ownfile.File)
	table(&tables, "Of a cluster", "", own)
	table(&tables, "Of a cluster, or of all under `defaults`", "", shared.Keys)
	table(&tables, "Of a member", "", ownfile.Member())
	table(&tables, "Of a service", "", services.Keys)
	want := before + tablesBegin + tables.String() + "\n" + tablesEnd + after
	if *update {
		if err := os.WriteFile(reference, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(document) {
		t.Errorf("the tables of %s aren't those of the keys that are read: -update writes them anew", reference)
	}
}

// table writes the keys of a level. Those of mappings in it that have no table of their own stand behind a dot.
func table(w *strings.Builder, heading, prefix string, keys []ownfile.Key) {
	if prefix == "" {
		fmt.Fprintf(w, "\n### %s\n\n| Key | | Without it | In an inventory |\n|---|---|---|---|\n", heading)
	}
	for _, k := range keys {
		says := strings.ReplaceAll(k.Says, "|", "\\|")
		if k.Example != "" {
			says += ", as in `" + strings.ReplaceAll(k.Example, "|", "\\|") + "`"
		}
		if k.Shape == ownfile.Word {
			says += ": `" + strings.Join(k.Words, "`, `") + "`"
		}
		without, variable := k.Default, ""
		if k.Required {
			without = "an error"
		}
		if k.Variable != "" {
			variable = "`" + k.Variable + "`"
		}
		fmt.Fprintf(w, "| `%s%s` | %s | %s | %s |\n", prefix, k.Name, says, without, variable)
		if k.Name != "defaults" && k.Name != "clusters" && k.Name != "members" && k.Name != "services" && k.Name != "default_services" {
			table(w, "", prefix+k.Name+".", k.Keys)
		}
	}
}
