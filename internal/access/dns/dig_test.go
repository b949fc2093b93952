package dns

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

var update = flag.Bool("update", false, "write the goldens anew")

// changing is what differs from run to run: the serial number, which is a time.
var changing = regexp.MustCompile(`(SOA\s\S+ \S+ )\d+`)

// TestDig plays testdata/dig.txt: what dig is asked, and what it prints. Lines that begin with # are remarks, and those of the
// form `## a switchover` have the clusters change.
func TestDig(t *testing.T) {
	before := []member{
		{"10.10.10.11", model.Primary, model.Primary, true},
		{"10.10.10.12", model.Replica, model.Replica, true},
		{"10.10.10.13", model.Replica, model.Replica, true},
		{"10.10.10.14", model.Offline, model.Offline, true},
	}
	test := declared("pg-test", before...)
	extra := test.Definitions[1]
	extra.Name, extra.FullName, extra.Port, extra.IP = "fixed", "pg-test-fixed", 5499, "10.10.10.3"
	test.Definitions = append(test.Definitions, extra)
	meta := []member{{"10.10.10.10", model.Primary, model.Primary, true}}
	six := []member{{"fd00::11", model.Primary, model.Primary, true}, {"fd00::12", model.Replica, model.Replica, true}}
	far := []member{{"10.10.10.21", model.Primary, model.Primary, true}, {"10.10.10.22", model.Replica, model.Replica, true}}
	wide := []member{{"10.11.0.1", model.Primary, model.Primary, true}}
	for i := range 119 {
		wide = append(wide, member{fmt.Sprintf("10.11.0.%d", i+2), model.Replica, model.Replica, true})
	}
	lost := []member{{"10.10.10.31", model.Primary, model.Primary, false}, {"10.10.10.32", model.Replica, model.Replica, false}}
	clusters := []engine.Cluster{
		{Cluster: test}, {Cluster: declared("pg-meta", meta...)}, {Cluster: declared("pg-six", six...)}, {Cluster: declared("pg-far", far...)},
		{Cluster: declared("pg-wide", wide...)}, {Cluster: declared("pg-lost", lost...)},
	}
	for i, members := range [][]member{before, meta, six, far, wide, lost} {
		clusters[i].Board = view.NewBoard(seen(t, clusters[i].Cluster, members...))
	}
	r := start(t, Config{Address: "127.0.81.53:0"}, engine.Offer{Node: "10.10.10.10", Clusters: clusters, Names: []model.Naming{
		{Cluster: "pg-test", Suffix: ".db.example", Target: model.TargetPrimary},
		{Cluster: "pg-meta", Target: "10.10.10.2"},
		{Cluster: "pg-six", Target: model.TargetPrimary},
		{Cluster: "pg-far", Target: model.TargetNone, Delegated: true},
		{Cluster: "pg-wide", Target: model.TargetPrimary},
		{Cluster: "pg-lost", Target: model.TargetPrimary},
	}})
	events := map[string]func(){
		"nobody leads pg-test, and pg-test-3 is down": func() {
			clusters[0].Board.Publish(seen(t, test, member{live: model.Replica}, member{live: model.Replica, up: true}, member{live: model.Replica}, member{live: model.Offline, up: true}))
		},
		"pg-test-2 leads pg-test": func() {
			clusters[0].Board.Publish(seen(t, test, member{live: model.Replica}, member{live: model.Primary, up: true}, member{live: model.Replica, up: true}, member{live: model.Offline}))
		},
	}
	text, err := os.ReadFile("testdata/dig.txt")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(r.Address())
	if err != nil {
		t.Fatal(err)
	}
	// Between two events questions are independent of each other: dig takes its time to start.
	var said []*string
	var asking errgroup.Group
	asking.SetLimit(4)
	asked := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "## "):
			if err := asking.Wait(); err != nil {
				t.Fatal(err)
			}
			said = append(said, &line)
			event := line[3:]
			if events[event] == nil {
				t.Fatalf("no event %q", event)
			}
			serial := r.current.Load().live[0].Load().Serial
			events[event]()
			until(t, event, func() bool { return r.current.Load().live[0].Load().Serial != serial })
		case strings.HasPrefix(line, "# "):
			said = append(said, &line)
		case strings.HasPrefix(line, "$ dig "):
			answer := new(string)
			said = append(said, answer)
			asked++
			asking.Go(func() error {
				output, err := dig(t, host, port, strings.Fields(line[len("$ dig "):]))
				*answer = line + "\n" + output
				return err
			})
		}
	}
	if err := asking.Wait(); err != nil {
		t.Fatal(err)
	}
	if asked < 30 {
		t.Errorf("only %d questions were asked", asked)
	}
	var all []string
	for _, one := range said {
		all = append(all, *one)
	}
	got := strings.Join(all, "\n\n") + "\n"
	if *update {
		if err := os.WriteFile("testdata/dig.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want := string(text); got != want {
		t.Errorf("dig says something else: see with -update and git diff\n%s", got)
	}
}

// dig asks the server and gives what is worth reading of the output.
func dig(t *testing.T, host, port string, question []string) (string, error) {
	args := append([]string{"-r", "@" + host, "-p", port, "+nocmd", "+nostats", "+tries=1", "+time=20", "+qid=0"}, question...)
	output, err := exec.CommandContext(t.Context(), "dig", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("dig %s: %w\n%s", strings.Join(question, " "), err, output)
	}
	var lines []string
	for line := range strings.Lines(string(output)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, ";; WARNING: recursion") || strings.HasPrefix(line, ";; Got answer") ||
			strings.HasPrefix(line, "; (1 server found)") || strings.HasPrefix(line, ";; global options") {
			continue
		}
		lines = append(lines, changing.ReplaceAllString(line, "${1}SERIAL"))
	}
	return strings.Join(lines, "\n"), nil
}
