package view

import (
	"slices"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
)

func TestUsable(t *testing.T) {
	type server struct {
		up, backup bool
		weight     int
	}
	for _, test := range []struct {
		name    string
		servers []server
		want    []int
		all     bool
	}{
		{"none", nil, nil, false},
		{"regular ones that are up", []server{{up: true, weight: 1}, {weight: 1}, {up: true, weight: 1}}, []int{0, 2}, false},
		{"backups wait while a regular one is up", []server{{up: true, backup: true, weight: 1}, {up: true, weight: 1}}, []int{1}, false},
		{"the first backup that is up takes all", []server{{weight: 1}, {backup: true, weight: 1}, {up: true, backup: true, weight: 1}, {up: true, backup: true, weight: 1}}, []int{2}, false},
		{"weight 0 doesn't count as usable", []server{{up: true}, {up: true, backup: true, weight: 1}}, []int{1}, false},
		{"all backups that are up, if asked for", []server{{weight: 1}, {backup: true}, {up: true, backup: true, weight: 1}, {backup: true, weight: 1}, {up: true, backup: true, weight: 1}}, []int{2, 4}, true},
		{"all backups wait, too", []server{{up: true, backup: true, weight: 1}, {up: true, weight: 1}}, []int{1}, true},
		{"nobody", []server{{weight: 1}, {backup: true, weight: 1}}, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var s Service
			s.AllBackups = test.all
			for _, r := range test.servers {
				s.Servers = append(s.Servers, model.Server{Backup: r.backup, Weight: r.weight})
				s.Health = append(s.Health, Health{Up: r.up})
			}
			if got := s.Usable(); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestBoardWakesThoseWhoWatch(t *testing.T) {
	first, second := &View{Version: 1}, &View{Version: 2}
	b := NewBoard(first)
	view, replaced := b.Watch()
	if view != first {
		t.Fatalf("shows %v", view)
	}
	select {
	case <-replaced:
		t.Fatal("replaced before anything was published")
	default:
	}
	b.Publish(second)
	<-replaced
	if b.View() != second {
		t.Errorf("shows %v", b.View())
	}
}
