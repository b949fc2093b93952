// Package diff says what a new plan changes of the one that runs: which services come, go or differ, in what, and which
// servers each of them wins or loses.
//
// Servers are compared as both plans give them with the roles that the members have now, so that a switchover since the
// running plan was made is no difference. Definitions and members are compared by what they are in JSON, field by field: a
// field that the model gains later is compared without anybody having thought of it. Two plans that aren't the same have
// changes. It is pure; it decides nothing and judges nothing.
package diff

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/resolve"
)

// Roles are what members are now, by cluster and member name. Who isn't there has the declared role.
type Roles map[string]map[string]model.Role

// Between gives what after changes of before. Clusters and services are in the order of after, those that are gone
// behind. The error is a selector's that can't be evaluated on its members.
func Between(before, after model.Plan, live Roles) (api.Changes, error) {
	changes := api.Changes{Clusters: []api.ClusterChange{}, Services: []api.ServiceChange{}}
	old := named(before.Clusters, func(c model.Cluster) string { return c.Name })
	now := named(after.Clusters, func(c model.Cluster) string { return c.Name })
	for _, c := range after.Clusters {
		was, there := old[c.Name]
		if !there {
			changes.Clusters = append(changes.Clusters, api.ClusterChange{Cluster: c.Name, Kind: api.Added, What: []string{count(len(c.Members), "member")}})
		} else if what := clusterChanges(was, c); len(what) > 0 {
			changes.Clusters = append(changes.Clusters, api.ClusterChange{Cluster: c.Name, Kind: api.Changed, What: what})
		}
	}
	for _, c := range before.Clusters {
		if _, stays := now[c.Name]; !stays {
			changes.Clusters = append(changes.Clusters, api.ClusterChange{Cluster: c.Name, Kind: api.Removed})
		}
	}
	changes.Clusters = append(changes.Clusters, nameChanges(before, after)...)
	oldServices, err := services(before, live)
	if err != nil {
		return api.Changes{}, fmt.Errorf("the running configuration: %w", err)
	}
	newServices, err := services(after, live)
	if err != nil {
		return api.Changes{}, err
	}
	changes.Services = append(changes.Services, serviceChanges(oldServices, newServices)...)
	// Only what has the same parts can have them in another order.
	if !changes.None() {
		return changes, nil
	}
	if order := orderOf(before, oldServices, after, newServices); order != "" {
		changes.Clusters = append(changes.Clusters, api.ClusterChange{Cluster: order, Kind: api.Changed, What: []string{"in another order"}})
	}
	return changes, nil
}

// offered is a service of either kind, made comparable.
type offered struct {
	name, listen string
	// cluster is empty for a service that belongs to none.
	cluster string
	// definition is a model.Definition or a model.TCPService.
	definition any
	servers    []server
}

// server is a model.Server or a model.TCPServer with its name.
type server struct {
	name  string
	value any
}

// services are all that a plan offers.
func services(p model.Plan, live Roles) ([]offered, error) {
	var all []offered
	for _, c := range p.Clusters {
		set, err := resolve.Set(c, live[c.Name])
		if err != nil {
			return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
		}
		for _, s := range set.Services {
			o := offered{s.FullName, listen(s.IP, s.Port), c.Name, s.Definition, nil}
			for _, carrier := range s.Servers {
				o.servers = append(o.servers, server{carrier.Member, carrier})
			}
			all = append(all, o)
		}
	}
	for _, g := range p.TCPServices {
		o := offered{g.Name, listen(g.IP, g.Port), "", g, nil}
		for _, carrier := range g.Servers {
			o.servers = append(o.servers, server{carrier.Name, carrier})
		}
		all = append(all, o)
	}
	return all, nil
}

func serviceChanges(before, after []offered) []api.ServiceChange {
	var changes []api.ServiceChange
	name := func(o offered) string { return o.name }
	old, now := named(before, name), named(after, name)
	for _, o := range after {
		was, there := old[o.name]
		if !there {
			changes = append(changes, api.ServiceChange{Service: o.name, Listen: o.listen, Kind: api.Added, ServersAdded: names(o.servers)})
			continue
		}
		c := api.ServiceChange{Service: o.name, Listen: o.listen, Kind: api.Changed, What: valueChanges(was.definition, o.definition, "servers")}
		if was.cluster != o.cluster {
			c.What = append(c.What, fmt.Sprintf("cluster %s → %s", cmp.Or(was.cluster, "(none)"), cmp.Or(o.cluster, "(none)")))
		}
		compareServers(was.servers, o.servers, &c)
		if len(c.What)+len(c.ServersAdded)+len(c.ServersRemoved)+len(c.ServersChanged) > 0 {
			changes = append(changes, c)
		}
	}
	for _, o := range before {
		if _, stays := now[o.name]; !stays {
			changes = append(changes, api.ServiceChange{Service: o.name, Listen: o.listen, Kind: api.Removed, ServersRemoved: names(o.servers)})
		}
	}
	return changes
}

func compareServers(before, after []server, c *api.ServiceChange) {
	name := func(s server) string { return s.name }
	old, now := named(before, name), named(after, name)
	for _, s := range after {
		was, there := old[s.name]
		if !there {
			c.ServersAdded = append(c.ServersAdded, s.name)
			continue
		}
		for _, what := range valueChanges(was.value, s.value) {
			c.ServersChanged = append(c.ServersChanged, s.name+": "+what)
		}
	}
	for _, s := range before {
		if _, stays := now[s.name]; !stays {
			c.ServersRemoved = append(c.ServersRemoved, s.name)
		}
	}
	// The order says which backup is the first, and whose turn it is.
	staying := func(servers []server, in map[string]server) []string {
		return slices.DeleteFunc(names(servers), func(n string) bool { _, both := in[n]; return !both })
	}
	if order := staying(after, old); !slices.Equal(staying(before, now), order) {
		c.What = append(c.What, "the servers' order: "+strings.Join(order, ", "))
	}
}

// clusterChanges compares what two declarations of a cluster say of it and of its members.
func clusterChanges(before, after model.Cluster) []string {
	if reflect.DeepEqual(before, after) {
		return nil
	}
	what := valueChanges(before, after, "members", "services")
	name := func(m model.Member) string { return m.Name }
	old, now := named(before.Members, name), named(after.Members, name)
	for _, m := range after.Members {
		was, there := old[m.Name]
		if !there {
			what = append(what, fmt.Sprintf("member %s is new", m.Name))
			continue
		}
		is, had := fieldsOf(m), fieldsOf(was)
		if is["role"] != had["role"] {
			// The variable says the same once more.
			delete(is, "vars."+roleVar)
			delete(had, "vars."+roleVar)
		}
		for _, change := range fieldChanges(had, is) {
			what = append(what, fmt.Sprintf("member %s: %s", m.Name, strings.TrimPrefix(change, "vars.")))
		}
	}
	for _, m := range before.Members {
		if _, stays := now[m.Name]; !stays {
			what = append(what, fmt.Sprintf("member %s is gone", m.Name))
		}
	}
	return what
}

// roleVar is the variable by which selectors see a member's role.
const roleVar = "pg_role"

// orderOf names what is in another order in plans that differ in nothing else.
func orderOf(before model.Plan, oldServices []offered, after model.Plan, newServices []offered) string {
	clusters := func(p model.Plan) (all []string) {
		for _, c := range p.Clusters {
			all = append(all, c.Name)
		}
		return all
	}
	services := func(offers []offered) (all []string) {
		for _, o := range offers {
			all = append(all, o.name)
		}
		return all
	}
	if !slices.Equal(clusters(before), clusters(after)) {
		return "the clusters"
	}
	if !slices.Equal(services(oldServices), services(newServices)) {
		return "the services"
	}
	for i, c := range after.Clusters {
		for j, m := range c.Members {
			if before.Clusters[i].Members[j].Name != m.Name {
				return c.Name
			}
		}
	}
	return ""
}

// valueChanges compares two values field by field, but for those named in without. Most are the same as they are, which
// is far cheaper to find out.
func valueChanges(before, after any, without ...string) []string {
	if reflect.DeepEqual(before, after) {
		return nil
	}
	return fieldChanges(fieldsOf(before, without...), fieldsOf(after, without...))
}

// fieldsOf gives what a value is in JSON as texts by their names, those of inner objects with a dot. without are left out.
func fieldsOf(v any, without ...string) map[string]string {
	text, err := json.Marshal(v)
	if err != nil {
		// The model's values are all of JSON's kinds.
		panic(fmt.Sprintf("diff: %T is not JSON: %v", v, err))
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		panic(fmt.Sprintf("diff: %T is no JSON object: %v", v, err))
	}
	for _, name := range without {
		delete(object, name)
	}
	fields := map[string]string{}
	flatten(fields, "", object)
	return fields
}

func flatten(into map[string]string, prefix string, object map[string]any) {
	for name, value := range object {
		switch value := value.(type) {
		case map[string]any:
			if len(value) == 0 {
				into[prefix+name] = "{}"
			}
			flatten(into, prefix+name+".", value)
		case string:
			into[prefix+name] = value
			if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '"' }) {
				into[prefix+name] = strconv.Quote(value)
			}
		default:
			var text bytes.Buffer
			encoder := json.NewEncoder(&text)
			encoder.SetEscapeHTML(false)
			if err := encoder.Encode(value); err != nil {
				panic(fmt.Sprintf("diff: %s is not JSON: %v", prefix+name, err))
			}
			into[prefix+name] = strings.TrimSpace(text.String())
		}
	}
}

// fieldChanges gives `name old → new` for each that differs, by name.
func fieldChanges(before, after map[string]string) []string {
	all := maps.Clone(before)
	maps.Copy(all, after)
	var changes []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		was, had := before[name]
		is, has := after[name]
		if had && has && was == is {
			continue
		}
		if !had {
			was = absent(is)
		}
		if !has {
			is = absent(was)
		}
		changes = append(changes, fmt.Sprintf("%s %s → %s", name, was, is))
	}
	return changes
}

// absent is what a field that JSON leaves out has where the other side has this: a boolean is left out when it is false.
func absent(other string) string {
	if other == "true" {
		return "false"
	}
	return "(none)"
}

func named[T any](all []T, name func(T) string) map[string]T {
	by := make(map[string]T, len(all))
	for _, one := range all {
		by[name(one)] = one
	}
	return by
}

func names(servers []server) []string {
	all := make([]string, len(servers))
	for i, s := range servers {
		all[i] = s.name
	}
	return all
}

func listen(ip string, port int) string {
	if ip == "*" {
		return "*:" + strconv.Itoa(port)
	}
	return net.JoinHostPort(ip, strconv.Itoa(port))
}

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
