package sandbox

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"

	"github.com/pgporter/pgporter/lab/sandbox/netns"
)

//go:embed templates/*.tmpl
var templateFiles embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{"quote": quoteYAML, "shell": quoteShell}).ParseFS(templateFiles, "templates/*.tmpl"))

// quoteYAML gives a double-quoted scalar: JSON strings are YAML ones.
func quoteYAML(s string) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// quoteShell gives one word as sh and Python's shlex read it.
func quoteShell(s string) string {
	if plainPath.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// file is one that Up writes.
type file struct {
	path string
	text string
	mode fs.FileMode
}

type portNumbers struct{ Postgres, PgBouncer, Patroni int }

// memberView is what the templates of a member's files see.
type memberView struct {
	Member                       Member
	Ports                        portNumbers
	Etcd                         string
	Rest, Superuser, Replication Account
	SynchronousMode              bool
	// LocalReplication says that the member's own Patroni may connect for replication, UnixReplication that it does so through the
	// unix socket.
	LocalReplication, UnixReplication bool
	// Patient says that Patroni gives etcd as long as the ttl allows.
	Patient                        bool
	StandbyCluster, StandbySlot    string
	PostBootstrap, BootstrapSQL    string
	DataDir, BinDir, PassFile      string
	SocketDir, LogDir, LogFile     string
	ApplyDelay, Callback, UserList string
	NoFailover, NoSync             bool
	NoLoadBalance                  bool
	Psql                           string
	// Listen is the address that PostgreSQL and PgBouncer listen on, Network whose clients may log in.
	Listen, Network string
	// Tell has PostgreSQL tell its member's name: on a virtual address it can't be known by the address.
	Tell bool
	// Certificate and Key are the files of TLS; empty without it.
	Certificate, Key string
	Databases        []string
	Accounts         []Account
	// Rendered is the directory of what pgporter rendered for the node.
	Rendered string
}

func (l layout) memberView(m Member, t tools) memberView {
	v := memberView{
		Member:          m,
		Ports:           portNumbers{postgresPort, pgbouncerPort, patroniPort},
		Etcd:            net.JoinHostPort(l.etcdAddress(), strconv.Itoa(etcdPort)),
		Rest:            restAccount,
		Superuser:       superuser,
		Replication:     replication,
		SynchronousMode: l.config.Sync && m.Cluster == mainCluster,
		Patient:         l.config.Fall > 0,
		PostBootstrap:   l.file(m, "post_bootstrap.sh"),
		BootstrapSQL:    l.bootstrapSQL(),
		DataDir:         l.data(m),
		BinDir:          t.postgresBin,
		PassFile:        l.file(m, "pgpass"),
		SocketDir:       l.socketDir(m),
		LogDir:          l.logDir(),
		LogFile:         filepath.Base(l.log(part{postgresKind, m})),
		Callback:        l.file(m, "on_role_change.sh"),
		UserList:        l.file(m, "userlist.txt"),
		// A member that lags by a minute must not lead, and neither it nor one that is busy with slow queries should be what a
		// commit waits for. The offline one may lead, when somebody wants that or nobody else is left.
		NoFailover: m.Role == "delayed",
		NoSync:     m.Role == "delayed" || m.Role == "offline",
		// The service replica takes every member that passes /read-only: reads of a minute ago would be among the answers.
		NoLoadBalance: m.Role == "delayed",
		Psql:          t.psql,
		Listen:        m.Address,
		Network:       "127.0.0.0/8",
		Accounts:      append([]Account{superuser}, accounts...),
		// Members on loopback addresses all come from one: pg_hba.conf can tell a member's own Patroni from the others by the unix
		// socket alone.
		LocalReplication: !l.config.WithoutLocalReplication,
		UnixReplication:  l.config.WithoutLocalReplication && !l.config.Netns,
	}
	if l.config.Netns {
		v.Listen, v.Network, v.Tell = "0.0.0.0", l.address(0)+"/24", true
	}
	if l.config.TLS {
		v.Certificate, v.Key = l.certificate(), l.certificateKey()
	}
	if m.Role == "delayed" {
		v.ApplyDelay = "1min"
	}
	if l.config.Door {
		// pgporter has the pools replace their connections.
		v.Callback, v.Rendered = "", filepath.Join(l.rendered(), m.Address)
	}
	if l.config.Standby {
		v.StandbySlot = strings.ReplaceAll(standbyCluster, "-", "_")
	}
	if m.Cluster == standbyCluster {
		var hosts []string
		for _, other := range l.of(mainCluster) {
			hosts = append(hosts, other.Address)
		}
		// Patroni adds target_session_attrs=read-write, so the standby cluster follows a switchover of the first.
		v.StandbyCluster = strings.Join(hosts, ",")
	}
	for _, d := range databases {
		v.Databases = append(v.Databases, d.Name)
	}
	return v
}

// maxConnections is PostgreSQL's, as patroni.yml.tmpl has it.
const maxConnections = 200

// declaredService is one of an inventory's pg_services.
type declaredService struct {
	Name, Dest, Check, Selector, Backup string
	// Pool is where a PgBouncer stands before it.
	Pool string
	Port int
}

type clusterView struct {
	Name     string
	VIP      string
	Members  []Member
	Services []declaredService
}

type inventoryView struct {
	EtcdAddress string
	// Infra is where the clusters' names are answered; empty on loopback addresses.
	Infra, Interface string
	Fall, Postgres   int
	// Connections is PostgreSQL's max_connections, where doors share it among them.
	Connections int
	// PatroniPort is where Patroni is asked, if that isn't Patroni's default.
	PatroniPort              int
	Clusters                 []clusterView
	Users                    []Account
	Databases                []database
	Admin, Replication, Rest Account
}

func (l layout) inventoryView(t tools) inventoryView {
	v := inventoryView{Postgres: t.postgres, EtcdAddress: l.etcdAddress(), Databases: databases, Replication: replication, Rest: restAccount, Fall: l.config.Fall}
	if l.config.Netns {
		v.Infra, v.Interface = l.address(metaHost), netns.Interface
	}
	if l.config.RestProxy != "" {
		v.PatroniPort = restproxyPort
	}
	if l.config.Door {
		v.Connections = maxConnections
	}
	for _, a := range accounts {
		if a.Superuser {
			v.Admin = a
			continue
		}
		v.Users = append(v.Users, a)
	}
	for _, name := range l.clusters() {
		c := clusterView{Name: name, Members: l.of(name), VIP: l.vip(name)}
		if name == mainCluster && l.config.Door {
			// Two of the default ones, but for the door.
			c.Services = append(c.Services,
				declaredService{Name: "default", Port: 5436, Dest: "postgres", Check: "/primary", Selector: "[]", Pool: string(doorKind)},
				declaredService{Name: "offline", Port: 5438, Dest: "postgres", Check: "/replica", Selector: "[? pg_role == `offline` || pg_offline_query ]",
					Backup: "[? pg_role == `replica` && !pg_offline_query]", Pool: string(doorKind)})
		}
		if name == mainCluster && l.config.Sync {
			// The documents' example checks /sync, which the primary never passes; this one is what it means.
			c.Services = append(c.Services, declaredService{Name: "standby", Port: 5435, Dest: "default", Check: "/read-only-sync", Selector: "[]", Backup: "[? pg_role == `primary`]"})
		}
		if name == mainCluster && l.config.Delayed {
			// The member is tagged noloadbalance, so that it is no replica for online reads; to Patroni's /replica it is none then.
			c.Services = append(c.Services, declaredService{Name: "delayed", Port: 5439, Dest: "postgres", Check: "/health", Selector: "[? pg_role == `delayed`]"})
		}
		v.Clusters = append(v.Clusters, c)
	}
	return v
}

// files renders every file of the sandbox. Those that a program of the sandbox needs for itself alone have mode 0600 or 0700.
func (l layout) files(t tools) ([]file, error) {
	var all []file
	var failed error
	add := func(path string, mode fs.FileMode, name string, view any) {
		var b bytes.Buffer
		if err := templates.ExecuteTemplate(&b, name, view); err != nil && failed == nil {
			failed = fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, file{path, b.String(), mode})
	}
	add(l.inventory(), 0o644, "inventory.yml.tmpl", l.inventoryView(t))
	if l.config.Netns {
		add(l.passwords(), 0o600, "pgpass.tmpl", accounts)
	}
	var creators []string
	for _, a := range append([]Account{superuser, {User: "dbrole_admin"}}, accounts...) {
		if a.User != "dbuser_view" && a.User != "dbuser_stats" {
			creators = append(creators, a.User)
		}
	}
	add(l.bootstrapSQL(), 0o600, "bootstrap.sql.tmpl", struct {
		Accounts  []Account
		Databases []database
		// Creators are those whose tables others may read by their roles.
		Creators string
	}{accounts, databases, strings.Join(creators, ", ")})
	for _, m := range l.members {
		v := l.memberView(m, t)
		add(l.file(m, "patroni.yml"), 0o600, "patroni.yml.tmpl", v)
		add(l.file(m, "pgbouncer.ini"), 0o600, "pgbouncer.ini.tmpl", v)
		add(v.UserList, 0o600, "userlist.txt.tmpl", v)
		if l.doored(m) {
			add(l.doorFile(m), 0o600, "door.ini.tmpl", v)
		}
		if v.Callback != "" {
			add(v.Callback, 0o700, "on_role_change.sh.tmpl", v)
		}
		add(v.PostBootstrap, 0o700, "post_bootstrap.sh.tmpl", v)
	}
	return all, failed
}

// command is how a part is started.
type command struct {
	path string
	args []string
	dir  string
}

// command gives the program of a part; PostgreSQL has none, as Patroni starts it.
func (l layout) command(p part, t tools, binary string) command {
	switch p.kind {
	case etcdKind:
		client := "http://" + net.JoinHostPort(l.etcdAddress(), strconv.Itoa(etcdPort))
		peer := "http://" + net.JoinHostPort(l.etcdAddress(), strconv.Itoa(etcdPeerPort))
		return command{t.etcd, []string{
			"--name", "etcd-1", "--data-dir", filepath.Join(l.etcdHome(), "data"),
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", "etcd-1=" + peer, "--initial-cluster-token", "pgporter-sandbox", "--initial-cluster-state", "new",
			"--auto-compaction-retention", "1", "--logger", "zap",
		}, l.etcdHome()}
	case patroniKind:
		return command{t.patroni, []string{l.file(p.member, "patroni.yml")}, l.home(p.member)}
	case pgbouncerKind:
		return command{t.pgbouncer, []string{l.file(p.member, "pgbouncer.ini")}, l.home(p.member)}
	case doorKind:
		return command{t.pgbouncer, []string{l.doorFile(p.member)}, l.home(p.member)}
	case restproxyKind:
		at := func(port int) string { return net.JoinHostPort(p.member.Address, strconv.Itoa(port)) }
		return command{binary, []string{RestProxyCommand, at(restproxyPort), at(patroniPort), l.restproxySocket(p.member)}, l.home(p.member)}
	case pgporterKind:
		args := []string{"run", "--inventory", l.inventory(), "--node", p.member.Address}
		if l.config.Netns {
			args = append(args, "--admin", p.member.Address)
		} else {
			args = append(args, "--bind", p.member.Address)
		}
		args = append(args, "--etcd", net.JoinHostPort(l.etcdAddress(), strconv.Itoa(etcdPort)))
		if l.config.Netns {
			args = append(args, "--vip")
		}
		if l.config.Netns && p.member.Cluster == metaCluster {
			args = append(args, "--dns="+p.member.Address)
		}
		if l.config.Door {
			args = append(args, l.doorArgs(p.member)...)
		}
		return command{binary, append(args, l.config.BinaryArgs...), l.home(p.member)}
	}
	return command{}
}
