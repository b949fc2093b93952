package balance

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// server describes one server of a table: name, weight, and the words down and backup.
type server struct {
	name   string
	weight int
	words  string
}

func made(balance model.Balance, options string, servers ...server) *view.Service {
	parsed, problems := model.ParseOptions(options)
	if len(problems) > 0 {
		panic(problems[0].What)
	}
	svc := &view.Service{Service: model.Service{Definition: model.Definition{
		Name: "s", FullName: "c-s", Balance: balance, Options: parsed}}}
	for _, s := range servers {
		svc.Servers = append(svc.Servers, model.Server{
			Member: s.name, Weight: s.weight, Backup: strings.Contains(s.words, "backup")})
		svc.Health = append(svc.Health, view.Health{Up: !strings.Contains(s.words, "down")})
	}
	return svc
}

// picked runs n picks and spells the members in order, `-` for None and `!` for Full.
func picked(p *Picker, svc *view.Service, n int, tried map[string]bool) string {
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
		svc   *view.Service
		tried map[string]bool
		want  string
	}{
		{"roundrobin in turn", made(model.RoundRobin, "", server{"a", 100, ""}, server{"b", 100, ""}, server{"c", 100, ""}), nil, "abcabcabc"},
		{"no balance said is roundrobin", made("", "", server{"a", 1, ""}, server{"b", 1, ""}), nil, "abab"},
		{"weights are smooth", made(model.RoundRobin, "", server{"a", 5, ""}, server{"b", 1, ""}, server{"c", 1, ""}), nil, "aabacaaaabacaa"},
		{"down is skipped", made(model.RoundRobin, "", server{"a", 1, "down"}, server{"b", 1, ""}), nil, "bbb"},
		{"weight 0 is skipped", made(model.RoundRobin, "", server{"a", 0, ""}, server{"b", 1, ""}), nil, "bbb"},
		{"backups wait", made(model.RoundRobin, "", server{"a", 1, ""}, server{"b", 1, "backup"}), nil, "aaa"},
		{"first usable backup takes all", made(model.RoundRobin, "", server{"a", 1, "down"}, server{"b", 1, "backup down"}, server{"c", 1, "backup"}, server{"d", 1, "backup"}), nil, "ccc"},
		{"all weights 0 calls the backup", made(model.RoundRobin, "", server{"a", 0, ""}, server{"b", 1, "backup"}), nil, "bb"},
		{"nobody", made(model.RoundRobin, "", server{"a", 1, "down"}), nil, "--"},
		{"no servers", made(model.LeastConn, ""), nil, "-"},
		{"tried are left out", made(model.RoundRobin, "", server{"a", 1, ""}, server{"b", 1, ""}), map[string]bool{"a": true}, "bb"},
		{"a failed regular server doesn't call the backup", made(model.RoundRobin, "", server{"a", 1, ""}, server{"b", 1, "backup"}), map[string]bool{"a": true}, "-"},
		{"all tried", made(model.LeastConn, "", server{"a", 1, ""}, server{"b", 1, ""}), map[string]bool{"a": true, "b": true}, "-"},
		{"maxconn of a server", made(model.RoundRobin, "maxconn 2", server{"a", 5, ""}, server{"b", 1, ""}), nil, "aabb!"},
		{"maxconn 0 is no limit", made(model.RoundRobin, "maxconn 0 maxqueue 0", server{"a", 1, ""}), nil, "aaaaaa"},
		{"a backup with weight 0 is passed over", made(model.RoundRobin, "", server{"a", 1, "down"}, server{"b", 0, "backup"}, server{"c", 1, "backup"}), nil, "cc"},
		{"slowstart 0 is none", made(model.RoundRobin, "slowstart 0", server{"a", 1, ""}, server{"b", 1, ""}), nil, "abab"},
		{"full doesn't call the backup", made(model.RoundRobin, "maxconn 1", server{"a", 1, ""}, server{"b", 1, "backup"}), nil, "a!"},
		{"full and tried", made(model.LeastConn, "maxconn 1", server{"a", 1, ""}, server{"b", 1, ""}), map[string]bool{"b": true}, "a!"},
		{"leastconn among equals in turn", made(model.LeastConn, "", server{"a", 100, ""}, server{"b", 100, ""}, server{"c", 100, ""}), nil, "abcabc"},
		{"first takes all, whatever the weights", made(model.First, "", server{"a", 1, ""}, server{"b", 100, ""}), nil, "aaa"},
		{"first goes on when one is full", made(model.First, "maxconn 2", server{"a", 1, ""}, server{"b", 1, ""}, server{"c", 1, ""}), nil, "aabbcc!"},
		{"first skips who is down, tried, or has no weight", made(model.First, "", server{"a", 1, "down"}, server{"b", 1, ""}, server{"c", 0, ""}, server{"d", 1, ""}), map[string]bool{"b": true}, "dd"},
		{"source with one server", made(model.Source, "maxconn 2", server{"a", 1, ""}), nil, "aa!"},
		{"random has no choice", made("random(3)", "maxconn 1", server{"a", 1, ""}, server{"b", 0, ""}), nil, "a!"},
		{"leastconn by weight", made(model.LeastConn, "", server{"a", 2, ""}, server{"b", 1, ""}), nil, "abaaba"},
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
	for _, balance := range []model.Balance{model.RoundRobin, model.LeastConn} {
		weights := []int{256, 100, 50, 1, 93}
		svc := made(balance, "")
		total := 0
		for i, w := range weights {
			total += w
			svc.Servers = append(svc.Servers, model.Server{Member: fmt.Sprint("m", i), Weight: w})
			svc.Health = append(svc.Health, view.Health{Up: true})
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
			if off := got - 4*w; off < -1 || off > 1 || balance == model.RoundRobin && off != 0 {
				t.Errorf("%s: weight %d got %d of %d sessions, want %d", balance, w, got, 4*total, 4*w)
			}
		}
	}
}

func TestLeastConnFollowsSessionCounts(t *testing.T) {
	svc := made(model.LeastConn, "", server{"a", 1, ""}, server{"b", 1, ""}, server{"c", 1, ""})
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
	both := made(model.LeastConn, "", server{"a", 1, ""}, server{"b", 1, ""})
	if got := picked(&p, both, 4, nil); got != "abab" {
		t.Fatalf("picked %s", got)
	}
	// The order of members changes and one joins: counts stay with the names.
	changed := made(model.LeastConn, "", server{"c", 1, ""}, server{"b", 1, ""}, server{"a", 1, ""})
	if got := picked(&p, changed, 2, nil); got != "cc" {
		t.Errorf("after c joined: %s", got)
	}
	// a leaves while its sessions live on; they count again when it comes back.
	without := made(model.LeastConn, "", server{"b", 1, ""})
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
	picked(&p, made(model.RoundRobin, "", server{"a", 100, ""}, server{"b", 200, ""}, server{"c", 200, ""}), 2, nil)
	got := picked(&p, made(model.RoundRobin, "", server{"a", 1, ""}, server{"b", 1, ""}, server{"c", 1, ""}), 6, nil)
	if got != "abcabc" {
		t.Errorf("picked %s after the weights became equal", got)
	}
}

func TestSourceKeepsAClientOnItsServer(t *testing.T) {
	svc := made(model.Source, "", server{"a", 100, ""}, server{"b", 100, ""}, server{"c", 200, ""})
	var p Picker
	const clients = 2000
	home := map[netip.Addr]string{}
	count := map[string]int{}
	addr := netip.MustParseAddr("10.0.0.1")
	pick := func(from netip.Addr, svc *view.Service) string {
		i, outcome := p.Pick(svc, Client{Addr: from})
		if outcome != Picked {
			t.Fatalf("outcome %d", outcome)
		}
		return svc.Servers[i].Member
	}
	for range clients {
		home[addr] = pick(addr, svc)
		count[home[addr]]++
		addr = addr.Next()
	}
	for member, want := range map[string]int{"a": clients / 4, "b": clients / 4, "c": clients / 2} {
		if off := count[member] - want; off < -clients/20 || off > clients/20 {
			t.Errorf("%s has %d clients, want about %d", member, count[member], want)
		}
	}
	// Another Picker, in another process, agrees; who loses a server moves, and nobody else.
	without := made(model.Source, "", server{"a", 100, ""}, server{"b", 100, "down"}, server{"c", 200, ""})
	p = Picker{Seed: 1}
	for from, was := range home {
		if now := pick(from, svc); now != was {
			t.Fatalf("%s goes to %s and then to %s", from, was, now)
		}
		if now := pick(from, without); now != was && was != "b" || now == "b" {
			t.Fatalf("%s goes from %s to %s without b", from, was, now)
		}
	}
	// It is the same client by an IPv4 address on a socket for both families.
	four := netip.MustParseAddr("10.0.0.7")
	if pick(four, svc) != pick(netip.AddrFrom16(four.As16()), svc) {
		t.Error("an address mapped to IPv6 is another client")
	}
}

// Full is said of one client's server only.
func TestSourceWaitsForItsServer(t *testing.T) {
	svc := made(model.Source, "maxconn 1", server{"a", 1, ""}, server{"b", 1, ""})
	var p Picker
	taken := map[int]bool{}
	full := 0
	addr := netip.MustParseAddr("10.0.0.1")
	for range 64 {
		i, outcome := p.Pick(svc, Client{Addr: addr})
		switch {
		case outcome == Full && i == -1:
			full++
		case outcome != Picked || taken[i]:
			t.Fatalf("index %d, outcome %d", i, outcome)
		default:
			taken[i] = true
		}
		addr = addr.Next()
	}
	if len(taken) != 2 || full != 62 {
		t.Errorf("%d taken, %d found it full", len(taken), full)
	}
	if Alike(svc) || !Alike(made(model.First, "")) {
		t.Error("only source tells clients apart")
	}
}

func TestRandomPrefersTheLessLoaded(t *testing.T) {
	const picks = 3000
	spread := func(b model.Balance, seed uint64, weights ...int) []int {
		svc := made(b, "")
		for i, w := range weights {
			svc.Servers = append(svc.Servers, model.Server{Member: fmt.Sprint("m", i), Weight: w})
			svc.Health = append(svc.Health, view.Health{Up: true})
		}
		p := Picker{Seed: seed}
		counts := make([]int, len(weights))
		for range picks {
			i, _ := p.Pick(svc, Client{})
			counts[i]++
		}
		return counts
	}
	near := func(counts []int, off int, want ...int) {
		t.Helper()
		for i := range want {
			if d := counts[i] - want[i]; d < -off || d > off {
				t.Errorf("spread %v, want about %v", counts, want)
				return
			}
		}
	}
	near(spread("random(1)", 1, 1, 1, 1), picks/20, picks/3, picks/3, picks/3)
	near(spread("random(1)", 2, 1, 2), picks/20, picks/3, 2*picks/3)
	// With two draws the counts stay close.
	near(spread("random", 3, 1, 1, 1), 10, picks/3, picks/3, picks/3)
	near(spread("random(2)", 4, 1, 2), picks/20, picks/3, 2*picks/3)
	if a, b := spread("random(1)", 5, 1, 1), spread("random(1)", 6, 1, 1); a[0] == b[0] && spread("random(1)", 7, 1, 1)[0] == a[0] {
		t.Error("the seed makes no difference")
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[model.Balance]string{"": " 2", "roundrobin": "roundrobin 2", "random": "random 2", "random(5)": "random 5",
		"random ( 3 )": "random 3", "random()": "random 2", "source": "source 2"} {
		if b, n := parse(text); fmt.Sprint(b, " ", n) != want {
			t.Errorf("%q is %s with %d draws, want %s", text, b, n, want)
		}
	}
}

func TestSlowStart(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	slow := func(b model.Balance, options string, up ...time.Duration) *view.Service {
		svc := made(b, options)
		for i, d := range up {
			svc.Servers = append(svc.Servers, model.Server{Member: string(rune('a' + i)), Weight: 10})
			svc.Health = append(svc.Health, view.Health{Up: true, Since: now, Recovered: now.Add(-d)})
		}
		return svc
	}
	spell := func(svc *view.Service, n int) string {
		var p Picker
		var spelt strings.Builder
		for range n {
			switch i, outcome := p.Pick(svc, Client{Now: now}); outcome {
			case Picked:
				spelt.WriteString(svc.Servers[i].Member)
			default:
				spelt.WriteString("!")
			}
		}
		return spelt.String()
	}
	for _, test := range []struct {
		name string
		svc  *view.Service
		want string
	}{
		{"half of its time, half of its weight", slow(model.RoundRobin, "slowstart 10s", time.Hour, 5*time.Second), "aba" + "aba" + "aba"},
		{"leastconn too", slow(model.LeastConn, "slowstart 10s", time.Hour, 5*time.Second), "abaaba"},
		{"its time is over", slow(model.RoundRobin, "slowstart 10s", time.Hour, 10*time.Second), "abab"},
		{"no slowstart", slow(model.RoundRobin, "", time.Hour, time.Second), "abab"},
		{"maxconn grows with it, from 1", slow(model.RoundRobin, "slowstart 10s maxconn 4", time.Hour, 10*time.Millisecond), "aaaab!"},
		{"half of maxconn", slow(model.First, "slowstart 10s maxconn 4", 5*time.Second, time.Hour), "aabbbb!"},
		{"one server is never throttled", slow(model.RoundRobin, "slowstart 10s maxconn 4", 10*time.Millisecond), "aaaa!"},
		{"nor are several that came together", slow(model.RoundRobin, "slowstart 10s maxconn 2", time.Second, 2*time.Second), "abab!"},
		{"a clock that went back", slow(model.First, "slowstart 10s maxconn 2", -time.Minute, time.Hour), "abb!"},
	} {
		if got := spell(test.svc, len(test.want)); got != test.want {
			t.Errorf("%s: picked %s, want %s", test.name, got, test.want)
		}
	}
}
