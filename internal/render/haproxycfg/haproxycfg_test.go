package haproxycfg

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pgporter/pgporter/internal/config/model"
)

var update = flag.Bool("update", false, "write the goldens anew")

// accepted has the real HAProxy read files as it reads a node's: the base first, then the services. Certificates that only
// Pigsty's nodes have are replaced.
func accepted(t *testing.T, texts ...string) {
	t.Helper()
	var args []string
	for i, text := range texts {
		name := filepath.Join(t.TempDir(), string(rune('a'+i))+".cfg")
		text = strings.ReplaceAll(text, "ca-file "+caFile, "verify none")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-f", name)
	}
	out, err := exec.Command("haproxy", append(args, "-c")...).CombinedOutput()
	if err != nil {
		t.Errorf("haproxy -c: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		// At the first start there is no state to read.
		if strings.Contains(line, "[WARNING]") && !strings.Contains(line, "Can't open global server state file") {
			t.Errorf("HAProxy warns: %s", line)
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n--- got\n%s--- want\n%s", path, got, want)
	}
}

func base() model.Base {
	return model.Base{
		Node: "pg-test-1", PIDFile: "/tmp/haproxy.pid", Socket: "/tmp/haproxy.sock", ClientTimeout: "24h", ServerTimeout: "90m",
		StatsIP: "*", StatsPort: 9101, MetricsPath: "/metrics", Auth: true, AdminUser: "admin", AdminPassword: "it's # \"secret\" $HOME \\",
	}
}

// trio is a cluster with a primary, a replica behind TLS and an offline member.
func trio() model.Cluster {
	member := func(name, host string, role model.Role) model.Member {
		return model.Member{Name: name, Host: host, Role: role, PostgresPort: 5432, PgBouncerPort: 6432, PatroniPort: 8008, Weight: 100}
	}
	c := model.Cluster{Name: "pg-test", Members: []model.Member{
		member("pg-test-1", "10.10.10.11", model.Primary),
		member("pg-test-2", "10.10.10.12", model.Replica),
		member("pg-test-3", "10.10.10.13", model.Offline),
	}}
	c.Members[1].PatroniTLS, c.Members[1].PatroniPort, c.Members[1].Weight = true, 8009, 256
	return c
}

func replica(t *testing.T) model.Service {
	t.Helper()
	options, problems := model.ParseOptions("inter 2s fastinter 500ms downinter 2s rise 3 fall 3 on-marked-down shutdown-sessions slowstart 30s maxconn 3000 maxqueue 128 weight 100")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return model.Service{
		Cluster: "pg-test",
		Definition: model.Definition{Name: "replica", FullName: "pg-test-replica", IP: "*", Port: 5434, Check: "/read-only?lag=16MB&tag_k='v'",
			MaxConn: 5000, Balance: "leastconn", Options: options},
		Servers: []model.Server{
			{Member: "pg-test-1", Host: "10.10.10.11", Port: 6432, Weight: 100, Backup: true},
			{Member: "pg-test-2", Host: "10.10.10.12", Port: 6432, Weight: 256},
			{Member: "pg-test-3", Host: "10.10.10.13", Port: 6432, Weight: 0, Backup: true},
		},
	}
}

func tcpOf() model.TCPService {
	zero := 0
	return model.TCPService{
		Name: "minio", IP: "127.0.70.1", Port: 9002, Protocol: "tcp", MaxConn: 10000, Balance: "leastconn",
		Options: []string{"option httpchk", "http-check send meth OPTIONS uri /minio/health/live", "http-check expect status 200"},
		Default: "inter 3s fastinter 1s",
		Servers: []model.TCPServer{
			{Name: "minio-1", Host: "10.10.10.21", Port: 9000, Options: "check-ssl ca-file /pg/cert/ca.crt check port 9000"},
			{Name: "minio-2", Host: "10.10.10.22", Port: 9000, Weight: &zero, Backup: true, Options: "check port 9000"},
		},
	}
}

func TestGoldens(t *testing.T) {
	render := func(text string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	one := render(Service("10.10.10.11", trio(), replica(t)))
	golden(t, "pg-test-replica.cfg", one)
	two := render(TCPService("10.10.10.11", tcpOf()))
	golden(t, "minio.cfg", two)
	below := render(Base(base()))
	golden(t, "haproxy.cfg", below)
	accepted(t, below, one, two)

	open := base()
	open.Auth, open.AdminUser, open.AdminPassword = false, "", ""
	open.User, open.Group = "haproxy", "haproxy"
	open.StateFile, open.HardStopAfter, open.StatsIP = "/tmp/servers.state", "1h", "127.0.70.1"
	text := render(Base(open))
	golden(t, "haproxy-open.cfg", text)
	accepted(t, text, one)
}

// TestAllow: who may not come is rejected unheard, whatever else the service's lines say, and however long the list is.
func TestAllow(t *testing.T) {
	below, err := Base(base())
	if err != nil {
		t.Fatal(err)
	}
	few := model.Networks{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("192.168.1.7/32")}
	var many model.Networks
	for i := range model.MaxNetworks {
		many = append(many, netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8:ffff:ffff:ffff:ffff:ffff:%x", 0xff00+i)), 128))
	}
	for _, networks := range []model.Networks{few, many, many[:networksInLine]} {
		s, g := replica(t), tcpOf()
		s.Allow, g.Allow = networks, networks
		one, err := Service("10.10.10.11", trio(), s)
		if err != nil {
			t.Fatal(err)
		}
		two, err := TCPService("10.10.10.11", g)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{one, two} {
			if strings.Count(text, "tcp-request connection reject unless ") != 1 || strings.Count(text, networks[len(networks)-1].String()) != 1 {
				t.Errorf("rendered\n%s", text)
			}
		}
		accepted(t, below, one, two)
		if len(networks) == len(few) && !strings.Contains(one, "    tcp-request connection reject unless { src 10.0.0.0/8 2001:db8::/32 192.168.1.7/32 }\n") {
			t.Errorf("rendered\n%s", one)
		}
	}
}

// TestOptionBackup: the default-server line makes all servers backups, no other says so again.
func TestOptionBackup(t *testing.T) {
	s := replica(t)
	s.Options, _ = model.ParseOptions("inter 2s backup")
	for i := range s.Servers {
		s.Servers[i].Backup = true
	}
	text, err := Service("10.10.10.11", trio(), s)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(text, " backup\n") != 1 || !strings.Contains(text, "default-server inter 2s backup\n") {
		t.Errorf("rendered\n%s", text)
	}
	below, err := Base(base())
	if err != nil {
		t.Fatal(err)
	}
	accepted(t, below, text)
}

// A service that nobody serves, and members whose hosts are names or IPv6 addresses.
func TestHosts(t *testing.T) {
	c, s := trio(), replica(t)
	s.Servers = nil
	below, err := Base(base())
	if err != nil {
		t.Fatal(err)
	}
	text, err := Service("10.10.10.11", c, s)
	if err != nil {
		t.Fatal(err)
	}
	accepted(t, below, text)

	s = replica(t)
	for i, host := range []string{"fd00::11", "localhost", "pg-3.invalid"} {
		c.Members[i].Host, s.Servers[i].Host = host, host
	}
	s.IP = "::1"
	text, err = Service("fd00::11", c, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"    bind ::1:5434\n",
		"    server pg-test-1 fd00::11:6432 check port 8008 weight 100 backup\n",
		"    server pg-test-2 localhost:6432 check-ssl ca-file /pg/cert/ca.crt check port 8009 weight 256\n",
		"    server pg-test-3 pg-3.invalid:6432 check port 8008 weight 0 backup init-addr last,libc,none\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	accepted(t, below, strings.ReplaceAll(text, "pg-3.invalid", "localhost"))
}

func TestServiceRefusals(t *testing.T) {
	for name, spoil := range map[string]func(c *model.Cluster, s *model.Service){
		`service "pg test": service "pg test": letters`:    func(_ *model.Cluster, s *model.Service) { s.FullName = "pg test" },
		`service "pg\nlisten x": service`:                  func(_ *model.Cluster, s *model.Service) { s.FullName = "pg\nlisten x" },
		`service ".hidden"`:                                func(_ *model.Cluster, s *model.Service) { s.FullName = ".hidden" },
		`ip "1.2.3.4\nbind *:1": an address`:               func(_ *model.Cluster, s *model.Service) { s.IP = "1.2.3.4\nbind *:1" },
		"port 0: from 1 to 65535":                          func(_ *model.Cluster, s *model.Service) { s.Port = 0 },
		"check: neither empty nor with control characters": func(_ *model.Cluster, s *model.Service) { s.Check = "/x\nserver evil 1.2.3.4:5" },
		`options: a control character`:                     func(_ *model.Cluster, s *model.Service) { s.Options.Text = "inter 2s\x00" },
		`host "10.10.10.11 x": an address or a host name`:  func(_ *model.Cluster, s *model.Service) { s.Servers[0].Host = "10.10.10.11 x" },
		"port 70000: from 1 to 65535":                      func(_ *model.Cluster, s *model.Service) { s.Servers[0].Port = 70000 },
		"patroni_port 0":                                   func(c *model.Cluster, _ *model.Service) { c.Members[0].PatroniPort = 0 },
		`server "nobody" is no member of cluster`:          func(_ *model.Cluster, s *model.Service) { s.Servers[0].Member = "nobody" },
		"two servers are called pg-test-2":                 func(_ *model.Cluster, s *model.Service) { s.Servers[0].Member = "pg-test-2" },
	} {
		c, s := trio(), replica(t)
		spoil(&c, &s)
		text, err := Service("10.10.10.11", c, s)
		if err == nil || !strings.Contains(err.Error(), name) || text != "" {
			t.Errorf("error %v, text %q; want an error with %q and no text", err, text, name)
		}
	}
}

func TestTCPServiceRefusals(t *testing.T) {
	for name, spoil := range map[string]func(g *model.TCPService){
		`service "a b"`:      func(g *model.TCPService) { g.Name = "a b" },
		`protocol "tcp x"`:   func(g *model.TCPService) { g.Protocol = "tcp x" },
		`ip "10.0.0.1 x": `:  func(g *model.TCPService) { g.Servers[0].Host = "10.0.0.1 x" },
		`server "a b"`:       func(g *model.TCPService) { g.Servers[0].Name = "a b" },
		"two servers are":    func(g *model.TCPService) { g.Servers[0].Name = "minio-2" },
		"begins a section":   func(g *model.TCPService) { g.Options = []string{"listen evil"} },
		"frontend evil":      func(g *model.TCPService) { g.Options = []string{"option httpchk\n  frontend evil"} },
		`"list\\en evil"`:    func(g *model.TCPService) { g.Options = []string{`list\en evil`} },
		`"'global'"`:         func(g *model.TCPService) { g.Options = []string{`'global'`} },
		"is no directive":    func(g *model.TCPService) { g.Options = []string{".if defined(X)"} },
		"control character":  func(g *model.TCPService) { g.Options = []string{"option httpchk\x07"} },
		"default: a control": func(g *model.TCPService) { g.Default = "inter 2s\x1b" },
	} {
		g := tcpOf()
		spoil(&g)
		text, err := TCPService("10.10.10.11", g)
		if err == nil || !strings.Contains(err.Error(), name) || text != "" {
			t.Errorf("error %v, text %q; want an error with %q and no text", err, text, name)
		}
	}
}

// Several lines in one option are as many directives, as Pigsty's template makes of them.
func TestTCPServiceLines(t *testing.T) {
	g := tcpOf()
	g.Options = []string{"option httpchk\n\n  http-check expect status 200  \n", ""}
	g.Servers[0].Options, g.Servers[0].Host = "check\n  init-addr none", "minio.invalid"
	text, err := TCPService("10.10.10.11", g)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"    balance leastconn\n    option httpchk\n    http-check expect status 200\n    default-server ",
		"    server minio-1 minio.invalid:9000 check init-addr none\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestBaseRefusals(t *testing.T) {
	for name, spoil := range map[string]func(c *model.Base){
		"admin password: neither empty nor":    func(c *model.Base) { c.AdminPassword = "x\nuser evil" },
		"admin user":                           func(c *model.Base) { c.AdminUser = "" },
		"haproxy_client_timeout is \"1.5h\"":   func(c *model.Base) { c.ClientTimeout = "1.5h" },
		"haproxy_server_timeout is \"0s\"":     func(c *model.Base) { c.ServerTimeout = "0s" },
		"node \"a b\"":                         func(c *model.Base) { c.Node = "a b" },
		"port 0":                               func(c *model.Base) { c.StatsPort = 0 },
		"metrics path: neither empty":          func(c *model.Base) { c.MetricsPath = "" },
		"socket: neither empty nor":            func(c *model.Base) { c.Socket = "/tmp/a\nb" },
		"pidfile: neither empty nor":           func(c *model.Base) { c.PIDFile = "/tmp/a\rb" },
		"admin user \"a,b\": a name without a": func(c *model.Base) { c.AdminUser = "a,b" },
	} {
		c := base()
		spoil(&c)
		text, err := Base(c)
		if err == nil || !strings.Contains(err.Error(), name) || text != "" {
			t.Errorf("error %v, text %q; want an error with %q and no text", err, text, name)
		}
		if err != nil && strings.Contains(err.Error(), "evil") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}
