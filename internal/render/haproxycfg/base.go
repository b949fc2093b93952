package haproxycfg

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// Base renders haproxy.cfg: what holds for the process and for every service, and the page with statistics and metrics.
//
// That HAProxy runs as master and workers, so that a reload keeps connections, is said where it is started (-W or -Ws): the
// keyword for it is gone from HAProxy 3.5. The page is read-only without the administrator's
// password, and can't be read without it either unless b.Auth is off.
func Base(c model.Base) (string, error) {
	b := &builder{}
	b.WriteString(stamp.Stamp{Kind: stamp.HAProxy, File: BaseFile}.Line())
	b.section("Global settings")
	b.WriteString("global\n")
	b.optional("user", c.User)
	b.optional("group", c.Group)
	b.line("node %s", b.name("node", c.Node))
	b.optional("pidfile", c.PIDFile)
	if c.Socket != "" {
		b.line("stats socket %s mode 600 level admin expose-fd listeners", b.quote("socket", c.Socket))
	}
	b.optional("server-state-file", c.StateFile)
	b.optional("hard-stop-after", c.HardStopAfter)
	b.line("maxconn %d", cmp.Or(c.MaxConn, 65535))

	b.section("Defaults of every service")
	b.WriteString("defaults\n")
	b.line("mode tcp")
	b.line("retries 3")
	b.line("timeout queue 3s")
	b.line("timeout connect 3s")
	b.line("timeout client %s", b.time("haproxy_client_timeout", c.ClientTimeout))
	b.line("timeout server %s", b.time("haproxy_server_timeout", c.ServerTimeout))
	b.line("timeout check 3s")
	if c.StateFile != "" {
		b.line("load-server-state-from-file global")
	}

	if c.Auth {
		b.section("Who may use the page")
		if strings.Contains(c.AdminUser, ",") {
			b.fail("admin user %q: a name without a comma", c.AdminUser)
		}
		user := b.quote("admin user", c.AdminUser)
		b.WriteString("userlist stats-auth\n")
		b.line("group admin users %s", user)
		b.line("user %s insecure-password %s", user, b.quote("admin password", c.AdminPassword.Reveal()))
	}

	b.section("Statistics and metrics")
	b.WriteString("listen stats\n")
	b.line("bind %s", b.bind(c.StatsIP, c.StatsPort))
	b.line("mode http")
	b.line("stats enable")
	b.line("stats hide-version")
	b.line("stats uri /haproxy/%s/", c.Node)
	b.line("stats refresh 30s")
	b.line("stats show-node")
	if c.Auth {
		b.line("acl AUTH http_auth(stats-auth)")
		b.line("acl AUTH_ADMIN http_auth_group(stats-auth) admin")
		b.line("stats http-request auth unless AUTH")
		b.line("stats admin if AUTH_ADMIN")
	}
	b.line("http-request use-service prometheus-exporter if { path %s }", b.quote("metrics path", c.MetricsPath))
	if b.err != nil {
		return "", fmt.Errorf("%s: %w", BaseFile, b.err)
	}
	return b.String(), nil
}

func (b *builder) section(title string) {
	b.WriteString("\n" + rule + "# " + title + "\n" + rule)
}

func (b *builder) optional(directive, value string) {
	if value != "" {
		b.line("%s %s", directive, b.quote(directive, value))
	}
}

func (b *builder) time(what, text string) string {
	if d, err := model.ParseTime(text); err != nil {
		b.fail("%s %w", what, err)
	} else if d <= 0 {
		b.fail("%s is %q; more than nothing", what, text)
	}
	return text
}
