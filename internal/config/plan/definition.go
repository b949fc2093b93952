package plan

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/jmespath"
	"github.com/pgporter/pgporter/internal/config/model"
)

// definition is a service as a list declares it: what doesn't depend on who looks.
type definition struct {
	model.Definition
	// dest is empty if the destination is pg_default_service_dest's.
	dest model.Dest
	// ownOptions says that the options aren't pg_rto's.
	ownOptions bool
	// builtIn says that the inventory doesn't declare the service.
	builtIn bool
	// namePos, portPos, selectorValue and backupValue are positions; a service that is built in has none.
	namePos, portPos           diag.Position
	optionsPos, poolPos        diag.Position
	selectorValue, backupValue inventory.Value
}

// defaultServices are those that a cluster has if pg_default_services isn't set.
var defaultServices = []model.Definition{
	{Name: "primary", Port: 5433, Check: "/primary", Selector: jmespath.Read("[]")},
	{Name: "replica", Port: 5434, Check: "/read-only", Selector: jmespath.Read("[]"), Backup: jmespath.Read("[? pg_role == `primary` || pg_role == `offline` ]")},
	{Name: "default", Port: 5436, Dest: model.Dest{Kind: model.ToPostgres}, Check: "/primary", Selector: jmespath.Read("[]")},
	{Name: "offline", Port: 5438, Dest: model.Dest{Kind: model.ToPostgres}, Check: "/replica",
		Selector: jmespath.Read("[? pg_role == `offline` || pg_offline_query ]"), Backup: jmespath.Read("[? pg_role == `replica` && !pg_offline_query]")},
}

// normOptions are the options of services where neither they nor pg_rto say any.
var normOptions, _ = model.ParseOptions(timings[defaultRTO].options())

// DefaultServices are the four services of a cluster whose inventory, if it has any, doesn't say otherwise: names, ports,
// checks, selectors and destinations (an empty one means pg_default_service_dest's), with Pigsty's other defaults.
func DefaultServices() []model.Definition {
	definitions := slices.Clone(defaultServices)
	for i := range definitions {
		definitions[i].IP, definitions[i].MaxConn, definitions[i].Balance = "*", defaultMaxConn, model.RoundRobin
		definitions[i].Options = normOptions
	}
	return definitions
}

const (
	defaultMaxConn       = 5000
	defaultPostgresPort  = 5432
	defaultPgBouncerPort = 6432
	defaultPatroniPort   = 8008
)

// serviceKeys are the keys of a service definition, with how each is read. The first three are required.
var serviceKeys = []entryKey[definitionReader]{
	{name: "name", read: (*definitionReader).readName},
	{name: "port", read: (*definitionReader).readPort},
	{name: "selector", read: (*definitionReader).readSelector},
	{name: "backup", read: (*definitionReader).readBackup},
	{name: "ip", read: (*definitionReader).readIP},
	{name: "dest", read: (*definitionReader).readDest},
	{name: "check", read: (*definitionReader).readCheck},
	{name: "maxconn", read: (*definitionReader).readMaxConn},
	{name: "balance", read: (*definitionReader).readBalance},
	{name: "options", read: (*definitionReader).readOptions},
	{name: "allow", read: (*definitionReader).readAllow},
	{name: "pool", read: (*definitionReader).readPool},
	{name: "hold", read: (*definitionReader).readHold},
}

// definitionReader reads one entry of a list of services.
type definitionReader struct {
	entryReader
	d definition
}

// definitions gives the services that a host declares, in order. Of two with one name the later replaces the
// earlier, as its file would in Pigsty.
func (p *planner) definitions(h *inventory.Host) []definition {
	var all []definition
	if _, set := h.Position("pg_default_services"); set {
		all = p.list(h, "pg_default_services")
	} else {
		for _, d := range DefaultServices() {
			all = append(all, definition{Definition: d, dest: d.Dest, builtIn: true})
		}
	}
	all = append(all, p.list(h, "pg_services")...)
	var kept []definition
	index := map[string]int{}
	for _, d := range all {
		i, again := index[d.Name]
		if !again {
			index[d.Name] = len(kept)
			kept = append(kept, d)
			continue
		}
		other := "the default one"
		if !kept[i].builtIn {
			other = fmt.Sprintf("the one at %s", kept[i].namePos)
		}
		if !kept[i].builtIn || !onlyOurs(kept[i].Definition, d) {
			p.problems.Warnf(diag.ServiceReplaced, d.namePos, "pg_default_services without it, or another name", "service %q takes the place of %s", d.Name, other)
		}
		kept[i] = d
	}
	return kept
}

// onlyOurs says that a service is the default one of its name but for keys that Pigsty hasn't, so that nobody can have meant another.
func onlyOurs(usual model.Definition, d definition) bool {
	is := d.Definition
	is.Dest, is.Allow, is.Hold, is.Pool = d.dest, nil, nil, ""
	if !d.ownOptions {
		is.Options = usual.Options
	}
	return reflect.DeepEqual(is, usual)
}

// list reads pg_default_services or pg_services; entries that aren't sound are left out.
func (p *planner) list(h *inventory.Host, variable string) []definition {
	v, set := p.templates.Own(h, variable)
	if !set {
		return nil
	}
	if v.Kind() != inventory.List {
		if p.readable(v, variable) {
			p.problems.Errorf(diag.WrongType, v.Pos(), "a list of services; [] for none", "%s is %s", variable, v.Describe())
		}
		return nil
	}
	if !p.fewServices(v, variable) {
		return nil
	}
	var definitions []definition
	for i, item := range v.Items() {
		if d, sound := p.definition(fmt.Sprintf("service %d of %s", i+1, variable), item); sound {
			definitions = append(definitions, d)
		}
	}
	return definitions
}

// definition reads an entry, all of it even if a part is wrong.
func (p *planner) definition(label string, v inventory.Value) (definition, bool) {
	if name, ok := called(v); ok {
		label = fmt.Sprintf("service %q", name)
	}
	r := &definitionReader{entryReader: entryReader{p: p, kind: "service", label: label, sound: true, older: olderServiceKeys}}
	r.d.Definition = model.Definition{IP: "*", Check: "/", MaxConn: defaultMaxConn, Balance: model.RoundRobin}
	readEntry(r, &r.entryReader, serviceKeys, v)
	return r.d, r.sound
}

func (r *definitionReader) readName(v inventory.Value) { r.d.Name, r.d.namePos = r.name(v), v.Pos() }

func (r *definitionReader) readPort(v inventory.Value) {
	r.d.Port, r.d.portPos = r.number(v, "port", 1, 65535), v.Pos()
}

func (r *definitionReader) readMaxConn(v inventory.Value) {
	r.d.MaxConn = r.number(v, "maxconn", 1, 1<<31-1)
}

func (r *definitionReader) readAllow(v inventory.Value) { r.d.Allow = r.networks(v) }

func (r *definitionReader) readPool(v inventory.Value) {
	r.d.poolPos = v.Pos()
	if text, _ := v.Text(); text != string(model.Door) {
		r.fail(diag.WordUnknown, v.Pos(), string(model.Door)+", or not the key either", "pool is %s", v.Describe())
		return
	}
	r.d.Pool = model.Door
}

func (r *definitionReader) readSelector(v inventory.Value) {
	r.d.Selector = r.expression(v, "selector")
	r.d.selectorValue = v
}

func (r *definitionReader) readBackup(v inventory.Value) {
	r.d.Backup = r.expression(v, "backup")
	r.d.backupValue = v
}

func (r *definitionReader) expression(v inventory.Value, key string) *jmespath.Selector {
	text, isText := v.Text()
	if !isText {
		r.fail(diag.SelectorInvalid, v.Pos(), "a JMESPath expression in quotes, as in \"[]\"", "%s is %s", key, v.Describe())
		return nil
	}
	s := r.p.compile(text)
	if err := s.Err(); err != nil {
		r.sound = false
		r.p.badExpression(v, fmt.Sprintf("%s: %s", r.label, key), err)
	}
	return s
}

// badExpression reports an error of a selector at its position inside the expression.
func (p *planner) badExpression(v inventory.Value, what string, err error) {
	pos := v.Pos()
	if at := (*jmespath.Error)(nil); errors.As(err, &at) {
		pos = v.At(at.Offset)
	}
	if !v.Quotable() {
		p.problems.Errorf(diag.SelectorInvalid, pos, "a JMESPath expression", "%s, which a template makes, can't be used", what)
		return
	}
	p.problems.Errorf(diag.SelectorInvalid, pos, "", "%s, %v", what, err)
}

func (r *definitionReader) readIP(v inventory.Value) { r.d.IP = r.address(v) }

func (r *definitionReader) readDest(v inventory.Value) {
	if text, _ := v.Text(); text == "default" {
		return
	}
	dest, ok := r.p.dest(v, r.label+": dest")
	r.d.dest = dest
	r.sound = r.sound && ok
}

// dest reads a destination. Pigsty's template takes 5432 for one that it doesn't know; so does ours, with a warning.
func (p *planner) dest(v inventory.Value, what string) (model.Dest, bool) {
	const want = "default, postgres, pgbouncer or a port from 1 to 65535"
	if n, ok := v.WholeNumber(); ok {
		if n < 1 || n > 65535 {
			p.problems.Errorf(diag.PortOutOfRange, v.Pos(), want, "%s is %s", what, v.Describe())
			return model.Dest{}, false
		}
		return model.Dest{Kind: model.ToPort, Port: int(n)}, true
	}
	text, isText := v.Text()
	if !isText {
		p.problems.Errorf(diag.DestInvalid, v.Pos(), want, "%s is %s", what, v.Describe())
		return model.Dest{}, false
	}
	switch kind := model.DestKind(text); kind {
	case model.ToPostgres, model.ToPgBouncer:
		return model.Dest{Kind: kind}, true
	}
	if p.inv.Own() {
		p.problems.Errorf(diag.DestInvalid, v.Pos(), want, "%s is %s", what, v.Describe())
		return model.Dest{}, false
	}
	p.problems.Warnf(diag.DestInvalid, v.Pos(), want, "%s is %s; port %d is taken, as in Pigsty", what, v.Describe(), defaultPostgresPort)
	return model.Dest{Kind: model.ToPort, Port: defaultPostgresPort}, true
}

func (r *definitionReader) readCheck(v inventory.Value) {
	text, isText := v.Text()
	if !isText || !model.IsCheckPath(text) {
		r.fail(diag.CheckInvalid, v.Pos(), "a path of Patroni's REST API, as in /primary", "check is %s", v.Describe())
		return
	}
	r.d.Check = text
	r.p.warnOfCheck(v, r.label, text)
}

func (r *definitionReader) readBalance(v inventory.Value) {
	algorithm, ok := r.p.balance(v, r.label, "tcp")
	if !ok {
		r.sound = false
		return
	}
	r.d.Balance = model.Balance(algorithm)
}

func (r *definitionReader) readOptions(v inventory.Value) {
	text, isText := v.Text()
	if !isText {
		r.fail(diag.WrongType, v.Pos(), "a text with HAProxy's server options, as in 'inter 2s fall 3'", "options is %s", v.Describe())
		return
	}
	options, wrong := model.ParseOptions(text)
	r.refuse(diag.ServerOption, v, wrong, "")
	if !r.p.haproxy {
		r.refuse(diag.NativeUnsupported, v, options.Refused(), "")
	}
	r.shows(v, "options", text)
	r.d.Options, r.d.ownOptions, r.d.optionsPos = options, true, v.Pos()
}
