package jinja

import (
	"strings"
)

func (m *machine) runIf(out *strings.Builder, s ifNode) error {
	for i, test := range s.tests {
		yes, err := m.truth(test)
		if err != nil {
			return err
		}
		if yes {
			return m.write(out, s.bodies[i])
		}
	}
	return m.write(out, s.otherwise)
}

func (m *machine) runFor(out *strings.Builder, s forNode) error {
	over, err := s.over.eval(m)
	if err != nil {
		return err
	}
	all, err := m.items(over)
	if err != nil {
		return locate(err, s.over.offset())
	}
	m.push()
	defer m.pop()
	frame := m.frames[len(m.frames)-1]
	items := all
	if s.filter != nil {
		items = nil
		for _, item := range all {
			if err := locate(m.assign(frame, s.targets, item), s.offset()); err != nil {
				return err
			}
			yes, err := m.truth(s.filter)
			if err != nil {
				return err
			}
			if yes {
				items = append(items, item)
			}
		}
	}
	if len(items) == 0 {
		clear(frame)
		return m.write(out, s.otherwise)
	}
	for i, item := range items {
		if err := locate(m.budget.step(1), s.offset()); err != nil {
			return err
		}
		clear(frame)
		frame["loop"] = loop(items, i)
		if err := locate(m.assign(frame, s.targets, item), s.offset()); err != nil {
			return err
		}
		if err := m.write(out, s.body); err != nil {
			return err
		}
	}
	return nil
}

// loop is what the body of a loop sees under that name.
func loop(items []any, i int) *Dict {
	d := NewDict()
	n := int64(len(items))
	d.Set("index", int64(i+1))
	d.Set("index0", int64(i))
	d.Set("revindex", n-int64(i))
	d.Set("revindex0", n-int64(i)-1)
	d.Set("first", i == 0)
	d.Set("last", int64(i) == n-1)
	d.Set("length", n)
	if i > 0 {
		d.Set("previtem", items[i-1])
	}
	if i+1 < len(items) {
		d.Set("nextitem", items[i+1])
	}
	return d
}

// assign sets one name, or unpacks a list into several.
func (m *machine) assign(frame map[string]any, targets []string, v any) error {
	if len(targets) == 1 {
		frame[targets[0]] = v
		return nil
	}
	items, err := m.items(v)
	if err != nil {
		return err
	}
	if len(items) != len(targets) {
		return complain("%d values for %d names", len(items), len(targets))
	}
	for i, target := range targets {
		frame[target] = items[i]
	}
	return nil
}

// namespace is what {% set ns.x = … %} changes across blocks.
type namespace struct{ values *Dict }

func (m *machine) runSet(s setNode) error {
	var v any
	var err error
	if s.body == nil {
		v, err = s.value.eval(m)
	} else {
		var piece string
		if piece, err = m.inner(s.body); err == nil {
			v, err = m.through(piece, s.filters)
		}
	}
	if err != nil {
		return err
	}
	if s.attribute == "" {
		return m.assign(m.frames[len(m.frames)-1], s.targets, v)
	}
	target, err := m.lookup(s.targets[0])
	if err != nil {
		return err
	}
	ns, ok := target.(*namespace)
	if !ok {
		return complain("%s is no namespace", s.targets[0])
	}
	ns.values.Set(s.attribute, v)
	return nil
}

func (m *machine) runWith(out *strings.Builder, s withNode) error {
	frame := map[string]any{}
	for i, e := range s.values {
		v, err := e.eval(m)
		if err != nil {
			return err
		}
		frame[s.names[i]] = v
	}
	m.frames = append(m.frames, frame)
	defer m.pop()
	return m.write(out, s.body)
}
