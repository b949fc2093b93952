package view

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
)

var (
	began  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ready  = Ready
	drain  = Drain
	maint  = Maintenance
	weight = func(w int) *int { return &w }
)

// carrying makes a View of pg-test with one service whose servers are described by lines `name up|down weight epoch [backup]`.
func carrying(version uint64, options string, servers ...string) *View {
	parsed, _ := model.ParseOptions(options)
	s := Service{Service: model.Service{Definition: model.Definition{Name: "read", FullName: "pg-test-read", Options: parsed}}}
	v := &View{Cluster: "pg-test", Version: version, At: began.Add(time.Duration(version) * time.Second)}
	for _, line := range servers {
		var name, is, backup string
		var weight, epoch int
		fmt.Sscan(line, &name, &is, &weight, &epoch, &backup)
		if is != "" {
			s.Servers = append(s.Servers, model.Server{Member: name, Weight: weight, Backup: backup == "backup"})
			s.Health = append(s.Health, Health{Up: is == "up", Reason: "checked", Epoch: uint64(epoch), Ended: "the loop's reason"})
		}
		v.Members = append(v.Members, Member{Member: model.Member{Name: name}})
	}
	v.Services = []Service{s}
	return v
}

// told describes a View as readers see it.
func told(v *View) string {
	s := &v.Services[0]
	usable := map[int]bool{}
	for _, i := range s.Usable() {
		usable[i] = true
	}
	var parts []string
	for i, server := range s.Servers {
		text := fmt.Sprintf("%s w%d e%d", server.Member, server.Weight, s.Health[i].Epoch)
		if usable[i] {
			text += " takes"
		}
		if o := s.Health[i].Order; o != (Order{}) {
			text += " " + o.State.String() + " by " + o.By
		}
		if s.DeclaredWeight(i) != server.Weight {
			text += fmt.Sprintf(" declared %d", s.DeclaredWeight(i))
		}
		if s.Health[i].Ended != "the loop's reason" {
			text += " (" + s.Health[i].Ended + ")"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// TestApply has a Board go through what a loop publishes and operators order, a step a row.
func TestApply(t *testing.T) {
	const shuts = "on-marked-down shutdown-sessions"
	a, b, c := ServerID{"pg-test-read", "a"}, ServerID{"pg-test-read", "b"}, ServerID{"pg-test-read", "c"}
	type step struct {
		what    string
		publish *View
		command Command
		on      []ServerID
		want    string
	}
	both := func(version uint64, options string) *View {
		return carrying(version, options, "a up 100 3", "b up 50 4")
	}
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"drain leaves sessions, and the next View has it too", []step{
			{"begin", both(1, shuts), Command{}, nil, "a w100 e3 takes, b w50 e4 takes"},
			{"drain", nil, Command{State: &drain, By: "x"}, []ServerID{a}, "a w100 e3 drain by x, b w50 e4 takes"},
			{"publish", carrying(2, shuts, "a up 100 3", "b down 50 4"), Command{}, nil, "a w100 e3 drain by x, b w50 e4"},
			{"ready", nil, Command{State: &ready, By: "y"}, []ServerID{a}, "a w100 e3 takes, b w50 e4"},
		}},
		{"maintenance ends sessions where the options say so", []step{
			{"begin", both(1, shuts), Command{}, nil, "a w100 e3 takes, b w50 e4 takes"},
			{"maint", nil, Command{State: &maint, By: "x"}, []ServerID{a}, "a w100 e4 maint by x (it was put into maintenance by x (on-marked-down shutdown-sessions)), b w50 e4 takes"},
			{"again", nil, Command{State: &maint, By: "y"}, []ServerID{a}, "a w100 e4 maint by x (it was put into maintenance by x (on-marked-down shutdown-sessions)), b w50 e4 takes"},
			{"ready", nil, Command{State: &ready, By: "x"}, []ServerID{a}, "a w100 e4 takes (it was put into maintenance by x (on-marked-down shutdown-sessions)), b w50 e4 takes"},
			{"the loop ends sessions after that", carrying(2, shuts, "a up 100 5", "b up 50 4"), Command{}, nil, "a w100 e6 takes, b w50 e4 takes"},
		}},
		{"and not where they don't", []step{
			{"begin", both(1, ""), Command{}, nil, "a w100 e3 takes, b w50 e4 takes"},
			{"maint", nil, Command{State: &maint, By: "x"}, []ServerID{a}, "a w100 e3 maint by x, b w50 e4 takes"},
		}},
		{"from drain to maintenance", []step{
			{"begin", both(1, shuts), Command{}, nil, "a w100 e3 takes, b w50 e4 takes"},
			{"drain", nil, Command{State: &drain, By: "x"}, []ServerID{a}, "a w100 e3 drain by x, b w50 e4 takes"},
			{"maint", nil, Command{State: &maint, By: "y"}, []ServerID{a}, "a w100 e4 maint by y (it was put into maintenance by y (on-marked-down shutdown-sessions)), b w50 e4 takes"},
			{"drain again", nil, Command{State: &drain, By: "x"}, []ServerID{a}, "a w100 e4 drain by x (it was put into maintenance by y (on-marked-down shutdown-sessions)), b w50 e4 takes"},
		}},
		{"weights", []step{
			{"begin", both(1, shuts), Command{}, nil, "a w100 e3 takes, b w50 e4 takes"},
			{"none", nil, Command{Weight: weight(0), By: "x"}, []ServerID{a}, "a w0 e3 ready by x declared 100, b w50 e4 takes"},
			{"some", nil, Command{Weight: weight(7), By: "x"}, []ServerID{a, b}, "a w7 e3 takes ready by x declared 100, b w7 e4 takes ready by x declared 50"},
			{"a weight stays with a state", nil, Command{State: &drain, By: "y"}, []ServerID{a}, "a w7 e3 drain by y declared 100, b w7 e4 takes ready by x declared 50"},
			{"ready leaves it", nil, Command{State: &ready, By: "y"}, []ServerID{a}, "a w7 e3 takes ready by y declared 100, b w7 e4 takes ready by x declared 50"},
			{"another declared one", carrying(2, shuts, "a up 60 3", "b up 50 4"), Command{}, nil, "a w7 e3 takes ready by y declared 60, b w7 e4 takes ready by x declared 50"},
			{"back", nil, Command{Declared: true, By: "y"}, []ServerID{a, b}, "a w60 e3 takes, b w50 e4 takes"},
		}},
		{"a backup steps in, and loses its sessions when the regular one is back, if the options want that", []step{
			{"begin", carrying(1, "on-marked-up shutdown-backup-sessions", "a up 100 3", "b up 50 4 backup"), Command{}, nil, "a w100 e3 takes, b w50 e4"},
			{"drain", nil, Command{State: &drain, By: "x"}, []ServerID{a}, "a w100 e3 drain by x, b w50 e4 takes"},
			{"ready", nil, Command{State: &ready, By: "x"}, []ServerID{a}, "a w100 e3 takes, b w50 e5 (a backup, and a was made ready by x (on-marked-up shutdown-backup-sessions))"},
		}},
		{"a server that is out of the service for a while is as it was ordered when it comes", []step{
			{"begin", carrying(1, shuts, "a up 100 3", "b"), Command{}, nil, "a w100 e3 takes"},
			{"drain", nil, Command{State: &drain, By: "x"}, []ServerID{b}, "a w100 e3 takes"},
			{"it joins", carrying(2, shuts, "a up 100 3", "b up 50 4"), Command{}, nil, "a w100 e3 takes, b w50 e4 drain by x"},
			{"it leaves", carrying(3, shuts, "a up 100 3", "b"), Command{}, nil, "a w100 e3 takes"},
			{"it comes back", carrying(4, shuts, "a up 100 3", "b up 50 5"), Command{}, nil, "a w100 e3 takes, b w50 e5 drain by x"},
		}},
		{"an order goes with its member, what it did to epochs stays", []step{
			{"begin", carrying(1, shuts, "a up 100 3", "b up 50 4"), Command{}, nil, "a w100 e3 takes, b w50 e4 takes"},
			{"maint", nil, Command{State: &maint, By: "x"}, []ServerID{b}, "a w100 e3 takes, b w50 e5 maint by x (it was put into maintenance by x (on-marked-down shutdown-sessions))"},
			{"the plan drops it", carrying(2, shuts, "a up 100 3"), Command{}, nil, "a w100 e3 takes"},
			{"the plan has it again", carrying(3, shuts, "a up 100 3", "b up 50 5"), Command{}, nil, "a w100 e3 takes, b w50 e6 takes"},
		}},
		{"nobody is declared of that name", []step{
			{"begin", both(1, shuts), Command{}, nil, "a w100 e3 takes, b w50 e4 takes"},
			{"drain", nil, Command{State: &drain, By: "x"}, []ServerID{c}, "a w100 e3 takes, b w50 e4 takes"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			board := NewBoard(test.steps[0].publish)
			version, now := board.View().Version, began
			for n, s := range test.steps {
				now = now.Add(time.Minute)
				s.command.At = now
				before, replaced := board.Watch()
				was := told(before)
				var tried, after *View
				switch {
				case n == 0:
				case s.publish != nil:
					board.Publish(s.publish)
				default:
					_, tried = board.Try(s.command, s.on)
					if told(board.View()) != was {
						t.Fatalf("%s: a trial has changed what is shown", s.what)
					}
					_, after = board.Order(s.command, s.on)
				}
				v := board.View()
				if got := told(v); got != s.want {
					t.Fatalf("%s:\n got %s\nwant %s", s.what, got, s.want)
				}
				if after != nil && (after != v || told(tried) != s.want) {
					t.Errorf("%s: tried %s, and got %s", s.what, told(tried), told(after))
				}
				if told(before) != was {
					t.Errorf("%s: a View that was published has changed to %s", s.what, told(before))
				}
				if n == 0 {
					continue
				}
				select {
				case <-replaced:
					if v.Version != version+1 {
						t.Errorf("%s: version %d after %d", s.what, v.Version, version)
					}
				default:
					if v != before {
						t.Errorf("%s: nobody was woken", s.what)
					}
				}
				version = v.Version
			}
		})
	}
}

func TestTheLoopsViewHasNoOrders(t *testing.T) {
	own := carrying(1, "", "a up 100 3", "b up 50 4")
	board := NewBoard(own)
	board.Order(Command{State: &drain, Weight: weight(3), By: "x", At: began}, []ServerID{{"pg-test-read", "a"}})
	if got := told(own); got != "a w100 e3 takes, b w50 e4 takes" {
		t.Errorf("the loop's own View is %s", got)
	}
}

func TestSlowStartAfterMaintenance(t *testing.T) {
	board := NewBoard(carrying(1, "", "a up 100 3"))
	on := []ServerID{{"pg-test-read", "a"}}
	recovered := func() time.Time { return board.View().Services[0].Health[0].Recovered }
	board.Order(Command{State: &drain, At: began}, on)
	board.Order(Command{State: &ready, At: began.Add(time.Minute)}, on)
	if !recovered().IsZero() {
		t.Errorf("a server that was drained starts slowly since %s", recovered())
	}
	board.Order(Command{State: &maint, At: began.Add(2 * time.Minute)}, on)
	board.Order(Command{State: &ready, At: began.Add(3 * time.Minute)}, on)
	if recovered() != began.Add(3*time.Minute) {
		t.Errorf("after maintenance it starts slowly since %s", recovered())
	}
}

func TestRestoredOrdersWaitForTheirServers(t *testing.T) {
	// As a Watcher's: it has no services before its first configuration.
	board := NewBoard(&View{})
	given := map[ServerID]Order{{"web", "one"}: {State: Maintenance, By: "x", Since: began}, {"gone", "one"}: {State: Drain, By: "x", Since: began}}
	board.Restore(given)
	v := &View{Version: 1, Services: []Service{{Service: model.Service{Definition: model.Definition{FullName: "web"}, Servers: []model.Server{{Member: "one", Weight: 1}, {Member: "two", Weight: 1}}},
		Health: []Health{{Up: true}, {Up: true}}}}}
	board.Publish(v)
	if got := board.View().Services[0].Usable(); len(got) != 1 || got[0] != 1 || board.View().Services[0].Health[0].Order != given[ServerID{"web", "one"}] {
		t.Errorf("servers %v are usable, the first is %+v", got, board.View().Services[0].Health[0])
	}
	if got := board.Orders(); len(got) != 1 {
		t.Errorf("orders %v hold", got)
	}
}
