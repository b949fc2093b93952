package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Where Pigsty's nodes have what it takes to speak to etcd.
const (
	etcdCAFile   = "/pg/cert/ca.crt"
	etcdCertFile = "/pg/cert/server.crt"
	etcdKeyFile  = "/pg/cert/server.key"
)

// flag reads a boolean of a host's.
func (p *planner) flag(h *inventory.Host, name string, otherwise bool) bool {
	v, set := p.variable(h, name)
	if !set {
		return otherwise
	}
	on, ok := v.Truth()
	if !ok {
		p.problems.Errorf(diag.NotBoolean, v.Pos(), "true or false", "%s is %s", name, v.Describe())
		return otherwise
	}
	return on
}

// text reads a text of a host's that has a form; want says what would be right. An empty one is as good as none. The result
// is empty if it can't be used.
func (p *planner) text(h *inventory.Host, name, otherwise, want string, form func(string) bool) string {
	v, set := p.variable(h, name)
	if !set {
		return otherwise
	}
	text, ok := v.Name()
	if v.Kind() == inventory.Null || ok && text == "" {
		return otherwise
	}
	if !ok || !form(text) {
		p.problems.Errorf(diag.TextInvalid, v.Pos(), want, "%s is %s", name, v.Describe())
		return ""
	}
	return text
}

var (
	userForm = regexp.MustCompile(`^[^\s,:]+$`)
	urlForm  = regexp.MustCompile(`^/[!-~]*$`)
)

func isUser(text string) bool { return userForm.MatchString(text) && safetext.Is(text) }

// secret reads a text that messages must not show. It is empty if it can't be used, or isn't to be read.
func (p *planner) secret(h *inventory.Host, name, otherwise string) model.Secret {
	if p.secretless {
		return ""
	}
	v, set := p.secretVariable(h, name)
	if !set {
		return model.Secret(otherwise)
	}
	text, ok := v.Name()
	if !ok || text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		p.problems.Errorf(diag.TextInvalid, v.Pos(), "a text of one line", "%s can't be used", name)
		return ""
	}
	return model.Secret(text)
}

// defaultPassword is the one of haproxy_admin_password that stands in Pigsty's documents.
const defaultPassword = "pigsty"

// base reads what a host's haproxy.cfg is made of. False if the host has no HAProxy.
func (p *planner) base(h *inventory.Host) (model.Base, bool) {
	if !p.flag(h, "haproxy_enabled", true) {
		return model.Base{}, false
	}
	b := model.Base{
		Node: p.nodeName(h), User: "haproxy", Group: "haproxy", PIDFile: "/var/run/haproxy.pid", Socket: "/var/run/haproxy.sock",
		ClientTimeout: p.timeout(h, "haproxy_client_timeout"), ServerTimeout: p.timeout(h, "haproxy_server_timeout"),
		StatsIP: "*", StatsPort: p.number(h, "haproxy_exporter_port", 9101, 1, 65535),
		MetricsPath: p.text(h, "exporter_metrics_path", "/metrics", "a path, as in /metrics", urlForm.MatchString),
		Auth:        p.flag(h, "haproxy_auth_enabled", true),
	}
	if b.Auth {
		b.AdminUser = p.text(h, "haproxy_admin_username", "admin", "a name without blanks, commas and colons", isUser)
		b.AdminPassword = p.secret(h, "haproxy_admin_password", defaultPassword)
		p.passwordDefault(h, b.AdminPassword)
	}
	return b, true
}

// passwordDefault tells of a password of the page that everybody knows.
func (p *planner) passwordDefault(h *inventory.Host, password model.Secret) {
	if password != defaultPassword {
		return
	}
	pos := diag.Position{File: p.inv.File}
	if at, set := h.Position("haproxy_admin_password"); set {
		pos = at
	}
	p.problems.Warnf(diag.PasswordDefault, pos, "a password of your own", "haproxy_admin_password is Pigsty's default, which everybody knows")
}

// nodeName is what Pigsty calls a host: nodename, or the instance's name, or the host's.
func (p *planner) nodeName(h *inventory.Host) string {
	name := strings.ReplaceAll(h.Name, ":", "-")
	if c, isMember := p.of[h]; isMember && p.flag(h, "node_id_from_pg", true) {
		for _, m := range p.declared(c) {
			if m.host == h {
				name = m.Name
			}
		}
	}
	return p.text(h, "nodename", name, "letters, digits, dashes, dots and underscores", model.IsName)
}

func (p *planner) timeout(h *inventory.Host, name string) string {
	const otherwise = "24h"
	v, set := p.variable(h, name)
	if !set {
		return otherwise
	}
	text, _ := v.Name()
	text = inMilliseconds(text)
	if d, err := model.ParseTime(text); err != nil || d <= 0 {
		p.problems.Errorf(diag.TimeInvalid, v.Pos(), "a time as in 24h or 500ms", "%s is %s", name, v.Describe())
		return otherwise
	}
	return text
}

// statsPort tells of services that are where the statistics page is to be.
func (p *planner) statsPort(h *inventory.Host, b model.Base, plan model.Plan) {
	pos := h.Pos
	if at, set := h.Position("haproxy_exporter_port"); set {
		pos = at
	}
	taken := func(name, ip string, port int) {
		if port == b.StatsPort {
			p.problems.Errorf(diag.PortTaken, pos, "a port of its own", "haproxy_exporter_port %d of %s is the port of service %q", port, h.Name, name)
		}
	}
	for _, c := range plan.Clusters {
		for _, d := range c.Definitions {
			taken(d.FullName, d.IP, d.Port)
		}
	}
	for _, g := range plan.TCPServices {
		taken(g.Name, g.IP, g.Port)
	}
}

// virtual reads a host's virtual address. False if it has none, or none that can be used.
func (p *planner) virtual(h *inventory.Host) (address netip.Prefix, enabled, ok bool) {
	if !p.flag(h, "pg_vip_enabled", false) {
		return netip.Prefix{}, false, false
	}
	const want = "an address with the length of its network, as in 10.10.10.2/24"
	v, set := p.variable(h, "pg_vip_address")
	if !set {
		pos, _ := h.Position("pg_vip_enabled")
		p.problems.Errorf(diag.VIPWithoutAddress, pos, want, "pg_vip_enabled without a pg_vip_address")
		return netip.Prefix{}, true, false
	}
	text, _ := v.Text()
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		// Pigsty takes 24 bits for an address without them.
		bare, bareErr := netip.ParseAddr(text)
		if bareErr != nil || !bare.Is4() {
			p.problems.Errorf(diag.VIPAddressInvalid, v.Pos(), want, "pg_vip_address is %s", v.Describe())
			return netip.Prefix{}, true, false
		}
		prefix = netip.PrefixFrom(bare, 24)
	}
	return prefix, true, true
}

// vip reads what vip-manager on a member is configured with. False if the member has no virtual address, or if the inventory
// doesn't say enough.
func (p *planner) vip(c *cluster, m member) (model.VIP, bool) {
	h := m.host
	address, _, ok := p.virtual(h)
	if !ok || !p.ownAddress(c, h, address) {
		return model.VIP{}, false
	}
	device := p.text(h, "pg_vip_interface", "auto", "the name of a network interface, as in eth0", model.IsInterface)
	if device == "" {
		return model.VIP{}, false
	}
	if strings.EqualFold(device, "auto") {
		pos, set := h.Position("pg_vip_interface")
		if !set {
			pos, _ = h.Position("pg_vip_enabled")
		}
		p.problems.Warnf(diag.VIPInterfaceAuto, pos, "the interface's name, as in eth0", "pg_vip_interface is auto, which only the node itself can settle: no vip-manager.yml for cluster %q", c.name)
		return model.VIP{}, false
	}
	pos, _ := h.Position("pg_vip_enabled")
	store, keys := p.store(h), p.keys(c, h)
	switch {
	case len(store.Endpoints) == 0:
		p.problems.Warnf(diag.VIPWithoutEtcd, pos, "a group etcd with hosts", "there is no group etcd, whose leader key decides who has the address: no vip-manager.yml for cluster %q", c.name)
		return model.VIP{}, false
	case p.ownEtcd(h) && keys.user != "":
		p.problems.Warnf(diag.VIPWithoutEtcd, pos, "run --vip on the members, or a vip-manager.yml of your own", "the password of pgporter_etcd_user is in files of the nodes: no vip-manager.yml for cluster %q", c.name)
		return model.VIP{}, false
	}
	password := model.Secret("")
	if !p.ownEtcd(h) {
		password = p.etcdPassword(h, keys.user)
	}
	return model.VIP{
		Address: address.Addr().String(), Bits: address.Bits(), Interface: device,
		TriggerKey: keys.path() + "/leader", TriggerValue: m.Name,
		Endpoints: store.Endpoints, CAFile: store.CAFile, CertFile: store.CertFile, KeyFile: store.KeyFile, User: keys.user, Password: password,
	}, true
}

// etcdPassword is pg_etcd_password, or the user's name where that is empty, as in Pigsty.
func (p *planner) etcdPassword(h *inventory.Host, user string) model.Secret {
	if v, set := p.templates.Own(h, "pg_etcd_password"); set && !p.secretless {
		if text, isText := v.Text(); v.Kind() == inventory.Null || isText && text == "" {
			return model.Secret(user)
		}
	}
	return p.secret(h, "pg_etcd_password", user)
}

// etcd gives the URLs of the group etcd, sorted by their hosts as Pigsty sorts them.
func (p *planner) etcd() []string {
	group, exists := p.inv.Group("etcd")
	if !exists {
		return nil
	}
	if p.endpoints == nil {
		hosts := slices.SortedFunc(slices.Values(group.Hosts()), func(a, b *inventory.Host) int { return cmp.Compare(a.Name, b.Name) })
		p.endpoints = make([]string, 0, len(hosts))
		for _, h := range hosts {
			name := h.Name
			if strings.Contains(name, ":") {
				name = "[" + name + "]"
			}
			p.endpoints = append(p.endpoints, fmt.Sprintf("https://%s:%d", name, p.number(h, "etcd_port", 2379, 1, 65535)))
		}
	}
	return p.endpoints
}

// records gives the names of a cluster: one of each member, and the cluster's own with pg_dns_suffix, which stands for what
// pg_dns_target says on its primary. files are what Pigsty calls the file of each: the member's name, the cluster's.
func (p *planner) records(c *cluster) (records []model.Record, files []string) {
	primary := ""
	for _, m := range p.declared(c) {
		if _, err := netip.ParseAddr(m.Host); err != nil {
			continue
		}
		records = append(records, model.Record{Name: m.Name, Address: m.Host})
		files = append(files, m.Name)
		if m.host == p.viewpoint(c) {
			primary = m.Host
		}
	}
	h := p.viewpoint(c)
	target := p.dnsTarget(c, h, primary)
	if target == "" {
		return records, files
	}
	before := len(p.problems)
	suffix := p.text(h, "pg_dns_suffix", "", "letters, digits, dashes and dots", model.IsSuffix)
	if len(p.problems) > before {
		return records, files
	}
	return append(records, model.Record{Name: c.name + suffix, Address: target}), append(files, c.name)
}

// dnsTarget is the address that the cluster's name stands for; empty for none.
func (p *planner) dnsTarget(c *cluster, h *inventory.Host, primary string) string {
	const want = "auto, primary, vip, none or an address"
	target := "auto"
	v, set := p.variable(h, "pg_dns_target")
	if set && v.Kind() != inventory.Null {
		text, isText := v.Text()
		if !isText {
			p.problems.Errorf(diag.DNSTargetInvalid, v.Pos(), want, "pg_dns_target is %s", v.Describe())
			return ""
		}
		target = text
	}
	switch target {
	case "primary":
		return primary
	case "none", "":
		return ""
	case "auto", "vip":
		address, enabled, ok := p.virtual(h)
		switch {
		case ok:
			return address.Addr().String()
		case !enabled && target == "auto":
			return primary
		case !enabled:
			p.problems.Warnf(diag.DNSTargetWithoutVIP, v.Pos(), "pg_vip_enabled: true, or another target", "pg_dns_target is vip, but cluster %q has no virtual address: its name isn't registered", c.name)
		}
		return ""
	}
	if prefix, err := netip.ParsePrefix(target); err == nil {
		return prefix.Addr().String()
	}
	address, err := netip.ParseAddr(target)
	if err != nil || address.Zone() != "" {
		p.problems.Errorf(diag.DNSTargetInvalid, v.Pos(), want, "pg_dns_target is %s", v.Describe())
		return ""
	}
	return address.String()
}
