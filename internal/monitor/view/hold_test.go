package view

import (
	"slices"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
)

// A hold keeps new clients from whoever leads, and spares the member that is to lead what it would take as a replica; it lies over each
// View until it is released, and what the loop knows isn't touched.
func TestHold(t *testing.T) {
	at := time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)
	server := func(member string) model.Server { return model.Server{Member: member, Weight: 100} }
	up := Health{Up: true}
	v := &View{Cluster: "a", Version: 1, At: at, Members: []Member{{Member: model.Member{Name: "a-1"}}, {Member: model.Member{Name: "a-2"}}, {Member: model.Member{Name: "a-3"}}}, Services: []Service{
		{Service: model.Service{Definition: model.Definition{FullName: "a-primary"}, Servers: []model.Server{server("a-1")}}, Health: []Health{up}, Leads: true},
		{Service: model.Service{Definition: model.Definition{FullName: "a-replica"}, Servers: []model.Server{server("a-2"), server("a-3")}}, Health: []Health{up, up}},
		{Service: model.Service{Definition: model.Definition{FullName: "a-only"}, Servers: []model.Server{server("a-2")}}, Health: []Health{up}},
	}}
	b := NewBoard(v)
	usable := func() (all []int) {
		for i := range b.View().Services {
			all = append(all, len(b.View().Services[i].Usable()))
		}
		return all
	}
	_, replaced := b.Watch()
	if _, taken := b.Hold(Hold{ID: "x", From: "a-1", To: "a-2", By: "root", Since: at, Until: at.Add(5 * time.Second)}, at); !taken {
		t.Fatal("it isn't taken")
	}
	select {
	case <-replaced:
	default:
		t.Error("nobody was told")
	}
	if got := usable(); !slices.Equal(got, []int{0, 1, 1}) {
		t.Errorf("usable are %v: a-2 is the only server of a-only, and is spared elsewhere", got)
	}
	if v.Services[0].Held || v.Hold.ID != "" {
		t.Error("the loop's own View was changed")
	}
	if h, taken := b.Hold(Hold{ID: "y", Until: at.Add(9 * time.Second)}, at.Add(time.Second)); taken || h.ID != "x" {
		t.Errorf("another one beside it: %v %+v", taken, h)
	}
	next := *v
	next.Version = 2
	b.Publish(&next)
	if b.View().Hold.ID != "x" || !b.View().Services[0].Held {
		t.Error("the next View is without it")
	}
	if h, taken := b.Hold(Hold{ID: "x", Since: at.Add(4 * time.Second), Until: at.Add(9 * time.Second)}, at.Add(4*time.Second)); !taken || !h.Since.Equal(at) {
		t.Errorf("it is renewed as %+v", h)
	}
	if b.Release("y", at) || b.Release("", at.Add(8*time.Second)) {
		t.Error("another one, or time that isn't over, ends it")
	}
	if !b.Release("", at.Add(9*time.Second)) || b.View().Hold.ID != "" {
		t.Error("its time is over, and it is there")
	}
	if got := usable(); !slices.Equal(got, []int{1, 2, 1}) {
		t.Errorf("afterwards usable are %v", got)
	}
	if b.Release("x", at) {
		t.Error("it was released twice")
	}
}

// The loop's own hold has the same effect, and an operator's goes before it.
func TestLoopsOwnHold(t *testing.T) {
	at := time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)
	v := &View{Cluster: "a", Version: 1, At: at, Services: []Service{
		{Service: model.Service{Definition: model.Definition{FullName: "a-primary"}, Servers: []model.Server{{Member: "a-1", Weight: 1}}}, Health: []Health{{Up: true}}, Leads: true},
	}}
	b := NewBoard(v)
	next := *v
	next.Hold = Hold{ID: "failover-key 7", From: "a-1", Until: at.Add(5 * time.Second)}
	b.Publish(&next)
	if !b.View().Services[0].Held {
		t.Error("nobody is held")
	}
	b.Hold(Hold{ID: "x", Until: at.Add(time.Second)}, at)
	if b.View().Hold.ID != "x" {
		t.Errorf("it is %q", b.View().Hold.ID)
	}
	b.Release("x", at)
	if b.View().Hold.ID != "failover-key 7" || !b.View().Services[0].Held {
		t.Errorf("it is %q", b.View().Hold.ID)
	}
}
