package plan

import (
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// defaultNamespace is where Pigsty has Patroni keep its keys in etcd.
const defaultNamespace = "/pg"

// keys are where a cluster's keys are in etcd, and whose account reads them.
type keys struct{ namespace, scope, user string }

// path is where the keys are.
func (k keys) path() string { return k.namespace + "/" + k.scope }

// keys reads where the keys of a cluster are, as a host of it says. The scope of a Citus cluster's group is the shard's name and
// the group's number, and its account is the shard's.
func (p *planner) keys(c *cluster, h *inventory.Host) keys {
	k := keys{scope: c.name, user: c.name}
	if p.ownEtcd(h) {
		k.user = p.text(h, "pgporter_etcd_user", "", "letters, digits, dashes, dots and underscores", model.IsName)
	}
	isNamespace := func(text string) bool { return model.IsKeyPath(strings.TrimSuffix(text, "/")) }
	k.namespace = strings.TrimSuffix(p.text(h, "pg_namespace", defaultNamespace, "a path in etcd, as in /pg", isNamespace), "/")
	if mode, set := p.variable(h, "pg_mode"); set {
		if text, _ := mode.Text(); text == "citus" {
			k.user = p.text(h, "pg_shard", c.name, "letters, digits and dashes", model.IsClusterName)
			k.scope = k.user + "/" + strconv.Itoa(p.number(h, "pg_group", 0, 0, 1<<31-1))
		}
	}
	isScope := func(text string) bool { return model.IsKeyPath("/" + text) }
	k.scope = p.text(h, "pgporter_scope", k.scope, "Patroni's scope, or for a group of a Citus cluster a scope and a number, as in citus/0", isScope)
	return k
}

// keyPath is where a cluster's keys are; empty where that goes without saying.
func (p *planner) keyPath(c *cluster) string {
	if p.keyless {
		return ""
	}
	k := p.keys(c, p.viewpoint(c))
	if k == (keys{defaultNamespace, c.name, c.name}) {
		return ""
	}
	return k.path()
}

// ownEtcd tells whether a host says itself where etcd is, with pgporter_etcd_endpoints, this program's own variable.
func (p *planner) ownEtcd(h *inventory.Host) bool {
	_, set := h.Position("pgporter_etcd_endpoints")
	return set
}

// store is the etcd that the keys of a host's cluster are in, with what its TLS takes: the one that pgporter_etcd_endpoints and its like
// name, or the hosts of the group etcd with the certificates that Pigsty gives to its nodes. It has no endpoints where there is none.
func (p *planner) store(h *inventory.Host) model.Etcd {
	if !p.ownEtcd(h) {
		return model.Etcd{Endpoints: p.etcd(), CAFile: etcdCAFile, CertFile: etcdCertFile, KeyFile: etcdKeyFile}
	}
	const want = "a path that begins with /"
	isFile := func(text string) bool { return path.IsAbs(text) && safetext.Is(text) }
	e := model.Etcd{
		CAFile:   p.text(h, "pgporter_etcd_ca_file", "", want, isFile),
		CertFile: p.text(h, "pgporter_etcd_cert_file", "", want, isFile),
		KeyFile:  p.text(h, "pgporter_etcd_key_file", "", want, isFile),
	}
	v, _ := p.variable(h, "pgporter_etcd_endpoints")
	if v.Kind() != inventory.List && v.Kind() != inventory.Null {
		p.problems.Errorf(diag.WrongType, v.Pos(), "a list of URLs, as in [https://10.10.10.31:2379]", "pgporter_etcd_endpoints is %s", v.Describe())
	}
	for _, item := range v.Items() {
		text, _ := item.Text()
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.TrimSuffix(u.Path, "/")+u.RawQuery+u.Fragment != "" || !safetext.Is(text) {
			p.problems.Errorf(diag.AddressInvalid, item.Pos(), "a URL, as in https://10.10.10.31:2379", "one of pgporter_etcd_endpoints is %s", item.Describe())
			continue
		}
		e.Endpoints = append(e.Endpoints, text)
	}
	return e
}

// etcdOf gives how a host reads the keys of each cluster that it carries or is a member of, by the clusters' names. It is empty where
// nothing is said of etcd.
func (p *planner) etcdOf(h *inventory.Host) map[string]model.Etcd {
	access := map[string]model.Etcd{}
	clusters := p.delegatedTo(h)
	if own, isMember := p.of[h]; isMember {
		clusters = append([]*cluster{own}, clusters...)
	}
	for _, c := range clusters {
		at := p.viewpoint(c)
		e := p.store(at)
		if len(e.Endpoints) == 0 {
			continue
		}
		e.User = p.keys(c, at).user
		switch {
		case !p.ownEtcd(at):
			e.Password = p.etcdPassword(at, e.User)
		case e.User != "":
			e.PasswordFile = model.EtcdPasswordFile(e.User)
		}
		access[c.name] = e
	}
	if len(access) == 0 {
		return nil
	}
	return access
}
