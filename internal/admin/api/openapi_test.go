package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/control"
)

var update = flag.Bool("update", false, "write openapi.json")

// operation is a route as it is documented.
type operation struct {
	method, path string
	// where it is: the admin address, the control address, or both.
	admin, control bool
	summary        string
	parameters     []parameter
	// request and answer are values of the types that go and come; text is an answer that isn't JSON.
	request, answer any
	text            string
	// refusals are the statuses of refusals, with what each means.
	refusals map[int]string
}

type parameter struct {
	name, in, about string
	schema          map[string]any
}

var filter = []parameter{
	{"cluster", "query", "those of this cluster's services", text},
	{"service", "query", "those of this service, by its full name", text},
	{"member", "query", "those with this member", text},
	{"client", "query", "those of clients at this address or in this network (CIDR)", text},
	{"id", "query", "this session alone", map[string]any{"type": "integer", "minimum": 1}},
	{"idle_seconds", "query", "those that have moved nothing for as long", map[string]any{"type": "number", "minimum": 0}},
	{"limit", "query", "how many are told at most", map[string]any{"type": "integer", "minimum": 0, "maximum": 10000}},
}

var text = map[string]any{"type": "string"}

// Refusals that several routes have.
var (
	unread    = map[int]string{400: "what came can't be read: there is a parameter or a field that isn't known, or of another kind"}
	unwilling = map[int]string{400: unread[400], 413: "the order is too long", 422: "this node refuses it, for the reason that is said; nothing has changed", 501: "this pgporter can't do that"}
)

// operations are all that there are, in the order of the document.
var operations = []operation{
	{method: "GET", path: "/status", admin: true, control: true, summary: "the whole state: clusters, members, services, servers and why, counters", answer: api.Status{}},
	{method: "GET", path: "/events", admin: true, control: true, summary: "what happened lately, the oldest first",
		parameters: []parameter{{"after", "query", "only those after the event with this id; ids begin anew with each process (status.pid)", map[string]any{"type": "integer", "minimum": 0}}}, answer: api.Events{}, refusals: unread},
	{method: "GET", path: "/services", admin: true, summary: "a line for each service: its full name, and up, down or shadow", text: "text/plain"},
	{method: "GET", path: "/services/{name}", admin: true, summary: "for a balancer before pgporter: 200 while the service leads clients to a server",
		parameters: []parameter{{"name", "path", "the service's full name", text}}, text: "text/plain", refusals: map[int]string{404: "there is no such service here", 503: "no server takes clients"}},
	{method: "GET", path: "/health", admin: true, summary: "200 as long as pgporter works", text: "text/plain", refusals: map[int]string{503: "what keeps it from its work, a line each"}},
	{method: "GET", path: "/metrics", admin: true, summary: "for Prometheus", text: "text/plain"},
	{method: "GET", path: "/openapi.json", admin: true, summary: "this document", answer: map[string]any{}},
	{method: "GET", path: "/node", control: true, summary: "which node this is, and what carries its services", answer: api.Node{}},
	{method: "GET", path: "/sessions", control: true, summary: "the sessions that are open, the oldest first", parameters: filter, answer: api.Sessions{}, refusals: unwilling},
	{method: "GET", path: "/debug/goroutines", control: true, summary: "the stacks of all goroutines, for a report of a fault", answer: api.Goroutines{}, refusals: map[int]string{501: unwilling[501]}},
	{method: "POST", path: "/servers", control: true, summary: "have servers drain, be in maintenance or ready, or have another weight", request: api.Order{}, answer: []api.OrderResult{}, refusals: unwilling},
	{method: "POST", path: "/sessions/end", control: true, summary: "end sessions", request: api.EndSessions{}, answer: api.SessionsEnded{}, refusals: unwilling},
	{method: "POST", path: "/hold", control: true, summary: "have new clients of a cluster's leader wait for a switchover, or let them go", request: api.HoldOrder{}, answer: api.Held{}, refusals: unwilling},
	{method: "POST", path: "/reload", control: true, summary: "have the node read its own configuration again", answer: api.Reread{}, refusals: unwilling},
	{method: "POST", path: "/plan", control: true, summary: "make a plan the running configuration: what pgporter reload sends", request: map[string]any{}, answer: api.Taken{}, refusals: unwilling},
	{method: "POST", path: "/plan/dry-run", control: true, summary: "say what a plan would change", request: map[string]any{}, answer: api.Taken{}, refusals: unwilling},
}

// document makes the OpenAPI document of the types, with what their comments say.
func document(t *testing.T) []byte {
	d := describer{t: t, schemas: map[string]any{}, docs: comments(t)}
	paths := map[string]any{}
	for _, o := range operations {
		path, _ := paths[o.path].(map[string]any)
		if path == nil {
			path = map[string]any{}
			paths[o.path] = path
		}
		path[strings.ToLower(o.method)] = d.operation(o)
	}
	d.schema(reflect.TypeFor[api.Refusal]())
	text, err := json.MarshalIndent(map[string]any{
		"openapi": "3.0.3",
		"info": map[string]any{
			"title":   "pgporter",
			"version": "1",
			"description": "How a pgporter is looked at and steered. The admin address (plain HTTP, loopback unless said otherwise) only shows. The control address " +
				"(TLS 1.3) shows and changes: every request brings the node's token, or the connection a client's certificate. The same routes as at the control address " +
				"are at a socket of the machine for root and pgporter's own user, which pgporter's commands use. Fields are added and never renamed: pass over those that you don't know.",
		},
		"tags": []any{
			map[string]any{"name": "admin", "description": "at the admin address"},
			map[string]any{"name": "control", "description": "at the control address"},
		},
		"servers":    []any{adminServer, controlServer},
		"paths":      paths,
		"components": map[string]any{"schemas": d.schemas, "securitySchemes": map[string]any{"token": map[string]any{"type": "http", "scheme": "bearer", "description": "what pgporter credentials wrote into control.token; a certificate of --control-client-ca does in its place"}}},
	}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

var (
	adminServer   = map[string]any{"url": "http://{host}:8432", "description": "the admin address (run --admin)", "variables": map[string]any{"host": map[string]any{"default": "127.0.0.1"}}}
	controlServer = map[string]any{"url": "https://{host}:8433", "description": "the control address (run --control)", "variables": map[string]any{"host": map[string]any{"default": "127.0.0.1"}}}
)

// describer makes schemas of types.
type describer struct {
	t       *testing.T
	schemas map[string]any
	docs    documented
}

func (d describer) operation(o operation) map[string]any {
	tags, servers, security := []any{}, []any{}, []any{}
	if o.admin {
		tags, servers, security = append(tags, "admin"), append(servers, adminServer), append(security, map[string]any{})
	}
	if o.control {
		tags, servers, security = append(tags, "control"), append(servers, controlServer), append(security, map[string]any{"token": []any{}})
	}
	answer := map[string]any{"description": "done"}
	if o.method == http.MethodGet {
		answer["description"] = "that"
	}
	if o.text != "" {
		answer["content"] = map[string]any{o.text: map[string]any{"schema": text}}
	} else {
		answer["content"] = map[string]any{"application/json": map[string]any{"schema": d.schema(reflect.TypeOf(o.answer))}}
	}
	responses := map[string]any{"200": answer}
	refuse := func(code int, about string) {
		one := map[string]any{"description": about}
		if o.control {
			one["content"] = map[string]any{"application/json": map[string]any{"schema": d.schema(reflect.TypeFor[api.Refusal]())}}
		} else {
			one["content"] = map[string]any{"text/plain": map[string]any{"schema": text}}
		}
		responses[strconv.Itoa(code)] = one
	}
	for code, about := range o.refusals {
		refuse(code, about)
	}
	if o.control {
		refuse(401, "neither token nor certificate is this node's")
	}
	it := map[string]any{"summary": o.summary, "tags": tags, "servers": servers, "security": security, "responses": responses,
		"operationId": strings.Trim(strings.ToLower(o.method)+regexp.MustCompile(`[^a-z]+`).ReplaceAllString(o.path, "_"), "_")}
	var parameters []any
	for _, p := range o.parameters {
		parameters = append(parameters, map[string]any{"name": p.name, "in": p.in, "description": p.about, "required": p.in == "path", "schema": p.schema})
	}
	if parameters != nil {
		it["parameters"] = parameters
	}
	if o.request != nil {
		it["requestBody"] = map[string]any{"required": true, "content": map[string]any{"application/json": map[string]any{"schema": d.request(reflect.TypeOf(o.request))}}}
	}
	return it
}

// request is the schema of what is sent: what isn't known is refused.
func (d describer) request(t reflect.Type) map[string]any {
	schema := d.schema(t)
	for _, one := range []string{"Order", "EndSessions", "SessionFilter", "HoldOrder"} {
		if sent, is := d.schemas[one].(map[string]any); is {
			sent["additionalProperties"] = false
		}
	}
	return schema
}

func (d describer) schema(t reflect.Type) map[string]any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t.Kind() == reflect.Pointer:
		return d.schema(t.Elem())
	case t.Kind() == reflect.Slice:
		// A list that nobody has made is null.
		return map[string]any{"type": "array", "nullable": true, "items": d.schema(t.Elem())}
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Interface:
		return map[string]any{"type": "object"}
	case t.Kind() == reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": d.schema(t.Elem())}
	case t.Kind() == reflect.Struct:
		if d.schemas[t.Name()] == nil {
			// There first, for types that hold themselves.
			d.schemas[t.Name()] = map[string]any{}
			d.schemas[t.Name()] = d.object(t)
		}
		return map[string]any{"$ref": "#/components/schemas/" + t.Name()}
	case t.Kind() == reflect.String && len(d.docs.values[t.Name()]) > 0:
		return map[string]any{"type": "string", "enum": d.docs.values[t.Name()]}
	}
	switch t.Kind() {
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Uint64:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	}
	d.t.Fatalf("no schema for %s", t)
	return nil
}

// object is the schema of a struct; fields of embedded ones are its own.
func (d describer) object(t reflect.Type) map[string]any {
	properties, required := map[string]any{}, []any{}
	var add func(reflect.Type)
	add = func(t reflect.Type) {
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Anonymous {
				add(f.Type)
				continue
			}
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || name == "-" {
				continue
			}
			schema := d.schema(f.Type)
			if reference, is := schema["$ref"]; is {
				// Beside a reference nothing else counts (OpenAPI 3.0).
				schema = map[string]any{"allOf": []any{map[string]any{"$ref": reference}}}
			}
			schema["description"] = d.describe(t, f)
			properties[name] = schema
			if options != "omitempty" {
				required = append(required, name)
			}
		}
	}
	add(t)
	object := map[string]any{"type": "object", "description": d.docs.words(t, d.docs.types[t.Name()]), "properties": properties}
	if len(required) > 0 && t != reflect.TypeFor[api.EndSessions]() {
		object["required"] = required
	}
	return object
}

// describe is what the comments say of a field.
func (d describer) describe(t reflect.Type, f reflect.StructField) string {
	about := d.docs.fields[t.Name()+"."+f.Name]
	if about == "" {
		d.t.Errorf("nothing is said of %s.%s: give it a comment, or name it in the comment before it", t.Name(), f.Name)
	}
	return d.docs.words(t, about)
}

// documented is what the comments of the package say.
type documented struct {
	types, fields map[string]string
	// values are those that constants of a type have; constants are all by their names.
	values    map[string][]string
	constants map[string]string
}

// words makes a comment into a description: fields by their JSON names, constants by their values.
func (d documented) words(t reflect.Type, about string) string {
	names := map[string]string{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			names[f.Name] = name
		}
	}
	return regexp.MustCompile(`\b[A-Z]\w+\b`).ReplaceAllStringFunc(strings.Join(strings.Fields(about), " "), func(word string) string {
		switch {
		case names[word] != "" && word != t.Name():
			return "`" + names[word] + "`"
		case d.constants[word] != "":
			return "`" + d.constants[word] + "`"
		}
		return word
	})
}

// comments reads those of the package.
func comments(t *testing.T) documented {
	t.Helper()
	d := documented{types: map[string]string{}, fields: map[string]string{}, values: map[string][]string{}, constants: map[string]string{}}
	files := token.NewFileSet()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(files, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, declared := range parsed.Decls {
			general, is := declared.(*ast.GenDecl)
			if !is {
				continue
			}
			for _, spec := range general.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					d.types[spec.Name.Name] = general.Doc.Text()
					if object, is := spec.Type.(*ast.StructType); is {
						d.structure(spec.Name.Name, general.Doc.Text(), object)
					}
				case *ast.ValueSpec:
					if len(spec.Values) != 1 {
						continue
					}
					value, is := spec.Values[0].(*ast.BasicLit)
					if !is || value.Kind != token.STRING {
						continue
					}
					plain, _ := strconv.Unquote(value.Value)
					d.constants[spec.Names[0].Name] = plain
					if kind, is := spec.Type.(*ast.Ident); is {
						d.values[kind.Name] = append(d.values[kind.Name], plain)
					}
				}
			}
		}
	}
	return d
}

// structure takes what is said of a struct's fields: a field without a comment is told of by the one before it that names it, or by the
// type's.
func (d documented) structure(name, about string, object *ast.StructType) {
	before := ""
	for _, field := range object.Fields.List {
		if text := field.Doc.Text(); text != "" {
			before = text
		}
		for _, one := range field.Names {
			switch named := regexp.MustCompile(`\b` + one.Name + `\b`); {
			case field.Doc.Text() != "":
				d.fields[name+"."+one.Name] = before
			case named.MatchString(before):
				d.fields[name+"."+one.Name] = before
			case named.MatchString(about):
				d.fields[name+"."+one.Name] = about
			}
		}
	}
}

// The document is made of the types and their comments: -update writes it.
func TestOpenAPI(t *testing.T) {
	made := document(t)
	if *update {
		if err := os.WriteFile("openapi.json", made, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, written) {
		t.Error("openapi.json isn't what the types say: go test ./internal/admin/api -update")
	}
	parsed, err := openapi3.NewLoader().LoadFromData(written)
	if err != nil {
		t.Fatal(err)
	}
	if err := parsed.Validate(t.Context()); err != nil {
		t.Error(err)
	}
}

// What the control address answers and what is documented of it are the same.
func TestOpenAPIHasTheControlRoutes(t *testing.T) {
	var documented, are []string
	for _, o := range operations {
		if o.control {
			documented = append(documented, o.method+" "+o.path)
		}
	}
	for _, r := range (control.Steering{}).Routes() {
		are = append(are, r.Method+" "+r.Path)
		for _, o := range operations {
			if o.method != r.Method || o.path != r.Path {
				continue
			}
			var parameters []string
			for _, p := range o.parameters {
				parameters = append(parameters, p.name)
			}
			slices.Sort(parameters)
			if !slices.Equal(parameters, slices.Sorted(slices.Values(r.Parameters))) {
				t.Errorf("%s %s takes %q, and documented are %q", r.Method, r.Path, r.Parameters, parameters)
			}
		}
	}
	slices.Sort(documented)
	slices.Sort(are)
	if !slices.Equal(documented, are) {
		t.Errorf("documented are %q,\nand there are %q", documented, are)
	}
}

// unlisted are routes of the admin address that aren't for programs, with the reason.
var unlisted = map[string]string{
	"GET /;csv":    "is HAProxy's, and documented there",
	"GET /stream":  "is the page's own, and changes with it",
	"GET /history": "is the page's own, and changes with it",
	"GET /plain":   "is for people",
	"GET /session": "is the page's own",
	"POST /login":  "is the page's own: programs have the control address",
	"POST /logout": "is the page's own",
	"POST /order":  "is the page's own",
	"POST /{$}":    "takes nothing",
}

// What the admin address answers and what is documented of it are the same.
func TestOpenAPIHasTheAdminRoutes(t *testing.T) {
	// The exporter's path can be another.
	documented, are := []string{}, []string{"GET /metrics"}
	for _, o := range operations {
		if o.admin {
			documented = append(documented, o.method+" "+o.path)
		}
	}
	route := regexp.MustCompile(`"((?:GET|POST|PUT|DELETE) /[^"]+)"`)
	err := filepath.WalkDir("../web", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, found := range route.FindAllStringSubmatch(string(text), -1) {
			if unlisted[found[1]] == "" {
				are = append(are, found[1])
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(documented)
	slices.Sort(are)
	are = slices.Compact(are)
	if !slices.Equal(documented, are) {
		t.Errorf("documented are %q,\nand there are %q", documented, are)
	}
}
