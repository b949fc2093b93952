package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/service"
)

func TestKeyPath(t *testing.T) {
	for _, test := range []struct {
		namespace string
		cluster   service.Cluster
		want      string
	}{
		{"", service.Cluster{Name: "pg-test"}, "/pg/pg-test"},
		{"/service/", service.Cluster{Name: "pg-test"}, "/service/pg-test"},
		{"/", service.Cluster{Name: "pg-test"}, "/pg-test"},
		{"/service", service.Cluster{Name: "pg-citus1", KeyPath: "/pg/pg-citus/1"}, "/pg/pg-citus/1"},
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
		{Etcd{}, "no address of etcd"},
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
	if line, err := firstLine(password); err != nil || line != "secret" {
		t.Errorf("%q %v", line, err)
	}
	if _, err := NewLeaderKeys(Etcd{Endpoints: []string{"10.10.10.10"}, User: "pg-test", PasswordFile: password}); err != nil {
		t.Error(err)
	}
}
