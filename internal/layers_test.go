// Package internal_test holds the test of the layering: which room may import which, and why the others are refused.
package internal_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const ours = "github.com/pgporter/pgporter/internal/"

// room is one package below internal.
type room struct {
	// may are the rooms of ours that it may import.
	may string
	// because says why everything else is refused; it is printed with the refusal.
	because string
	// pure rooms take time as an argument and do no I/O: nothing of what impure lists.
	pure bool
}

var rooms = map[string]room{
	"diag":      {pure: true, because: "every room reports problems, so the report may depend on none"},
	"spelling":  {pure: true, because: "finding a near word needs nothing but words"},
	"service":   {may: "spelling", pure: true, because: "the model is what all others agree on: it stands on nothing else of ours"},
	"selector":  {pure: true, because: "an expression over members given as data has no need of where they came from"},
	"jinja":     {pure: true, because: "a template reaches its variables and nothing else, least of all files"},
	"inventory": {may: "diag jinja", because: "reading Ansible's format has nothing to do with what pgporter makes of it"},
	"section":   {may: "service", pure: true, because: "what a service's lines mean follows from the lines: whoever checks servers reads it here"},
	"plan":      {may: "diag inventory jinja section selector service spelling", because: "a plan is declared: what runs now must not leak into it"},
	"resolve":   {may: "selector service", pure: true, because: "resolving is a function of the plan and the roles, so that it can be replayed"},
	"diff":      {may: "api resolve service", pure: true, because: "what a plan changes is a function of two plans and the roles; nothing is asked"},
	"intake":    {may: "section selector service", pure: true, because: "what comes from outside is judged by itself, before anything that runs is touched"},
	"control":   {may: "api intake", because: "the door checks who knocks and what is brought; what becomes of it is decided behind it"},
	"patroni":   {because: "a client of one HTTP API; what an answer means for a service is decided in health"},
	"dcs":       {because: "a client of etcd: what a key means is decided in cluster"},
	"health":    {may: "service patroni", because: "health judges one server of one service; membership and publishing are the cluster's"},
	"state":     {may: "service", pure: true, because: "readers of a View must not pull in what makes it"},
	"discover":  {may: "patroni service", because: "discovery finds members; nothing of an inventory may be needed for it"},
	"cluster":   {may: "service state resolve health patroni dcs", because: "the loop must not know who reads its Board"},
	"upstream":  {may: "health patroni section service state", because: "servers that are declared and checked need neither a cluster nor its roles; of patroni only how TLS is spoken"},
	"balance":   {may: "service state", pure: true, because: "choosing a server needs the View and nothing else"},
	"stamp":     {pure: true, because: "what marks a file as ours is a line of text, whatever is in the file"},
	"haproxy":   {may: "service stamp", pure: true, because: "rendering is text from values: what is read, written or run is others' business"},
	"dns":       {may: "service stamp state", pure: true, because: "answers are a function of a configuration, Views and a question: who asks and who listens is others' business"},
	"dnsd":      {may: "dns outdir service stamp state", because: "telling names is sockets and files: what is told is decided in dns, and who checks members shows it on Boards"},
	"vip":       {may: "service stamp state", pure: true, because: "who has an address is decided from Views and the time alone, and frames are bytes: nothing is sent or changed here"},
	"vipd":      {may: "state vip", because: "it does on the machine what vip decides; it must not check members or read configuration itself"},
	"connstr":   {may: "service spelling stamp", pure: true, because: "rendering is text from values: who carries a service is decided by its plan"},
	"doctor":    {may: "connstr service", because: "it tries what connstr lists as any client would: what pgporter itself takes for true must not colour it"},
	"render":    {may: "connstr diag dns haproxy inventory plan resolve service stamp vip", pure: true, because: "it joins the formats; reading inventories and writing files have rooms of their own"},
	"outdir":    {may: "stamp", because: "keeping a directory up to date must not know what the files are for"},
	"logqueue":  {because: "whoever logs must not wait for whoever reads: nothing may be on a line's way but a buffer"},
	"relay":     {because: "moving bytes must not know of services, so that it can be read, tested and handed over alone"},
	"handover":  {because: "passing sockets to another process must not know what they are for, so that any release can take over from another"},
	"proxy":     {may: "service state balance relay handover", because: "the engine follows the Board; it must not check health or read configuration itself"},
	"api":       {because: "the JSON types are a contract with scripts: they must not follow our own types"},
	"web":       {may: "api", because: "pages and routes show what the API says and nothing more"},
	"haproxyd":  {may: "haproxy outdir service stamp state", because: "HAProxy is run by what the Boards show and what is rendered; who checks members and who reads configuration is not its business"},
	"daemon":    {may: "api cluster control dcs diag diff discover dnsd handover haproxyd intake inventory plan proxy resolve section service state upstream vip vipd web", because: "the wiring knows the rooms that it wires, and no command line"},
	"guard":     {because: "ending what is left of a program must not know what it was for, so that any program can have it"},
	"lan":       {may: "guard", because: "a network of namespaces is of use to any program: what runs on its nodes is others' business"},
	"sandbox":   {may: "guard lan", because: "the sandbox is a user of pgporter like any other: it starts the program and reads its inventory format"},
	"cli":       {may: "api connstr control daemon diag dnsd doctor haproxyd intake inventory load logqueue outdir plan render resolve sandbox section service stamp vip vipd", because: "commands ask the rooms that do the work; they don't reach below them"},
	"chaos":     {may: "api sandbox", because: "a test from outside judges by what clients, etcd and PostgreSQL say, not by pgporter's own rooms"},
	"e2e":       {may: "api load sandbox", because: "end-to-end tests use what users use"},
	"load":      {because: "a prober sees what any client sees: it is told URLs and knows nothing of who ought to answer"},
	"contender": {because: "programs that are compared are started alike: what is measured on them is others' business"},
	"sheet":     {may: "sandbox", because: "writing a benchmark's sections must not know its figures"},
	"speed":     {may: "contender sandbox sheet standin", because: "what is compared must be used as its users use it: nothing of pgporter's own code may be on the way but the program"},
	"bench":     {may: "contender load sandbox sheet", because: "what is compared must be used as its users use it: programs that are started, files that they render"},
	"standin":   {because: "a stand-in must not share what it is to be judged by with pgporter"},
	"soak":      {may: "api standin", because: "what is loaded is a program like any other: it is judged by its sockets, its status and /proc"},
}

// impure packages bring the clock, the machine or the network into a room.
var impure = []string{"net", "net/http", "os", "os/exec", "os/signal", "syscall", "golang.org/x/sys/unix", "math/rand", "math/rand/v2"}

// pureExceptions are imports of impure packages for what is pure in them.
var pureExceptions = map[string]string{
	"diff net":    "JoinHostPort is string work",
	"service net": "JoinHostPort is string work",
}

func TestLayers(t *testing.T) {
	found := map[string]map[string]string{} // room, import, the file that has it
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == "testdata" {
			return filepath.SkipDir
		}
		name := filepath.ToSlash(filepath.Dir(path))
		if entry.IsDir() || name == "." || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		if found[name] == nil {
			found[name] = map[string]string{}
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			found[name][imported] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		r, known := rooms[name]
		if !known {
			t.Errorf("internal/%s is a room that the table doesn't know: say what it may import, and why no more", name)
			continue
		}
		for imported, path := range found[name] {
			if other, isOurs := strings.CutPrefix(imported, ours); isOurs && !slices.Contains(strings.Fields(r.may), other) {
				t.Errorf("%s imports %s: %s", path, other, r.because)
			}
			if r.pure && slices.Contains(impure, imported) && pureExceptions[name+" "+imported] == "" {
				t.Errorf("%s imports %s, but %s has no clock and does no I/O: %s", path, imported, name, r.because)
			}
		}
	}
	for name := range rooms {
		if found[name] == nil && name != "e2e" {
			t.Errorf("the table lists internal/%s, which isn't there", name)
		}
	}
}
