package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/grpclog"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/daemon"
	"github.com/pgporter/pgporter/internal/daemon/logqueue"
)

// runFlags are what `pgporter run` takes.
type runFlags struct {
	inventory, plan, node, bind, admin, stateDir string
	pageCert, pageKey                            string
	logFormat, logLevel                          string
	sessionLog                                   string
	sessionSample                                float64
	adminNames                                   []string
	runtimeSocket                                string
	control                                      controlFlags
	patroni                                      []string
	services                                     string
	watch                                        bool
	hold                                         holdFlag
	stopTimeout                                  time.Duration
	haproxy                                      haproxyFlags
	etcd                                         daemon.Etcd
	dns                                          dnsFlags
	vip                                          vipFlags
	pools                                        poolFlags
}

func newRunCommand() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run {--plan FILE | --inventory FILE --node HOST | --patroni ADDRESS[,…]}",
		Short: "Serve a node's services until stopped",
		Long: `Opens the ports of every service of the clusters that the node belongs to and connects each client to a server that can
serve it now, by what the members' Patroni answers. Any node offers every service of its cluster, whatever its own role.

With --plan the node needs no inventory, which holds everybody's passwords: pgporter plan makes each node's plan where the
inventory is kept. Passwords that the node needs are in files of its own: etcd's in the one that the plan names
(/etc/pgporter/etcd-USER.password) or --etcd-password-file, that of HAProxy's statistics page likewise.

With --state-dir the last plan that the node has accepted, from its file or by pgporter reload, is kept for the next start. It
goes on then as long as the file says what it said when the plan was accepted; a file that has changed since counts instead;
and where the file can't be used the kept plan does, with a warning.

With --control, orders may come from elsewhere (pgporter drain, pgporter sessions and so on), and pgporter reload may send a new
configuration, but where members are discovered: that takes a token and TLS (pgporter credentials makes both), or with
--control-client-ca a client's certificate, and nothing is open without.

With --runtime-socket there is a socket that understands the commands of HAProxy's, for tools that speak those.

With --patroni no inventory is needed: members are read from Patroni's /cluster and followed as they come and go, and the
four default services are offered, or with --services those of a file, in the words of pgporter.yml. PgBouncer is looked for on port 6432 of each member; where nobody answers there,
PostgreSQL's own port is taken. What was assumed is in the log and in the status.

With --engine haproxy a real HAProxy carries the services: pgporter renders its files, checks them with haproxy -c, reloads
it, and keeps it at what it finds out about the members. It starts one of its own below --haproxy-dir, or with
--haproxy-system takes over the machine's.

With --shadow nobody is served: no service's port is opened, no session ends, no address and no name is held. pgporter checks and
decides as it would, asks the HAProxy that carries the services what that does, and pgporter status tells where they differ and
who was right.

Where the inventory has a group etcd, or --etcd says where etcd is, the leader key that Patroni keeps there is watched too: a
switchover is then seen when it is asked for, and a new primary when it is elected, instead of with the next check. Losing
etcd changes nothing for healthy services.

With --dns the clusters' names are served: pg-test, pg-test-1, primary.pg-test and so on, of all clusters of the inventory,
wherever their services are carried. They follow a switchover at once.

With --vip the node keeps the cluster's virtual address (pg_vip_enabled, pg_vip_address, pg_vip_interface) while its member
leads. That is vip-manager's work as a rule: let one of the two do it. It takes CAP_NET_ADMIN and CAP_NET_RAW; whatever keeps
the address away, the services go on.

With --pool the node watches over PgBouncers on its machine. While a switchover is made their databases that lead to the cluster's
leader are paused: transactions end, and the next ones begin at the new leader. pgporter logs in at PgBouncer's console as its
user pgbouncer, which takes a Unix socket and the same user, or as one of its admin_users (--pool-user, --pool-password-file).

SIGHUP reads the plan or the inventory again; see pgporter help signals.`,
		Example: `  pgporter run --plan /etc/pgporter/plan.json --state-dir /var/lib/pgporter
  pgporter run --inventory /etc/pgporter/pigsty.yml --node 10.10.10.11
  pgporter run --inventory pigsty.yml --node 10.10.10.11 --bind 127.0.0.1      # only for this machine
  pgporter run --plan /etc/pgporter/plan.json --shadow                            # beside a HAProxy, see docs/migration.md
  pgporter run --patroni 10.10.10.11:8008,10.10.10.12:8008
  pgporter run --patroni 10.10.10.11:8008 --services services.yml
  pgporter run --plan /etc/pgporter/plan.json --pool /var/run/postgresql:6432 --pool-user postgres --pool-password-file /etc/pgporter/pool.password
  pgporter run --inventory pigsty.yml --node 10.10.10.10 --dns=10.10.10.10                     # and tell names
  pgporter run --inventory pigsty.yml --node 10.10.10.11 --engine haproxy                     # a HAProxy of its own
  pgporter run --inventory pigsty.yml --node 10.10.10.11 --engine haproxy --haproxy-system    # /etc/haproxy`,
		Args: f.dns.noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runLogged(c, f) },
	}
	inventoryFlag(c, &f.inventory)
	c.Flags().StringVar(&f.plan, "plan", "", "run from this node's plan in a `FILE`, which pgporter plan has made")
	c.MarkFlagFilename("plan", "json")
	c.Flags().StringVar(&f.stateDir, "state-dir", "", "keep the last accepted plan in this `DIR` for the next start (default: nowhere)")
	c.MarkFlagDirname("state-dir")
	c.Flags().StringVar(&f.node, "node", "", "which `NODE` to serve as, a host of the inventory or an instance (default: the one that is an address of this machine)")
	c.Flags().StringSliceVar(&f.patroni, "patroni", nil, "discover members from the Patroni REST API at these `ADDRESSES` instead of an inventory")
	c.Flags().StringVar(&f.services, "services", "", "with --patroni, the services in this `FILE`: a mapping with services, a list as in pgporter.yml (default: the four default ones)")
	c.MarkFlagFilename("services", "yml", "yaml", "json")
	c.Flags().StringVar(&f.bind, "bind", "", "the `ADDRESS` that \"*\" means on this node (default: every address)")
	c.Flags().StringVar(&f.admin, "admin", "", "where status is served, `ADDRESS[:PORT]` (default: 127.0.0.1:"+api.DefaultPort+", or that port of --bind if it is a loopback address)")
	c.Flags().StringSliceVar(&f.adminNames, "admin-name", nil, "a `NAME` with a dot in it by which browsers and proxies ask for the admin address; addresses, plain names and this machine's own go without")
	c.Flags().StringVar(&f.pageCert, "page-tls-cert", "", "`FILE` with the certificate of the page at haproxy_exporter_port, which then takes TLS besides plain HTTP")
	c.MarkFlagFilename("page-tls-cert")
	c.Flags().StringVar(&f.pageKey, "page-tls-key", "", "`FILE` with that certificate's key")
	c.MarkFlagFilename("page-tls-key")
	f.control.add(c)
	c.Flags().StringVar(&f.runtimeSocket, "runtime-socket", "", "take HAProxy's runtime commands at this `FILE`, a socket (default: nowhere)")
	c.MarkFlagFilename("runtime-socket")
	c.Flags().BoolVar(&f.watch, "watch", false, "take edits of the inventory or the plan without being asked, unless they remove a service or leave one without servers")
	f.hold.For = model.DefaultHold
	c.Flags().Var(&f.hold, "hold", "how long a client waits for a server while none takes it, as `TIME`, where neither its service nor its cluster says it; 0 refuses it at once, failover is as long as one can take")
	etcdFlags(c, &f.etcd)
	f.vip.add(c)
	f.pools.add(c)
	c.Flags().DurationVar(&f.stopTimeout, "stop-timeout", 30*time.Second, "how long sessions may go on after SIGTERM, as `TIME`")
	f.haproxy.add(c)
	f.dns.add(c)
	c.Flags().StringVar(&f.logFormat, "log-format", "text", "`FORMAT` of the log: text, json")
	c.Flags().StringVar(&f.logLevel, "log-level", "info", "least `LEVEL` that is logged: debug, info, warn, error")
	c.Flags().StringVar(&f.sessionLog, "session-log", "", "write a line of JSON to this `FILE` when a session begins and when it ends; - is standard output (default: nowhere)")
	c.MarkFlagFilename("session-log")
	c.Flags().Float64Var(&f.sessionSample, "session-log-sample", 1, "the `PART` of the sessions that are in it, both lines of each, as in 0.1")
	return c
}

// holdFlag is --hold.
type holdFlag struct{ model.Hold }

// Set reads it.
func (h *holdFlag) Set(text string) (err error) {
	if h.Hold, err = model.ParseHold(text); err != nil {
		return fmt.Errorf("%w: %s", err, model.WantHold)
	}
	return nil
}

// Type names what it takes.
func (h *holdFlag) Type() string { return "TIME" }

// logPatience is how long the end of the process waits for the log to be read.
const logPatience = time.Second

// runLogged is run with everything that it has to say on standard error, its own error too, in a queue: whoever reads that may hang.
func runLogged(c *cobra.Command, f runFlags) error {
	// A log that nobody reads any more (journald that is restarted, a pipe that ends) is no reason to end: without this the runtime does.
	signal.Ignore(syscall.SIGPIPE)
	queue := logqueue.New(c.ErrOrStderr(), func(out io.Writer, dropped uint64) error {
		record := slog.NewRecord(time.Now(), slog.LevelWarn, "lines of the log were dropped, nobody read them in time", 0)
		record.Add("lines", dropped)
		// Whatever level the operator wants: it may be those lines.
		return newHandler(out, f.logFormat, nil).Handle(context.Background(), record)
	})
	defer queue.Close(logPatience)
	if err := run(c, f, queue); err != nil {
		return command.Status(command.Report(queue, c, err))
	}
	return nil
}

func run(c *cobra.Command, f runFlags, queue *logqueue.Queue) (err error) {
	spareProcessor()
	logger, err := newLogger(queue, f)
	if err != nil {
		return err
	}
	// What libraries have to say goes into the same log. net/http has the standard log, gRPC (etcd's client) one of its own.
	slog.SetDefault(logger)
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, queue))
	if f.stopTimeout < 0 {
		return command.Input(fmt.Errorf("--stop-timeout %s: 0 or more", f.stopTimeout))
	}
	if err := f.checkSessionLog(c); err != nil {
		return command.Input(err)
	}
	bind, admin, err := runAddresses(f.bind, f.admin)
	if err != nil {
		return err
	}
	engine, err := f.haproxy.config(c, f)
	if err != nil {
		return err
	}
	compared, err := f.haproxy.compared(c)
	if err != nil {
		return err
	}
	virtual, err := f.vip.config(c, len(f.patroni) > 0)
	if err != nil {
		return err
	}
	watched, err := f.pools.config(c, f.stateDir)
	if err != nil {
		return err
	}
	inherited, err := daemon.Inherit()
	if err != nil {
		return err
	}
	defer func() { inherited.Explain(err) }()
	stdin := c.InOrStdin()
	if inherited != nil {
		stdin = bytes.NewReader(inherited.Inventory)
	}
	source, err := newSource(f, stdin, logger)
	if err != nil {
		return err
	}
	control, err := f.control.settle(bind)
	if err != nil {
		return err
	}
	keys, err := newLeaderKeys(f.etcd, len(f.patroni) == 0)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process as if pgporter had none: the operator has had enough of waiting.
	defer context.AfterFunc(ctx, stop)()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	upgrade := make(chan os.Signal, 1)
	signal.Notify(upgrade, syscall.SIGUSR2)
	defer signal.Stop(upgrade)
	cfg := daemon.Config{Version: command.Version, Source: source, Admin: admin, AdminNames: f.adminNames, RuntimeSocket: f.runtimeSocket, Hold: f.hold.For, HoldFailover: f.hold.Failover, StopTimeout: f.stopTimeout, Reload: hangup, LeaderKeys: keys,
		Upgrade: upgrade, Program: program(), Inherited: inherited, Logger: logger, LogDropped: queue.Dropped}
	if cfg.HoldFailover {
		cfg.Hold = model.DefaultHold
	}
	for _, flag := range []string{"page-tls-cert", "page-tls-key", "haproxy-password-file"} {
		if c.Flags().Changed(flag) && len(f.patroni) > 0 {
			return command.Input(fmt.Errorf("--%s: only an inventory or a plan says where there is such a page, it goes with --inventory or --plan", flag))
		}
	}
	if c.Flags().Changed("page-tls-cert") && (f.haproxy.engine != engineNative || f.haproxy.shadow) {
		return command.Input(errors.New("--page-tls-cert: HAProxy has the page's port, it goes with --engine native and without --shadow"))
	}
	if (f.pageCert == "") != (f.pageKey == "") {
		return command.Input(errors.New("--page-tls-cert and --page-tls-key: both or neither"))
	}
	if f.pageCert != "" {
		if cfg.PageTLS, err = daemon.LoadPageTLS(f.pageCert, f.pageKey); err != nil {
			return command.Input(err)
		}
	}
	if cfg.SessionLog, err = f.openSessionLog(c); err != nil {
		return command.Input(err)
	}
	if cfg.SessionLog != nil {
		defer cfg.SessionLog.Close(logPatience)
	}
	cfg.Shadow = compared
	cfg.HAProxy, cfg.HAProxyPassword, cfg.StateDir = engine, f.haproxy.password, f.stateDir
	switch file := source.(type) {
	case *daemon.InventoryFile:
		file.HAProxy, file.Etcd = engine != nil, keys != nil
	case *daemon.PlanFile:
		file.HAProxy = engine != nil
	}
	if bind.IsValid() {
		cfg.Bind = bind.String()
	}
	cfg.Control = control
	names, err := f.dns.settle(ctx, c, bind, inherited, logger)
	if err != nil {
		return err
	}
	if names != nil {
		defer names.Close()
		cfg.Parts = append(cfg.Parts, names)
		switch source := source.(type) {
		case *daemon.InventoryFile:
			source.Names = true
		case *daemon.PlanFile:
			source.Names = true
		case *daemon.Discovered:
			source.Names = true
		}
	}
	cfg.VIP, cfg.Pools = virtual, watched
	return daemon.Run(ctx, cfg)
}

// checkSessionLog says what is wrong with the flags of the session log.
func (f runFlags) checkSessionLog(c *cobra.Command) error {
	switch {
	case f.sessionLog == "" && c.Flags().Changed("session-log-sample"):
		return errors.New("--session-log-sample goes with --session-log")
	case !(f.sessionSample > 0 && f.sessionSample <= 1):
		return fmt.Errorf("--session-log-sample %v: above 0, and up to 1 for all sessions", f.sessionSample)
	case f.sessionLog != "" && f.haproxy.engine != engineNative:
		return errors.New("--session-log: HAProxy has the sessions, and a log of its own (option tcplog); it goes with --engine native")
	}
	return nil
}

// openSessionLog opens the session log, if there is to be one.
func (f runFlags) openSessionLog(c *cobra.Command) (*daemon.SessionLog, error) {
	if f.sessionLog == "" {
		return nil, nil
	}
	log, err := daemon.OpenSessionLog(f.sessionLog, c.OutOrStdout(), f.sessionSample)
	if err != nil {
		return nil, fmt.Errorf("--session-log: %w", err)
	}
	return log, nil
}

// runAddresses reads --bind and --admin: the address that "*" means, invalid for every one, and where the status is.
func runAddresses(bind, admin string) (netip.Addr, string, error) {
	var address netip.Addr
	if bind != "" && bind != "*" {
		var err error
		if address, err = netip.ParseAddr(bind); err != nil {
			return address, "", command.Input(fmt.Errorf("--bind %q: an IP address", bind))
		}
	}
	if admin == "" {
		admin = "127.0.0.1"
		if address.IsLoopback() {
			admin = address.String()
		}
	}
	admin, err := adminAddress(admin)
	return address, admin, err
}

// program is what an upgrade runs: what this process was started as, wherever that points by then.
func program() daemon.Program {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		path, _ = os.Executable()
	}
	return daemon.Program{Path: path, Arguments: os.Args[1:]}
}

func newLogger(w io.Writer, f runFlags) (*slog.Logger, error) {
	if err := command.OneOf("log-format", f.logFormat, "text", "json"); err != nil {
		return nil, err
	}
	if err := command.OneOf("log-level", f.logLevel, "debug", "info", "warn", "error"); err != nil {
		return nil, err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, command.Input(fmt.Errorf("--log-level: %w", err))
	}
	return slog.New(newHandler(w, f.logFormat, level)), nil
}

// newHandler writes lines of a format, from a level on; nil is info.
func newHandler(w io.Writer, format string, level slog.Leveler) slog.Handler {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: bounded}
	if format == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

// mostLogged is how many bytes of one text a line of the log has.
const mostLogged = 8 << 10

// bounded keeps what others wrote from filling the log. The handlers write out what doesn't show, or the writer behind them does.
func bounded(_ []string, a slog.Attr) slog.Attr {
	switch a.Value.Kind() {
	case slog.KindString:
		if text := a.Value.String(); len(text) > mostLogged {
			a.Value = slog.StringValue(safetext.Cut(text, mostLogged))
		}
	case slog.KindAny:
		if err, is := a.Value.Any().(error); is {
			a.Value = slog.StringValue(safetext.Cut(err.Error(), mostLogged))
		}
	}
	return a
}

// newSource makes the one source that the flags name.
func newSource(f runFlags, stdin io.Reader, logger *slog.Logger) (daemon.Source, error) {
	var named []string
	for flag, said := range map[string]bool{"--plan": f.plan != "", "--inventory": f.inventory != "", "--patroni": len(f.patroni) > 0} {
		if said {
			named = append(named, flag)
		}
	}
	slices.Sort(named)
	switch {
	case len(named) == 0:
		return nil, command.Input(errors.New("say what to serve: --plan FILE, --inventory FILE --node HOST, or --patroni ADDRESS"))
	case len(named) > 1:
		return nil, command.Input(fmt.Errorf("%s: one of them", strings.Join(named, " and ")))
	case len(f.patroni) > 0 && f.node != "":
		return nil, command.Input(errors.New("--node names a host of an inventory: it goes with --inventory or --plan"))
	case len(f.patroni) > 0 && f.watch:
		return nil, command.Input(errors.New("--watch is for the inventory's file, or the plan's: it goes with --inventory or --plan"))
	case len(f.patroni) > 0 && f.stateDir != "":
		return nil, command.Input(errors.New("--state-dir keeps plans, and members are discovered: it goes with --inventory or --plan"))
	case len(f.patroni) > 0:
		source, err := daemon.NewDiscovered(f.patroni, logger)
		if err != nil {
			return nil, command.Input(fmt.Errorf("--patroni: %w", err))
		}
		source.Services = f.services
		return source, nil
	case f.services != "":
		return nil, command.Input(errors.New("--services is for members that are discovered, others have theirs beside them: it goes with --patroni"))
	}
	if f.stateDir != "" {
		if info, err := os.Stat(f.stateDir); err != nil {
			return nil, command.Input(fmt.Errorf("--state-dir: %w", err))
		} else if !info.IsDir() {
			return nil, command.Input(fmt.Errorf("--state-dir %s: a directory", f.stateDir))
		}
	}
	var local []string
	if f.node == "" {
		var err error
		if local, err = localAddresses(); err != nil {
			return nil, err
		}
	}
	if f.plan != "" {
		return &daemon.PlanFile{Path: f.plan, Node: f.node, Local: local, Watch: f.watch, Logger: logger}, nil
	}
	source := &daemon.InventoryFile{Path: f.inventory, Node: f.node, Local: local, Watch: f.watch, Logger: logger}
	if f.inventory == standardInput {
		if f.watch {
			return nil, command.Input(errors.New("--watch is for a file: standard input is read once"))
		}
		given, err := readInput(stdin)
		if err != nil {
			return nil, err
		}
		source.Path, source.Given = fromInput, given
	}
	if f.node == "" {
		var err error
		// Where a plan may have been kept the inventory may be broken.
		if source.Node, err = source.LocalNode(local); err != nil && f.stateDir == "" {
			return nil, command.Input(err)
		} else if err == nil {
			source.Assumed = []string{fmt.Sprintf("this node is %s of the inventory: it is an address of this machine", source.Node)}
		}
	}
	return source, nil
}

// localAddresses are this machine's own, without prefix lengths.
func localAddresses() ([]string, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("this machine's addresses: %w", err)
	}
	var local []string
	for _, a := range addresses {
		address, _, _ := strings.Cut(a.String(), "/")
		local = append(local, address)
	}
	return local, nil
}

// spareProcessor gives the runtime one processor more than there are, unless the operator says how many it has. The relay's
// loops keep all but one of them while they are busy: so there is a loop for each real one, and everything else has its own.
func spareProcessor() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}
}
