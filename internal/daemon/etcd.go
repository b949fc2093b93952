package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"reflect"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/monitor/cluster"
	"github.com/pgporter/pgporter/internal/monitor/etcd"
)

// DefaultNamespace is where Pigsty has Patroni keep its keys in etcd.
const DefaultNamespace = "/pg"

// DefaultHoldPrefix is below which pgporter's own keys are.
const DefaultHoldPrefix = etcd.HoldPrefix

// Etcd says where Patroni's keys are and how to read them. What is empty is as the configuration says.
type Etcd struct {
	// Endpoints, CAFile, CertFile, KeyFile and User are as in etcd.Config.
	Endpoints                 []string
	CAFile, CertFile, KeyFile string
	User                      string
	// PasswordFile holds the user's password in its first line. It is read for each connection.
	PasswordFile string
	// Namespace is the path below which clusters have their keys.
	Namespace string
	// HoldPrefix is the path below which pgporter's own keys are: orders to hold a cluster.
	HoldPrefix string
}

// silent tells whether nothing is said.
func (e Etcd) silent() bool {
	return len(e.Endpoints) == 0 && e.CAFile+e.CertFile+e.KeyFile+e.User+e.PasswordFile+e.Namespace+e.HoldPrefix == ""
}

// LeaderKeys says how the leader keys of the clusters that are served are watched: as the configuration declares it
// (Loaded.Etcd), unless something else was said at the start, which then holds for every cluster.
type LeaderKeys struct{ said Etcd }

// NewLeaderKeys checks what was said and connects to nobody. The error lists every problem.
func NewLeaderKeys(said Etcd) (*LeaderKeys, error) {
	var err error
	if len(said.Endpoints) > 0 {
		_, err = etcd.New(said.config(model.Etcd{}))
	}
	if said.Namespace != "" && !strings.HasPrefix(said.Namespace, "/") {
		err = errors.Join(err, fmt.Errorf("namespace %q: a path that begins with /, such as %s", said.Namespace, DefaultNamespace))
	}
	if said.HoldPrefix != "" && !strings.HasPrefix(said.HoldPrefix, "/") {
		err = errors.Join(err, fmt.Errorf("prefix %q of orders: a path that begins with /, such as %s", said.HoldPrefix, etcd.HoldPrefix))
	}
	if err != nil {
		return nil, err
	}
	return &LeaderKeys{said}, nil
}

// config is what was said, and declared where nothing was. Endpoints that were said are another etcd than the declared one:
// nothing of that holds for it.
func (e Etcd) config(declared model.Etcd) etcd.Config {
	if len(e.Endpoints) > 0 {
		declared = model.Etcd{Endpoints: e.Endpoints}
	}
	cfg := etcd.Config{
		Endpoints: declared.Endpoints, User: cmp.Or(e.User, declared.User),
		CAFile: cmp.Or(e.CAFile, declared.CAFile), CertFile: cmp.Or(e.CertFile, declared.CertFile), KeyFile: cmp.Or(e.KeyFile, declared.KeyFile),
	}
	switch {
	case e.PasswordFile != "":
		cfg.Password = func() (string, error) { return FirstLine(e.PasswordFile) }
	case declared.Password != "":
		cfg.Password = func() (string, error) { return declared.Password.Reveal(), nil }
	case declared.PasswordFile != "":
		cfg.Password = func() (string, error) { return FirstLine(declared.PasswordFile) }
	}
	return cfg
}

// fits refuses a configuration without etcd where it was said how its etcd is to be read.
func (k *LeaderKeys) fits(l Loaded) error {
	if k == nil || k.said.silent() || len(k.said.Endpoints) > 0 || l.Sent != nil || len(l.Etcd) > 0 {
		return nil
	}
	return errors.New("it was said how etcd is to be read, but neither where it is nor is there a group etcd in the inventory")
}

// pathOf is where a cluster has its keys. A namespace that was said goes before the declared one.
func (k *LeaderKeys) pathOf(c model.Cluster) string {
	if c.KeyPath == "" {
		return strings.TrimRight(cmp.Or(k.said.Namespace, DefaultNamespace), "/") + "/" + c.Name
	}
	if k.said.Namespace == "" {
		return c.KeyPath
	}
	scope := path.Base(c.KeyPath)
	if _, err := strconv.Atoi(scope); err == nil && scope != c.Name && strings.Count(c.KeyPath, "/") > 2 {
		// A group of a Citus cluster: its shard and its number.
		scope = path.Base(path.Dir(c.KeyPath)) + "/" + scope
	}
	return strings.TrimRight(k.said.Namespace, "/") + "/" + scope
}

// watcher gives what follows a cluster's keys; it is called whenever that might have become another one.
type watcher func(c model.Cluster) cluster.Keys

// watcherFor makes the watcher of one cluster's loop. As long as nothing has changed it gives the same Keys again. Keys that
// can't be watched are no reason not to serve: the checks decide as they do without etcd. next is what is said of etcd by the
// configuration that the cluster comes with, which counts until that is the running one.
func (d *Daemon) watcherFor(next map[string]model.Etcd) watcher {
	k := d.cfg.LeaderKeys
	if k == nil {
		return nil
	}
	var path string
	var declared model.Etcd
	var had cluster.Keys
	return func(c model.Cluster) cluster.Keys {
		d.mu.Lock()
		etcds := d.etcd
		if d.running[c.Name] == nil {
			etcds = next
		}
		d.mu.Unlock()
		now, known := etcds[c.Name]
		at := k.pathOf(c)
		switch {
		case len(k.said.Endpoints) == 0 && !known:
			had = nil
			return nil
		case had != nil && at == path && reflect.DeepEqual(now, declared):
			return had
		}
		path, declared, had = at, now, nil
		client, err := etcd.New(k.said.config(declared))
		if err != nil {
			d.log.Warn("the leader key isn't watched, the checks decide alone; reload when this is mended", "cluster", c.Name, "error", err)
			return nil
		}
		d.log.Log(d.loopCtx, slog.LevelDebug, "the leader key is watched", "cluster", c.Name, "key", at+"/leader")
		w := client.Watch(at)
		if d.canHold() {
			w.Orders(etcd.HoldKey(cmp.Or(k.said.HoldPrefix, etcd.HoldPrefix), c.Name), (&obedient{daemon: d, cluster: c.Name}).take)
		}
		had = w
		return had
	}
}

// etcdOf is what a configuration says of etcd. A plan that was sent says nothing of it: what was said before holds.
func (d *Daemon) etcdOf(l Loaded) map[string]model.Etcd {
	if l.Sent != nil {
		return d.etcd
	}
	return l.Etcd
}

// FirstLine is the first line of a file, without its end: what a password's file holds.
func FirstLine(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}
