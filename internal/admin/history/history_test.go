package history

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestHistoryIsBounded(t *testing.T) {
	var h History
	for n := range 3 * Most {
		h.Add(now, api.Event{Text: fmt.Sprint(n)})
	}
	all := h.After(0)
	if len(all) != Most || all[0].ID != 2*Most+1 || all[Most-1].Text != fmt.Sprint(3*Most-1) || !all[0].At.Equal(now) {
		t.Errorf("%d events, from %+v to %+v", len(all), all[0], all[len(all)-1])
	}
	if cap(h.events) > 4*Most {
		t.Errorf("room for %d events is kept", cap(h.events))
	}
	if some := h.After(3*Most - 2); len(some) != 2 || some[0].ID != 3*Most-1 {
		t.Errorf("the last two are %+v", some)
	}
	if none := h.After(3 * Most); len(none) != 0 {
		t.Errorf("after the last comes %+v", none)
	}
	if other := h.After(3*Most + 1); len(other) != Most {
		t.Errorf("whoever knows an ID of another process gets %d events", len(other))
	}
	h.Add(now, api.Event{Text: strings.Repeat("long ", 1000), By: "x\x1b[2J"})
	if e := h.After(3 * Most)[0]; len(e.Text) > longestText+50 || strings.Contains(e.By, "\x1b") {
		t.Errorf("%+v", e)
	}
}

func TestHistoryWakes(t *testing.T) {
	var h History
	changed := h.Changed()
	if changed != h.Changed() {
		t.Error("two who wait have two channels")
	}
	h.Add(now)
	select {
	case <-changed:
		t.Fatal("woken without an event")
	default:
	}
	h.Add(now, api.Event{Text: "one"})
	<-changed
	if h.Changed() == changed {
		t.Error("the channel is closed for ever")
	}
}

func TestHistoryGoesOnFromAnothers(t *testing.T) {
	var before, h History
	before.Add(now, api.Event{Text: "one"}, api.Event{Text: "two"})
	h.Add(now, api.Event{Text: "mine"})
	h.Restore(before.After(0))
	h.Add(now, api.Event{Text: "next"})
	var got []string
	for _, e := range h.After(0) {
		got = append(got, fmt.Sprint(e.ID, " ", e.Text))
	}
	if want := []string{"1 one", "2 two", "3 mine", "4 next"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	h.Restore([]api.Event{{ID: 9}, {ID: 3}, {ID: 9}})
	if all := h.After(0); all[0].ID != 9 || all[1].ID != 10 {
		t.Errorf("IDs don't rise: %+v", all)
	}
}

// seen makes a View of lines, each `member role`, or `service member up|down|unchecked reason`, `key holder`, `lost why`, `contested text`.
func seen(lines ...string) *view.View {
	v := &view.View{Cluster: "pg-test", At: now}
	for _, line := range lines {
		words := strings.Fields(line)
		switch {
		case words[0] == "key":
			v.Key = view.Key{Watched: true, Holder: strings.Join(words[1:], ""), Confirmed: now}
		case words[0] == "lost":
			v.Key = view.Key{Watched: true, Lost: strings.Join(words[1:], " ")}
		case words[0] == "held":
			v.Hold = view.Hold{ID: strings.Join(words[1:], " "), From: "a", To: "b", By: "somebody"}
			for i := range v.Services {
				v.Services[i].Held = true
			}
		case words[0] == "contested":
			v.Contested = strings.Join(words[1:], " ")
		case len(words) == 2:
			v.Members = append(v.Members, view.Member{Member: model.Member{Name: words[0]}, Live: model.Role(words[1]), Answer: "200"})
		default:
			s := v.Service(words[0])
			if s == nil {
				v.Services = append(v.Services, view.Service{Service: model.Service{Definition: model.Definition{FullName: words[0]}}})
				s = &v.Services[len(v.Services)-1]
			}
			h := view.Health{Up: words[2] == "up", Reason: strings.Join(words[3:], " "), Since: now.Add(-3 * time.Second)}
			if words[2] == "unchecked" {
				h.Reason = view.NotChecked
			}
			s.Servers = append(s.Servers, model.Server{Member: words[1], Weight: 100})
			s.Health = append(s.Health, h)
		}
	}
	return v
}

func TestBetween(t *testing.T) {
	drained := seen("a primary", "w a up 200")
	drained.Services[0].Health[0].Order = view.Order{State: view.Drain, By: "x", Since: now}
	for _, test := range []struct {
		name    string
		was, is *view.View
		want    []string
	}{
		{"the first View", nil, seen("a primary", "w a down 503"), nil},
		{"what is known for the first time", seen("a primary", "b replica", "w a unchecked", "w b unchecked"), seen("a primary", "b replica", "w a up 200", "w b down 503"), nil},
		{"nothing", seen("a primary", "key a", "w a up 200"), seen("a primary", "key a", "w a up 200 again"), nil},
		{"a failover", seen("a primary", "b replica", "key a", "w a up 200", "w b down 503", "r b up 200"),
			seen("a replica", "b primary", "key b", "w a down silent", "w b up 200 primary", "r b down it holds the leader key"), []string{
				"leader b: b holds the leader key, before it a", "role a: a is replica now, it was primary", "role b: b is primary now, it was replica",
				"server a w: a is down in w: silent", "server b w: b is up in w: 200 primary", "server b r: b is down in r: it holds the leader key",
				"service r: r has no server left: b it holds the leader key",
			}},
		{"one member's servers are told together", seen("a primary", "1 a up 200", "2 a up 200", "3 a up 200", "4 a up 200", "5 a up 200", "1 b up x", "2 b up x", "3 b up x", "4 b up x", "5 b up x"),
			seen("a primary", "1 a down silent", "2 a down silent", "3 a down silent", "4 a down silent", "5 a down silent", "1 b up x", "2 b up x", "3 b up x", "4 b up x", "5 b up x"),
			[]string{"server a: a is down in 5 services: silent"}},
		{"a service has a server again", seen("a primary", "w a down 503"), seen("a primary", "w a up 200"), []string{"server a w: a is up in w: 200", "service a w: w has a server again: a, after 3s"}},
		{"a service without servers", seen("a primary", "w a up 200"), func() *view.View {
			v := seen("a primary", "w a up 200")
			v.Services[0].Servers, v.Services[0].Health = nil, nil
			return v
		}(), []string{"service w: w has no server left: it has no servers"}},
		{"an order takes the last one", seen("a primary", "w a up 200"), drained, []string{"service w: w has no server left: a drained by order of x since 2026-03-01 12:00:00Z; 200"}},
		{"the key is lost", seen("a primary", "key a"), seen("a primary", "lost no quorum"), []string{"leader: the leader key can't be read: no quorum"}},
		{"and found", seen("a primary", "lost no quorum"), seen("a primary", "key a"), []string{"leader a: the leader key can be read again: a holds it"}},
		{"and nobody holds it", seen("a primary", "key a"), seen("a primary", "key"), []string{"leader a: a holds the leader key no more, and nobody does"}},
		{"and somebody does", seen("a primary", "key"), seen("a primary", "key a"), []string{"leader a: a holds the leader key"}},
		{"two claim", seen("a primary"), seen("a primary", "contested a and b answer"), []string{"contested: a and b answer"}},
		{"no more", seen("a primary", "contested a and b answer"), seen("a primary"), []string{"contested: one member claims to be the leader again"}},
		{"the failover key holds clients", seen("a primary", "w a up 200"), seen("a primary", "w a up 200", "held failover-key 7"), []string{"hold b: new clients of its leader wait"}},
		{"and lets them go", seen("a primary", "w a up 200", "held failover-key 7"), seen("a primary", "w a up 200"), []string{"hold b: clients are let go, who leads takes them"}},
		{"and an operator's hold lies over it", seen("a primary", "w a up 200", "held failover-key 7"), seen("a primary", "w a up 200", "held one"), nil},
		{"an operator's hold is told by who takes the order", seen("a primary", "w a up 200"), seen("a primary", "w a up 200", "held one"), nil},
		{"a server that joins is no news", seen("a primary", "w a up 200"), seen("a primary", "w b down 503", "w a up 200"), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, e := range Between(test.was, test.is) {
				got = append(got, strings.Join(strings.Fields(fmt.Sprintf("%s %s %s", e.Kind, e.Member, e.Service)), " ")+": "+e.Text)
				if e.Cluster != "pg-test" || !e.At.Equal(now) {
					t.Errorf("%+v", e)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(test.want, "\n  "))
			}
		})
	}
}
