// Package internal_test holds the test of the layering: which room may import which, and why the others are refused.
package internal_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/pgporter/pgporter/"

// room is one package below internal or lab.
type room struct {
	// may are the rooms that it may import, by the last part of their paths.
	may string
	// because says why everything else is refused; it is printed with the refusal.
	because string
	// pure rooms take time as an argument and do no I/O: nothing of what impure lists.
	pure bool
}

// rooms are all that there are, by district.
var rooms = map[string]room{
	// what may be shown?
	"internal/config/safetext": {pure: true, because: "whoever shows what others wrote needs it, so it may need nobody"},

	// internal/config: what is declared?
	"internal/config/diag":              {may: "safetext", pure: true, because: "every room reports problems, so the report may depend on none but that which makes text fit to be shown"},
	"internal/config/model":             {may: "diag jmespath", pure: true, because: "the model is what all others agree on: it needs nothing else of ours but the language of its selectors"},
	"internal/config/jmespath":          {pure: true, because: "an expression over members given as data has no need of where they came from"},
	"internal/config/inventory/jinja":   {may: "safetext", pure: true, because: "a template reaches its variables and nothing else, least of all files"},
	"internal/config/inventory":         {may: "diag jinja ownfile safetext", because: "reading files has nothing to do with what pgporter makes of what they declare"},
	"internal/config/inventory/ownfile": {may: "diag", pure: true, because: "which keys a file may have is declared once, for those who read it and those who describe it"},
	"internal/config/tcpservice":        {may: "diag model", pure: true, because: "what a service's lines mean follows from the lines: whoever checks servers reads it here"},
	"internal/config/plan":              {may: "diag inventory jinja jmespath model ownfile safetext tcpservice", because: "a plan is declared: what runs now must not leak into it"},
	"internal/config/resolve":           {may: "jmespath model", pure: true, because: "resolving is a function of the plan and the roles, so that it can be replayed"},
	"internal/config/intake":            {may: "diag jmespath model safetext tcpservice", pure: true, because: "what comes from outside is judged by itself, before anything that runs is touched"},

	// internal/beat: when does an idle process wake?
	"internal/beat": {because: "a rhythm needs a clock and nothing else"},

	// internal/monitor: what is true now?
	"internal/monitor/patroni":  {may: "model safetext", because: "a client of one HTTP API, with the model's reading of a lag; what an answer means for a service is decided in health"},
	"internal/monitor/etcd":     {may: "safetext", because: "a client of etcd: what a key means is decided in cluster"},
	"internal/monitor/exchange": {may: "beat", because: "sending bytes and waiting for others must not know whom is asked what"},
	"internal/monitor/health":   {may: "exchange model patroni", because: "health judges one server of one service; membership and publishing are the cluster's"},
	"internal/monitor/view":     {may: "model", pure: true, because: "readers of a View must not pull in what makes it"},
	"internal/monitor/discover": {may: "model patroni", because: "discovery finds members; nothing of an inventory may be needed for it"},
	"internal/monitor/inquiry":  {may: "health", because: "when a respondent is asked hangs on times and costs alone: not on clusters, roles or services"},
	"internal/monitor/cluster":  {may: "beat etcd exchange health inquiry model patroni resolve view", because: "the loop must not know who reads its Board"},
	"internal/monitor/tcpcheck": {may: "beat health model patroni safetext tcpservice view", because: "servers that are declared and checked need neither a cluster nor its roles; of patroni only how TLS is spoken"},

	// internal/engine: what carries the bytes?
	"internal/engine":          {may: "model tcpservice view", pure: true, because: "whoever carries or follows an offer is given the same one: none of them may be needed to make it"},
	"internal/engine/balance":  {may: "model view", pure: true, because: "choosing a server needs the View and nothing else"},
	"internal/engine/relay":    {may: "beat", because: "moving bytes must not know of services, so that it can be read, tested and handed over alone"},
	"internal/engine/process":  {because: "whom a signal goes to is looked at the same way whatever the signal is for"},
	"internal/engine/handover": {because: "passing sockets to another process must not know what they are for, so that any release can take over from another"},
	"internal/engine/proxy":    {may: "balance beat engine handover model relay view", because: "the engine follows the Board; it must not check health or read configuration itself"},
	"internal/engine/shadow":   {may: "engine haproxy health model safetext view", because: "who compares himself with HAProxy reads Boards and statistics: he must have nothing in hand to carry or to end anything"},
	"internal/engine/haproxy":  {may: "engine fileset haproxycfg model process stamp view", because: "HAProxy is run by what the Boards show and what is rendered; who checks members and who reads configuration is not its business"},

	// internal/access: how do clients come?
	"internal/access/dns/zone":  {may: "model stamp view", pure: true, because: "answers are a function of a configuration, Views and a question: who asks and who listens is others' business"},
	"internal/access/dns":       {may: "engine fileset gate model stamp view zone", because: "serving names is sockets and files: what is answered is decided in zone, and who checks members shows it on Boards"},
	"internal/access/gate":      {because: "who gets in is decided by how many are in and where they come from: nothing of what is said to whom may be needed for it"},
	"internal/access/vip/owner": {may: "model stamp view", pure: true, because: "who has an address is decided from Views and the time alone, and frames are bytes: nothing is sent or changed here"},
	"internal/access/vip":       {may: "owner view", because: "it does on the machine what owner decides; it must not check members or read configuration itself"},
	"internal/access/pool/duty": {may: "model view", pure: true, because: "what is due is a function of what PgBouncer and the View say, as a table of tests can have it"},
	"internal/access/pool":      {may: "beat duty safetext view", because: "it tells PgBouncers what duty says; it must not check members or read configuration itself"},
	"internal/access/connstr":   {may: "diag model stamp", pure: true, because: "rendering is text from values: who carries a service is decided by its plan"},
	"internal/access/doctor":    {may: "connstr model patroni safetext", because: "it tries what connstr lists as any client would, and asks Patroni itself: what pgporter itself takes for true must not colour it"},

	// internal/render: other programs' files
	"internal/render/stamp":        {pure: true, because: "what marks a file as ours is a line of text, whatever is in the file"},
	"internal/render/haproxycfg":   {may: "model stamp", pure: true, because: "rendering is text from values: what is read, written or run is others' business"},
	"internal/render/pgbouncercfg": {may: "model stamp", pure: true, because: "rendering is text from values: what is read, written or run is others' business"},
	"internal/render":              {may: "connstr diag haproxycfg inventory model owner pgbouncercfg plan resolve stamp zone", pure: true, because: "it joins the formats; reading inventories and writing files have rooms of their own"},
	"internal/render/draft":        {may: "model ownfile plan safetext", pure: true, because: "a first file is text from values: nobody is asked and nothing is written here"},
	"internal/render/fileset":      {may: "stamp", because: "keeping a directory up to date must not know what the files are for"},

	// internal/admin: how do people look and steer?
	"internal/admin/diff":    {may: "api model resolve", pure: true, because: "what a plan changes is a function of two plans and the roles; nothing is asked"},
	"internal/admin/control": {may: "api diag gate intake safetext", because: "the listener checks who calls and what is sent; what becomes of it is decided behind it"},
	"internal/admin/api":     {may: "safetext", because: "the JSON types are a contract with scripts: they must not follow our own types"},
	"internal/admin/metrics": {may: "api statistics", because: "series are made of one status: what isn't in there can't be told, so that all that shows agrees"},
	"internal/admin/who":     {may: "api", pure: true, because: "who is whose client follows from tables that were read: whoever asks for them is another"},
	"internal/admin/history": {may: "api model safetext view", pure: true, because: "what has happened is told from two Views and by who does it: nothing is asked, and nobody is steered by it"},
	"internal/admin/web":     {may: "api beat gate metrics", because: "pages and routes show what the API says and nothing more"},

	// the same in HAProxy's words
	"internal/admin/runtime":    {may: "api statistics", because: "what a command shows is the status, and what it does is the daemon's: it is only another way to say it"},
	"internal/admin/statistics": {may: "api", pure: true, because: "what HAProxy would say is a function of one status: whoever speaks its words writes the same table"},

	// internal/daemon: one process of them all
	"internal/daemon":          {may: "api balance beat cluster control diag diff discover dns duty engine etcd exchange gate handover haproxy history intake inventory logqueue model owner plan pool process proxy resolve runtime safetext shadow statistics tcpcheck tcpservice view vip web", because: "the wiring knows the rooms that it wires, and no command line"},
	"internal/daemon/logqueue": {because: "whoever logs must not wait for whoever reads: nothing may be between them but a buffer"},

	// internal/cli: the commands
	"internal/cli/documented": {because: "what the documents show is text: tests of any command line ask for it"},
	"internal/cli/command":    {may: "diag safetext", because: "what command lines have in common must not bring any command's rooms with it: the lab uses it too"},
	"internal/cli/nodes":      {may: "api control", because: "asking several nodes at once must not know which command wants it, or how its answers are shown"},
	"internal/cli/top":        {may: "api command nodes", because: "what a terminal shows is a function of what nodes say: how they are found and reached is the command's business"},
	"internal/cli/bundle":     {may: "safetext", pure: true, because: "what may go out is decided from texts alone: who asks for them and where they are kept is another's business"},
	"internal/cli/switchover": {may: "api command diag health patroni", because: "what is done when, and how it is undone, is tested without nodes and clusters: how they are reached is the command's business"},
	"internal/cli":            {may: "api bundle command connstr control daemon diag discover dns doctor draft etcd fileset haproxy intake inventory logqueue model nodes owner ownfile patroni plan pool process render resolve safetext shadow stamp switchover tcpservice top vip who", because: "commands ask the rooms that do the work; they don't reach below them"},

	// lab: what pgporter is tried and tested with
	"lab/sandbox/netns":     {may: "guard", because: "a network of namespaces is of use to any program: what runs on its nodes is others' business"},
	"lab/sandbox":           {may: "guard netns restproxy", because: "the sandbox is a user of pgporter like any other: it starts the program and reads its inventory format"},
	"lab/cli":               {may: "chaos command failover load restproxy sandbox soak throughput", because: "commands of the lab run pgporter as a program: of the product they have only what any command line needs"},
	"lab/sandbox/guard":     {because: "ending what is left of a program must not know what it was for, so that any program can have it"},
	"lab/chaos":             {may: "api restproxy sandbox", because: "a test from outside judges by what clients, etcd and PostgreSQL say, not by pgporter's own rooms"},
	"lab/load":              {because: "a prober sees what any client sees: it is given URLs and knows nothing of who ought to answer"},
	"lab/bench/subject":     {because: "programs that are compared are started alike: what is measured on them is others' business"},
	"lab/bench/report":      {may: "sandbox", because: "writing a benchmark's sections must not know its figures"},
	"lab/bench/throughput":  {may: "fakepatroni report sandbox subject", because: "what is compared must be used as its users use it: nothing of pgporter's own code may take part but the program"},
	"lab/bench/failover":    {may: "load report restproxy sandbox subject", because: "what is compared must be used as its users use it: programs that are started, files that they render"},
	"lab/fakepatroni":       {because: "a fake must not share what it is to be judged by with pgporter"},
	"lab/overload":          {because: "a stand-in must not share what it is to be judged by with pgporter"},
	"lab/e2e/browser":       {because: "a browser shows any page: what ought to be on it is the business of who looks"},
	"lab/e2e":               {may: "api browser load restproxy sandbox", because: "end-to-end tests see what users see: programs, ports and the admin address"},
	"lab/soak":              {may: "api fakepatroni process", because: "what is loaded is a program like any other: it is judged by its sockets, its status and /proc"},
	"lab/sandbox/restproxy": {because: "what asks Patroni must be counted and lied to without any notion of who it is"},
}

// impure packages bring the clock, the machine or the network into a room.
var impure = []string{"net", "net/http", "os", "os/exec", "os/signal", "syscall", "golang.org/x/sys/unix", "math/rand", "math/rand/v2"}

// pureExceptions are imports of impure packages for what is pure in them.
var pureExceptions = map[string]string{
	"internal/admin/diff net":   "JoinHostPort is string work",
	"internal/config/model net": "JoinHostPort is string work",
}

// files calls visit with each Go file below the module's folders that isn't a test, and what it imports.
func files(t *testing.T, visit func(room, file string, imports []string)) {
	t.Helper()
	for _, top := range []string{"cmd", "internal", "lab"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(file string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && entry.Name() == "testdata":
				return filepath.SkipDir
			case entry.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go"):
				return nil
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			var imports []string
			for _, spec := range parsed.Imports {
				imported, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
				imports = append(imports, imported)
			}
			name := strings.TrimPrefix(filepath.ToSlash(file), "../")
			visit(path.Dir(name), name, imports)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestLayers(t *testing.T) {
	var imported []string
	for _, r := range rooms {
		imported = append(imported, strings.Fields(r.may)...)
	}
	byName := map[string]string{}
	for at := range rooms {
		if other, twice := byName[path.Base(at)]; twice && slices.Contains(imported, path.Base(at)) {
			t.Errorf("%s and %s have one name: imports are listed by it", at, other)
		}
		byName[path.Base(at)] = at
	}
	found := map[string]bool{}
	files(t, func(at, file string, imports []string) {
		if strings.HasPrefix(at, "cmd/") {
			return
		}
		found[at] = true
		r, known := rooms[at]
		if !known {
			t.Errorf("%s is a room that the table doesn't know: say what it may import, and why no more", at)
			return
		}
		for _, imported := range imports {
			if other, isOurs := strings.CutPrefix(imported, module); isOurs && (byName[path.Base(other)] != other || !slices.Contains(strings.Fields(r.may), path.Base(other))) {
				t.Errorf("%s imports %s: %s", file, other, r.because)
			}
			if r.pure && slices.Contains(impure, imported) && pureExceptions[at+" "+imported] == "" {
				t.Errorf("%s imports %s, but %s has no clock and does no I/O: %s", file, imported, at, r.because)
			}
		}
	})
	for _, at := range slices.Sorted(maps.Keys(rooms)) {
		if !found[at] {
			t.Errorf("the table lists %s, which isn't there", at)
		}
		for _, other := range strings.Fields(rooms[at].may) {
			if byName[other] == "" {
				t.Errorf("%s may import %s, which isn't there", at, other)
			}
		}
	}
}

// Sandboxes, load and faults are for those who try and test pgporter: the product has no network namespace in it, and can't be
// made to start one.
func TestProductHasNoLab(t *testing.T) {
	files(t, func(at, file string, imports []string) {
		if strings.HasPrefix(at, "lab") || at == "cmd/pgporter-lab" {
			return
		}
		for _, imported := range imports {
			if strings.HasPrefix(imported, module+"lab/") {
				t.Errorf("%s imports %s: what pgporter is tested with is no part of it", file, imported)
			}
		}
	})
}

// demo are the passwords of the documents' users, which the sandbox makes, and words of the sandbox itself.
var demo = []string{"DBUser.", "Patroni.API", "test:test", "dbuser_meta", "dbuser_view", "dbuser_stats", "sandbox", "netns"}

// demoExceptions are those that the product has all the same, with the reason.
var demoExceptions = map[string]string{
	"internal/config/plan/reach.go DBUser.": "pg_admin_password's default is a part of Pigsty's inventory format",
}

// A product that knows the demo's passwords tries them, or prints them, where they are real ones.
func TestProductHasNoDemoPasswords(t *testing.T) {
	met := map[string]bool{}
	for _, top := range []string{"cmd/pgporter", "internal"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(file string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && entry.Name() == "testdata":
				return filepath.SkipDir
			case entry.IsDir() || strings.HasSuffix(file, "_test.go"):
				return nil
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			for _, word := range demo {
				at := strings.TrimPrefix(filepath.ToSlash(file), "../") + " " + word
				switch {
				case !strings.Contains(string(text), word):
				case demoExceptions[at] != "":
					met[at] = true
				default:
					t.Errorf("%s has %q in it, which is the lab's", file, word)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for at := range demoExceptions {
		if !met[at] {
			t.Errorf("%s: there is no such exception any more", at)
		}
	}
}

// Whoever looks for something reads the folders of one level at a glance.
func TestFoldersAreFew(t *testing.T) {
	const most = 9
	below := map[string]map[string]bool{}
	files(t, func(at, _ string, _ []string) {
		for at != "." {
			parent := path.Dir(at)
			if below[parent] == nil {
				below[parent] = map[string]bool{}
			}
			below[parent][at] = true
			at = parent
		}
	})
	for parent, folders := range below {
		if len(folders) > most {
			t.Errorf("%s has %d folders, more than %d: %s", parent, len(folders), most, strings.Join(slices.Sorted(maps.Keys(folders)), " "))
		}
	}
}
