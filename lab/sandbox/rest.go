package sandbox

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ask does one request and gives status and body. Nobody answering within the time is an error. The zero Account sends no
// credentials (etcd takes those of another for its own and refuses).
func (s *Sandbox) ask(ctx context.Context, account Account, method, url string, body any, within time.Duration) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		reader = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, url, reader)
	if err != nil {
		return 0, nil, err
	}
	if account != (Account{}) {
		request.SetBasicAuth(account.User, account.Password)
	}
	// No connection is kept: who is asked may be killed the next moment.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: s.dial}}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	const most = 1 << 20
	text, err := io.ReadAll(io.LimitReader(response.Body, most))
	return response.StatusCode, text, err
}

const restTimeout = 2 * time.Second

func (l layout) etcdURL(path string) string {
	return "http://" + net.JoinHostPort(l.etcdAddress(), strconv.Itoa(etcdPort)) + path
}

func (m Member) restURL(path string) string {
	return "http://" + net.JoinHostPort(m.Address, strconv.Itoa(patroniPort)) + path
}

// etcdHealthy asks etcd's /health.
func (s *Sandbox) etcdHealthy(ctx context.Context) error {
	status, body, err := s.ask(ctx, Account{}, http.MethodGet, s.layout.etcdURL("/health"), nil, restTimeout)
	if err != nil {
		return err
	}
	var answer struct{ Health string }
	if err := json.Unmarshal(body, &answer); err != nil || status != http.StatusOK || answer.Health != "true" {
		return fmt.Errorf("etcd says %d %s", status, strings.TrimSpace(string(body)))
	}
	return nil
}

// etcdHas says whether a key exists.
func (s *Sandbox) etcdHas(ctx context.Context, key string) bool {
	var answer struct{ Count string }
	err := s.etcd(ctx, "range", map[string]any{"key": etcdKey(key), "count_only": true}, &answer)
	return err == nil && answer.Count != "" && answer.Count != "0"
}

// etcdRemove removes a key, if it is there.
func (s *Sandbox) etcdRemove(ctx context.Context, key string) error {
	return s.etcd(ctx, "deleterange", map[string]any{"key": etcdKey(key)}, &struct{}{})
}

// etcdKey is a key as the JSON gateway takes bytes.
func etcdKey(key string) string { return base64.StdEncoding.EncodeToString([]byte(key)) }

// etcd makes a request of etcd's v3 API through its JSON gateway.
func (s *Sandbox) etcd(ctx context.Context, method string, request map[string]any, answer any) error {
	status, body, err := s.ask(ctx, Account{}, http.MethodPost, s.layout.etcdURL("/v3/kv/"+method), request, restTimeout)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("etcd says %d to %s", status, method)
	}
	return json.Unmarshal(body, answer)
}

// patroniStatus is what GET /patroni tells about the member that is asked.
type patroniStatus struct {
	State       string `json:"state"`
	Role        string `json:"role"`
	Timeline    int    `json:"timeline"`
	Replication []struct {
		Name  string `json:"application_name"`
		State string `json:"state"`
	} `json:"replication"`
}

// leads says whether the member is a running primary or standby leader.
func (p patroniStatus) leads() bool {
	return p.State == "running" && (p.Role == "master" || p.Role == "primary" || p.Role == "standby_leader")
}

// waits says whether the member has no data and waits for somebody to initialise the cluster.
func (p patroniStatus) waits() bool { return p.State == "stopped" && p.Role == "uninitialized" }

func (s *Sandbox) patroni(ctx context.Context, m Member) (patroniStatus, error) {
	var answer patroniStatus
	_, body, err := s.ask(ctx, Account{}, http.MethodGet, m.restURL("/patroni"), nil, restTimeout)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return answer, fmt.Errorf("patroni of %s: %w", m.Name, err)
	}
	return answer, nil
}

// leading gives a member's status; it is an error that it doesn't lead.
func (s *Sandbox) leading(ctx context.Context, m Member) (patroniStatus, error) {
	status, err := s.patroni(ctx, m)
	if err == nil && !status.leads() {
		err = fmt.Errorf("%s is %s, %s", m.Name, status.Role, status.State)
	}
	return status, err
}

// clusterMember is one of Patroni's GET /cluster, which it reads from etcd.
type clusterMember struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
	State    string `json:"state"`
	Timeline int    `json:"timeline"`
	// Lag is a number of bytes, or "unknown".
	Lag any `json:"lag"`
}

func (s *Sandbox) viewOf(ctx context.Context, m Member) ([]clusterMember, error) {
	status, body, err := s.ask(ctx, Account{}, http.MethodGet, m.restURL("/cluster"), nil, restTimeout)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("patroni of %s says %d to /cluster", m.Name, status)
	}
	var answer struct{ Members []clusterMember }
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("patroni of %s: %w", m.Name, err)
	}
	return answer.Members, nil
}

// order has the member's Patroni do something (its REST API's POST requests ask for the credentials).
func (s *Sandbox) order(ctx context.Context, m Member, path string, body any, within time.Duration) (int, string, error) {
	status, text, err := s.ask(ctx, restAccount, http.MethodPost, m.restURL(path), body, within)
	return status, strings.TrimSpace(string(text)), err
}

func isLeaderRole(role string) bool { return role == "leader" || role == "standby_leader" }
