package zone

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// look is a View in short: `1=primary+ 2=replica 3=replica?` has three members with what they are, + for those that take the
// clients of every service that selects them, ? for one that hasn't been asked yet. The services are primary, which selects
// all and has the primary alone up, and replica, for which the primary is a backup.
func look(text string) *view.View {
	v := &view.View{Cluster: "pg-test"}
	primary := view.Service{Service: model.Service{Definition: model.Definition{Name: "primary", Port: 5433}}}
	replica := view.Service{Service: model.Service{Definition: model.Definition{Name: "replica", Port: 5434}}}
	var backups []model.Server
	var ups []view.Health
	for i, word := range strings.Fields(text) {
		seq, role, _ := strings.Cut(word, "=")
		bare := strings.TrimRight(role, "+?")
		m := view.Member{Member: model.Member{Name: "pg-test-" + seq, Role: model.Replica}, Live: model.Role(bare), Answer: "200"}
		if i == 0 {
			m.Role = model.Primary
		}
		if strings.HasSuffix(role, "?") {
			m.Answer = view.NotChecked
		}
		v.Members = append(v.Members, m)
		isPrimary, up := m.Live == model.Primary, strings.HasSuffix(role, "+")
		server := model.Server{Member: m.Name, Weight: 100, Port: 6432}
		primary.Servers = append(primary.Servers, server)
		primary.Health = append(primary.Health, view.Health{Up: up && isPrimary})
		if isPrimary {
			server.Backup = true
			backups, ups = append(backups, server), append(ups, view.Health{Up: up})
			continue
		}
		replica.Servers = append(replica.Servers, server)
		replica.Health = append(replica.Health, view.Health{Up: up})
	}
	replica.Servers, replica.Health = append(replica.Servers, backups...), append(replica.Health, ups...)
	v.Services = []view.Service{primary, replica}
	return v
}

func (l *Live) describe() string {
	short := func(carriers []Carrier) string {
		var all []string
		for _, c := range carriers {
			all = append(all, strings.TrimPrefix(c.Member, "pg-test-"))
		}
		return strings.Join(all, ",")
	}
	text := fmt.Sprintf("own %s, primary %s, replica %s", strings.TrimPrefix(l.Primary, "pg-test-"), short(l.Carriers["primary"]), short(l.Carriers["replica"]))
	if !l.Asked {
		text += ", not asked"
	}
	return text
}

// What names resolve to, View after View: each row follows the one before.
func TestFollow(t *testing.T) {
	var live *Live
	for i, step := range []struct{ what, view, want string }{
		{"nobody was asked", "1=primary? 2=replica? 3=replica?", "own 1, primary 1, replica 2,3, not asked"},
		{"one was", "1=primary? 2=replica+ 3=replica?", "own 1, primary 1, replica 2, not asked"},
		{"all were", "1=primary+ 2=replica+ 3=replica+", "own 1, primary 1, replica 2,3"},
		{"the primary is down", "1=primary 2=replica+ 3=replica+", "own 1, primary 1, replica 2,3"},
		{"nobody leads", "1=replica 2=replica+ 3=replica+", "own 1, primary 1, replica 2,3"},
		{"2 leads, and isn't up yet", "1=replica 2=primary 3=replica+", "own 2, primary 1, replica 3"},
		{"2 is up", "1=replica 2=primary+ 3=replica+", "own 2, primary 2, replica 3"},
		{"the last replica goes: the primary is used", "1=replica 2=primary+ 3=replica", "own 2, primary 2, replica 2"},
		{"everything is down", "1=replica 2=replica 3=replica", "own 2, primary 2, replica 2"},
		{"1 is back", "1=replica+ 2=replica 3=replica", "own 2, primary 2, replica 1"},
		{"2 is no member any more", "1=replica+ 3=replica", "own 1, primary 1, replica 1"},
		{"nobody is left", "", "own , primary , replica "},
	} {
		before := live
		live = Follow(before, look(step.view), time.Unix(1000, 0))
		if got := live.describe(); got != step.want {
			t.Errorf("%d, %s: got %s; want %s", i, step.what, got, step.want)
		}
		if before != nil && live != before && live.Serial <= before.Serial {
			t.Errorf("%d, %s: the serial goes from %d to %d", i, step.what, before.Serial, live.Serial)
		}
		if again := Follow(live, look(step.view), time.Unix(2000, 0)); again != live {
			t.Errorf("%d, %s: the same View gives another Live: %+v after %+v", i, step.what, again, live)
		}
	}
	if later := Follow(live, look("1=primary+"), time.Unix(5000, 0)); later.Serial != 5000 {
		t.Errorf("the serial is %d, want the time", later.Serial)
	}
}
