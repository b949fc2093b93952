package nodes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// server is one of a service's as a node sees it.
func server(member string, sessions int, up, serving bool, order *api.Ordered) api.Server {
	reason := "503"
	if up {
		reason = "200"
	}
	return api.Server{Member: member, Up: up, Serving: serving, Reason: reason, Sessions: sessions, Weight: 100, Order: order}
}

func TestSum(t *testing.T) {
	drain := &api.Ordered{State: api.Drain, By: "token"}
	lag := func(n int64) *int64 { return &n }
	one := &api.Status{Clusters: []api.Cluster{{Name: "a", LeaderKey: &api.LeaderKey{Holder: "a-1"}, Members: []api.Member{{Name: "a-2", Lag: lag(5)}}, Services: []api.Service{
		{FullName: "a-replica", Up: true, Sessions: 3, Queued: 1, Servers: []api.Server{server("a-1", 0, true, false, nil), server("a-2", 3, true, true, nil), server("a-3", 0, true, true, drain), server("a-4", 1, true, true, nil)}}}}},
		TCPServices: []api.Service{{FullName: "redis", Up: true}}}
	two := &api.Status{Clusters: []api.Cluster{
		{Name: "a", Contested: "two claim to lead", Members: []api.Member{{Name: "a-2", Lag: lag(9)}}, Services: []api.Service{
			{FullName: "a-replica", Sessions: 4, Servers: []api.Server{server("a-1", 0, false, false, nil), server("a-2", 4, false, false, nil), server("a-3", 0, true, false, drain), server("a-4", 2, true, true, drain)}}}},
		{Name: "b", Services: []api.Service{{FullName: "b-primary"}}},
	}}
	var lines []string
	for _, c := range Sum([]*api.Status{one, two}, "").Clusters {
		lines = append(lines, fmt.Sprintf("%s leader=%s %s", c.Name, c.Leader, c.Contested))
		for _, s := range c.Services {
			lines = append(lines, fmt.Sprintf(" %s %s %d sessions, %d waiting", s.Name, s.State(), s.Sessions, s.Queued))
			for _, r := range s.Servers {
				l := int64(-1)
				if r.Lag != nil {
					l = *r.Lag
				}
				lines = append(lines, fmt.Sprintf("  %s %s %s %d sessions, lag %d, ordered %d", r.Member, r.State(), r.Reason, r.Sessions, l, r.Ordered))
			}
		}
	}
	want := `a leader=a-1 two claim to lead
 a-replica up on 1/2 7 sessions, 1 waiting
  a-1 ready on 1/2 200 0 sessions, lag -1, ordered 0
  a-2 on 1/2 503 7 sessions, lag 9, ordered 0
  a-3 drain 200 0 sessions, lag -1, ordered 2
  a-4 serving 200 3 sessions, lag -1, ordered 1
b leader= ` + `
 b-primary down 0 sessions, 0 waiting
 leader= ` + `
 redis up 0 sessions, 0 waiting`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if only := Sum([]*api.Status{one, two}, "b"); len(only.Clusters) != 1 || only.Clusters[0].Name != "b" {
		t.Errorf("one cluster: %+v", only)
	}
}

// Answers come as nodes give them, in the order of the nodes in the end, and not more are spoken to at once than is bearable.
func TestAsk(t *testing.T) {
	var all []*Node
	for i := range 50 {
		all = append(all, At(fmt.Sprint(i), nil, ""))
	}
	var mu sync.Mutex
	now, most := 0, 0
	full := make(chan struct{})
	heard := 0
	answers := Ask(t.Context(), all, time.Minute, func(ctx context.Context, n *Node) (string, error) {
		mu.Lock()
		if now++; now > most {
			if most = now; most == together {
				close(full)
			}
		}
		mu.Unlock()
		<-full
		mu.Lock()
		now--
		mu.Unlock()
		if n.Name == "7" {
			return "", errors.New("no")
		}
		return "node " + n.Name, nil
	}, func(Answer[string]) { heard++ })
	if heard != 50 || most != together || answers[41].Said != "node 41" || answers[7].Err == nil {
		t.Errorf("%d were heard, %d at once, %+v", heard, most, answers)
	}
	if err := Failed(answers); err == nil || err.Error() != "1 of 50 nodes failed: 7" {
		t.Errorf("got %v", err)
	}
}
