package shadow

import (
	"fmt"
	"time"
)

// Text says it in a sentence, without who was right.
func (d *Disagreement) Text() string {
	lasted := "and still does"
	if !d.Until.IsZero() {
		lasted = "for " + d.Until.Sub(d.Since).Round(100*time.Millisecond).String()
	}
	switch d.Kind {
	case HAProxyLeads:
		return fmt.Sprintf("%s: HAProxy led new clients to %s %s, pgporter would have led nobody there", d.Service, d.Server, lasted)
	case PGPorterLeads:
		return fmt.Sprintf("%s: HAProxy led no new clients to %s %s, pgporter would have", d.Service, d.Server, lasted)
	case HAProxyKeeps:
		return fmt.Sprintf("%s: HAProxy kept %s on %s %s, pgporter would have ended them", d.Service, counted(d.Sessions), d.Server, lasted)
	default:
		return fmt.Sprintf("%s: HAProxy ended %s on %s, pgporter would have kept them", d.Service, counted(d.Sessions), d.Server)
	}
}

func counted(sessions int) string {
	if sessions == 1 {
		return "1 session"
	}
	return fmt.Sprintf("%d sessions", sessions)
}
