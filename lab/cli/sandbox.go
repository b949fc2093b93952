package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/lab/sandbox"
)

func sandboxUp(dir *string) *cobra.Command {
	var config sandbox.Config
	var detach, load, proxied bool
	c := &cobra.Command{
		Use:   "up",
		Short: "Start a sandbox",
		Long: `Starts etcd, the members and their pgporters, and returns when every service answers; then it prints how to reach them.
It stays in the foreground until Ctrl-C or SIGTERM, which takes the sandbox down; with --detach the sandbox stays without
it. Where one is running already, that is said and nothing is touched. With --load it writes through the service primary
meanwhile and shows what clients see: see pgporter-lab load.

With --netns (root) it is on the documents' network instead of on loopback addresses: pg-meta, a single node with etcd, on
10.10.10.10, pg-test on .11 to .13, the clusters' virtual addresses .2 and .3, and a client whose resolver is pgporter's own,
each in a network namespace. Nothing of that network is seen outside of it: pgporter-lab exec client -- bash leads in.

Member 1 is the primary. The last of several members answers offline queries: a replica with pg_offline_query, or with
--offline a dedicated instance. If starting fails, what was started is ended and the logs stay in DIRECTORY/log.`,
		Example: `  pgporter-lab up
  pgporter-lab up --members 2 --detach
  pgporter-lab up --sync --delayed --offline
  pgporter-lab up --standby                               # and a second cluster that replicates from the first
  pgporter-lab up --prefix 127.0.2 --dir /var/tmp/second  # beside another one
  pgporter-lab up --tls --detach                          # PGSSLROOTCERT=DIRECTORY/server.crt verifies
  pgporter-lab up --door                                  # pooled clients, whom a planned switchover costs nothing
  pgporter-lab up --netns                                 # root: the documents' own network`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config.Dir, config.Foreground = *dir, !detach
			if load && (detach || config.WithoutPgporter) {
				return command.Input(errors.New("--load goes through a pgporter and stays in the foreground: leave --no-pgporter and --detach out"))
			}
			if proxied {
				var err error
				if config.RestProxy, err = os.Executable(); err != nil {
					return err
				}
			}
			if !config.WithoutPgporter {
				var err error
				if config.Binary, err = findProgram(config.Binary); err != nil {
					return err
				}
			}
			return runSandbox(c, config, load)
		},
	}
	f := c.Flags()
	f.IntVar(&config.Members, "members", sandbox.DefaultMembers, "`NUMBER` of members of pg-test, 1 to 9")
	f.BoolVar(&config.Netns, "netns", false, "nodes in network namespaces with the documents' addresses, and pg-meta; needs root")
	f.StringVar(&config.Prefix, "prefix", "", "first three octets of the `ADDRESSES`; .10 is etcd, .11 and up the members, .21 and up the standby cluster's (default: "+sandbox.DefaultPrefix+"; with --netns "+sandbox.NetnsPrefix+")")
	f.BoolVar(&config.Sync, "sync", false, "synchronous mode, and the service standby on port 5435")
	f.BoolVar(&config.Offline, "offline", false, "make the last member a dedicated offline instance")
	f.BoolVar(&config.Delayed, "delayed", false, "add a member that lags by a minute, and the service delayed on port 5439")
	f.BoolVar(&config.Standby, "standby", false, "add pg-standby, a standby cluster of two members")
	f.BoolVar(&config.TLS, "tls", false, "have PostgreSQL and PgBouncer take clients with TLS too, with the certificate DIRECTORY/server.crt")
	f.BoolVar(&config.WithoutLocalReplication, "without-local-replication", false, "have pg_hba.conf forget replication from the member itself: each question to a replica's Patroni opens a connection that is refused")
	f.BoolVar(&proxied, "rest-proxy", false, "put a proxy before each Patroni's REST API, which pgporter-lab api orders about")
	f.BoolVar(&config.Door, "door", false, "put a PgBouncer before each node's services default and offline, at port 6433, which stays with its clients in a switchover")
	f.BoolVar(&detach, "detach", false, "leave the sandbox running and return")
	f.BoolVar(&load, "load", false, "write through the service primary and show what clients see")
	f.BoolVar(&config.WithoutPgporter, "no-pgporter", false, "run the bare cluster, without pgporters")
	programFlag(c, &config.Binary, foundProgram)
	f.DurationVar(&config.Timeout, "timeout", sandbox.DefaultTimeout, "how long starting may take, as `TIME`")
	return c
}

// runSandbox brings a sandbox up and, in the foreground, stays with it until a signal, with a load if that is wanted.
func runSandbox(c *cobra.Command, config sandbox.Config, load bool) error {
	// Ctrl-C ends who reads our output through a pipe as well, and the sandbox is still to be taken down.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	s, err := sandbox.Up(ctx, config, c.ErrOrStderr())
	if err != nil {
		return input(err)
	}
	printGuide(c.OutOrStdout(), s)
	if !config.Foreground {
		return nil
	}
	progress := c.ErrOrStderr()
	var shown *show
	if load {
		if shown, err = newShow(c, s, "primary", ""); err != nil {
			return errors.Join(err, s.Down(context.Background(), false))
		}
		progress = shown.screen
	}
	s.OnExit(func(what, why string) {
		if ctx.Err() == nil {
			fmt.Fprintf(progress, "%s ended: %s\n", what, why)
		}
	})
	const goodbye = "Ctrl-C takes it down"
	if load {
		if err := shown.run(ctx, goodbye); err != nil && ctx.Err() == nil {
			fmt.Fprintln(c.ErrOrStderr(), err)
			<-ctx.Done()
		}
	} else {
		fmt.Fprintf(c.ErrOrStderr(), "\n%s.\n", goodbye)
		<-ctx.Done()
	}
	s.SetProgress(c.ErrOrStderr())
	fmt.Fprintln(c.ErrOrStderr(), "taking the sandbox down")
	if err := s.Down(context.Background(), false); err != nil {
		return err
	}
	fmt.Fprintln(c.ErrOrStderr(), "down; nothing of it is left")
	return nil
}

// pagePort is where a node's page and metrics are, in inventories that say no other (haproxy_exporter_port).
const pagePort = "9101"

// printGuide shows how to reach everything and what to try next.
func printGuide(w io.Writer, s *sandbox.Sandbox) {
	me := os.Args[0]
	at := s.DirFlag()
	fmt.Fprintf(w, "\nThe sandbox is up. Its inventory: %s\n", s.Inventory())
	if s.HasNetwork() {
		fmt.Fprintf(w, "\nIt is on a network of its own. What follows works on its client:\n  %s exec%s client -- bash\n", me, at)
	}
	last := ""
	for _, a := range s.URLs() {
		if a.Name != last {
			fmt.Fprintf(w, "\n%s, port %d: %s\n", a.Name, a.Port, serviceMeaning(a))
			last = a.Name
		}
		fmt.Fprintf(w, "  psql %s\n", a.URL())
	}
	for i, a := range s.Doors("default") {
		if i == 0 {
			fmt.Fprintf(w, "\nThe same through each node's own PgBouncer, port %d: a planned switchover ends no session there\n", a.Port)
		}
		fmt.Fprintf(w, "  psql %s\n", a.URL())
	}
	if last == "" {
		fmt.Fprintln(w)
		for _, m := range s.Declared() {
			if a, err := s.Access(m.Name, ""); err == nil {
				fmt.Fprintf(w, "  psql %s   # %s\n", a.URL(), m.Name)
			}
		}
	}
	fmt.Fprint(w, "\nNext:\n")
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if last != "" {
		first, program := s.Declared()[0].Address, shown(s.Config().Binary)
		fmt.Fprintf(out, "  http://%s/\tthe page: who serves what now, and why, live\n", net.JoinHostPort(first, pagePort))
		fmt.Fprintf(out, "  %s top --admin %s\tthe same in a terminal, with keys that drain\n", program, first)
		fmt.Fprintf(out, "  %s status --watch --admin %s\tor as text\n", program, first)
	}
	fmt.Fprintf(out, "  %s status%s\tprocesses and members\n", me, at)
	if s.HasNetwork() {
		fmt.Fprintf(out, "  %s cut%s 1\tnobody hears the first member any more\n", me, at)
		fmt.Fprintf(out, "  %s heal%s\tand all hear each other again\n", me, at)
	}
	if len(s.Declared()) > 1 {
		fmt.Fprintf(out, "  %s switchover%s\tanother member leads\n", me, at)
		if s.Config().Door {
			fmt.Fprintf(out, "  %s switchover%s --drain\tthe same by pgporter switchover: pooled clients wait at rest and lose nothing\n", me, at)
		}
	}
	fmt.Fprintf(out, "  %s kill%s 1/patroni 1/postgres\tthe first member crashes\n", me, at)
	fmt.Fprintf(out, "  %s start%s 1/patroni\tand comes back\n", me, at)
	fmt.Fprintf(out, "  %s down%s\tthe end of it\n", me, at)
	out.Flush()
}

// shown is a program's path as it is typed here.
func shown(program string) string {
	here, err := os.Getwd()
	if err != nil {
		return program
	}
	path, err := filepath.Rel(here, program)
	switch {
	case err != nil || !filepath.IsLocal(path):
		return program
	case filepath.Base(path) == path:
		return "./" + path
	}
	return path
}

// serviceMeaning says in a few words what a service is for.
func serviceMeaning(a sandbox.Access) string {
	if !a.Servable {
		return "nobody in this sandbox can carry it"
	}
	switch a.Name[strings.LastIndexByte(a.Name, '-')+1:] {
	case "primary":
		return "reads and writes, through the primary's PgBouncer"
	case "replica":
		return "reads, through the replicas' PgBouncers; the primary only when there is no replica"
	case "default":
		return "straight to the primary's PostgreSQL"
	case "offline":
		return "slow queries, straight to a replica that is meant for them"
	case "standby":
		return "reads without lag, from the synchronous replica"
	case "delayed":
		return "the data of a minute ago"
	}
	return ""
}

func sandboxStatus(dir *string) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show a sandbox's processes and members",
		Long: `Shows every process with its id and addresses, and every member with the role, state and lag that Patroni sees now.
What the services do with them is shown by pgporter status.`,
		Example: `  pgporter-lab status
  pgporter-lab status -o json | jq -r '.members[] | select(.live_role == "leader") | .name'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := command.OneOf("output", output, "table", "json"); err != nil {
				return err
			}
			s, err := sandbox.Open(*dir)
			if err != nil {
				return err
			}
			status, err := s.Status(c.Context())
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			if output == "json" {
				encoder := json.NewEncoder(w)
				encoder.SetIndent("", "  ")
				encoder.SetEscapeHTML(false)
				return encoder.Encode(status)
			}
			printSandbox(w, status)
			return nil
		},
	}
	command.OutputFlag(c, &output, "table", "json")
	return c
}

func printSandbox(w io.Writer, status sandbox.Status) {
	fmt.Fprintf(w, "sandbox %s is %s", status.Dir, status.Phase)
	if !status.UpSince.IsZero() {
		fmt.Fprintf(w, " (%s, as %s)", since(status.UpSince), status.User)
	}
	fmt.Fprint(w, "\n\n")
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "MEMBER\tADDRESS\tDECLARED\tROLE\tSTATE\tTIMELINE\tLAG")
	for _, m := range status.Members {
		lag := ""
		if m.Lag != nil {
			lag = fmt.Sprintf("%d B", *m.Lag)
		}
		timeline := ""
		if m.Timeline > 0 {
			timeline = fmt.Sprint(m.Timeline)
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, m.Address, m.Role, m.LiveRole, m.State, timeline, lag)
	}
	out.Flush()
	fmt.Fprintln(w)
	out = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "PROCESS\tSTATE\tID\tFOR\tLISTENS")
	for _, p := range status.Processes {
		id, age := "", ""
		if p.PID != 0 {
			id, age = fmt.Sprint(p.PID), since(p.Since)
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%s\n", p.What, p.State, id, age, strings.Join(p.Listens, " "))
	}
	out.Flush()
	switch {
	case status.NetworkProblem != "":
		fmt.Fprintf(w, "\nthe network isn't known: %s\n", status.NetworkProblem)
	case status.Network != nil:
		fmt.Fprintf(w, "\n%s", status.Network)
	}
}

func since(t time.Time) string { return max(0, time.Since(t)).Round(time.Second).String() }

func sandboxDown(dir *string) *cobra.Command {
	var keepLogs bool
	c := &cobra.Command{
		Use:   "down",
		Short: "End a sandbox and remove its data",
		Long: `Ends every process of the sandbox, kindly first, and removes what it kept in its directory. Only what the sandbox
started is ended: a process is known by its id and start time, by its data directory, or by what its environment says. It
works after a crash of the sandbox's own program, and on one that was never complete.`,
		Example: `  pgporter-lab down
  pgporter-lab down --keep-logs`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			s, err := sandbox.Open(*dir)
			if errors.Is(err, sandbox.ErrNone) {
				ended, lostErr := sandbox.DownLost(ctx, *dir, c.ErrOrStderr())
				if lostErr != nil || ended > 0 {
					return lostErr
				}
				return err
			}
			if err != nil {
				return err
			}
			s.SetProgress(c.ErrOrStderr())
			if err := s.Down(ctx, keepLogs); err != nil {
				return err
			}
			fmt.Fprintln(c.ErrOrStderr(), "down; nothing of it is left running")
			return nil
		},
	}
	c.Flags().BoolVar(&keepLogs, "keep-logs", false, "leave DIRECTORY/log")
	return c
}

// accessFlags say where psql and exec connect, and as whom.
type accessFlags struct{ via, user, database string }

func (f *accessFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.via, "via", "", "`MEMBER` whose pgporter to go through: name, number or address (default: the first)")
	c.Flags().StringVarP(&f.user, "user", "U", "", "log in as `USER` (default: whom the documents use there)")
	c.Flags().StringVarP(&f.database, "database", "d", "", "`DATABASE`: test or meta (default: test)")
}

// resolve gives where the words before -- lead, and the words after it.
func (f *accessFlags) resolve(c *cobra.Command, dir string, args []string) (endpoint, []string, error) {
	target, rest := "primary", []string(nil)
	before := args
	if at := c.ArgsLenAtDash(); at >= 0 {
		before, rest = args[:at], args[at:]
	}
	switch len(before) {
	case 0:
	case 1:
		target = before[0]
	default:
		return endpoint{}, nil, command.Input(fmt.Errorf("%q: one target; what is for the program goes behind --", before[1]))
	}
	s, err := sandbox.Open(dir)
	if err != nil {
		return endpoint{}, nil, err
	}
	w, err := f.endpoint(s, target)
	if err != nil {
		return endpoint{}, nil, command.Input(err)
	}
	return w, rest, nil
}

const targetHelp = `TARGET is a service (primary, replica, default, offline; pg-standby-replica in full for another cluster), a member
(pg-test-2, or 2) for its PostgreSQL, a member's pool (pg-test-2/pgbouncer), or in a sandbox with --door the pool before a node's
pgporter (pg-test-2/door). Without one it is primary.`

func sandboxPsql(dir *string) *cobra.Command {
	var f accessFlags
	c := &cobra.Command{
		Use:   "psql [TARGET] [-- ARGUMENT...]",
		Short: "Open psql on a service or a member",
		Long:  "Runs psql with the account and database that the documents use there; it replaces this program, so its exit status counts.\n" + targetHelp,
		Example: `  pgporter-lab psql primary
  pgporter-lab psql replica --via 3 -- -c 'select inet_server_addr()'
  pgporter-lab psql pg-test-2 -U dbuser_dba -d meta`,
		RunE: func(c *cobra.Command, args []string) error {
			w, rest, err := f.resolve(c, *dir, args)
			if err != nil {
				return err
			}
			return w.become(append([]string{"psql"}, rest...))
		},
	}
	f.add(c)
	return c
}

func sandboxExec(dir *string) *cobra.Command {
	var f accessFlags
	c := &cobra.Command{
		Use:   "exec [TARGET] -- COMMAND [ARGUMENT...]",
		Short: "Run a command that connects to a service or a member",
		Long: "Runs a command with PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE and DATABASE_URL set; it replaces this program.\n" + targetHelp + `

In a sandbox with --netns it runs on the network's client, or on the member that TARGET names. The TARGET client connects to no
service; only PGPASSFILE is set then, so that URLs without a password work.`,
		Example: `  pgporter-lab exec default -- pgbench -i -s 10
  pgporter-lab exec replica -- env
  pgporter-lab exec client -- psql postgres://test@pg-test:5433/test   # with --netns
  pgporter-lab exec pg-test-2 -- ip address                            # with --netns`,
		RunE: func(c *cobra.Command, args []string) error {
			w, rest, err := f.resolve(c, *dir, args)
			if err != nil {
				return err
			}
			if len(rest) == 0 {
				return command.Input(errors.New("which command? It goes behind --"))
			}
			return w.become(rest)
		},
	}
	f.add(c)
	return c
}

func sandboxSwitchover(dir *string) *cobra.Command {
	var to string
	var drain bool
	c := &cobra.Command{
		Use:   "switchover",
		Short: "Have another member lead",
		Long: `Asks Patroni for a switchover and waits until the new leader runs and all others follow it. Without --to Patroni chooses
among the members of pg-test.

With --drain, in a sandbox with doors, it is pgporter switchover that is run: clients of the doors wait at rest meanwhile and lose nothing.`,
		Example: `  pgporter-lab switchover
  pgporter-lab switchover --to pg-test-3
  pgporter-lab switchover --drain             # up --door
  pgporter-lab switchover --to pg-standby-2   # the standby cluster's leader`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, ctx, stop, err := openSandbox(c, *dir)
			if err != nil {
				return err
			}
			defer stop()
			if drain {
				return drained(ctx, c, s, to)
			}
			done, err := s.Switchover(ctx, to)
			if err != nil {
				return input(err)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s leads instead of %s after %.1f s; all others follow after %.1f s\n", done.To, done.From, done.Leads.Seconds(), done.Followed.Seconds())
			return nil
		},
	}
	c.Flags().StringVar(&to, "to", "", "`MEMBER` that is to lead: name or number")
	c.Flags().BoolVar(&drain, "drain", false, "run pgporter switchover, which has clients wait at rest")
	return c
}

// drained runs the product's own switchover, whose words and status count, after saying how it is typed.
func drained(ctx context.Context, c *cobra.Command, s *sandbox.Sandbox, to string) error {
	args := []string{"switchover", "pg-test"}
	if to != "" {
		m, err := s.Access(to, "")
		if err != nil {
			return command.Input(err)
		}
		args = append(args, "--to", m.Node)
	}
	if steering := s.Steering(); steering != nil {
		fmt.Fprintf(c.ErrOrStderr(), "%s %s\n", shown(s.Config().Binary), strings.Join(append(args, steering...), " "))
	}
	err := s.Steer(ctx, syscall.SIGTERM, c.OutOrStdout(), c.ErrOrStderr(), args...)
	var ended *exec.ExitError
	if errors.As(err, &ended) && ended.Exited() {
		return command.Status(ended.ExitCode())
	}
	return input(err)
}

// openSandbox opens a sandbox for an operation that tells its progress and ends at a signal.
func openSandbox(c *cobra.Command, dir string) (*sandbox.Sandbox, context.Context, context.CancelFunc, error) {
	s, err := sandbox.Open(dir)
	if err != nil {
		return nil, nil, nil, err
	}
	s.SetProgress(c.ErrOrStderr())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	return s, ctx, stop, nil
}

const whatHelp = `WHAT is etcd, or a member and one of its programs: pg-test-1/postgres, …/patroni, …/pgbouncer, …/pgporter, …/door (--door). A
member of pg-test goes by its number too: 1/postgres.`

func sandboxKill(dir *string) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "kill WHAT...",
		Short: "Send a signal to processes of a sandbox: SIGKILL unless said otherwise",
		Long: `Signals processes in the order in which they are named, at once one after the other: 1/patroni 1/postgres is a member
that crashes, as Patroni can't react to the loss of its PostgreSQL any more. postgres is the server's main process.
` + whatHelp,
		Example: `  pgporter-lab kill 1/postgres                 # Patroni restarts it
  pgporter-lab kill 1/patroni 1/postgres       # another member takes over
  pgporter-lab kill 2/pgbouncer --signal STOP  # it accepts and doesn't answer; start makes it go on
  pgporter-lab kill etcd`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			sig, err := sandbox.ParseSignal(name)
			if err != nil {
				return command.Input(err)
			}
			s, ctx, stop, err := openSandbox(c, *dir)
			if err != nil {
				return err
			}
			defer stop()
			return input(s.Kill(ctx, sig, args...))
		},
	}
	c.Flags().StringVar(&name, "signal", "KILL", "the `SIGNAL`: KILL, TERM, STOP, CONT … or a number")
	return c
}

func sandboxStart(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "start WHAT...",
		Short: "Start processes of a sandbox that have ended",
		Long: `Starts processes again and waits until they answer; one that was halted with SIGSTOP goes on. PostgreSQL is Patroni's to
start: 1/postgres asks the member's Patroni to.
` + whatHelp,
		Example: `  pgporter-lab start 1/patroni
  pgporter-lab start etcd 2/pgbouncer`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, ctx, stop, err := openSandbox(c, *dir)
			if err != nil {
				return err
			}
			defer stop()
			return input(s.Start(ctx, args...))
		},
	}
}
