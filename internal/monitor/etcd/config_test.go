package etcd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNewRefuses(t *testing.T) {
	a := newAuthority(t, "ours")
	cert, key := a.issue("client", "")
	empty := filepath.Join(t.TempDir(), "empty.crt")
	if err := os.WriteFile(empty, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		cfg  Config
		// want are parts of the error; none is no error.
		want []string
	}{
		{"one address", Config{Endpoints: []string{"10.10.10.10"}}, nil},
		{"several addresses", Config{Endpoints: []string{"10.10.10.10:2379", "[fd00::1]:2379", "fd00::2", "etcd-3.example"}}, nil},
		{"all over TLS", Config{Endpoints: []string{"https://10.10.10.10:2379", "10.10.10.11"}, CAFile: a.file, CertFile: cert, KeyFile: key}, nil},
		{"a user", Config{Endpoints: []string{"10.10.10.10"}, User: "pg-test", Password: fixed("x")}, nil},
		{"nobody", Config{}, []string{"no address of etcd"}},
		{"bad addresses", Config{Endpoints: []string{"ftp://10.10.10.10", "10.10.10.10:", "10.10.10.10:99999", "a b", "", "https://10.10.10.10/v3"}},
			[]string{`"ftp://10.10.10.10" of etcd: unknown scheme ftp`, `"10.10.10.10:" of etcd: port ""`, `"10.10.10.10:99999" of etcd: port "99999"`,
				`"a b" of etcd: not an address`, `"" of etcd: not an address`, `"https://10.10.10.10/v3" of etcd: not an address`}},
		{"mixed", Config{Endpoints: []string{"https://10.10.10.10", "10.10.10.11"}}, []string{"https://10.10.10.10 and 10.10.10.11: all with TLS, or none"}},
		{"files for nothing", Config{Endpoints: []string{"http://10.10.10.10"}, CAFile: a.file}, []string{"http://10.10.10.10 is without TLS"}},
		{"half a certificate", Config{Endpoints: []string{"10.10.10.10"}, CertFile: cert}, []string{"a client certificate needs its key"}},
		{"no such file", Config{Endpoints: []string{"10.10.10.10"}, CAFile: "/nowhere/ca.crt"}, []string{"CA file of etcd: open /nowhere/ca.crt"}},
		{"no certificate in it", Config{Endpoints: []string{"10.10.10.10"}, CAFile: empty}, []string{"holds no certificate"}},
		{"not a pair", Config{Endpoints: []string{"10.10.10.10"}, CertFile: cert, KeyFile: empty}, []string{"client certificate for etcd"}},
		{"no password", Config{Endpoints: []string{"10.10.10.10"}, User: "pg-test"}, []string{"user pg-test needs a password"}},
		{"an empty password", Config{Endpoints: []string{"10.10.10.10"}, User: "pg-test", Password: fixed("")}, []string{"password of etcd's user pg-test: it is empty"}},
		{"no way to the password", Config{Endpoints: []string{"10.10.10.10"}, User: "pg-test", Password: fixed("none")}, []string{"password of etcd's user pg-test: none"}},
		{"nobody's password", Config{Endpoints: []string{"10.10.10.10"}, Password: fixed("x")}, []string{"a password needs its user"}},
		{"all at once", Config{CertFile: cert, User: "pg-test"}, []string{"no address", "needs its key", "needs a password"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := New(test.cfg)
			if (err == nil) != (test.want == nil) {
				t.Fatalf("error %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q\nhas no %q", err, want)
				}
			}
		})
	}
}

func TestParseEndpoint(t *testing.T) {
	for _, test := range []struct{ endpoint, scheme, hostPort string }{
		{"10.10.10.10", "", "10.10.10.10:2379"},
		{"10.10.10.10:12379", "", "10.10.10.10:12379"},
		{"http://10.10.10.10", "http", "10.10.10.10:2379"},
		{"https://etcd-1.example:2379/", "https", "etcd-1.example:2379"},
		{"fd00::1", "", "[fd00::1]:2379"},
		{"[fd00::1]", "", "[fd00::1]:2379"},
		{"https://[fd00::1]:12379", "https", "[fd00::1]:12379"},
	} {
		scheme, hostPort, err := parseEndpoint(test.endpoint)
		if err != nil || scheme != test.scheme || hostPort != test.hostPort {
			t.Errorf("%s: %q %q %v", test.endpoint, scheme, hostPort, err)
		}
	}
}

// FuzzParseEndpoint: what is taken for an address is a host and a port, and reads back as itself.
func FuzzParseEndpoint(f *testing.F) {
	for _, seed := range []string{"10.10.10.10", "https://[fd00::1]:2379/", "fe80::1%eth0", "a:b:c", "http://user@host:1", "host:0", "[::1", "//x", "host?x#y"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, endpoint string) {
		scheme, hostPort, err := parseEndpoint(endpoint)
		if err != nil {
			return
		}
		if scheme != "" {
			endpoint = scheme + "://" + hostPort
		} else {
			endpoint = hostPort
		}
		if s, h, err := parseEndpoint(endpoint); err != nil || s != scheme || h != hostPort {
			t.Errorf("%q is %q %q and then %q %q %v", endpoint, scheme, hostPort, s, h, err)
		}
		if strings.ContainsAny(hostPort, " /@?#\n\x00") {
			t.Errorf("%q is %q", endpoint, hostPort)
		}
	})
}
