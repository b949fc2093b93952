package runtime

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// level is what a client may do, HAProxy's three.
type level int

const (
	user level = iota
	operator
	admin
)

func (l level) String() string { return [...]string{"user", "operator", "admin"}[l] }

// call is a command that is carried out.
type call struct {
	*client
	ctx context.Context
	// args are the words behind the command's own.
	args []string
}

// arg is the word of that number behind the command; empty if there are fewer.
func (c *call) arg(i int) string {
	if i >= len(c.args) {
		return ""
	}
	return c.args[i]
}

// command is one that is known.
type command struct {
	// words are its own, usage what may follow them, about what it does.
	words, usage, about string
	level               level
	run                 func(*call)
}

// commands are all that there are, in the order in which they are listed. They are set by init, since `help` lists them.
var commands []command

func init() {
	commands = []command{
		{"clear counters", "[all]", "refused: counters only rise", admin, refuse("Counters only rise, so that rates are right whoever reads them. They begin anew with the process.")},
		{"disable agent", "<service>/<server>", "nothing: there are no agents", admin, (*call).disableAgent},
		{"disable health", "<service>/<server>", "refused: checks always run", admin, (*call).disableHealth},
		{"disable server", "<service>/<server>", "maintenance: no new clients, sessions end", admin, (*call).disableServer},
		{"enable agent", "<service>/<server>", "refused: there are no agents", admin, (*call).enableAgent},
		{"enable health", "<service>/<server>", "nothing: checks always run", admin, (*call).enableHealth},
		{"enable server", "<service>/<server>", "ready: takes clients if it is up", admin, (*call).enableServer},
		{"get weight", "<service>/<server>", "its weight, and the declared one", user, (*call).getWeight},
		{"help", "[<command>]", "this list, or the part of it that begins so", user, (*call).help},
		{"operator", "", "may not change anything any more", user, lower(operator)},
		{"prompt", "", "stay, and show a prompt; or no more", user, func(c *call) { c.prompting = !c.prompting }},
		{"quit", "", "close the connection", user, func(c *call) { c.done = true }},
		{"set server", "<service>/<server> state|weight ...", "ready, drain or maint; or its weight", admin, (*call).setServer},
		{"set timeout", "cli <time>", "how long this client may be silent", user, (*call).setTimeout},
		{"set weight", "<service>/<server> <n>|<n>%", "its weight, or a part of the declared one", admin, (*call).setWeight},
		{"show backend", "", "names of the services", user, (*call).showBackend},
		{"show cli level", "", "what this client may do", user, func(c *call) { c.say(c.level.String()) }},
		{"show env", "[<name>]", "nothing: the environment isn't shown", operator, func(*call) {}},
		{"show errors", "", "nothing: answers aren't looked into", operator, (*call).showErrors},
		{"show events", "", "refused: they are elsewhere", operator, refuse("There are no sinks of events. What happened is on the page and at the control address (GET /events).")},
		{"show info", "[desc|json|typed|float]*", "about the process", user, (*call).showInfo},
		{"show servers conn", "[<service>]", "connections to servers", operator, (*call).showServersConn},
		{"show servers state", "[<service>]", "states of servers", user, (*call).showServersState},
		{"show sess", "[<id>|all]", "sessions", operator, (*call).showSessions},
		{"show stat", "[<service>|<id> <kinds> <server>] [desc|json|no-maint|typed|up]*", "statistics of services and servers", user, (*call).showStat},
		{"show table", "[<name>]", "none: there are no stick tables", user, (*call).showTable},
		{"show version", "", "the HAProxy whose words these are, and pgporter's version", user, (*call).showVersion},
		{"shutdown session", "<id>", "end a session", admin, (*call).shutdownSession},
		{"shutdown sessions server", "<service>/<server>", "end all sessions of a server", admin, (*call).shutdownSessions},
		{"user", "", "may only look any more", user, lower(user)},
	}
	const declared = "change it in the inventory and reload (pgporter reload)"
	for words, about := range map[string]string{
		"add server":          "Servers follow from the inventory and from who is a member now: " + declared + ".",
		"del server":          "Servers follow from the inventory and from who is a member now: " + declared + ".",
		"disable frontend":    "A service is offered as long as it is declared: " + declared + ". Its servers can be drained.",
		"enable frontend":     "A service is offered as long as it is declared: " + declared + ".",
		"shutdown frontend":   "A service is offered as long as it is declared: " + declared + ". Its servers can be put in maintenance.",
		"set maxconn global":  "How many clients there may be follows from the limit of open files (systemd's LimitNOFILE).",
		"set maxconn server":  "A server's maxconn is declared: " + declared + ".",
		"set rate-limit":      "There are no limits of rates.",
		"set table":           "There are no stick tables.",
		"clear table":         "There are no stick tables.",
		"reload":              "pgporter reads its configuration again on SIGHUP (systemctl reload pgporter) and by pgporter reload.",
		"expert-mode":         "There are no commands for experts.",
		"experimental-mode":   "There are no experimental commands.",
		"set severity-output": "Answers have no severity.",
	} {
		commands = append(commands, command{words: words, level: admin, run: refuse(about)})
	}
	commands = append(commands, command{words: "set maxconn frontend", level: admin, run: (*call).setMaxconnFrontend})
	slices.SortFunc(commands, func(a, b command) int { return strings.Compare(a.words, b.words) })
}

// refuse is a command that can't be done here, and why.
func refuse(why string) func(*call) { return func(c *call) { c.say(why) } }

// find gives the command that the words begin with, the longest of several, and what is behind it; nil if there is none.
func find(args []string) (*command, []string) {
	var found *command
	length := 0
	for i := range commands {
		own := strings.Fields(commands[i].words)
		if len(own) > length && len(own) <= len(args) && slices.Equal(own, args[:len(own)]) {
			found, length = &commands[i], len(own)
		}
	}
	return found, args[length:]
}

// always are listed whatever was asked for.
var always = []string{"help", "prompt", "quit"}

// listed are the commands that a list shows: those that may be given, and of them those that begin with the words; all if none does.
func (c *client) listed(args []string) (shown []command, some bool) {
	begins := func(cmd command, n int) bool {
		own := strings.Fields(cmd.words)
		return len(own) >= n && slices.Equal(own[:n], args[:n])
	}
	for n := len(args); n > 0; n-- {
		for _, cmd := range commands {
			if cmd.about != "" && cmd.level <= c.level && begins(cmd, n) {
				shown = append(shown, cmd)
			}
		}
		if len(shown) > 0 {
			break
		}
	}
	some = len(shown) > 0
	for _, cmd := range commands {
		if cmd.about == "" || cmd.level > c.level || slices.ContainsFunc(shown, func(o command) bool { return o.words == cmd.words }) {
			continue
		}
		if !some || slices.Contains(always, cmd.words) {
			shown = append(shown, cmd)
		}
	}
	return shown, some
}

func (c *client) list(shown []command) {
	for _, cmd := range shown {
		c.say(fmt.Sprintf("  %-40s: %s", strings.TrimSpace(cmd.words+" "+cmd.usage), cmd.about))
	}
}

// usage answers words that are no command.
func (c *client) usage(args []string) {
	shown, some := c.listed(args)
	if some {
		c.say("Unknown command, but maybe one of the following ones is a better match:")
	} else {
		c.say("Unknown command. Please enter one of the following commands only:")
	}
	c.list(shown)
}

func (c *call) help() {
	shown, some := c.listed(c.args)
	switch {
	case len(c.args) == 0:
		c.say("The following commands are valid at this level:")
	case some:
		c.say("The following commands match your request:")
	default:
		c.say("The command doesn't exist. Valid commands are:")
	}
	c.list(shown)
}

// lower takes rights away.
func lower(to level) func(*call) {
	return func(c *call) { c.level = min(c.level, to) }
}

// forever is the longest time that a client may be silent: what HAProxy's can be at most.
const forever = time.Duration(1<<31-1) * time.Millisecond

// setTimeout takes a time as HAProxy does: a number with a unit, seconds without one.
func (c *call) setTimeout() {
	if c.arg(0) != "cli" {
		c.say("'set timeout' only supports 'cli'.")
		return
	}
	text := c.arg(1)
	if text == "" {
		c.say("Expects an integer value.")
		return
	}
	digits := len(text) - len(strings.TrimLeft(text, "0123456789"))
	units := map[string]time.Duration{"us": time.Microsecond, "ms": time.Millisecond, "": time.Second, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
	unit, known := units[text[digits:]]
	n, err := strconv.ParseInt(text[:digits], 10, 64)
	if err != nil || !known || n < 1 || n > int64(forever/unit) {
		c.say("Invalid timeout value.")
		return
	}
	c.idle = time.Duration(n) * unit
}
