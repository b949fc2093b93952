// Package discover finds a cluster's members by asking its Patroni, for those who have no inventory.
//
// It asks /cluster of the addresses it was given and of every member that it has learnt of since, so that it goes on when
// the first ones are gone. A member's PgBouncer is looked for on its usual port. Discovery says who the members are; what
// each of them can do now is the health checks' business.
package discover

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

const (
	// every is the time between two looks at the members: Patroni's own loop_wait is 10 s by default, but a member that
	// joins should not wait for that.
	every = 2 * time.Second
	// patience bounds one question.
	patience = 3 * time.Second

	patroniPort   = 8008
	pgBouncerPort = 6432
	// defaultTTL is Patroni's own, in seconds, for when its configuration can't be read.
	defaultTTL = 30
	weight     = 100
)

// Finding is a cluster as discovered, without services: those are the caller's.
type Finding struct {
	Cluster model.Cluster
	// Assumed are decisions taken where Patroni doesn't say, in words.
	Assumed []string
}

// Follower knows a cluster's members and looks for changes.
type Follower struct {
	seeds  []string
	client *patroni.Client
	log    *slog.Logger
	// mu is held for the whole of a look, since one builds on the one before.
	mu   sync.Mutex
	last *Finding
	// pooled has the members whose PgBouncer has answered once: it stays the destination even while it is down.
	pooled map[string]bool
}

// New makes a Follower that begins with these addresses: host, host:port, or a URL for https.
func New(seeds []string, log *slog.Logger) (*Follower, error) {
	f := &Follower{client: patroni.NewClient(patroni.Options{}), log: log, pooled: map[string]bool{}}
	var problems []error
	for _, seed := range seeds {
		base, err := baseURL(seed)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		f.seeds = append(f.seeds, base)
	}
	return f, errors.Join(problems...)
}

// Seeds are the addresses that it began with, as URLs.
func (f *Follower) Seeds() []string { return f.seeds }

// baseURL completes what a person types for a REST API's address.
func baseURL(text string) (string, error) {
	wrong := fmt.Errorf("%q isn't the address of a Patroni: host, host:port or https://host:port", text)
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		scheme, rest = "http", text
	}
	rest = strings.TrimSuffix(rest, "/")
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		host, port = strings.Trim(rest, "[]"), strconv.Itoa(patroniPort)
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return "", wrong
	}
	if scheme != "http" && scheme != "https" || !model.IsHost(host) {
		return "", wrong
	}
	return scheme + "://" + net.JoinHostPort(host, port), nil
}

// Find asks who the members are now. The first time every given address is asked, so that two clusters aren't taken for
// one; afterwards the first that answers will do.
func (f *Follower) Find(ctx context.Context) (Finding, error) {
	found, _, err := f.look(ctx)
	return found, err
}

// look finds the members and says whether anything differs from the look before.
func (f *Follower) look(ctx context.Context) (found Finding, differs bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var answers []patroni.Cluster
	var problems []error
	for _, base := range f.addresses() {
		answer, err := f.ask(ctx, base)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		answers = append(answers, answer)
		if f.last != nil {
			break
		}
	}
	if len(answers) == 0 {
		return Finding{}, false, fmt.Errorf("no Patroni tells who the members are: %w", errors.Join(problems...))
	}
	for _, other := range answers[1:] {
		if other.Scope != answers[0].Scope {
			return Finding{}, false, fmt.Errorf("the addresses belong to different clusters, %s and %s: one cluster a pgporter", answers[0].Scope, other.Scope)
		}
	}
	found = f.finding(ctx, answers[0])
	if len(found.Cluster.Members) == 0 {
		return Finding{}, false, fmt.Errorf("no member of cluster %s has said its addresses yet", found.Cluster.Name)
	}
	differs = f.last == nil || !reflect.DeepEqual(found.Cluster, f.last.Cluster)
	f.last = &found
	return found, differs, nil
}

// addresses are the members known so far, then the given ones.
func (f *Follower) addresses() []string {
	var all []string
	if f.last != nil {
		for _, m := range f.last.Cluster.Members {
			all = append(all, memberURL(m))
		}
	}
	for _, seed := range f.seeds {
		if !slices.Contains(all, seed) {
			all = append(all, seed)
		}
	}
	return all
}

func memberURL(m model.Member) string {
	return patroni.BaseURL(m.Host, m.PatroniPort, m.PatroniTLS)
}

// ask gets the members from one address. An answer without members is none: it would empty every service.
func (f *Follower) ask(ctx context.Context, base string) (patroni.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := f.client.Cluster(ctx, base)
	if err == nil && answer.Scope == "" {
		// Before 3.1 /cluster doesn't say whose members they are; every version's /patroni does.
		var self patroni.Answer
		self, err = f.client.Get(ctx, base, "/patroni")
		answer.Scope = self.Scope
	}
	switch {
	case err != nil:
		return answer, fmt.Errorf("%s: %w", base, err)
	case answer.Scope == "":
		return answer, fmt.Errorf("%s: doesn't say which cluster it belongs to", base)
	case len(answer.Members) == 0:
		return answer, fmt.Errorf("%s: knows no member", base)
	case f.last != nil && answer.Scope != f.last.Cluster.Name:
		return answer, fmt.Errorf("%s: belongs to cluster %s now", base, answer.Scope)
	}
	return answer, nil
}

// finding makes a cluster of an answer. What was known of a member before stays unless Patroni says otherwise.
func (f *Follower) finding(ctx context.Context, answer patroni.Cluster) Finding {
	c := model.Cluster{Name: answer.Scope, TTL: defaultTTL}
	for _, m := range answer.Members {
		api, err := url.Parse(m.APIURL)
		if err != nil || m.Host == "" || m.Port == 0 {
			// A member that is just joining has no addresses yet.
			continue
		}
		port, err := strconv.Atoi(cmp.Or(api.Port(), strconv.Itoa(patroniPort)))
		if err != nil {
			continue
		}
		member := model.Member{
			Name: m.Name, Host: m.Host, Role: f.declaredRole(m), PostgresPort: m.Port, PgBouncerPort: m.Port,
			PatroniPort: port, PatroniTLS: api.Scheme == "https", Weight: weight,
		}
		// Members may share a host here, so the name is what tells them apart in a selector.
		member.Vars = tags(m.Tags)
		member.Vars["inventory_hostname"], member.Vars["pg_role"] = m.Name, string(member.Role)
		c.Members = append(c.Members, member)
	}
	slices.SortFunc(c.Members, func(a, b model.Member) int { return cmp.Compare(a.Name, b.Name) })
	f.probePgBouncers(ctx, c.Members)
	var direct []string
	for i, m := range c.Members {
		if f.pooled[m.Name] {
			c.Members[i].PgBouncerPort = pgBouncerPort
		} else {
			direct = append(direct, m.Name)
		}
	}
	found := Finding{Cluster: c}
	if len(direct) > 0 {
		found.Assumed = append(found.Assumed, fmt.Sprintf("no PgBouncer answers on port %d of %s: the pooled services lead straight to PostgreSQL there", pgBouncerPort, strings.Join(direct, ", ")))
	}
	return found
}

// tags are Patroni's of a member as selectors see them: what was a boolean or a number for Patroni is one again.
func tags(texts map[string]string) map[string]any {
	vars := map[string]any{}
	for name, text := range texts {
		vars[name] = text
		var value any
		if json.Unmarshal([]byte(text), &value) == nil {
			switch value.(type) {
			case bool, float64:
				vars[name] = value
			}
		}
	}
	return vars
}

// declaredRole is what a member was when it was first seen. The live role follows from the checks; to change the
// declared one with every switchover would only look like a new configuration.
func (f *Follower) declaredRole(m patroni.ClusterMember) model.Role {
	if f.last != nil {
		for _, known := range f.last.Cluster.Members {
			if known.Name == m.Name {
				return known.Role
			}
		}
		return model.Replica
	}
	if m.Role == patroni.RoleLeader || m.Role == patroni.RoleStandbyLeader {
		return model.Primary
	}
	return model.Replica
}

// probePgBouncers asks those members whose PgBouncer hasn't been seen yet. Where members share a host nobody is asked: one
// port can't be the pool of both, and the wrong one would lead writes to another member.
func (f *Follower) probePgBouncers(ctx context.Context, members []model.Member) {
	onHost := map[string]int{}
	for _, m := range members {
		onHost[m.Host]++
	}
	answered := make([]bool, len(members))
	var probes sync.WaitGroup
	for i, m := range members {
		if onHost[m.Host] > 1 {
			delete(f.pooled, m.Name)
		} else if !f.pooled[m.Name] {
			probes.Go(func() { answered[i] = speaksPostgres(ctx, net.JoinHostPort(m.Host, strconv.Itoa(pgBouncerPort))) })
		}
	}
	probes.Wait()
	for i, m := range members {
		if answered[i] {
			f.pooled[m.Name] = true
		}
	}
}

// speaksPostgres asks whether encryption is to be had (SSLRequest) and takes either answer for a yes: whoever gives one
// speaks the protocol (PostgreSQL documentation, section "Message Flow", SSL Session Encryption).
func speaksPostgres(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return false
	}
	if _, err := conn.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil {
		return false
	}
	var answer [1]byte
	_, err = conn.Read(answer[:])
	return err == nil && (answer[0] == 'S' || answer[0] == 'N')
}

// Follow looks for changes of the membership until ctx ends and calls changed with each.
func (f *Follower) Follow(ctx context.Context, changed func(Finding)) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	lost := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		found, differs, err := f.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if !lost {
				f.log.Warn("the members can't be read, those known stay", "error", err)
			}
			lost = true
			continue
		}
		if differs {
			changed(found)
		}
		if lost {
			f.log.Info("the members can be read again")
		}
		lost = false
	}
}
