package doctor

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// TestDear: a replica without a timeline is named while somebody leads, with the line that its pg_hba.conf lacks.
func TestDear(t *testing.T) {
	const (
		leads    = `{"role":"master","state":"running","timeline":1}`
		standby  = `{"role":"standby_leader","state":"running","timeline":1}`
		follows  = `{"role":"replica","state":"running","timeline":1}`
		lost     = `{"role":"replica","state":"running","timeline":null}`
		starting = `{"role":"replica","state":"starting","timeline":null}`
		silent   = ""
	)
	for title, c := range map[string]struct {
		bodies []string
		want   string
	}{
		"healthy":         {[]string{leads, follows, follows}, ""},
		"one":             {[]string{leads, follows, lost}, "pg-test-3"},
		"both":            {[]string{leads, lost, lost}, "pg-test-2 pg-test-3"},
		"nobody leads":    {[]string{follows, lost, lost}, ""},
		"leader silent":   {[]string{silent, lost, follows}, ""},
		"standby cluster": {[]string{standby, lost, follows}, "pg-test-2"},
		"starting":        {[]string{leads, starting, follows}, ""},
	} {
		var members []model.Member
		for i, body := range c.bodies {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusServiceUnavailable)
				io.WriteString(w, body)
			}))
			if body == silent {
				server.Close()
			}
			t.Cleanup(server.Close)
			host, port, err := net.SplitHostPort(server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			number, err := strconv.Atoi(port)
			if err != nil {
				t.Fatal(err)
			}
			members = append(members, model.Member{Name: "pg-test-" + strconv.Itoa(i+1), Host: host, PatroniPort: number})
		}
		var names []string
		findings, standbyLeader := AskPatronis(t.Context(), members, time.Minute)
		if is := title == "standby cluster"; is != (standbyLeader == "pg-test-1") || !is && standbyLeader != "" {
			t.Errorf("%s: %q leads a standby cluster", title, standbyLeader)
		}
		for _, f := range findings {
			names = append(names, f.Member)
			if !strings.Contains(f.What, f.Member) || !strings.Contains(f.What, "while pg-test-1 leads") ||
				!strings.Contains(f.Advice, "host replication USER 127.0.0.1/32 scram-sha-256; USER") {
				t.Errorf("%s: %s; do: %s", title, f.What, f.Advice)
			}
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: %q, not %q", title, got, c.want)
		}
	}
}

// Where PostgreSQL listens on the member's address alone, Patroni comes from that one.
func TestDearNamesTheOwnAddress(t *testing.T) {
	members := []model.Member{{Name: "pg-test-1", Host: "10.10.10.11"}, {Name: "pg-test-2", Host: "10.10.10.12"}}
	found := dear(members, []patroni.Answer{
		{Status: 200, Role: patroni.RolePrimary, State: patroni.StateRunning}, {Status: 503, Role: patroni.RoleReplica, State: patroni.StateRunning, TimelineNull: true},
	})
	if len(found) != 1 || !strings.Contains(found[0].Advice, "or with 10.10.10.12/32 where PostgreSQL listens on its own address alone") {
		t.Errorf("%+v", found)
	}
}
