package web

import (
	"fmt"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// Judgement is how something is: Well; Look, where an operator should look at it some time; Ill, where clients suffer.
type Judgement string

// The judgements, from best to worst.
const (
	Well Judgement = "well"
	Look Judgement = "look"
	Ill  Judgement = "ill"
)

// mostWords is how many sentences are said of one thing.
const mostWords = 6

// verdict collects what is said of something.
type verdict struct {
	// ill and look are sentences.
	ill, look []string
}

func (v *verdict) say(j Judgement, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if j == Ill {
		v.ill = append(v.ill, text)
	} else {
		v.look = append(v.look, text)
	}
}

// judged gives the judgement, and the sentences with the worst first; of many the first few and how many more there are.
func (v *verdict) judged() (Judgement, []string) {
	all := append(v.ill, v.look...)
	if more := len(all) - mostWords; more > 0 {
		all = append(all[:mostWords:mostWords], fmt.Sprintf("and %d more", more))
	}
	switch {
	case len(v.ill) > 0:
		return Ill, all
	case len(v.look) > 0:
		return Look, all
	}
	return Well, nil
}

// judge says how a cluster is.
func judge(c *api.Cluster, now time.Time) (Judgement, []string) {
	var v verdict
	if c.Contested != "" {
		v.say(Ill, "%s", c.Contested)
	}
	if c.Hold != nil {
		v.say(Look, "%s", c.Hold.Words())
	}
	for i := range c.Services {
		judgeService(&v, &c.Services[i], c.Services[i].Name, now)
	}
	if k := c.LeaderKey; k != nil {
		switch {
		case k.Lost != "":
			v.say(Look, "etcd can't be asked for the leader key: %s", k.Lost)
		case k.Holder == "":
			v.say(Look, "nobody holds the leader key")
		}
	}
	for _, m := range c.Members {
		why, down := memberDown(c, m.Name)
		switch {
		case down:
			v.say(Look, "%s is down: %s", m.Name, why)
		case m.Remark != "":
			v.say(Look, "%s: %s", m.Name, m.Remark)
		}
	}
	if c.VIP != nil {
		if c.VIP.Problem != "" {
			v.say(Look, "the virtual address %s: %s", c.VIP.Address, c.VIP.Problem)
		}
		if len(c.VIP.Others) > 0 {
			v.say(Ill, "others have the virtual address %s, too: %s", c.VIP.Address, strings.Join(c.VIP.Others, ", "))
		}
	}
	return v.judged()
}

// judgeTCP says how the services are that belong to no cluster.
func judgeTCP(services []api.Service, now time.Time) (Judgement, []string) {
	var v verdict
	for i := range services {
		s := &services[i]
		judgeService(&v, s, s.FullName, now)
		if !s.Up {
			continue
		}
		for _, server := range s.Servers {
			if !server.Up {
				v.say(Look, "%s: %s is down: %s", s.FullName, server.Member, server.Reason)
			}
		}
	}
	return v.judged()
}

func judgeService(v *verdict, s *api.Service, name string, now time.Time) {
	waiting := ""
	if s.Queued > 0 {
		waiting = fmt.Sprintf("%d %s", s.Queued, plural(s.Queued, "client waits", "clients wait"))
		if s.Waiting != nil {
			waiting += fmt.Sprintf(", the longest for %s", now.Sub(*s.Waiting).Round(100*time.Millisecond))
		}
	}
	none := "no server takes clients"
	if n := ordered(s); n > 0 {
		none += fmt.Sprintf(", %d of %d by order", n, len(s.Servers))
	}
	switch {
	case len(s.Servers) == 0 && waiting == "":
		v.say(Look, "%s: no member is selected for it", name)
	case len(s.Servers) == 0:
		v.say(Ill, "%s: no member is selected for it, and %s", name, waiting)
	case !s.Up && !s.Shadow && waiting == "":
		v.say(Ill, "%s: %s", name, none)
	case !s.Up && !s.Shadow:
		v.say(Ill, "%s: %s, and %s", name, none, waiting)
	case waiting != "":
		v.say(Look, "%s: %s", name, waiting)
	}
}

// ordered is how many servers an operator keeps from taking clients.
func ordered(s *api.Service) int {
	n := 0
	for _, server := range s.Servers {
		if server.Order != nil && server.Order.State != api.Ready {
			n++
		}
	}
	return n
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// memberDown says whether a member is out though nobody ordered it, and why: it is up nowhere, and not because its PostgreSQL runs in
// another role than the services ask for.
func memberDown(c *api.Cluster, name string) (why string, down bool) {
	for i := range c.Services {
		for _, server := range c.Services[i].Servers {
			switch {
			case server.Member != name:
			case server.Up || strings.HasSuffix(server.Reason, " running"):
				return "", false
			default:
				why, down = server.Reason, true
			}
		}
	}
	return why, down
}

// primaryOf is the member that is a cluster's primary now; empty if there is none.
func primaryOf(c *api.Cluster) string {
	for _, m := range c.Members {
		if m.Role == "primary" {
			return m.Name
		}
	}
	return ""
}
