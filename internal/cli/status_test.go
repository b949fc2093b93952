package cli

import (
	"testing"

	"github.com/pgporter/pgporter/internal/admin/api"
)

func TestStatusOfOneCluster(t *testing.T) {
	two := func() *api.Status {
		return &api.Status{Clusters: []api.Cluster{{Name: "pg-one"}, {Name: "pg-two"}}, TCPServices: []api.Service{{FullName: "web"}}}
	}
	s := two()
	if err := only(s, "pg-two"); err != nil || len(s.Clusters) != 1 || s.Clusters[0].Name != "pg-two" || len(s.TCPServices) != 0 {
		t.Errorf("%v, %+v", err, s)
	}
	if err := only(two(), "pg-tow"); err == nil || err.Error() != `no cluster "pg-tow" is served here; there are: pg-one,pg-two` {
		t.Errorf("%v", err)
	}
}

func TestOrderedServersInTheStatus(t *testing.T) {
	seven := 7
	for _, test := range []struct {
		server      api.Server
		state, says string
	}{
		{api.Server{Up: true, Serving: true, Reason: "200"}, "serving", "200"},
		{api.Server{Up: true, Reason: "200", Order: &api.Ordered{State: api.Drain, By: "x"}}, "drain", "by order of x; 200"},
		{api.Server{Reason: "503", Order: &api.Ordered{State: api.Maintenance, By: "x"}}, "maint", "by order of x; 503"},
		{api.Server{Up: true, Serving: true, Reason: "200", Order: &api.Ordered{State: api.Ready, Weight: &seven, By: "x"}}, "serving", "weight 7 by order of x; 200"},
	} {
		if state, _ := serverState(api.Service{}, test.server); state != test.state || reasonOf(test.server) != test.says {
			t.Errorf("%+v is shown as %s: %s", test.server, state, reasonOf(test.server))
		}
	}
}
