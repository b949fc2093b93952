package view_test

import (
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// How often a service lost its last server and for how long, by checks and by orders alike.
func TestTurns(t *testing.T) {
	start := time.Unix(1000, 0)
	service := func(name string, up bool) view.Service {
		return view.Service{Service: model.Service{Definition: model.Definition{FullName: name}, Servers: []model.Server{{Member: "a", Weight: 1}}}, Health: []view.Health{{Up: up}}}
	}
	b := view.NewBoard(&view.View{At: start})
	at := func(s int, services ...view.Service) {
		b.Publish(&view.View{At: start.Add(time.Duration(s) * time.Second), Services: services})
	}
	expect := func(name string, want view.Turns) {
		t.Helper()
		if got := b.Turns(name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	since := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	at(1, service("x", false), service("y", true))
	expect("x", view.Turns{Since: since(1)})
	at(3, service("x", true), service("y", true))
	expect("x", view.Turns{Up: true, Since: since(3), DownFor: 2 * time.Second})
	at(5, service("x", false), service("y", true))
	expect("x", view.Turns{Since: since(5), Downs: 1, DownFor: 2 * time.Second})
	drain := view.Drain
	b.Order(view.Command{State: &drain, At: since(6)}, []view.ServerID{{Service: "y", Member: "a"}})
	expect("y", view.Turns{Since: since(6), Downs: 1})
	// Who goes is forgotten, who comes begins.
	at(7, service("z", true))
	expect("x", view.Turns{})
	expect("z", view.Turns{Up: true, Since: since(7)})
}
