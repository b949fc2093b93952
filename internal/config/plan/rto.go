package plan

import (
	"cmp"
	"fmt"
	"math/big"
	"regexp"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

// timing is what a row of pg_rto_plan says to a service: Patroni's ttl in seconds and the checks' pace.
type timing struct {
	ttl                                     int
	inter, fastInter, downInter, rise, fall string
}

const defaultRTO = "norm"

// timings are Pigsty's rows of pg_rto_plan. Its "0.5s" and "1.5s", which HAProxy refuses, are written in milliseconds.
var timings = map[string]timing{
	"fast": {20, "1s", "500ms", "1s", "3", "3"},
	"norm": {30, "2s", "1s", "2s", "3", "3"},
	"safe": {60, "3s", "1500ms", "3s", "3", "3"},
	"wide": {120, "4s", "2s", "4s", "3", "3"},
}

// Columns of a row of pg_rto_plan.
const (
	columnTTL = iota
	_         // loop
	_         // retry
	_         // start
	_         // margin
	columnInter
	columnFastInter
	columnDownInter
	columnRise
	columnFall
	columns
)

// options are the server options of a service that has none of its own.
func (t timing) options() string {
	return fmt.Sprintf("inter %s fastinter %s downinter %s rise %s fall %s on-marked-down shutdown-sessions slowstart 30s "+
		"maxconn 3000 maxqueue 128 weight 100", t.inter, t.fastInter, t.downInter, t.rise, t.fall)
}

// pace is what options says, read once for all clusters that have the same.
func (p *planner) pace(t timing) model.Options {
	o, read := p.paces[t]
	if !read {
		o, _ = model.ParseOptions(t.options())
		p.paces[t] = o
	}
	return o
}

// timing finds the row of pg_rto_plan that pg_rto names. An unknown one falls back to norm, as it does in Pigsty.
func (p *planner) timing(h *inventory.Host) timing {
	row := defaultRTO
	name, named := p.variable(h, "pg_rto")
	if named {
		var ok bool
		if row, ok = name.Name(); !ok {
			p.problems.Errorf(diag.WrongType, name.Pos(), "the name of a row of pg_rto_plan, as in norm", "pg_rto is %s", name.Describe())
			row = defaultRTO
		}
	}
	called := fmt.Sprintf("row %q", row)
	if named && !name.Quotable() {
		called = "row of the name that a template makes"
	}
	// Up to version 3 pg_rto was Patroni's ttl in seconds. A cluster that was made then still has it; a virtual address that is given up
	// too early is only missing, and one that is given up too late is there twice.
	seconds := 0
	fallBack := func() {
		if p.inv.Own() {
			p.problems.Errorf(diag.RTORowUnknown, name.Pos(), suggestion(row, []string{"fast", "norm", "safe", "wide"}), "pg_rto is %s", name.Describe())
			return
		}
		if n, is := name.WholeNumber(); is && n > 0 {
			seconds = int(min(n, int64(timings[defaultRTO].ttl)))
			p.problems.Warnf(diag.RTOInSeconds, name.Pos(), fmt.Sprintf("pg_rto: %s", rowFor(n)),
				"pg_rto is %s, seconds for Pigsty up to 3 and no row of pg_rto_plan today: a ttl of %d s is reckoned with, and checks go by %s", name.Describe(), seconds, defaultRTO)
			return
		}
		p.problems.Warnf(diag.RTORowUnknown, name.Pos(), "fast, norm, safe, wide or a row of one's own", "pg_rto_plan has no %s; %s is taken", called, defaultRTO)
	}
	rows, own := p.variable(h, "pg_rto_plan")
	if !own {
		t, known := timings[row]
		if !known {
			fallBack()
			t = timings[defaultRTO]
			t.ttl = cmp.Or(seconds, t.ttl)
		}
		return t
	}
	if rows.Kind() != inventory.Map {
		p.problems.Errorf(diag.RTORowInvalid, rows.Pos(), "a mapping of names to rows", "pg_rto_plan is %s", rows.Describe())
		return timings[defaultRTO]
	}
	v, known := rows.Get(row)
	if !known {
		if v, known = rows.Get(defaultRTO); !known {
			p.problems.Errorf(diag.RTORowUnknown, rows.Pos(), "a row "+defaultRTO+", or the one that pg_rto names", "pg_rto_plan has no %s", called)
			return timings[defaultRTO]
		}
		fallBack()
	}
	t := p.timingRow(called, v)
	if seconds > 0 {
		t.ttl = min(seconds, t.ttl)
	}
	return t
}

// rowFor names the row of Pigsty's whose ttl is the least that isn't below so many seconds.
func rowFor(seconds int64) string {
	for _, row := range []string{"fast", "norm", "safe"} {
		if seconds <= int64(timings[row].ttl) {
			return fmt.Sprintf("%s, whose ttl is %d s", row, timings[row].ttl)
		}
	}
	return fmt.Sprintf("wide, whose ttl is %d s", timings["wide"].ttl)
}

// timingRow reads a row of an inventory's own pg_rto_plan; row is what messages call it.
func (p *planner) timingRow(row string, v inventory.Value) timing {
	items := v.Items()
	if len(items) < columns {
		p.problems.Errorf(diag.RTORowInvalid, v.Pos(), "a list of ttl, loop, retry, start, margin, inter, fastinter, downinter, rise, fall",
			"%s of pg_rto_plan is %s with %d items", row, v.Describe(), len(items))
		return timings[defaultRTO]
	}
	count := func(column int, what string, least int) int {
		n, ok := items[column].WholeNumber()
		if !ok || n < int64(least) || n > 1<<31-1 {
			p.problems.Errorf(diag.NumberOutOfRange, items[column].Pos(), fmt.Sprintf("a whole number from %d", least), "%s of pg_rto_plan: %s is %s",
				row, what, items[column].Describe())
			return least
		}
		return int(n)
	}
	pace := func(column int, what string) string {
		text, _ := items[column].Name()
		text = inMilliseconds(text)
		if d, err := model.ParseTime(text); err != nil || d == 0 {
			p.problems.Errorf(diag.TimeInvalid, items[column].Pos(), "a time as in 500ms or 2s", "%s of pg_rto_plan: %s is %s", row, what, items[column].Describe())
			return timings[defaultRTO].inter
		}
		return text
	}
	return timing{
		ttl:   count(columnTTL, "ttl", 1),
		inter: pace(columnInter, "inter"), fastInter: pace(columnFastInter, "fastinter"), downInter: pace(columnDownInter, "downinter"),
		rise: fmt.Sprint(count(columnRise, "rise", 1)), fall: fmt.Sprint(count(columnFall, "fall", 1)),
	}
}

var fractionForm = regexp.MustCompile(`^([0-9]+\.[0-9]+)(ms|s|m|h|d)$`)

var unitMilliseconds = map[string]int64{"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

// inMilliseconds writes a time with a fraction, which Pigsty's own rows have and HAProxy refuses, as whole milliseconds.
// What it can't write so stays as it is.
func inMilliseconds(text string) string {
	match := fractionForm.FindStringSubmatch(text)
	if match == nil {
		return text
	}
	amount, _ := new(big.Rat).SetString(match[1])
	amount.Mul(amount, new(big.Rat).SetInt64(unitMilliseconds[match[2]]))
	if !amount.IsInt() {
		return text
	}
	return amount.Num().String() + "ms"
}
