package inventory

import (
	"errors"
	"fmt"
	"slices"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory/jinja"
)

// Templates gives variables with their templates evaluated, and remembers what it has evaluated. It is for one goroutine.
type Templates struct {
	inv *Inventory
	// defaults are variables that a host has in its own eyes if the inventory doesn't set them.
	defaults map[string]any
	compiled map[string]compiledTemplate
	done     map[asked]Value
	// asking are the variables between the one asked for and the one that is evaluated now.
	asking map[asked]bool
	groups *jinja.Dict
	// total is for all of them, budget for the value that is evaluated now.
	total  *jinja.Total
	budget *jinja.Budget
}

type compiledTemplate struct {
	template *jinja.Template
	err      error
}

// asked is a variable of a host; own says that it is seen with the host's own eyes.
type asked struct {
	host *Host
	name string
	own  bool
}

// maxChain bounds how many variables may refer to each other in a row.
const maxChain = 50

// Templates makes a new one. defaults are the variables that a play's roles would bring for the host that it runs on (nil,
// bool, int64, float64, string, []any, *jinja.Dict); other hosts don't see them, as they don't in Ansible's hostvars.
func (inv *Inventory) Templates(defaults map[string]any) *Templates {
	return &Templates{
		inv: inv, defaults: defaults, total: jinja.NewTotal(),
		compiled: map[string]compiledTemplate{}, done: map[asked]Value{}, asking: map[asked]bool{},
	}
}

// Var gives a host's variable as other hosts see it (Host.Var).
func (t *Templates) Var(h *Host, name string) (Value, bool) { return t.value(asked{h, name, false}) }

// Own gives a host's variable as the host itself sees it: the templates in it may use the defaults. Whether the variable
// itself is set doesn't depend on them.
func (t *Templates) Own(h *Host, name string) (Value, bool) { return t.value(asked{h, name, true}) }

// HasTemplate tells whether a host's variable is computed by a template, or a part of it is.
func (t *Templates) HasTemplate(h *Host, name string) bool {
	v, set := h.unevaluated(name)
	return set && v.hasTemplate()
}

func (v Value) hasTemplate() bool { return v.node != nil && v.doc.templated[v.node] }

func (t *Templates) value(q asked) (Value, bool) {
	if q.name == "groups" {
		if t.groups == nil {
			t.groups = t.inv.memberNames()
		}
		return Value{made: t.groups, pos: q.host.Pos}, true
	}
	v, set := q.host.unevaluated(q.name)
	if !set || !v.hasTemplate() {
		return v, set
	}
	if known, done := t.done[q]; done {
		return known, true
	}
	switch {
	case t.asking[q]:
		return v.failed(&failure{pos: v.pos, what: fmt.Sprintf("the variable %q depends on itself", q.name)}), true
	case len(t.asking) >= maxChain:
		return v.failed(&failure{pos: v.pos, what: fmt.Sprintf("more than %d variables refer to each other in a row", maxChain)}), true
	case len(t.asking) == 0:
		t.budget = t.total.NewBudget()
	}
	t.asking[q] = true
	evaluated := t.evaluate(v, scope{t: t, host: q.host, own: q.own})
	delete(t.asking, q)
	// A failure that another variable was evaluated in may come from that evaluation: its depth, what it has cost already.
	if _, failed := evaluated.Unreadable(q.name); !failed || len(t.asking) == 0 {
		t.done[q] = evaluated
	}
	return evaluated, true
}

// failed is a value that there isn't.
func (v Value) failed(why *failure) Value { return Value{made: why, pos: v.pos} }

// evaluate gives a value with the templates in it evaluated, each part at its position.
func (t *Templates) evaluate(v Value, s scope) Value {
	if !v.hasTemplate() {
		return v
	}
	switch v.Kind() {
	case List:
		items := v.Items()
		for i := range items {
			items[i] = t.evaluate(items[i], s)
		}
		return Value{made: &list{items}, pos: v.pos}
	case Map:
		entries := v.Entries()
		for i := range entries {
			entries[i].Value = t.evaluate(entries[i].Value, s)
		}
		return Value{made: &mapping{entries}, pos: v.pos}
	}
	text, _ := v.Text()
	secret := v.Secret()
	s.secret = &secret
	c, done := t.compiled[text]
	if !done {
		c.template, c.err = t.total.Compile(text)
		t.compiled[text] = c
	}
	result, err := any(nil), c.err
	if err == nil {
		result, err = c.template.Value(s, t.budget)
	}
	if err == nil {
		return Value{made: result, pos: v.pos, templated: true, secret: secret}
	}
	why := &failure{pos: v.pos, what: err.Error(), source: text}
	if inner := (*failure)(nil); errors.As(err, &inner) {
		*why = *inner
	} else if at := (*jinja.Error)(nil); errors.As(err, &at) {
		why.pos = v.At(at.Offset)
		if at.Exhausted {
			// It isn't tried again for every host there is.
			t.compiled[text] = compiledTemplate{err: at}
		}
		if why.undefined = at.Undefined; at.Undefined {
			why.what += " on " + s.host.Name
		}
	}
	why.source = text
	return v.failed(why)
}

// native gives a value as templates see it; the error is why a template in it has no value.
func (v Value) native() (any, error) {
	switch v.Kind() {
	case Failed:
		return nil, v.made.(*failure)
	case Encrypted:
		return nil, &failure{pos: v.pos, what: "a value that the template needs is encrypted with Ansible Vault, which is not supported"}
	case UnknownTag:
		return nil, &failure{pos: v.pos, what: "a value that the template needs has " + v.tag() + ", which Ansible doesn't know"}
	case List:
		if items, made := v.made.([]any); made {
			return items, nil
		}
		if items, made := v.made.(jinja.Tuple); made {
			return items, nil
		}
		items := []any{}
		for _, item := range v.Items() {
			one, err := item.native()
			if err != nil {
				return nil, err
			}
			items = append(items, one)
		}
		return items, nil
	case Map:
		if d, made := v.made.(*jinja.Dict); made {
			return d, nil
		}
		d := jinja.NewDict()
		for _, e := range v.Entries() {
			one, err := e.Value.native()
			if err != nil {
				return nil, err
			}
			d.Set(e.Key.scalar(), one)
		}
		return d, nil
	}
	return v.scalar(), nil
}

// scope is what a template of a host's variable can see.
type scope struct {
	t    *Templates
	host *Host
	own  bool
	// secret is what Secret was told last.
	secret *string
}

// Secret notes that a template's result may be made of a secret.
func (s scope) Secret(name string) { *s.secret = name }

// Lookup finds a variable of the host's.
func (s scope) Lookup(name string) (jinja.Variable, bool, error) {
	switch name {
	case "hostvars":
		return jinja.Variable{Value: everyHost{s.t}}, true, nil
	case "vars":
		return jinja.Variable{Value: oneHost(s)}, true, nil
	}
	v, set, err := s.find(name)
	written, _ := s.host.unevaluated(name)
	v.Plain = !written.hasTemplate()
	return v, set, err
}

// find gives a variable. One for which something isn't defined is itself as good as undefined: `default` may save it.
func (s scope) find(name string) (jinja.Variable, bool, error) {
	v, set := s.t.value(asked{s.host, name, s.own})
	if !set {
		value, hasDefault := s.t.defaults[name]
		return jinja.Variable{Value: value}, hasDefault && s.own, nil
	}
	value, err := v.native()
	if failed := (*failure)(nil); errors.As(err, &failed) && failed.undefined {
		return jinja.Variable{Value: &jinja.Undefined{Cause: failed}}, true, nil
	}
	return jinja.Variable{Value: value, Secret: v.Tainted()}, true, err
}

// everyHost is hostvars.
type everyHost struct{ t *Templates }

// Get gives a host's variables as other hosts see them.
func (e everyHost) Get(name string) (jinja.Variable, bool, error) {
	h, known := e.t.inv.Host(name)
	if !known {
		return jinja.Variable{}, false, nil
	}
	return jinja.Variable{Value: oneHost{t: e.t, host: h}}, true, nil
}

// Names are all hosts'.
func (e everyHost) Names() []string {
	names := make([]string, 0, len(e.t.inv.hosts))
	for _, h := range e.t.inv.hosts {
		names = append(names, h.Name)
	}
	return names
}

// oneHost is the variables of a host.
type oneHost scope

// Get gives one of them.
func (o oneHost) Get(name string) (jinja.Variable, bool, error) { return scope(o).find(name) }

// Names are all variables'.
func (o oneHost) Names() []string {
	names := o.host.Names()
	if !slices.Contains(names, "groups") {
		names = append(names, "groups")
	}
	return names
}

// Position is where a host's variable is written, or false if it isn't set.
func (h *Host) Position(name string) (diag.Position, bool) {
	v, set := h.unevaluated(name)
	return v.pos, set
}
