package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// Finding is something that is wrong with a member, and not with any one endpoint.
type Finding struct {
	Member string `json:"member"`
	What   string `json:"what"`
	Advice string `json:"advice"`
}

// AskPatronis asks each member's REST API once, all at the same time and for so long at most, and gives what makes checks of the
// members dear, and who leads if the cluster is a standby cluster. Of one that doesn't answer nothing is said: what that means for
// clients is what their endpoints show.
func AskPatronis(ctx context.Context, members []model.Member, timeout time.Duration) (findings []Finding, standbyLeader string) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	client := patroni.NewClient(patroni.Options{})
	answers := make([]patroni.Answer, len(members))
	var asking sync.WaitGroup
	for i, m := range members {
		asking.Go(func() {
			// Whatever fails leaves the zero Answer, which says nothing.
			answers[i], _ = client.Get(ctx, patroni.BaseURL(m.Host, m.PatroniPort, m.PatroniTLS), "/primary")
		})
	}
	asking.Wait()
	for i, a := range answers {
		if a.Role == patroni.RoleStandbyLeader {
			standbyLeader = members[i].Name
		}
	}
	return dear(members, answers), standbyLeader
}

// dear names the replicas whose Patroni can't find out their timeline though there is a leader. Patroni looks for it through a
// replication connection to its own PostgreSQL, and keeps what it found; where that fails, it tries again for every question
// (patroni/postgresql/__init__.py, replica_cached_timeline). While nobody leads that is so everywhere, and passes.
func dear(members []model.Member, answers []patroni.Answer) []Finding {
	leader := ""
	for i, a := range answers {
		if a.State == patroni.StateRunning && (a.Role == patroni.RolePrimary || a.Role == patroni.RoleStandbyLeader) {
			leader = members[i].Name
		}
	}
	var found []Finding
	for i, a := range answers {
		if leader == "" || a.Role != patroni.RoleReplica || a.State != patroni.StateRunning || !a.TimelineNull {
			continue
		}
		m := members[i]
		own := ""
		if ip, err := netip.ParseAddr(m.Host); err == nil && !ip.IsLoopback() {
			own = fmt.Sprintf(", or with %s where PostgreSQL listens on its own address alone", netip.PrefixFrom(ip, ip.BitLen()))
		}
		found = append(found, Finding{m.Name,
			fmt.Sprintf("the Patroni of %s can't reach its own PostgreSQL for replication: it says \"timeline\": null while %s leads. "+
				"Each check of it opens a connection that fails, and costs some twenty times as much as else", m.Name, leader),
			fmt.Sprintf("see why in Patroni's log on %s. As a rule pg_hba.conf lacks a line: host replication USER 127.0.0.1/32 scram-sha-256%s; "+
				"USER is the one of postgresql.authentication.replication in Patroni's configuration", m.Host, own)})
	}
	return found
}
