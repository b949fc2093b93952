package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
)

// shownEvents are how many events the table shows with all that was in them.
const shownEvents = 3

// printShadow tells what a shadow has seen: in short, then what lasts, then the latest events line by line.
func printShadow(w io.Writer, s *api.Status, paint func(string, colourCode) string) {
	h := s.Shadow
	if h == nil {
		return
	}
	state := ""
	switch {
	case h.Silent != "":
		state = paint("which doesn't answer: "+h.Silent, red)
	case h.Answered == nil:
		state = "which hasn't been asked yet"
	default:
		state = fmt.Sprintf("asked %s", times(h.Asked))
		if h.Unanswered > 0 {
			state += fmt.Sprintf(", %d in vain", h.Unanswered)
		}
	}
	fmt.Fprintf(w, "shadow of HAProxy (%s), %s: %s, pgporter was right %d, HAProxy %d, unknown %d\n", h.HAProxy, state,
		command.Plural(len(h.Events)+h.Dropped, "event"), h.Right.PGPorter, h.Right.HAProxy, h.Right.Unknown)
	if len(h.Absent) > 0 {
		fmt.Fprintf(w, "%s %s\n", paint("HAProxy hasn't, so not compared:", red), strings.Join(h.Absent, ", "))
	}
	if len(h.Taken) > 0 {
		fmt.Fprintf(w, "taken from HAProxy and served here: %s\n", strings.Join(h.Taken, ", "))
	}
	if len(h.Both) > 0 {
		fmt.Fprintf(w, "%s %s\n", paint("HAProxy listens for these, too, each new client gets to one of the two:", red), strings.Join(h.Both, ", "))
	}
	for _, d := range h.Standing {
		fmt.Fprintln(w, paint("now: "+d.Text, red)+verdict(d))
	}
	for _, e := range h.Events[max(0, len(h.Events)-shownEvents):] {
		over := "goes on"
		if e.Ended != nil {
			over = fmt.Sprintf("over after %.1fs", e.Ended.Sub(e.Began).Seconds())
		}
		about := e.What
		if e.Cluster != "" {
			about = e.Cluster + ": " + about
		}
		fmt.Fprintf(w, "event %d, %s: %s, %s\n", e.Number, e.Began.Local().Format("15:04:05.0"), about, over)
		for _, step := range e.Steps {
			fmt.Fprintf(w, "  %+6.1fs  %s\n", step.After, stepWords(step))
		}
		for _, d := range e.Disagreements {
			fmt.Fprintf(w, "  %s%s\n", d.Text, verdict(d))
		}
		if e.Dropped > 0 {
			fmt.Fprintf(w, "  %d lines more\n", e.Dropped)
		}
	}
}

// stepWords says what a step was.
func stepWords(s api.ShadowStep) string {
	if s.Service == "" {
		return fmt.Sprintf("leader key  %s (%s)", s.Server, s.Why)
	}
	words := fmt.Sprintf("%-10s  %s %s: %s", s.Of, s.Service, s.Server, s.Did)
	if s.Sessions > 0 {
		words += fmt.Sprintf(", %s at HAProxy", command.Plural(s.Sessions, "session"))
	}
	if s.Why != "" {
		words += " (" + s.Why + ")"
	}
	return words
}

// verdict says who was right, once that is judged, and what became of clients meanwhile.
func verdict(d api.Disagreement) string {
	text := ""
	if d.Clients > 0 || d.Failed > 0 {
		text = fmt.Sprintf(" (HAProxy led %s there", command.Plural(int(d.Clients), "client"))
		if d.Failed > 0 {
			text += fmt.Sprintf(", %s failed", command.Plural(int(d.Failed), "connection"))
		}
		text += ")"
	}
	switch d.Right {
	case "":
		return text
	case "unknown":
		return text + "; who was right isn't known: " + d.Because
	case "haproxy":
		return text + "; HAProxy was right: " + d.Because
	}
	return text + "; pgporter was right: " + d.Because
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
