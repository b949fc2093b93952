package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/who"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/cli/nodes"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/monitor/discover"
)

// whoFlags are those of who.
type whoFlags struct {
	inventory, cluster    string
	patroni               []string
	nodes                 nodesFlags
	pgFile, poolFile      string
	client                string
	filter                who.Filter
	query, all, kill, yes bool
	watch                 bool
	interval, timeout     time.Duration
	output                string
}

func newWhoCommand() *cobra.Command {
	f := whoFlags{}
	c := &cobra.Command{
		Use:   "who {--inventory FILE [--cluster NAME] | --patroni ADDR[,...] [--node ADDR[,...]]}",
		Short: "Show for each backend of PostgreSQL who its client really is",
		Long: `PostgreSQL sees pgporter's machine as its client, and behind PgBouncer PgBouncer's. This asks every member's PostgreSQL and
PgBouncer and every node's pgporter for their tables, joins them by addresses and ports, and shows for each backend the client's own
address, through which service and node it comes, since when, and what it does. It works with TLS and SCRAM, which nobody looks into.
A client that comes past pgporter is shown as direct, with its address.

It needs credentials: the nodes' token (--token-file, --ca; without --inventory and --node this machine's pgporter is asked, as root or its own user)
and an account of PostgreSQL's that may see others' addresses
(pg_monitor), which may also look into PgBouncer's console (stats_users). --pg-credentials names a file of mode 0600 with lines
"user = NAME" and "password = WORD"; without it PGUSER, PGSERVICE, PGPASSFILE and ~/.pgpass hold, as with psql, and so does PGSSLMODE.
Nothing shows or logs a password.

The tables are read one after the other. What can't be known for certain is said with the row. Whoever doesn't answer is named, the rest is
shown, and the exit status is 1.

With --kill what is shown is ended, after a question: backends by pg_terminate_backend, if they are still the ones that were shown;
pooled clients by ending their session at their pgporter, since the pool may have given their backend to somebody else.`,
		Example: `  pgporter who --inventory pigsty.yml --cluster pg-test --token-file control.token --ca control.crt --pg-credentials monitor.account
  pgporter who --inventory pigsty.yml --cluster pg-test --client 10.0.0.7            # with PGPORTER_TOKEN_FILE and PGPORTER_CA
  pgporter who --inventory pigsty.yml --cluster pg-test --member pg-test-1 --pid 4711 --query
  pgporter who --inventory pigsty.yml --cluster pg-test --client 10.0.0.0/24 --service primary --kill
  pgporter who --patroni 10.10.10.11:8008 --node 10.10.10.11,10.10.10.12 -o json
  pgporter who --patroni 127.0.0.1:8008                                              # who came through this machine`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	inventoryFlag(c, &f.inventory)
	c.Flags().StringVar(&f.cluster, "cluster", "", "the cluster's `NAME`; needed where the inventory has several")
	c.Flags().StringSliceVar(&f.patroni, "patroni", nil, "no inventory: ask Patroni at `ADDR[,...]` who the members are")
	adminFlag(c, &f.nodes.local.admin)
	c.Flags().StringSliceVar(&f.nodes.named, "node", nil, "the pgporters at these control addresses, `HOST[:PORT],...` (default: of an inventory those that carry the cluster, with --patroni this machine's)")
	f.nodes.addControl(c)
	c.Flags().StringVar(&f.pgFile, "pg-credentials", "", "the `FILE` with PostgreSQL's account (default: as psql has it)")
	c.Flags().StringVar(&f.poolFile, "pool-credentials", "", "the `FILE` with the account of PgBouncer's console (default: PostgreSQL's)")
	c.Flags().StringVar(&f.client, "client", "", "clients from this `ADDRESS` or network alone")
	c.Flags().IntVar(&f.filter.PID, "pid", 0, "the backend with this process `NUMBER` alone")
	c.Flags().StringVar(&f.filter.Member, "member", "", "this member alone, by its `NAME`")
	c.Flags().StringVar(&f.filter.Service, "service", "", "this service alone, by its `NAME`")
	c.Flags().StringVar(&f.filter.Database, "db", "", "this `DATABASE` alone")
	c.Flags().StringVar(&f.filter.User, "user", "", "this `USER` of the database alone")
	c.Flags().BoolVar(&f.query, "query", false, "show the queries' texts")
	c.Flags().BoolVar(&f.all, "all", false, "show PostgreSQL's own processes too")
	c.Flags().BoolVar(&f.kill, "kill", false, "end what is shown; goes with at least one of --client, --pid, --member, --service, --db, --user")
	c.Flags().BoolVarP(&f.yes, "yes", "y", false, "with --kill, don't ask")
	c.Flags().BoolVarP(&f.watch, "watch", "w", false, "go on showing it until interrupted")
	c.Flags().DurationVar(&f.interval, "interval", 5*time.Second, "with --watch, the `TIME` between two looks")
	c.Flags().DurationVar(&f.timeout, "timeout", 10*time.Second, "how long each may take to tell, as `TIME`")
	for _, file := range []string{"token-file", "ca", "pg-credentials", "pool-credentials"} {
		c.MarkFlagFilename(file)
	}
	command.OutputFlag(c, &f.output, "table", "json")
	return c
}

func (f *whoFlags) check() error {
	if err := command.OneOf("output", f.output, "table", "json"); err != nil {
		return err
	}
	switch {
	case (f.inventory == "") == (len(f.patroni) == 0):
		return command.Input(errors.New("who the members are: --inventory FILE or --patroni ADDR, one of them"))
	case f.inventory == "" && f.cluster != "":
		return command.Input(errors.New("--cluster is one of an inventory's"))
	case f.nodes.port < 1 || f.nodes.port > 65535:
		return command.Input(fmt.Errorf("--port %d: 1 to 65535", f.nodes.port))
	case f.timeout <= 0:
		return command.Input(fmt.Errorf("--timeout %s: more than 0", f.timeout))
	case f.interval < time.Second:
		return command.Input(fmt.Errorf("--interval %s: at least 1s", f.interval))
	case f.filter.PID < 0:
		return command.Input(fmt.Errorf("--pid %d: a process number", f.filter.PID))
	case f.yes && !f.kill:
		return command.Input(errors.New("--yes goes with --kill"))
	case f.kill && f.watch:
		return command.Input(errors.New("--kill and --watch: one of them"))
	}
	if f.client != "" {
		network, err := who.ParseClient(f.client)
		if err != nil {
			return command.Input(fmt.Errorf("--client %w", err))
		}
		f.filter.Client = network
	}
	if f.kill && f.filter.Empty() {
		return command.Input(errors.New("--kill of everything: say whom, with --client, --pid, --member, --service, --db or --user"))
	}
	return nil
}

func (f *whoFlags) run(c *cobra.Command) error {
	if err := f.check(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	q, err := f.inquiry(ctx, c)
	if err != nil {
		return err
	}
	out := safetext.Writer(c.OutOrStdout())
	if f.watch {
		return f.follow(ctx, q, c.OutOrStdout())
	}
	answer := q.ask(ctx)
	rows := f.choose(answer.rows)
	if err := f.print(out, rows, answer.problems); err != nil {
		return err
	}
	var failed error
	if len(answer.problems) > 0 {
		failed = command.Status(command.ExitFailed)
		if f.output == "json" {
			for _, p := range answer.problems {
				fmt.Fprintf(c.ErrOrStderr(), "pgporter: %s\n", p)
			}
		}
	}
	if f.kill {
		return errors.Join(f.end(ctx, c, q, rows), failed)
	}
	return failed
}

// inquiry says whom to ask, and as whom.
func (f *whoFlags) inquiry(ctx context.Context, c *cobra.Command) (*inquiry, error) {
	q := &inquiry{timeout: f.timeout, query: f.query}
	var hosts []string
	var err error
	if f.inventory != "" {
		q.members, hosts, err = f.declared(c)
	} else {
		q.members, err = f.discovered(ctx)
	}
	if err != nil {
		return nil, err
	}
	if q.nodes, err = f.pgporters(ctx, hosts); err != nil {
		return nil, err
	}
	if q.postgres, err = readAccount("--pg-credentials", f.pgFile); err != nil {
		return nil, err
	}
	q.pool = q.postgres
	if f.poolFile != "" {
		if q.pool, err = readAccount("--pool-credentials", f.poolFile); err != nil {
			return nil, err
		}
	}
	q.cluster = f.filter.Cluster
	return q, nil
}

// pgporters are those that are asked: at the hosts, at those that are named instead, or this machine's where there are none.
func (f *whoFlags) pgporters(ctx context.Context, hosts []string) ([]whoNode, error) {
	if len(f.nodes.named) > 0 {
		hosts = f.nodes.named
	}
	if len(hosts) == 0 {
		f.nodes.local.timeout = f.timeout
		one, err := f.nodes.thisMachine(ctx)
		if err != nil {
			return nil, err
		}
		return []whoNode{{name: one.Name, host: one.Name, sessions: one}}, nil
	}
	client, err := f.nodes.client()
	if err != nil {
		return nil, err
	}
	var all []whoNode
	seen := map[string]bool{}
	for _, name := range hosts {
		address, err := hostPort("node", name, strconv.Itoa(f.nodes.port))
		if err != nil {
			return nil, err
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if !seen[address] {
			seen[address] = true
			all = append(all, whoNode{name: name, host: host, sessions: nodes.At(name, client, address)})
		}
	}
	return all, nil
}

// declared are the members of an inventory's cluster, and the nodes that carry its services.
func (f *whoFlags) declared(c *cobra.Command) ([]model.Member, []string, error) {
	inv, problems := soundInventory(f.inventory, c.InOrStdin(), engineNative)
	if inv == nil || problems.Err() != nil {
		return nil, nil, problems
	}
	clusters := plan.Clusters(inv)
	if f.cluster == "" && len(clusters) == 1 {
		f.cluster = clusters[0]
	}
	if f.cluster == "" {
		return nil, nil, whichCluster(inv)
	}
	access, found := plan.ForAccess(inv, f.cluster)
	if err := found.Err(); err != nil {
		return nil, nil, found
	}
	members := access.Members
	if !access.Pooled {
		for i := range members {
			members[i].PgBouncerPort = 0
		}
	}
	carriers, _ := plan.Nodes(inv, f.cluster)
	f.filter.Cluster = f.cluster
	return members, carriers, nil
}

// discovered are the members that Patroni knows. Whether they have a PgBouncer it doesn't say: the usual port is tried by whoever discovers.
func (f *whoFlags) discovered(ctx context.Context) ([]model.Member, error) {
	follower, err := discover.New(f.patroni, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, command.Input(err)
	}
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	found, err := follower.Find(ctx)
	if err != nil {
		return nil, err
	}
	f.filter.Cluster = found.Cluster.Name
	return found.Cluster.Members, nil
}

// choose leaves the rows that are asked for.
func (f *whoFlags) choose(rows []who.Row) []who.Row {
	return slices.DeleteFunc(rows, func(r who.Row) bool {
		return !f.filter.Chooses(r) || r.Route == who.Internal && !f.all && f.filter.PID == 0
	})
}

// whoReport is what `pgporter who -o json` prints.
type whoReport struct {
	Cluster string    `json:"cluster,omitempty"`
	Rows    []who.Row `json:"rows"`
	// Problems says who doesn't tell what, and why.
	Problems []string `json:"problems,omitempty"`
}

func (f *whoFlags) print(w io.Writer, rows []who.Row, problems []string) error {
	if f.output == "json" {
		report := whoReport{Cluster: f.filter.Cluster, Rows: rows, Problems: problems}
		if rows == nil {
			report.Rows = []who.Row{}
		}
		safetext.Deep(&report)
		return printJSON(w, report)
	}
	_, err := w.Write(whoTable(rows, problems, time.Now()))
	return err
}

// whoTable is the table, the doubts about single rows below it, and then who doesn't tell.
func whoTable(rows []who.Row, problems []string, now time.Time) []byte {
	var text bytes.Buffer
	if len(rows) > 0 {
		table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "MEMBER\tPID\tCLIENT\tBY\tSERVICE\tNODE\tUSER\tDATABASE\tAPPLICATION\tSTATE\tFOR\tIN\tOUT")
		for _, r := range rows {
			in, out := "-", "-"
			if r.Session != 0 {
				in, out = byteSize(r.ToServer), byteSize(r.ToClient)
			}
			since := "-"
			if r.Since != nil {
				since = command.Age(max(0, now.Sub(*r.Since)))
			}
			mark := ""
			if r.Uncertain != "" {
				mark = " ?"
			}
			fmt.Fprintf(table, "%s\t%s\t%s%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", safetext.Short(r.Member, 64), orNone(pidText(r.PID)), orNone(safetext.Short(r.Client, 64)), mark, r.Route,
				orNone(safetext.Short(r.Service, 64)), orNone(r.Node), orNone(safetext.Short(r.User, 64)), orNone(safetext.Short(r.Database, 64)), orNone(safetext.Short(r.Application, 64)),
				orNone(r.State), since, in, out)
		}
		table.Flush()
	} else {
		fmt.Fprintln(&text, "nobody")
	}
	said := map[string]bool{}
	for _, r := range rows {
		if r.Query != "" {
			fmt.Fprintf(&text, "\n%s pid %d: %s", r.Member, r.PID, strings.Join(strings.Fields(safetext.Text(r.Query)), " "))
			said["query"] = true
		}
	}
	if said["query"] {
		fmt.Fprintln(&text)
	}
	for _, r := range rows {
		if r.Uncertain != "" {
			fmt.Fprintf(&text, "\n? %s %s: %s", r.Member, cmp.Or(pidText(r.PID), r.Client, "-"), r.Uncertain)
			said["doubt"] = true
		}
	}
	if said["doubt"] {
		fmt.Fprintln(&text)
	}
	for _, p := range problems {
		fmt.Fprintf(&text, "\n! %s", p)
	}
	if len(problems) > 0 {
		fmt.Fprintln(&text)
	}
	return text.Bytes()
}

func pidText(pid int) string {
	if pid == 0 {
		return ""
	}
	return strconv.Itoa(pid)
}

// byteSize is a number of bytes in few characters.
func byteSize(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	size, unit := float64(n)/1000, 0
	for size >= 999.5 && unit < len(units)-1 {
		size, unit = size/1000, unit+1
	}
	if size < 9.95 {
		return fmt.Sprintf("%.1f%c", size, units[unit])
	}
	return fmt.Sprintf("%.0f%c", size, units[unit])
}

// follow shows it again and again, on a terminal in the same place.
func (f *whoFlags) follow(ctx context.Context, q *inquiry, w io.Writer) error {
	isTerminal, _ := command.Terminal(w)
	out := safetext.Writer(w)
	ticker := time.NewTicker(f.interval)
	defer ticker.Stop()
	for {
		answer := q.ask(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if isTerminal {
			if _, err := io.WriteString(w, "\x1b[H\x1b[J"); err != nil {
				return err
			}
		} else if f.output == "table" {
			fmt.Fprintln(out, time.Now().Format(time.RFC3339))
		}
		if err := f.print(out, f.choose(answer.rows), answer.problems); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// confirm asks on standard error whether what was shown is to be ended.
func (f *whoFlags) confirm(c *cobra.Command, question string) (bool, error) {
	if f.yes {
		return true, nil
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s [y/N] ", question)
	line, err := bufio.NewReader(io.LimitReader(c.InOrStdin(), 1000)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if line == "" {
		fmt.Fprintln(c.ErrOrStderr())
		return false, command.Input(errors.New("nobody answers: --yes says that it is meant"))
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}
