package runtime

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// server is the one that the command's first word names; false if there is none, which was answered then.
func (c *call) server() (service *api.Service, server *api.Server, found bool) {
	backend, name, both := strings.Cut(c.arg(0), "/")
	if !both || backend == "" || name == "" {
		c.say("Require 'backend/server'.")
		return nil, nil, false
	}
	s := c.d.Status()
	for _, service := range services(&s) {
		if service.FullName != backend {
			continue
		}
		for i := range service.Servers {
			if service.Servers[i].Member == name {
				return service, &service.Servers[i], true
			}
		}
		c.say("No such server.")
		return nil, nil, false
	}
	c.say("No such backend.")
	return nil, nil, false
}

// order gives an order about the command's server; its refusal is the answer, and nothing if it was taken.
func (c *call) order(o api.Order) {
	service, server, found := c.server()
	if !found {
		return
	}
	o.Service, o.Member, o.By = service.FullName, server.Member, by
	if _, err := c.d.Order(c.ctx, o); err != nil {
		c.say(err.Error())
	}
}

func (c *call) enableServer()  { c.order(api.Order{State: api.Ready}) }
func (c *call) disableServer() { c.order(api.Order{State: api.Maintenance}) }

func (c *call) getWeight() {
	if _, server, found := c.server(); found {
		c.say(fmt.Sprintf("%d (initial %d)", server.Weight, server.DeclaredWeight))
	}
}

func (c *call) setWeight() { c.weigh(c.arg(1)) }

// greatest is the greatest weight.
const greatest = 256

// weigh sets a weight as HAProxy reads it: a number, or a percentage of the declared one.
func (c *call) weigh(text string) {
	_, server, found := c.server()
	if !found {
		return
	}
	if text == "" {
		c.say("Require <weight> or <weight%>.")
		return
	}
	digits, percent := strings.CutSuffix(text, "%")
	n, err := strconv.ParseInt(digits, 10, 32)
	switch {
	case err != nil && strings.TrimLeft(text, "+-0123456789") == text:
		c.say("Empty weight string empty or preceded by garbage")
	case err != nil:
		c.say("Trailing garbage in weight string")
	case percent && n < 0:
		c.say("Relative weight must be positive.")
	case percent && n == 100:
		c.order(api.Order{DeclaredWeight: true})
	case percent:
		weight := int(min(int64(server.DeclaredWeight)*n/100, greatest))
		c.order(api.Order{Weight: &weight})
	case n < 0 || n > greatest:
		c.say("Absolute weight can only be between 0 and 256 inclusive.")
	default:
		weight := int(n)
		c.order(api.Order{Weight: &weight})
	}
}

func (c *call) setServer() {
	_, _, found := c.server()
	if !found {
		return
	}
	const follows = "follows from the inventory: change it there and reload (pgporter reload)."
	switch c.arg(1) {
	case "state":
		switch state := api.ServerState(c.arg(2)); state {
		case api.Ready, api.Drain, api.Maintenance:
			c.order(api.Order{State: state})
		default:
			c.say("'set server <srv> state' expects 'ready', 'drain' and 'maint'.")
		}
	case "weight":
		c.weigh(c.arg(2))
	case "health":
		c.say("Health follows from the checks alone. To take a server out of service use 'set server <srv> state drain' or 'maint'.")
	case "agent", "agent-send":
		c.say("agent checks are not enabled on this server.")
	case "agent-addr", "agent-port":
		c.say("There are no agent checks.")
	case "addr", "fqdn":
		c.say("A server's address " + follows)
	case "check-addr", "check-port":
		c.say("Where a server is checked " + follows)
	case "ssl":
		c.say("TLS is passed through: whether a server speaks it is between it and its clients.")
	default:
		c.say("usage: set server <backend>/<server> addr | agent | agent-addr | agent-port | agent-send | check-addr | check-port | fqdn | health | ssl | state | weight")
	}
}

func (c *call) enableHealth() {
	if _, server, found := c.server(); found && server.LastCheck == nil {
		c.say("Health check was not configured on this server, cannot enable.")
	}
}

func (c *call) disableHealth() {
	if _, _, found := c.server(); found {
		c.say("Checks always run: what they say of a server is who leads and who may be read. To keep clients there whatever they say isn't possible.")
	}
}

func (c *call) enableAgent() {
	if _, _, found := c.server(); found {
		c.say("Agent was not configured on this server, cannot enable.")
	}
}

func (c *call) disableAgent() { c.server() }

func (c *call) setMaxconnFrontend() {
	s := c.d.Status()
	for _, service := range services(&s) {
		if service.FullName == c.arg(0) {
			c.say("A service's maxconn follows from the inventory: change it there and reload (pgporter reload).")
			return
		}
	}
	if c.arg(0) == "" {
		c.say("A frontend name is expected.")
		return
	}
	c.say("No such frontend.")
}

func (c *call) shutdownSessions() {
	service, server, found := c.server()
	if !found {
		return
	}
	if _, err := c.d.EndSessions(c.ctx, api.EndSessions{Filter: api.SessionFilter{Service: service.FullName, Member: server.Member}}, by); err != nil {
		c.say(err.Error())
	}
}

func (c *call) shutdownSession() {
	if c.arg(0) == "" {
		c.say("Session pointer expected (use 'show sess').")
		return
	}
	id, err := strconv.ParseUint(c.arg(0), 0, 64)
	if err != nil || id == 0 {
		c.say("No such session (use 'show sess').")
		return
	}
	ended, err := c.d.EndSessions(c.ctx, api.EndSessions{Filter: api.SessionFilter{ID: id}}, by)
	switch {
	case err != nil:
		c.say(err.Error())
	case ended.Ended == 0:
		c.say("No such session (use 'show sess').")
	}
}
