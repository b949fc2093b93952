package daemon

import (
	"context"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/shadow"
)

// watching is the engine of a shadow: it carries nothing.
type watching struct{ *shadow.Watcher }

// Prepare can't fail: there is nothing to open.
func (w watching) Prepare(_ context.Context, o engine.Offer) (Change, error) {
	return Change{Publish: func() { w.Watch(o) }}, nil
}

// Traffic is none.
func (w watching) Traffic(context.Context) map[string]Traffic { return nil }

// Beats are those of the loop that compares.
func (w watching) Beats() map[string]rounds {
	return map[string]rounds{"the loop that compares with HAProxy": {w.Watcher.Beats(), standstill}}
}

// shadowStatus tells what the shadow has seen; nil if this is none.
func (d *Daemon) shadowStatus() *api.Shadow {
	w, is := d.engine.(watching)
	if !is {
		return nil
	}
	r := w.Report()
	s := &api.Shadow{HAProxy: r.HAProxy, Asked: r.Asked, Unanswered: r.Unanswered, Silent: r.Silent, Absent: r.Absent, Dropped: r.Dropped,
		Right: api.Right{PGPorter: r.Right.PGPorter, HAProxy: r.Right.HAProxy, Unknown: r.Right.Unknown}, Standing: []api.Disagreement{}, Events: []api.ShadowEvent{}}
	if !r.Answered.IsZero() {
		s.Answered = &r.Answered
	}
	for i := range r.Standing {
		s.Standing = append(s.Standing, disagreement(&r.Standing[i]))
	}
	for _, e := range r.Events {
		shown := api.ShadowEvent{Number: e.Number, Cluster: e.Cluster, What: e.What, Began: e.Began, From: e.From, To: e.To, Dropped: e.Dropped,
			Steps: []api.ShadowStep{}, Disagreements: []api.Disagreement{}}
		if !e.Ended.IsZero() {
			shown.Ended = &e.Ended
		}
		for _, step := range e.Steps {
			shown.Steps = append(shown.Steps, api.ShadowStep{At: step.At, After: step.At.Sub(e.Began).Seconds(), Of: string(step.Of), Service: step.Service, Server: step.Server,
				Did: string(step.Did), Why: step.Why, Sessions: step.Sessions})
		}
		for _, one := range e.Disagreements {
			shown.Disagreements = append(shown.Disagreements, disagreement(one))
		}
		s.Events = append(s.Events, shown)
	}
	return s
}

func disagreement(d *shadow.Disagreement) api.Disagreement {
	shown := api.Disagreement{Service: d.Service, Server: d.Server, Kind: string(d.Kind), Text: d.Text(), Since: d.Since, Sessions: d.Sessions,
		Clients: d.Clients, Failed: d.Failed, PGPorter: d.PGPorter, HAProxy: d.HAProxy, Right: string(d.Right), Because: d.Because}
	if !d.Until.IsZero() {
		shown.Until, shown.Seconds = &d.Until, d.Until.Sub(d.Since).Seconds()
	}
	return shown
}
