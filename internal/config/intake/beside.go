package intake

import (
	"path"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
)

// file checks everything of a plan's file but its checksum.
func (c *checker) file(f *File) {
	c.plan(f.Plan)
	for name, e := range f.Etcd {
		c.path = "etcd." + name
		c.etcd(name, e)
	}
	if c.path = "haproxy"; f.Base != nil {
		c.base(*f.Base)
		c.haproxy(f.Plan)
	} else {
		c.native(f.Plan)
	}
	if c.path = "page"; f.Page != nil {
		c.page(*f.Page)
		c.that(f.Base == nil, "page: HAProxy has the address: a plan has a page or haproxy")
	}
	c.path = "made"
	c.that(remark(f.Made.By), "made.by: printable text of at most %d bytes", MaxRemark)
	c.that(remark(f.Made.From), "made.from: printable text of at most %d bytes", MaxRemark)
	if a := f.Accepted; a != nil {
		c.path = "accepted"
		c.that(!slices.ContainsFunc([]string{a.Source, a.Sender, a.From, a.File}, func(text string) bool { return !remark(text) }),
			"accepted: printable texts of at most %d bytes", MaxRemark)
	}
}

// etcd checks how a cluster's keys are read. The password's file is one that says nothing of the node's but etcd's password: what
// is in it is shown to whoever is at the endpoints.
func (c *checker) etcd(name string, e model.Etcd) {
	within := "etcd of " + name
	c.that(model.IsClusterName(name), "etcd of %q: a cluster's name", name)
	c.that(len(e.Endpoints) > 0, "%s: endpoints are missing", within)
	for _, at := range e.Endpoints {
		c.that(strings.HasPrefix(at, "http://") || strings.HasPrefix(at, "https://"), "%s: endpoint %q: a URL, as in https://10.10.10.10:2379", within, at)
		c.line(within+": endpoints", at)
	}
	for _, file := range []string{e.CAFile, e.CertFile, e.KeyFile} {
		c.that(file == "" || path.IsAbs(file), "%s: file %q: a path that begins with /", within, file)
		c.line(within+": files", file)
	}
	c.that(e.User == "" || model.IsName(e.User), "%s: user is %q: letters, digits, dashes, dots and underscores", within, e.User)
	c.passwordFile(within, e.PasswordFile)
}

func (c *checker) passwordFile(within, file string) {
	c.that(file == "" || model.IsPasswordFile(file), "%s: password_file is %q: a file /etc/pgporter/NAME.password, or one that a flag of run names", within, file)
}

// base checks what haproxy.cfg is made of. Whoever renders it sees to it that a value doesn't leave its line.
func (c *checker) base(b model.Base) {
	const within = "haproxy"
	c.that(model.IsName(b.Node), "%s: node is %q: letters, digits, dashes, dots and underscores", within, b.Node)
	for _, t := range []struct{ what, text string }{{"client_timeout", b.ClientTimeout}, {"server_timeout", b.ServerTimeout}} {
		d, err := model.ParseTime(t.text)
		c.that(err == nil && d > 0, "%s: %s is %q: a time as in 24h", within, t.what, t.text)
	}
	c.that(b.StatsIP == "*" || model.IsAddress(b.StatsIP), `%s: stats_ip is %q: an address, or "*" for every address of the node`, within, b.StatsIP)
	c.port(within+": stats_port", b.StatsPort)
	c.that(b.MaxConn >= 0, "%s: maxconn is %d: 0 or more", within, b.MaxConn)
	c.that(strings.HasPrefix(b.MetricsPath, "/"), "%s: metrics_path is %q: a path", within, b.MetricsPath)
	c.that(!b.Auth || b.AdminUser != "", "%s: admin_user is missing", within)
	for _, text := range []string{b.User, b.Group, b.PIDFile, b.Socket, b.StateFile, b.HardStopAfter, b.MetricsPath, b.AdminUser} {
		c.line(within, text)
	}
	c.passwordFile(within, b.PasswordFile)
}

// page checks where pgporter answers in HAProxy's place.
func (c *checker) page(p model.Page) {
	const within = "page"
	c.that(model.IsName(p.Node), "%s: node is %q: letters, digits, dashes, dots and underscores", within, p.Node)
	c.that(p.IP == "*" || model.IsAddress(p.IP), `%s: ip is %q: an address, or "*" for every address of the node`, within, p.IP)
	c.port(within+": port", p.Port)
	c.that(strings.HasPrefix(p.MetricsPath, "/"), "%s: metrics_path is %q: a path", within, p.MetricsPath)
	c.that(!p.Actions || p.User != "", "%s: user is missing", within)
	c.line(within, p.MetricsPath)
	c.line(within, p.User)
	c.passwordFile(within, p.PasswordFile)
}
