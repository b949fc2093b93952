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
