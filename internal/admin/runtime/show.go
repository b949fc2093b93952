package runtime

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/statistics"
)

func (c *call) showInfo() {
	s := c.d.Status()
	all := statistics.Process(&s)
	exact, about := slices.Contains(c.args, "float"), slices.Contains(c.args, "desc")
	var err error
	switch {
	case slices.Contains(c.args, "json"):
		err = statistics.InfoJSON(c.out, all)
	case slices.Contains(c.args, "typed"):
		err = statistics.InfoTyped(c.out, all, exact, about)
	default:
		err = statistics.InfoText(c.out, all, exact, about)
	}
	c.wrote(err)
}

// wrote takes an error of a write: the client is gone.
func (c *call) wrote(err error) {
	if err != nil {
		c.done = true
	}
}

func (c *call) showStat() {
	s := c.d.Status()
	rows := statistics.Rows(&s)
	filter, args := statistics.All, c.args
	if len(args) > 0 && args[0] == "domain" {
		if c.arg(1) != "proxy" {
			c.say("Invalid statistics domain.")
			return
		}
		args = args[2:]
	}
	if len(args) >= 3 {
		filter.Kinds, filter.Server = number(args[1]), number(args[2])
		if slices.ContainsFunc(rows, func(r statistics.Row) bool { return r.Proxy == args[0] }) {
			filter.Proxy = args[0]
		} else if filter.ID = number(args[0]); filter.ID == 0 {
			c.say("No such proxy.")
			return
		}
		args = args[3:]
	}
	filter.Up, filter.NoMaint = slices.Contains(args, "up"), slices.Contains(args, "no-maint")
	rows = filter.Of(rows)
	switch {
	case slices.Contains(args, "json"):
		c.wrote(statistics.JSON(c.out, rows))
	case slices.Contains(args, "typed"):
		c.wrote(statistics.Typed(c.out, rows, slices.Contains(args, "desc")))
	default:
		c.wrote(statistics.CSV(c.out, rows))
	}
}

// number is a word as C's atoi reads it: what isn't one is 0.
func number(word string) int {
	n, err := strconv.Atoi(word)
	if errors.Is(err, strconv.ErrRange) {
		return n
	}
	if err != nil {
		return 0
	}
	return n
}

// services are all that are offered.
func services(s *api.Status) []*api.Service {
	var all []*api.Service
	for i := range s.Clusters {
		for n := range s.Clusters[i].Services {
			all = append(all, &s.Clusters[i].Services[n])
		}
	}
	for i := range s.TCPServices {
		all = append(all, &s.TCPServices[i])
	}
	return all
}

func (c *call) showBackend() {
	s := c.d.Status()
	c.say("# name")
	for _, service := range services(&s) {
		c.say(service.FullName)
	}
}

func (c *call) showVersion() {
	s := c.d.Status()
	c.say(statistics.Version(&s))
}

func (c *call) showErrors() {
	s := c.d.Status()
	c.say(fmt.Sprintf("Total events captured on [%s] : 0", s.Now.Format("02/Jan/2006:15:04:05.000")))
}

func (c *call) showTable() {
	if len(c.args) > 0 {
		c.say("No such table")
	}
}

// servers are the rows of servers, of one service if one is named; false if there is none of that name.
func (c *call) servers() (rows []statistics.Row, found bool) {
	s := c.d.Status()
	filter := statistics.All
	filter.Kinds = 1 << statistics.Server
	all := statistics.Rows(&s)
	if name := c.arg(0); name != "" {
		if !slices.ContainsFunc(all, func(r statistics.Row) bool { return r.Proxy == name }) {
			c.say("Can't find backend.")
			return nil, false
		}
		filter.Proxy = name
	}
	return filter.Of(all), true
}

// Numbers of HAProxy's file of servers' states (configuration manual, "load-server-state-from-file").
const (
	stopped, running = 0, 2
	// forcedMaint and forcedDrain are an administrator's orders.
	forcedMaint, forcedDrain = 1, 8
	// configured and enabled say it of a check, paused that none is made as long as the server is in maintenance.
	configured, enabled, paused = 2, 4, 8
)

// checks numbers the results of checks, as HAProxy does.
var checks = []string{"UNK", "INI", "", "", "HANA", "SOCKERR", "L4OK", "L4TOUT", "L4CON", "L6OK", "L6TOUT", "L6RSP", "L7TOUT", "L7RSP", "", "L7OK", "L7OKC", "L7STS"}

func (c *call) showServersState() {
	rows, found := c.servers()
	if !found {
		return
	}
	c.say("1")
	c.say("# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port")
	for i := range rows {
		r := &rows[i]
		host, port, err := net.SplitHostPort(r.Server.Address)
		if err != nil {
			host, port = r.Server.Address, "0"
		}
		state, order := r.State(), 0
		switch state {
		case statistics.Maint:
			order = forcedMaint
		case statistics.Drain:
			order = forcedDrain
		}
		if r.Server.Order != nil && r.Server.Order.State == api.Drain {
			order = forcedDrain
		}
		operates := running
		if state == statistics.Down || state == statistics.Maint {
			operates = stopped
		}
		// Of a server without a check the health is that of one that passed.
		status, result, health, checking := 1, 0, 1, 0
		if check := r.Server.LastCheck; check != nil {
			status, health, checking = max(0, slices.Index(checks, check.Status)), check.Health, configured|enabled
			switch {
			case check.Status == "INI":
			case strings.HasSuffix(check.Status, "OK"):
				result = 3
			default:
				result = 2
			}
			if state == statistics.Maint {
				checking |= paused
			}
		}
		c.say(fmt.Sprintf("%d %s %d %s %s %d %d %d %d %d %d %d %d %d 0 0 0 - %s - 0 0 - - 0", r.ID, r.Proxy, r.ServerID, r.Name, host, operates, order,
			r.Server.Weight, r.Server.DeclaredWeight, statistics.Named("lastchg").Of(r).Number, status, result, health, checking, port))
	}
}

func (c *call) showServersConn() {
	rows, found := c.servers()
	if !found {
		return
	}
	c.say("# bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est unsafe_nb safe_nb idle_lim idle_cur idle_per_thr[1]")
	for _, r := range rows {
		host, port, err := net.SplitHostPort(r.Server.Address)
		if err != nil {
			host, port = r.Server.Address, "0"
		}
		c.say(fmt.Sprintf("%s/%s %d/%d %s %s - 0 %d %d %d 0 0 -1 0 0", r.Proxy, r.Name, r.ID, r.ServerID, host, port, r.Server.Sessions, r.Server.SessionsMax, r.Server.Sessions))
	}
}

// showSessions shows sessions a line each. HAProxy's lines go on with what its threads and buffers do.
func (c *call) showSessions() {
	var filter api.SessionFilter
	if one := c.arg(0); one != "" && one != "all" {
		id, err := strconv.ParseUint(one, 0, 64)
		if err != nil || id == 0 {
			c.say("Session not found.")
			return
		}
		filter.ID = id
	}
	found, err := c.d.Sessions(filter)
	if err != nil {
		c.say(err.Error())
		return
	}
	if filter.ID != 0 && len(found.Sessions) == 0 {
		c.say("Session not found.")
		return
	}
	for _, s := range found.Sessions {
		proto := "tcpv4"
		if strings.HasPrefix(s.Client, "[") {
			proto = "tcpv6"
		}
		age := max(0, found.Now.Sub(s.Began)).Truncate(time.Second)
		c.say(fmt.Sprintf("%#x: proto=%s src=%s fe=%s be=%s srv=%s age=%s local=%s dst=%s in=%d out=%d", s.ID, proto, s.Client, s.Service, s.Service, s.Member,
			short(age), s.Local, s.Server, s.ToServer, s.ToClient))
	}
	if found.More > 0 {
		c.say(fmt.Sprintf("# %d more aren't shown", found.More))
	}
}

// short is a length of time in its two greatest units: 2m3s, 1d4h.
func short(d time.Duration) string {
	s := int64(d / time.Second)
	switch {
	case s >= 86400:
		return fmt.Sprintf("%dd%dh", s/86400, s%86400/3600)
	case s >= 3600:
		return fmt.Sprintf("%dh%dm", s/3600, s%3600/60)
	case s >= 60:
		return fmt.Sprintf("%dm%ds", s/60, s%60)
	}
	return fmt.Sprintf("%ds", s)
}
