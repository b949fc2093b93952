package failover

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// keyEvery is how often etcd is asked who holds the leader key.
const keyEvery = 50 * time.Millisecond

// history is who held the leader key when. Only changes are in it.
type history struct {
	mu    sync.Mutex
	terms []term
}

// term begins when a member was first seen to hold the key; an empty name is nobody.
type term struct {
	holder string
	from   time.Time
}

func (h *history) add(holder string, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.terms); n == 0 || h.terms[n-1].holder != holder {
		h.terms = append(h.terms, term{holder, at})
	}
}

// against says whether the key named another member than this one from one moment to another.
func (h *history) against(member string, from, to time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := false
	for i, t := range h.terms {
		over := i+1 < len(h.terms) && !h.terms[i+1].from.After(from)
		if over || t.from.After(to) {
			continue
		}
		if t.from.After(from) && !known {
			return false // who held it before isn't known
		}
		if t.holder == "" || t.holder == member {
			return false
		}
		known = true
	}
	return known
}

// watchKey asks until ctx ends. An etcd that doesn't answer changes nothing.
func (h *history) watchKey(ctx context.Context, etcd, cluster string) {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	every := time.NewTicker(keyEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			if holder, err := leaderKey(ctx, client, etcd, cluster); err == nil {
				h.add(holder, time.Now())
			}
		}
	}
}

// leaderKey asks etcd (its v3 API through the JSON gateway, where keys and values are base64) for Patroni's leader key, whose
// value is the member's name.
func leaderKey(ctx context.Context, client *http.Client, etcd, cluster string) (string, error) {
	body, err := json.Marshal(map[string][]byte{"key": []byte("/pg/" + cluster + "/leader")})
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+etcd+"/v3/kv/range", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return "", err
	}
	var answer struct{ Kvs []struct{ Value []byte } }
	if err := json.Unmarshal(text, &answer); err != nil || response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("etcd says %d %s", response.StatusCode, text)
	}
	if len(answer.Kvs) == 0 {
		return "", nil
	}
	return string(answer.Kvs[0].Value), nil
}

// etcdAddress is where the sandbox's etcd listens for clients.
func etcdAddress(ctx context.Context, box *sandbox.Sandbox) (string, error) {
	status, err := box.Status(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(status.Processes, func(p sandbox.ProcessStatus) bool { return p.What == "etcd" })
	if i < 0 || len(status.Processes[i].Listens) == 0 {
		return "", fmt.Errorf("the sandbox in %s lists no etcd", box.Dir())
	}
	return status.Processes[i].Listens[0], nil
}
