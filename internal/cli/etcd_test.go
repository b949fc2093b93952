package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/admin/api"
)

func TestStatusTellsThatEtcdIsLost(t *testing.T) {
	status := &api.Status{Clusters: []api.Cluster{
		{Name: "pg-test", LeaderKey: &api.LeaderKey{Lost: "10.10.10.10:2379: connection refused"}},
		{Name: "pg-meta", LeaderKey: &api.LeaderKey{Holder: "pg-meta-1"}},
		{Name: "pg-other"},
	}}
	var out bytes.Buffer
	if err := printStatus(&out, status, "table", false); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.Contains(text, "\npg-test: etcd is lost, the checks decide alone: 10.10.10.10:2379: connection refused\n") || strings.Count(text, "etcd") != 1 {
		t.Errorf("got\n%s", text)
	}
	before := digest(status, "")
	status.Clusters[1].LeaderKey.Holder = "pg-meta-2"
	if digest(status, "") == before {
		t.Error("another holder of the leader key is no news")
	}
}
