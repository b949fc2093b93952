package daemon

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pgporter/pgporter/internal/cluster"
	"github.com/pgporter/pgporter/internal/dcs"
	"github.com/pgporter/pgporter/internal/service"
)

// DefaultNamespace is where Pigsty has Patroni keep its keys in etcd.
const DefaultNamespace = "/pg"

// Etcd says where Patroni's keys are and how to read them.
type Etcd struct {
	// Endpoints, CAFile, CertFile, KeyFile and User are as in dcs.Config.
	Endpoints                 []string
	CAFile, CertFile, KeyFile string
	User                      string
	// PasswordFile holds the user's password in its first line. It is read for each connection.
	PasswordFile string
	// Namespace is the path below which clusters have their keys; DefaultNamespace if empty.
	Namespace string
}

// LeaderKeys watches the leader keys of the clusters that are served.
type LeaderKeys struct {
	etcd      *dcs.Etcd
	namespace string
}

// NewLeaderKeys checks where etcd is said to be and connects to nobody. The error lists every problem.
func NewLeaderKeys(e Etcd) (*LeaderKeys, error) {
	cfg := dcs.Config{Endpoints: e.Endpoints, CAFile: e.CAFile, CertFile: e.CertFile, KeyFile: e.KeyFile, User: e.User}
	if e.PasswordFile != "" {
		cfg.Password = func() (string, error) { return firstLine(e.PasswordFile) }
	}
	namespace := e.Namespace
	if namespace == "" {
		namespace = DefaultNamespace
	}
	etcd, err := dcs.New(cfg)
	if !strings.HasPrefix(namespace, "/") {
		err = errors.Join(err, fmt.Errorf("namespace %q: a path that begins with /, such as %s", namespace, DefaultNamespace))
	}
	if err != nil {
		return nil, err
	}
	return &LeaderKeys{etcd, strings.TrimRight(namespace, "/")}, nil
}

// pathOf is where a cluster has its keys.
func (k *LeaderKeys) pathOf(c service.Cluster) string {
	if c.KeyPath != "" {
		return c.KeyPath
	}
	return k.namespace + "/" + c.Name
}

// loopConfig is what every cluster's loop is made with.
func (d *Daemon) loopConfig() cluster.Config {
	cfg := cluster.Config{Logger: d.log}
	if k := d.cfg.LeaderKeys; k != nil {
		cfg.Keys = func(c service.Cluster) cluster.Keys { return k.etcd.Watch(k.pathOf(c)) }
	}
	return cfg
}

func firstLine(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}
