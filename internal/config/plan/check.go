package plan

import (
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// getOnly are the first segments of paths for which Patroni has a handler of GET and of nothing else (api.py): under OPTIONS,
// as which a rendered HAProxy asks, they are unknown.
var getOnly = []string{"liveness", "readiness", "patroni", "cluster", "history", "config", "metrics", "failsafe"}

// rolePaths are what Patroni finds anywhere in a path, wholePaths what a path must be.
var (
	rolePaths  = []string{"standby_leader", "standby-leader", "leader", "master", "primary", "read-write", "replica", "read-only", "health"}
	wholePaths = []string{"sync", "synchronous", "async", "asynchronous", "quorum", "read-only-sync", "read-only-synchronous", "read-only-quorum"}
	// leadingPaths are those of rolePaths that Patroni looks for before read-only.
	leadingPaths = rolePaths[:7]
)

// known tells whether Patroni knows a path. One of read-only that speaks of sync or quorum has to be whole.
func known(path string) bool {
	if !slices.ContainsFunc(leadingPaths, func(role string) bool { return strings.Contains(path, role) }) && strings.Contains(path, "read-only") &&
		(strings.Contains(path, "sync") || strings.Contains(path, "quorum")) {
		return slices.Contains(wholePaths, path[1:])
	}
	return slices.ContainsFunc(rolePaths, func(role string) bool { return strings.Contains(path, role) }) || slices.Contains(wholePaths, path[1:])
}

// warnOfCheck tells of a check that HAProxy can never see passing, or that nobody can.
func (p *planner) warnOfCheck(v inventory.Value, label, check string) {
	path, _, _ := strings.Cut(check, "?")
	segment, _, _ := strings.Cut(strings.TrimLeft(path, "/"), "/")
	switch {
	case slices.Contains(getOnly, segment):
		p.problems.Warnf(diag.CheckNeverPasses, v.Pos(), "/health, or a path that asks for a role",
			"%s: check /%s never passes with HAProxy, which asks by OPTIONS: Patroni knows it under GET only", label, segment)
	case path == "/", known(path):
		p.warnOfQuery(place{value: v}, label, check)
	case !v.Quotable():
		p.problems.Warnf(diag.CheckNeverPasses, v.Pos(), "a path of Patroni's REST API", "%s: check, which a template makes, never passes: Patroni doesn't know the path", label)
	default:
		words := slices.Concat(rolePaths, wholePaths, getOnly)
		want := "one of /primary, /leader, /replica, /read-only, /sync, /read-only-sync, /async, /health and their like"
		if word := diag.Nearest(segment, words); word != "" {
			want = "did you mean /" + word
		}
		p.problems.Warnf(diag.CheckNeverPasses, v.Pos(), want, "%s: check %s never passes: Patroni doesn't know the path", label, path)
	}
}

// warnOfTLS tells of options that say how checks speak TLS where none does.
func (p *planner) warnOfTLS(members []member, d *definition) {
	said := d.Options.CheckTLS
	if said.On || said == (model.CheckTLS{}) || slices.ContainsFunc(members, func(m member) bool { return m.PatroniTLS }) {
		return
	}
	p.problems.Warnf(diag.CheckTLSUnused, d.optionsPos, "check-ssl among them, or patroni_ssl_enabled: true of the members",
		"service %q: its options say how checks speak TLS, but none does", d.Name)
}
