package plan

import (
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
)

func (r *definitionReader) readHold(v inventory.Value) {
	var sound bool
	r.d.Hold, sound = r.p.readHold(v, r.label+": hold")
	r.sound = r.sound && sound
}

// hold reads pgporter_hold, this program's own variable: what holds for services that say nothing themselves. nil is what the node says.
func (p *planner) hold(h *inventory.Host) *model.Hold {
	v, set := p.variable(h, "pgporter_hold")
	if !set {
		return nil
	}
	hold, _ := p.readHold(v, "pgporter_hold")
	return hold
}

// readHold reads how long clients wait. For HAProxy that is left out, and said.
func (p *planner) readHold(v inventory.Value, what string) (*model.Hold, bool) {
	text, isText := v.Text()
	if n, isNumber := v.WholeNumber(); isNumber && n == 0 {
		text, isText = "0", true
	}
	hold, err := model.ParseHold(text)
	switch {
	case !isText:
		p.problems.Errorf(diag.HoldInvalid, v.Pos(), model.WantHold, "%s is %s", what, v.Describe())
		return nil, false
	case err != nil && !v.Quotable():
		p.problems.Errorf(diag.HoldInvalid, v.Pos(), model.WantHold, "%s, which a template makes, %v", what, err)
		return nil, false
	case err != nil:
		p.problems.Errorf(diag.HoldInvalid, v.Pos(), model.WantHold, "%s is %s, which %v", what, v.Describe(), err)
		return nil, false
	case p.holdless && hold.Waits():
		p.problems.Warnf(diag.HAProxyHold, v.Pos(), "let the native engine carry it", "%s: HAProxy keeps no client waiting for a failover, it refuses who finds no server at once", what)
		return nil, true
	case p.holdless:
		return nil, true
	}
	return &hold, true
}
