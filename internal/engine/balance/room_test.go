package balance

import (
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Room counts the places that are left at usable servers: one without a limit has any number.
func TestRoom(t *testing.T) {
	server := func(name string, most int) model.Server {
		return model.Server{Member: name, Weight: 100, Own: &model.Options{MaxConn: most}}
	}
	for _, test := range []struct {
		about   string
		servers []model.Server
		home    string
		want    int
	}{
		{"three sessions of ten", []model.Server{server("a", 10)}, "", 7},
		{"two servers", []model.Server{server("a", 10), server("b", 5)}, "", 12},
		{"the client's own", []model.Server{server("a", 10), server("b", 5)}, "b", 5},
		{"more than there may be", []model.Server{server("a", 2)}, "", 0},
		{"one without a limit", []model.Server{server("a", 10), server("b", 0)}, "", -1},
		{"another one without a limit", []model.Server{server("a", 10), server("b", 0)}, "a", 7},
		{"none", nil, "", 0},
	} {
		svc := &view.Service{Service: model.Service{Servers: test.servers}}
		for range test.servers {
			svc.Health = append(svc.Health, view.Health{Up: true})
		}
		var p Picker
		for range 3 {
			p.Take("a")
		}
		if got := p.Room(svc, test.home, time.Time{}); got != test.want {
			t.Errorf("%s: %d places, want %d", test.about, got, test.want)
		}
	}
}
