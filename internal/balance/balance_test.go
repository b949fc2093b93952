package balance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/service"
	"github.com/pgporter/pgporter/internal/state"
)

// server describes one server of a table: name, weight, and the words down and backup.
type server struct {
	name   string
	weight int
	words  string
}

func made(balance service.Balance, options string, servers ...server) *state.Service {
	parsed, problems := service.ParseOptions(options)
	if len(problems) > 0 {
		panic(problems[0].What)
	}
	svc := &state.Service{Service: service.Service{Definition: service.Definition{
		Name: "s", FullName: "c-s", Balance: balance, Options: parsed}}}
	for _, s := range servers {
		svc.Servers = append(svc.Servers, service.Server{
			Member: s.name, Weight: s.weight, Backup: strings.Contains(s.words, "backup")})
		svc.Health = append(svc.Health, state.Health{Up: !strings.Contains(s.words, "down")})
	}
	return svc
}

// picked runs n picks and spells the members in order, `-` for None and `!` for Full.
func picked(p *Picker, svc *state.Service, n int, tried map[string]bool) string {
	var spelt strings.Builder
	for range n {
		i, outcome := p.Pick(svc, Client{Avoid: tried})
		switch outcome {
		case Picked:
			spelt.WriteString(svc.Servers[i].Member)
		case Full:
			spelt.WriteString("!")
		default:
			spelt.WriteString("-")
		}
		if outcome != Picked && i != -1 {
			return fmt.Sprintf("index %d with outcome %d", i, outcome)
		}
	}
	return spelt.String()
}

func TestPickSequence(t *testing.T) {
	tests := []struct {
		name  string
		svc   *state.Service
		tried map[string]bool
		want  string
	}{
		{"roundrobin in turn", made(service.RoundRobin, "", server{"a", 100, ""}, server{"b", 100, ""}, server{"c", 100, ""}), nil, "abcabcabc"},
		{"no balance said is roundrobin", made("", "", server{"a", 1, ""}, server{"b", 1, ""}), nil, "abab"},
		{"weights are smooth", made(service.RoundRobin, "", server{"a", 5, ""}, server{"b", 1, ""}, server{"c", 1, ""}), nil, "aabacaaaabacaa"},
		{"down is skipped", made(service.RoundRobin, "", server{"a", 1, "down"}, server{"b", 1, ""}), nil, "bbb"},
		{"weight 0 is skipped", made(service.RoundRobin, "", server{"a", 0, ""}, server{"b", 1, ""}), nil, "bbb"},
		{"backups wait", made(service.RoundRobin, "", server{"a", 1, ""}, server{"b", 1, "backup"}), nil, "aaa"},
		{"first usable backup takes all", made(service.RoundRobin, "", server{"a", 1, "down"}, server{"b", 1, "backup down"}, server{"c", 1, "backup"}, server{"d", 1, "backup"}), nil, "ccc"},
		{"all weights 0 calls the backup", made(service.RoundRobin, "", server{"a", 0, ""}, server{"b", 1, "backup"}), nil, "bb"},
		{"nobody", made(service.RoundRobin, "", server{"a", 1, "down"}), nil, "--"},
		{"no servers", made(service.LeastConn, ""), nil, "-"},
		{"tried are left out", made(service.RoundRobin, "", server{"a", 1, ""}, server{"b", 1, ""}), map[string]bool{"a": true}, "bb"},
		{"a failed regular server doesn't call the backup", made(service.RoundRobin, "", server{"a", 1, ""}, server{"b", 1, "backup"}), map[string]bool{"a": true}, "-"},
		{"all tried", made(service.LeastConn, "", server{"a", 1, ""}, server{"b", 1, ""}), map[string]bool{"a": true, "b": true}, "-"},
		{"maxconn of a server", made(service.RoundRobin, "maxconn 2", server{"a", 5, ""}, server{"b", 1, ""}), nil, "aabb!"},
		{"full doesn't call the backup", made(service.RoundRobin, "maxconn 1", server{"a", 1, ""}, server{"b", 1, "backup"}), nil, "a!"},
		{"full and tried", made(service.LeastConn, "maxconn 1", server{"a", 1, ""}, server{"b", 1, ""}), map[string]bool{"b": true}, "a!"},
		{"leastconn among equals in turn", made(service.LeastConn, "", server{"a", 100, ""}, server{"b", 100, ""}, server{"c", 100, ""}), nil, "abcabc"},
		{"leastconn by weight", made(service.LeastConn, "", server{"a", 2, ""}, server{"b", 1, ""}), nil, "abaaba"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var p Picker
			if got := picked(&p, test.svc, len(test.want), test.tried); got != test.want {
				t.Errorf("picked %s, want %s", got, test.want)
			}
		})
	}
}

func TestDistributionFollowsWeights(t *testing.T) {
	for _, balance := range []service.Balance{service.RoundRobin, service.LeastConn} {
		weights := []int{256, 100, 50, 1, 93}
		svc := made(balance, "")
		total := 0
		for i, w := range weights {
			total += w
			svc.Servers = append(svc.Servers, service.Server{Member: fmt.Sprint("m", i), Weight: w})
			svc.Health = append(svc.Health, state.Health{Up: true})
		}
		var p Picker
		for range 4 * total {
			if _, outcome := p.Pick(svc, Client{}); outcome != Picked {
				t.Fatalf("%s: outcome %d", balance, outcome)
			}
		}
		for i, w := range weights {
			got := p.Sessions(fmt.Sprint("m", i))
			// Roundrobin is exact after whole rounds; leastconn may be one session off.
			if off := got - 4*w; off < -1 || off > 1 || balance == service.RoundRobin && off != 0 {
				t.Errorf("%s: weight %d got %d of %d sessions, want %d", balance, w, got, 4*total, 4*w)
			}
		}
	}
}

func TestLeastConnFollowsSessionCounts(t *testing.T) {
	svc := made(service.LeastConn, "", server{"a", 1, ""}, server{"b", 1, ""}, server{"c", 1, ""})
	var p Picker
	if got := picked(&p, svc, 6, nil); got != "abcabc" {
		t.Fatalf("picked %s", got)
	}
	p.Release("b")
	p.Release("b")
	// b is filled up to the others' two, then who was picked longest ago follows.
	if got := picked(&p, svc, 4, nil); got != "bbac" {
		t.Errorf("after two of b's sessions ended: %s", got)
	}
	for range 10 {
		p.Release("c")
	}
	if p.Sessions("c") != 0 {
		t.Errorf("c has %d sessions after more releases than picks", p.Sessions("c"))
	}
	if got := picked(&p, svc, 2, nil); got != "cc" {
		t.Errorf("with c empty: %s", got)
	}
}

func TestPickerSurvivesViews(t *testing.T) {
	var p Picker
	both := made(service.LeastConn, "", server{"a", 1, ""}, server{"b", 1, ""})
	if got := picked(&p, both, 4, nil); got != "abab" {
		t.Fatalf("picked %s", got)
	}
	// The order of members changes and one joins: counts stay with the names.
	changed := made(service.LeastConn, "", server{"c", 1, ""}, server{"b", 1, ""}, server{"a", 1, ""})
	if got := picked(&p, changed, 2, nil); got != "cc" {
		t.Errorf("after c joined: %s", got)
	}
	// a leaves while its sessions live on; they count again when it comes back.
	without := made(service.LeastConn, "", server{"b", 1, ""})
	picked(&p, without, 1, nil)
	if p.Sessions("a") != 2 {
		t.Errorf("a has %d sessions after it left, want 2", p.Sessions("a"))
	}
	if p.Sessions("c") != 2 {
		t.Errorf("c has %d sessions after it left, want 2", p.Sessions("c"))
	}
	p.Release("c")
	p.Release("c")
	picked(&p, without, 1, nil)
	if _, known := p.servers["c"]; known {
		t.Error("c is still remembered though it left and has no session")
	}
}

func TestRotationStartsAfreshWhenWeightsChange(t *testing.T) {
	var p Picker
	picked(&p, made(service.RoundRobin, "", server{"a", 100, ""}, server{"b", 200, ""}, server{"c", 200, ""}), 2, nil)
	got := picked(&p, made(service.RoundRobin, "", server{"a", 1, ""}, server{"b", 1, ""}, server{"c", 1, ""}), 6, nil)
	if got != "abcabc" {
		t.Errorf("picked %s after the weights became equal", got)
	}
}
