package patroni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Roles as Patroni names them, in an Answer and in a ClusterMember. What versions before 4.0 call `master` is given as
// RolePrimary.
const (
	RolePrimary       = "primary"
	RoleReplica       = "replica"
	RoleStandbyLeader = "standby_leader"
	// RolePromoted is a leader that has been asked to promote and hasn't finished.
	RolePromoted = "promoted"
	// RoleDemoted is a former leader that has been stopped, or one whose PostgreSQL Patroni found stopped.
	RoleDemoted = "demoted"
	// RoleUninitialized is a member without a data directory.
	RoleUninitialized = "uninitialized"

	// RoleLeader, RoleSyncStandby and (from 4.0 on) RoleQuorumStandby occur in a ClusterMember only.
	RoleLeader        = "leader"
	RoleSyncStandby   = "sync_standby"
	RoleQuorumStandby = "quorum_standby"
)

// StateRunning is the state of a PostgreSQL that answers queries. Other states that occur: starting, stopping, stopped,
// crashed, restarting, `creating replica`, `start failed`, and `unknown` when Patroni's own query failed.
const StateRunning = "running"

// Answer is what a member's API said to one request. A body that isn't a JSON object, or has fields of unexpected types,
// is no error: what couldn't be read is left zero.
type Answer struct {
	Status int
	// Role and State are empty if the body doesn't have them (/liveness, /readiness, /cluster …).
	Role     string
	State    string
	Timeline int
	// TimelineNull says that the body's timeline is null: PostgreSQL answers Patroni, but the replication connection that
	// a replica's timeline is learnt by failed. Each further question tries it again.
	TimelineNull bool
	// Name is the member's (since 3.1), Scope its cluster's, Version Patroni's.
	Name    string
	Scope   string
	Version string
	// ServerVersion is PostgreSQL's as a number: 150003.
	ServerVersion int
	// SystemID is the database system identifier; decimal digits.
	SystemID string
	// ClusterUnlocked says that the member sees no holder of the leader key, or doesn't see the DCS.
	ClusterUnlocked bool
	// Failsafe says that the member is primary by failsafe mode: the DCS is away, and all others agreed.
	Failsafe bool
	Pause    bool
	// SyncStandby says that a replica is a synchronous standby, QuorumStandby (from 4.0 on) that it is one of a quorum.
	SyncStandby, QuorumStandby bool
	PendingRestart             bool
	// Location is a primary's WAL position; Received and Replayed are a replica's. In bytes.
	Location, Received, Replayed int64
	// ReplayPaused says that a replica's replay is paused by hand.
	ReplayPaused bool
	// Tags as Patroni gives them; values as text. Patroni leaves out noloadbalance and the like where they are off.
	Tags map[string]string
}

// Repeats says that an answer says what another one did, but for positions in the WAL.
func (a Answer) Repeats(b Answer) bool {
	return a.Status == b.Status && a.Role == b.Role && a.State == b.State && a.Timeline == b.Timeline && a.TimelineNull == b.TimelineNull &&
		a.Name == b.Name && a.Scope == b.Scope && a.Version == b.Version && a.ServerVersion == b.ServerVersion && a.SystemID == b.SystemID &&
		a.ClusterUnlocked == b.ClusterUnlocked && a.Failsafe == b.Failsafe && a.Pause == b.Pause && a.SyncStandby == b.SyncStandby &&
		a.QuorumStandby == b.QuorumStandby && a.PendingRestart == b.PendingRestart && a.ReplayPaused == b.ReplayPaused && maps.Equal(a.Tags, b.Tags)
}

// Words are the answer in short: `200 primary running`, `503 replica starting`, `200` without a body.
func (a Answer) Words() string {
	words := strconv.Itoa(a.Status)
	for _, w := range []string{a.Role, a.State} {
		if w != "" {
			words += " " + w
		}
	}
	return words
}

// ParseAnswer reads a body that came with a status. It never fails: see Answer.
func ParseAnswer(status int, body []byte) Answer {
	a := Answer{Status: status}
	var o object
	if json.Unmarshal(body, &o) != nil {
		return a
	}
	a.Role = roleName(o.text("role"))
	a.State = printable(o.text("state"))
	a.Timeline = int(o.number("timeline"))
	a.TimelineNull = string(o["timeline"]) == "null"
	a.ServerVersion = int(o.number("server_version"))
	a.SystemID = printable(o.text("database_system_identifier"))
	a.ClusterUnlocked = o.truth("cluster_unlocked")
	a.Failsafe = o.truth("failsafe_mode_is_active")
	a.Pause = o.truth("pause")
	a.SyncStandby = o.truth("sync_standby")
	a.QuorumStandby = o.truth("quorum_standby")
	a.PendingRestart = o.truth("pending_restart")
	about := o.object("patroni")
	a.Name = printable(about.text("name"))
	a.Scope = printable(about.text("scope"))
	a.Version = printable(about.text("version"))
	xlog := o.object("xlog")
	a.Location = xlog.number("location")
	a.Received = xlog.number("received_location")
	a.Replayed = xlog.number("replayed_location")
	a.ReplayPaused = xlog.truth("paused")
	a.Tags = o.object("tags").texts()
	return a
}

// Cluster is what GET /cluster says.
type Cluster struct {
	// Scope is the cluster's name; empty from versions before 3.1.
	Scope   string
	Pause   bool
	Members []ClusterMember
}

// ClusterMember is an entry of GET /cluster.
type ClusterMember struct {
	Name string
	// Role is RoleLeader, RoleStandbyLeader, RoleSyncStandby, RoleQuorumStandby or RoleReplica.
	Role  string
	State string
	// Host and Port are PostgreSQL's; empty and 0 while the member hasn't said them.
	Host string
	Port int
	// APIURL is the member's REST API with a path: http://10.10.10.11:8008/patroni.
	APIURL   string
	Timeline int
	// Lag is in bytes; -1 if unknown.
	Lag  int64
	Tags map[string]string
}

// ParseCluster reads the body of GET /cluster. Members without a name are an error: nobody could follow them.
func ParseCluster(body []byte) (Cluster, error) {
	var o object
	if err := json.Unmarshal(body, &o); err != nil {
		return Cluster{}, fmt.Errorf("the answer isn't a JSON object: %w", err)
	}
	var entries []object
	if err := json.Unmarshal(o["members"], &entries); err != nil {
		return Cluster{}, fmt.Errorf("the answer has no list of members: %w", err)
	}
	if len(entries) > mostMembers {
		return Cluster{}, fmt.Errorf("the answer lists more than %d members", mostMembers)
	}
	c := Cluster{Scope: printable(o.text("scope")), Pause: o.truth("pause"), Members: make([]ClusterMember, 0, len(entries))}
	for _, e := range entries {
		m := ClusterMember{
			Name: printable(e.text("name")), Role: roleName(e.text("role")), State: printable(e.text("state")),
			Host: printable(e.text("host")), Port: int(e.number("port")), APIURL: printable(e.text("api_url")),
			Timeline: int(e.number("timeline")), Lag: -1, Tags: e.object("tags").texts(),
		}
		if m.Name == "" {
			return Cluster{}, errors.New("the answer lists a member without a name")
		}
		if _, err := strconv.ParseInt(strings.TrimSpace(string(e["lag"])), 10, 64); err == nil {
			m.Lag = e.number("lag")
		}
		c.Members = append(c.Members, m)
	}
	return c, nil
}

// object is a JSON object whose fields are read one by one, so that one of an unexpected type spoils no other.
type object map[string]json.RawMessage

func (o object) text(key string) string {
	raw := o[key]
	// Nearly all are of this kind, and are spared a decoder.
	if n := len(raw); n >= 2 && raw[0] == '"' && !bytes.ContainsFunc(raw[1:n-1], func(r rune) bool { return r == '\\' || r > 126 }) {
		return string(raw[1 : n-1])
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

func (o object) number(key string) int64 {
	n, err := strconv.ParseInt(string(o[key]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (o object) truth(key string) bool {
	return string(o[key]) == "true"
}

func (o object) object(key string) object {
	var inner object
	if len(o[key]) == 0 {
		return nil
	}
	if json.Unmarshal(o[key], &inner) != nil {
		return nil
	}
	return inner
}

// texts gives the fields that are texts, numbers or truths, as text; nil if there is none.
func (o object) texts() map[string]string {
	var all map[string]string
	for _, key := range slices.Sorted(maps.Keys(o)) {
		value := strings.TrimSpace(string(o[key]))
		switch {
		case value == "" || value == "null" || strings.ContainsAny(value[:1], "[{"):
			continue
		case value[0] == '"':
			value = o.text(key)
		}
		if all == nil {
			all = make(map[string]string, min(len(o), mostTags))
		}
		if len(all) == mostTags {
			break
		}
		all[printable(key)] = printable(value)
	}
	return all
}

// roleName settles on the newer word for a primary.
func roleName(role string) string {
	if role == "master" {
		return RolePrimary
	}
	return printable(role)
}

// longest is how many bytes of a text from the network are kept, mostTags how many tags, mostMembers how many members a cluster
// may have.
const (
	longest     = 200
	mostTags    = 50
	mostMembers = 1000
)

// printable makes a text from the network fit for a log line or a terminal.
func printable(s string) string { return safetext.Short(s, longest) }
