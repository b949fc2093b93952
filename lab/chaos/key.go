package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// keyspace is where Patroni keeps the cluster's keys.
const keyspace = "/pg/" + scope + "/"

// tenure is who held the leader key from a moment on. The holder is empty while there was no key.
type tenure struct {
	from     time.Time
	holder   string
	revision int64
}

// tenures are the leader key's history in order; each lasts until the next one.
type tenures []tenure

// pass begins another tenure; one of the same holder is the same.
func (all *tenures) pass(next tenure) {
	if n := len(*all); n == 0 || (*all)[n-1].holder != next.holder {
		*all = append(*all, next)
	}
}

// at is the index of the tenure at a moment; -1 before the first.
func (all tenures) at(when time.Time) int {
	i, _ := slices.BinarySearchFunc(all, when, func(t tenure, when time.Time) int {
		if t.from.After(when) {
			return 1
		}
		return -1
	})
	return i - 1
}

// end is when a tenure was over, as far as is known.
func (all tenures) end(i int, now time.Time) time.Time {
	if i+1 < len(all) {
		return all[i+1].from
	}
	return now
}

// holds says whether somebody held it from one moment to another without a break.
func (all tenures) holds(holder string, from, to time.Time) bool {
	i := all.at(from)
	return i >= 0 && all[i].holder == holder && !all.end(i, to).Before(to)
}

// keyWatcher keeps what etcd says of the cluster: its own connection, nothing of pgporter's.
type keyWatcher struct {
	client *clientv3.Client

	mu      sync.Mutex
	keys    tenures
	syncs   tenures // who the synchronous standby was
	history string  // Patroni's list of timelines, as JSON
}

func newKeyWatcher(address string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*keyWatcher, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{address}, DialTimeout: 2 * time.Second, Logger: zap.NewNop(),
		// etcd is killed and comes back: what it says then must not come late.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: 300 * time.Millisecond}, MinConnectTimeout: time.Second,
		}), grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, "tcp", address) })},
	})
	if err != nil {
		return nil, fmt.Errorf("etcd at %s: %w", address, err)
	}
	return &keyWatcher{client: client}, nil
}

// begin reads the keys as they are and gives the revision.
func (w *keyWatcher) begin(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	answer, err := w.client.Get(ctx, keyspace, clientv3.WithPrefix())
	if err != nil {
		return 0, fmt.Errorf("etcd: %w", err)
	}
	for _, kv := range answer.Kvs {
		w.note(string(kv.Key), string(kv.Value), kv.ModRevision, time.Now())
	}
	return answer.Header.Revision, nil
}

// watch follows the keys from a revision on until ctx ends. etcd's client resumes at the revision that it had seen when etcd
// comes back, so that no change is missed; a watch that etcd itself cancels is an error.
func (w *keyWatcher) watch(ctx context.Context, revision int64) error {
	for answer := range w.client.Watch(ctx, keyspace, clientv3.WithPrefix(), clientv3.WithRev(revision+1)) {
		if err := answer.Err(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("watching the leader key: %w", err)
		}
		now := time.Now()
		for _, e := range answer.Events {
			value := string(e.Kv.Value)
			if e.Type == clientv3.EventTypeDelete {
				value = ""
			}
			w.note(string(e.Kv.Key), value, e.Kv.ModRevision, now)
		}
	}
	if ctx.Err() == nil {
		return fmt.Errorf("watching the leader key: etcd's client gave up")
	}
	return nil
}

func (w *keyWatcher) note(key, value string, revision int64, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch strings.TrimPrefix(key, keyspace) {
	case "leader":
		w.keys.pass(tenure{now, value, revision})
	case "sync":
		var synchronous struct {
			Standby string `json:"sync_standby"`
		}
		// What can't be read names nobody.
		if json.Unmarshal([]byte(value), &synchronous) != nil {
			synchronous.Standby = ""
		}
		w.syncs.pass(tenure{now, synchronous.Standby, revision})
	case "history":
		w.history = value
	}
}

// seen is the history so far.
func (w *keyWatcher) seen() tenures {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.keys)
}

// synchronous is the history of the synchronous standby so far.
func (w *keyWatcher) synchronous() tenures {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.syncs)
}

// timelines are who began which timeline, by Patroni's own account; what it hasn't written down is missing.
func (w *keyWatcher) timelines() (map[int]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return parseHistory(w.history)
}

// parseHistory reads Patroni's history key: [[timeline, lsn, reason, time, new leader], …], where the leader began the
// timeline after the one that is named. Entries from before Patroni noted leaders are shorter.
func parseHistory(text string) (map[int]string, error) {
	leaders := map[int]string{}
	if text == "" {
		return leaders, nil
	}
	var entries [][]any
	if err := json.Unmarshal([]byte(text), &entries); err != nil {
		return nil, fmt.Errorf("patroni's history: %w", err)
	}
	for _, e := range entries {
		if len(e) < 5 {
			continue
		}
		ended, isNumber := e[0].(float64)
		leader, isText := e[4].(string)
		if isNumber && isText {
			leaders[int(ended)+1] = leader
		}
	}
	return leaders, nil
}

// is gives the member that a role means now; empty if nobody has it.
func (w *keyWatcher) is(role string, members []string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	leader, synchronous := "", ""
	if n := len(w.syncs); n > 0 {
		synchronous = w.syncs[n-1].holder
	}
	for _, k := range w.keys {
		if k.holder != "" {
			leader = k.holder // the last one that there was, while there is none
		}
	}
	switch role {
	case "leader":
		return leader
	case "sync":
		if synchronous != "" {
			return synchronous
		}
		fallthrough // Patroni hasn't chosen one yet: some replica
	case "other":
		for _, m := range members {
			if m != leader && m != synchronous {
				return m
			}
		}
		return ""
	}
	return scope + "-" + role
}
