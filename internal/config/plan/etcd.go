package plan

import (
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
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
	isNamespace := func(text string) bool { return model.IsKeyPath(strings.TrimSuffix(text, "/")) }
	k.namespace = strings.TrimSuffix(p.text(h, "pg_namespace", defaultNamespace, "a path in etcd, as in /pg", isNamespace), "/")
	if mode, set := p.variable(h, "pg_mode"); set {
		if text, _ := mode.Text(); text == "citus" {
			k.user = p.text(h, "pg_shard", c.name, "letters, digits and dashes", model.IsClusterName)
			k.scope = k.user + "/" + strconv.Itoa(p.number(h, "pg_group", 0, 0, 1<<31-1))
		}
	}
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

// etcdOf gives how a host reads the keys of each cluster that it carries or is a member of, by the clusters' names: at the
// hosts of the group etcd, with the certificates that Pigsty gives to its nodes, by the cluster's own account. It is empty
// where there is no such group.
func (p *planner) etcdOf(h *inventory.Host) map[string]model.Etcd {
	endpoints := p.etcd()
	if len(endpoints) == 0 {
		return nil
	}
	access := map[string]model.Etcd{}
	clusters := p.delegatedTo(h)
	if own, isMember := p.of[h]; isMember {
		clusters = append([]*cluster{own}, clusters...)
	}
	for _, c := range clusters {
		at := p.viewpoint(c)
		user := p.keys(c, at).user
		access[c.name] = model.Etcd{Endpoints: endpoints, CAFile: etcdCAFile, CertFile: etcdCertFile, KeyFile: etcdKeyFile, User: user, Password: p.etcdPassword(at, user)}
	}
	return access
}
