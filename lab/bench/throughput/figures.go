package throughput

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/lab/bench/report"
)

// sample is what one round gives of a measure: the quantities' values by route; nil for a route that there isn't.
type sample [routes][]float64

// taken are the samples of a section.
type taken struct {
	section  section
	measures []measure
	// samples are by measure and round.
	samples   [][]sample
	disturbed disturbances
}

func newTaken(s section, measures []measure) *taken {
	return &taken{section: s, measures: measures, samples: make([][]sample, len(measures))}
}

// subtract takes what there was without a proxy from the values that are over it.
func (m measure) subtract(s *sample) {
	for i, q := range m.quantities {
		for w := range routes {
			if q.over && w != direct && s[w] != nil {
				s[w][i] -= s[direct][i]
			}
		}
	}
}

// rounds gives how many rounds are whole.
func (t *taken) rounds() int {
	least := len(t.samples[0])
	for _, s := range t.samples {
		least = min(least, len(s))
	}
	return least
}

// column gives a quantity's values of a route, round by round.
func column(samples []sample, w route, quantity int) []float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, s[w][quantity])
	}
	return all
}

// ratios are pgporter's values divided by another route's of the same round.
func ratios(samples []sample, other route, quantity int) []float64 {
	ours, theirs := column(samples, pgporter, quantity), column(samples, other, quantity)
	all := make([]float64, len(ours))
	for i := range ours {
		all[i] = ours[i] / theirs[i]
	}
	return all
}

// table gives a section's whole rounds: medians, and goals with whether they are met.
func (t *taken) table() string {
	var b strings.Builder
	compared := t.samples[0][0][before] != nil
	head, rule := "| | | "+t.without()+" | HAProxy | pgporter |", "|---|---|--:|--:|--:|"
	straight := slices.ContainsFunc(t.measures, func(m measure) bool { return !m.indirect })
	if !straight {
		head, rule = "| | | HAProxy | pgporter |", "|---|---|--:|--:|"
	}
	if compared {
		head, rule = head+" before | pgporter / before |", rule+"--:|--:|"
	}
	b.WriteString(head + " pgporter / HAProxy | goal |\n" + rule + "--:|---|\n")
	for i, m := range t.measures {
		samples := t.samples[i][:t.rounds()]
		for j, q := range m.quantities {
			name := ""
			if j == 0 {
				name = m.name
			}
			fmt.Fprintf(&b, "| %s | %s |", name, q.name)
			for w := range routes {
				switch {
				case w == direct && !straight:
				case w == direct && (q.indirect || m.indirect):
					b.WriteString(" – |")
				case w != before || compared:
					fmt.Fprintf(&b, " %s |", q.text(report.Median(column(samples, w, j))))
				}
			}
			if compared {
				fmt.Fprintf(&b, " %s |", spread(ratios(samples, before, j)))
			}
			all := ratios(samples, haproxy, j)
			goals := slices.DeleteFunc([]string{q.goal.verdict(report.Median(all)), q.own.verdict(report.Median(column(samples, pgporter, j)))}, func(s string) bool { return s == "" })
			fmt.Fprintf(&b, " %s | %s |\n", spread(all), strings.Join(goals, "; "))
		}
	}
	return b.String()
}

// colors are the routes' in charts.
var colors = [routes]string{"plain", "theirs", "ours", "before"}

// chart draws what table writes: a panel for each quantity, in it a group of bars for each measure.
func (t *taken) chart(note string) report.Chart {
	c := report.Chart{Title: t.section.title, Note: note}
	var shown [routes]int
	show := func(w route) int {
		if shown[w] == 0 {
			name := routeNames[w]
			if w == direct {
				name = t.without()
			}
			c.Series = append(c.Series, report.Series{Name: name, Color: colors[w]})
			shown[w] = len(c.Series)
		}
		return shown[w] - 1
	}
	for w := range routes {
		if slices.ContainsFunc(t.samples, func(of []sample) bool { return of[0][w] != nil }) {
			show(w)
		}
	}
	for i, m := range t.measures {
		samples := t.samples[i][:t.rounds()]
		for j, q := range m.quantities {
			group := report.Group{Name: plain(m.name)}
			for w := range routes {
				if samples[0][w] != nil && (w != direct || !q.indirect) {
					group.Bars = append(group.Bars, report.NewBar(show(w), column(samples, w, j), q.text))
				}
			}
			at := slices.IndexFunc(c.Panels, func(p report.Panel) bool { return p.Title == q.name })
			if at < 0 {
				at = len(c.Panels)
				c.Panels = append(c.Panels, report.Panel{Title: q.name})
			}
			c.Panels[at].Groups = append(c.Panels[at].Groups, group)
		}
	}
	return c
}

// plain is a text without the marks of code.
func plain(text string) string { return strings.ReplaceAll(text, "`", "") }

// without is what is measured without a proxy.
func (t *taken) without() string { return cmp.Or(t.section.direct, routeNames[direct]) }

// spread gives ratios' median and, in parentheses, the least and the greatest; none of them is a number where something was divided by 0.
func spread(all []float64) string {
	if slices.ContainsFunc(all, func(v float64) bool { return math.IsInf(v, 0) || math.IsNaN(v) }) {
		return "–"
	}
	return fmt.Sprintf("%.3f (%.2f–%.2f)", report.Median(all), slices.Min(all), slices.Max(all))
}

// verdict says what the goal is, and whether a ratio keeps to it.
func (g goal) verdict(ratio float64) string {
	if g == (goal{}) {
		return ""
	}
	bound, verdict := "≥", "**missed**"
	if g.most {
		bound = "≤"
	}
	if g.met(ratio) {
		verdict = "met"
	}
	return fmt.Sprintf("%s %.2f: %s", bound, g.bound, verdict)
}

// line gives a sample in short.
func (m measure) line(s sample) string {
	var parts []string
	for i, q := range m.quantities {
		var values []string
		for w := range routes {
			if s[w] == nil || w == direct && q.indirect {
				continue
			}
			values = append(values, routeNames[w]+" "+q.text(s[w][i]))
		}
		parts = append(parts, fmt.Sprintf("%s: %s (%.3f)", q.name, strings.Join(values, ", "), s[pgporter][i]/s[haproxy][i]))
	}
	return strings.Join(parts, "; ")
}

func (q quantity) text(value float64) string {
	return thousands(strconv.FormatFloat(value, 'f', q.digits, 64))
}

// thousands sets commas into a number.
func thousands(number string) string {
	whole, rest, point := strings.Cut(number, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if point {
		whole += "." + rest
	}
	return whole
}
