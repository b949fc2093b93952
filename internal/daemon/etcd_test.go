package daemon

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
)

func TestKeyPath(t *testing.T) {
	for _, test := range []struct {
		namespace string
		cluster   model.Cluster
		want      string
	}{
		{"", model.Cluster{Name: "pg-test"}, "/pg/pg-test"},
		{"/service/", model.Cluster{Name: "pg-test"}, "/service/pg-test"},
		{"/", model.Cluster{Name: "pg-test"}, "/pg-test"},
		{"", model.Cluster{Name: "pg-citus1", KeyPath: "/service/pg-citus/1"}, "/service/pg-citus/1"},
		{"/else", model.Cluster{Name: "pg-citus1", KeyPath: "/service/pg-citus/1"}, "/else/pg-citus/1"},
		{"/else", model.Cluster{Name: "audit", KeyPath: "/service/audit-prod"}, "/else/audit-prod"},
		{"/else/", model.Cluster{Name: "pg-test", KeyPath: "/service/ours/pg-test"}, "/else/pg-test"},
	} {
		k, err := NewLeaderKeys(Etcd{Endpoints: []string{"10.10.10.10"}, Namespace: test.namespace})
		if err != nil {
			t.Fatal(err)
		}
		if got := k.pathOf(test.cluster); got != test.want {
			t.Errorf("%q, %+v: %s, want %s", test.namespace, test.cluster, got, test.want)
		}
	}
}

func TestNewLeaderKeysRefuses(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("\nthe second line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		etcd Etcd
		want string
	}{
		{Etcd{Endpoints: []string{"10.10.10.10", "http//"}}, "not an address"},
		{Etcd{Endpoints: []string{"10.10.10.10"}, Namespace: "pg"}, `namespace "pg": a path that begins with /`},
		{Etcd{Endpoints: []string{"10.10.10.10"}, User: "pg-test", PasswordFile: password}, "password of etcd's user pg-test: it is empty"},
		{Etcd{Endpoints: []string{"10.10.10.10"}, User: "pg-test", PasswordFile: password + "-2"}, "no such file"},
	} {
		if _, err := NewLeaderKeys(test.etcd); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: error %v, want %q", test.etcd, err, test.want)
		}
	}
	if err := os.WriteFile(password, []byte("secret\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if line, err := FirstLine(password); err != nil || line != "secret" {
		t.Errorf("%q %v", line, err)
	}
	if _, err := NewLeaderKeys(Etcd{Endpoints: []string{"10.10.10.10"}, User: "pg-test", PasswordFile: password}); err != nil {
		t.Error(err)
	}
}

// TestWhatIsSaidOfEtcd: what was said at the start goes before what the configuration declares, and another address makes all
// that is declared void.
func TestWhatIsSaidOfEtcd(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("said\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	declared := model.Etcd{Endpoints: []string{"https://10.10.10.10:2379"}, CAFile: "/pg/cert/ca.crt", CertFile: "/pg/cert/server.crt",
		KeyFile: "/pg/cert/server.key", User: "pg-test", Password: "declared"}
	for _, test := range []struct {
		said Etcd
		want string
	}{
		{Etcd{}, "https://10.10.10.10:2379 /pg/cert/ca.crt /pg/cert/server.crt /pg/cert/server.key pg-test declared"},
		{Etcd{CAFile: "/etc/ca.crt", User: "reader", PasswordFile: password}, "https://10.10.10.10:2379 /etc/ca.crt /pg/cert/server.crt /pg/cert/server.key reader said"},
		{Etcd{Endpoints: []string{"127.0.0.1"}}, "127.0.0.1     "},
	} {
		cfg := test.said.config(declared)
		secret := ""
		if cfg.Password != nil {
			secret, _ = cfg.Password()
		}
		if got := strings.Join([]string{strings.Join(cfg.Endpoints, ","), cfg.CAFile, cfg.CertFile, cfg.KeyFile, cfg.User, secret}, " "); got != test.want {
			t.Errorf("%+v: %s, want %s", test.said, got, test.want)
		}
	}
}

// TestEtcdOfTheConfiguration: a cluster's keys are followed as long as the configuration says the same of them, anew when it
// says something else, and not at all when it says nothing or its files aren't there, which is logged.
func TestEtcdOfTheConfiguration(t *testing.T) {
	var log bytes.Buffer
	keys, err := NewLeaderKeys(Etcd{})
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{cfg: Config{LeaderKeys: keys}, log: slog.New(slog.NewTextHandler(&log, nil)), loopCtx: t.Context()}
	plain := map[string]model.Etcd{"pg-test": {Endpoints: []string{"http://127.0.0.1:2379"}, User: "pg-test", Password: "one"}}
	test := model.Cluster{Name: "pg-test"}
	if d.watcherFor(plain)(test) == nil {
		t.Error("a cluster that comes with a configuration is watched as that one says")
	}
	d.running = map[string]*runningCluster{"pg-test": {}}
	watch := d.watcherFor(plain)
	if got := watch(test); got != nil {
		t.Errorf("nothing is declared: %v", got)
	}
	d.etcd = d.etcdOf(Loaded{Etcd: plain})
	first := watch(test)
	if first == nil || watch(test) != first {
		t.Errorf("the same configuration: %v, %v", first, watch(test))
	}
	d.etcd = d.etcdOf(Loaded{Sent: &Sent{}})
	if watch(test) != first {
		t.Error("a plan that was sent says nothing of etcd")
	}
	d.etcd = d.etcdOf(Loaded{Etcd: map[string]model.Etcd{"pg-test": {Endpoints: []string{"http://127.0.0.1:2379"}, User: "pg-test", Password: "two"}}})
	second := watch(test)
	if second == nil || second == first {
		t.Error("another password is another setting")
	}
	d.etcd = d.etcdOf(Loaded{Etcd: plain})
	if third := watch(test); third == nil || third == second {
		t.Error("back at the first password")
	}
	moved := test
	moved.KeyPath = "/service/pg-test"
	if fourth := watch(moved); fourth == nil || watch(moved) != fourth {
		t.Error("another path is another key")
	}
	d.etcd = d.etcdOf(Loaded{Etcd: map[string]model.Etcd{"pg-test": {Endpoints: []string{"https://127.0.0.1:2379"}, CAFile: "/nowhere/ca.crt", User: "pg-test", Password: "one"}}})
	if watch(test) != nil {
		t.Error("it is watched without the files that it takes")
	}
	if text := log.String(); strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, "the leader key isn't watched, the checks decide alone") ||
		!strings.Contains(text, "open /nowhere/ca.crt: no such file or directory") || !strings.Contains(text, "cluster=pg-test") {
		t.Errorf("logged: %s", text)
	}
	d.etcd = d.etcdOf(Loaded{})
	if watch(test) != nil {
		t.Error("it is watched though nothing is declared any more")
	}
}

// TestEtcdThatIsNowhere: it was said how to read etcd, but not where it is.
func TestEtcdThatIsNowhere(t *testing.T) {
	keys, err := NewLeaderKeys(Etcd{CAFile: "/etc/ca.crt"})
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.fits(Loaded{}); err == nil {
		t.Error("it is no error")
	}
	for _, l := range []Loaded{{Sent: &Sent{}}, {Etcd: map[string]model.Etcd{"pg-test": {}}}} {
		if err := keys.fits(l); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
