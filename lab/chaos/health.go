package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// span is a time in which the same was said again and again, without a longer pause than was allowed.
type span struct {
	from, to time.Time
	says     string
}

// spans are what one respondent has said, in order.
type spans []span

// note adds what was said at a moment. What comes late is of no use any more.
func (all *spans) note(at time.Time, says string, pause time.Duration) {
	n := len(*all)
	if n > 0 {
		last := &(*all)[n-1]
		if at.Before(last.to) {
			return
		}
		if last.says == says && at.Sub(last.to) <= pause {
			last.to = at
			return
		}
	}
	*all = append(*all, span{at, at, says})
}

// throughout gives what was said from one moment to another without a pause; false if there was a pause, or it changed.
func (all spans) throughout(from, to time.Time) (says string, ok bool) {
	for _, s := range all {
		if !s.from.After(from) && !s.to.Before(to) {
			return s.says, true
		}
	}
	return "", false
}

const (
	// missing is the longest pause in which a PostgreSQL that is asked ten times a second counts as answering.
	missing = 1500 * time.Millisecond
	// patient is the same for a Patroni, which is asked once a second and waited for: one that is slow is no less well, as it may be
	// our own questions that it is slow from.
	patient = 10 * time.Second
)

// What PostgreSQL says that it is; behind it comes the time of its start, which another process says differently.
const (
	asPrimary = "primary since "
	asStandby = "standby since "
)

// note keeps what a member's PostgreSQL says of itself, asked past every service.
func (r *roleWatcher) note(member string, standby bool, started string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	says := asPrimary + started
	if standby {
		says = asStandby + started
	}
	all := r.servers[member]
	all.note(at, says, missing)
	r.servers[member] = all
}

// there says whether a member's PostgreSQL was there from one moment to another: the same process, and what it was.
func (r *roleWatcher) there(member string, from, to time.Time) (primary, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	says, ok := r.servers[member].throughout(from, to)
	return strings.HasPrefix(says, asPrimary), ok
}

// patronis asks each member's Patroni by its own port, past the proxy before its REST API.
type patronis struct {
	field *field

	mu sync.Mutex
	// said are role and state, such as "replica running".
	said map[string]spans
}

// watch asks a member once a second until ctx ends. A question is waited for, and not put twice.
func (p *patronis) watch(ctx context.Context, m sandbox.Member) {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		says, err := p.ask(ctx, m)
		if err == nil {
			p.note(m.Name, says, time.Now())
		}
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

func (p *patronis) note(member, says string, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.said[member]
	all.note(at, says, patient)
	p.said[member] = all
}

func (p *patronis) throughout(member string, from, to time.Time) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said[member].throughout(from, to)
}

// since is what a member said last, if that was after a moment.
func (p *patronis) since(member string, when time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.said[member]); n > 0 && p.said[member][n-1].to.After(when) {
		return p.said[member][n-1].says
	}
	return ""
}

// ask gives a member's role and state in Patroni's own words, but that a master is a primary.
func (p *patronis) ask(ctx context.Context, m sandbox.Member) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patient)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(m.Address, patroniPort)+"/patroni", nil)
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DialContext: p.field.dialer(m.Name), DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var answer struct{ Role, State string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return "", fmt.Errorf("patroni of %s: %w", m.Name, err)
	}
	if answer.Role == "master" {
		answer.Role = "primary"
	}
	return answer.Role + " " + answer.State, nil
}

// patroniPort is where Patroni itself listens.
const patroniPort = "8008"
