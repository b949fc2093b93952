package report

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Chart is figures as bars, to be drawn as SVG by itself: with its own colours for light and dark, and with all that it shows in words.
type Chart struct {
	// Title is what it is about, Note the small print below.
	Title, Note string
	// Series are who is compared, in the order of the bars of each group.
	Series []Series
	Panels []Panel
}

// Series is one who is compared.
type Series struct {
	Name string
	// Color is the class of its bars: plain, theirs, ours or before.
	Color string
}

// Panel is one quantity.
type Panel struct {
	Title  string
	Groups []Group
}

// Group is what was measured together: its bars have one scale from 0 on, which is its own.
type Group struct {
	Name string
	Bars []Bar
}

// Bar is a figure of one series.
type Bar struct {
	// Series is the index of whose it is.
	Series int
	// Value is drawn as the bar, Least and Most as a line across its end.
	Value, Least, Most float64
	// Text is the value as it is written.
	Text string
}

// Measures of the drawing, in its own units.
const (
	chartWidth  = 960
	chartMargin = 24
	panelGap    = 32
	panelWidth  = (chartWidth - 2*chartMargin - panelGap) / 2
	valueWidth  = 84 // room for a value behind the longest bar
	barHeight   = 12
	barStep     = 16
	groupHead   = 20
	groupGap    = 8
	panelHead   = 26
	chartHead   = 84
	chartFoot   = 36
)

// style has the colours of the project's other pictures.
const style = `
  .page { fill: #fbfcfd; stroke: #ccd; } text { fill: #223; } .title { font-size: 17px; font-weight: 600; } .b { font-weight: 600; } .dim { fill: #556; font-size: 12px; }
  .value { font-size: 12px; font-variant-numeric: tabular-nums; } .axis { stroke: #99a; } .spread { stroke: #223; stroke-width: 1.4; }
  .plain { fill: #a8b0bd; } .theirs { fill: #5b8fd0; } .ours { fill: #2a8f4f; } .before { fill: #d3a63c; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #161a20; stroke: #39414d; } text { fill: #e4e9f0; } .dim { fill: #a3afc0; } .axis { stroke: #66738a; } .spread { stroke: #e4e9f0; }
    .plain { fill: #66738a; } .theirs { fill: #4a7fc4; } .ours { fill: #3f9d66; } .before { fill: #b98a25; }
  }
`

// SVG draws the chart.
func (c Chart) SVG() string {
	var b strings.Builder
	height := chartHead + chartFoot
	for at := 0; at < len(c.Panels); at += 2 {
		height += rowHeight(c.Panels[at:min(at+2, len(c.Panels))])
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="14" role="img" aria-labelledby="title said">`+"\n", chartWidth, height)
	fmt.Fprintf(&b, "<title id=\"title\">%s</title>\n<desc id=\"said\">%s</desc>\n<style>%s</style>\n", escape(c.Title), escape(c.words()), style)
	fmt.Fprintf(&b, `<rect class="page" x="1" y="1" width="%d" height="%d" rx="10"/>`+"\n", chartWidth-2, height-2)
	fmt.Fprintf(&b, `<text class="title" x="%d" y="36">%s</text>`+"\n", chartMargin, escape(c.Title))
	x := chartMargin
	for _, s := range c.Series {
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="52" width="12" height="12"/><text class="dim" x="%d" y="62">%s</text>`+"\n", s.Color, x, x+18, escape(s.Name))
		x += 18 + 8*len([]rune(s.Name)) + 24
	}
	y := chartHead
	for at := 0; at < len(c.Panels); at += 2 {
		row := c.Panels[at:min(at+2, len(c.Panels))]
		for i, p := range row {
			c.panel(&b, p, chartMargin+i*(panelWidth+panelGap), y)
		}
		y += rowHeight(row)
	}
	fmt.Fprintf(&b, `<text class="dim" x="%d" y="%d">%s</text>`+"\n</svg>\n", chartMargin, height-18, escape(c.Note))
	return b.String()
}

// rowHeight is what panels beside each other take.
func rowHeight(row []Panel) int {
	most := 0
	for _, p := range row {
		height := panelHead + 12
		for _, g := range p.Groups {
			height += groupHead + barStep*len(g.Bars) + groupGap
		}
		most = max(most, height)
	}
	return most
}

// panel draws one at a place.
func (c Chart) panel(b *strings.Builder, p Panel, x, y int) {
	fmt.Fprintf(b, `<text class="b" x="%d" y="%d">%s</text>`+"\n", x, y+14, escape(p.Title))
	y += panelHead
	for _, g := range p.Groups {
		fmt.Fprintf(b, `<text class="dim" x="%d" y="%d">%s</text>`+"\n", x, y+12, escape(g.Name))
		y += groupHead
		most := 0.0
		for _, bar := range g.Bars {
			most = math.Max(most, math.Max(bar.Value, bar.Most))
		}
		// Nothing is drawn below 0: a difference that is, is one of nothing.
		at := func(value float64) float64 {
			if most == 0 {
				return float64(x)
			}
			return float64(x) + math.Max(0, value)/most*(panelWidth-valueWidth)
		}
		fmt.Fprintf(b, `<path class="axis" d="M%d %dV%d"/>`+"\n", x, y-2, y+barStep*len(g.Bars)-barStep+barHeight+2)
		for _, bar := range g.Bars {
			s := c.Series[bar.Series]
			fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d"><title>%s, %s: %s</title></rect>`, s.Color, x, y, at(bar.Value)-float64(x), barHeight, escape(g.Name), escape(s.Name), escape(bar.Text))
			end := at(bar.Value)
			if at(bar.Most) > at(bar.Least) {
				middle := y + barHeight/2
				fmt.Fprintf(b, `<path class="spread" d="M%.1f %dH%.1fM%.1f %dv6M%.1f %dv6"/>`, at(bar.Least), middle, at(bar.Most), at(bar.Least), middle-3, at(bar.Most), middle-3)
				end = math.Max(end, at(bar.Most))
			}
			fmt.Fprintf(b, `<text class="value" x="%.1f" y="%d">%s</text>`+"\n", end+6, y+barHeight-2, escape(bar.Text))
			y += barStep
		}
		y += groupGap
	}
}

// words are all figures as text, for those who don't see them.
func (c Chart) words() string {
	var all []string
	for _, p := range c.Panels {
		for _, g := range p.Groups {
			var said []string
			for _, bar := range g.Bars {
				said = append(said, c.Series[bar.Series].Name+" "+bar.Text)
			}
			all = append(all, fmt.Sprintf("%s, %s: %s.", p.Title, g.Name, strings.Join(said, ", ")))
		}
	}
	return strings.Join(all, " ")
}

// NewBar makes a bar of all values that were measured, which has their median as its length.
func NewBar(series int, values []float64, text func(float64) string) Bar {
	value := Median(values)
	return Bar{Series: series, Value: value, Least: slices.Min(values), Most: slices.Max(values), Text: text(value)}
}

// Median gives the middle of the values, the mean of the middle two of an even number.
func Median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func escape(text string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(text)) //nolint:errcheck // a Builder takes everything
	return b.String()
}
