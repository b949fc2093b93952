package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/cli/switchover"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/monitor/patroni"
)

// switchoverFlags are those of switchover.
type switchoverFlags struct {
	inventory   string
	patroni     []string
	nodes       nodesFlags
	key         holdKeyFlags
	without     []string
	pgFile      string
	patroniFile string
	tls         patroni.TLS
	order       switchover.Order
	output      string
}

// mostDrain is what --drain may be: a hold lasts for a minute at most, and Patroni's part is in it.
const mostDrain = 30 * time.Second

func newSwitchoverCommand() *cobra.Command {
	f := switchoverFlags{}
	c := &cobra.Command{
		Use:   "switchover CLUSTER {--inventory FILE | --patroni ADDR[,...]} [--to MEMBER]",
		Short: "Have another member lead a cluster, while clients wait instead of failing",
		Long: `Looks whether the other member can lead, has both make a checkpoint, has every node's pgporter keep new clients of the leader waiting and
pause the PgBouncers that it watches over (run --pool), waits for transactions to end, asks Patroni, and lets go as soon as the new leader
says itself that it leads. Each step is told on standard error as it begins, with its time; what came of it on standard output.

As long as Patroni wasn't asked, a failure or Ctrl-C has everything be as it was; afterwards clients are let go at least. What nodes do is a
lease of 5 seconds: if this command is killed they let go by themselves. A second Ctrl-C ends it at once.

Transactions that are under way as clients are held have --drain to end. What runs then is named, and nothing is done, unless --cancel cancels
it or --force has it cut. Sessions that come straight to PostgreSQL end with the old leader in any case; those of a paused PgBouncer stay.

Nodes are told at their control addresses: with --inventory all that carry the cluster, with --node those, and else this machine's alone.
One that can't be told has nothing be begun, unless --without leaves it out. With --etcd they are told by a key of pgporter's own in etcd, for
which an account is enough that can write none of Patroni's; each shows at its admin address (port ` + api.DefaultPort + `, or --port) that it follows.

Patroni's user and password are the inventory's patroni_username and patroni_password, or in the file of --patroni-credentials. CHECKPOINT and
the look at transactions take an account of PostgreSQL's with pg_checkpoint (before PostgreSQL 15: a superuser) and pg_monitor, for --cancel
pg_signal_backend: --pg-credentials names a file with it, as for pgporter who; without it PGUSER, PGPASSFILE and the like hold. Where there is
none, these steps are skipped, which is said.`,
		Example: `  pgporter switchover pg-test --inventory pigsty.yml --dry-run --pg-credentials admin.account   # with PGPORTER_TOKEN_FILE and PGPORTER_CA
  pgporter switchover pg-test --inventory pigsty.yml --to pg-test-2 --pg-credentials admin.account
  pgporter switchover pg-test --inventory pigsty.yml --drain 20s --cancel --pg-credentials admin.account
  pgporter switchover pg-test --inventory pigsty.yml --without 10.10.10.13
  pgporter switchover pg-test --inventory pigsty.yml --etcd 10.10.10.10 --etcd-user pgporter --etcd-password-file etcd.password
  pgporter switchover pg-test --patroni 10.10.10.11:8008 --node 10.10.10.11,10.10.10.12 --patroni-credentials patroni.account -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args[0]) },
	}
	inventoryFlag(c, &f.inventory)
	c.Flags().StringSliceVar(&f.patroni, "patroni", nil, "no inventory: ask Patroni at `ADDR[,...]` who the members are")
	c.Flags().StringVar(&f.order.To, "to", "", "the `MEMBER` that is to lead (default: who fits best)")
	adminFlag(c, &f.nodes.local.admin)
	c.Flags().StringSliceVar(&f.nodes.named, "node", nil, "the pgporters at these control addresses, `HOST[:PORT],...` (default: of an inventory those that carry the cluster, with --patroni this machine's)")
	f.nodes.addControl(c)
	f.key.add(c)
	c.Flags().StringSliceVar(&f.without, "without", nil, "go on though the pgporters at these `NODES` aren't told: their clients notice")
	c.Flags().DurationVar(&f.order.Drain, "drain", 5*time.Second, "how long transactions may take to end, as `TIME`, "+mostDrain.String()+" at most")
	c.Flags().BoolVar(&f.order.Cancel, "cancel", false, "cancel what runs after --drain (pg_cancel_backend)")
	c.Flags().BoolVar(&f.order.Force, "force", false, "go on in spite of what runs after --drain: it is cut")
	c.Flags().DurationVar(&f.order.Checkpoint, "checkpoint", time.Minute, "how long the checkpoint of one member may take, as `TIME`")
	c.Flags().DurationVar(&f.order.Look, "timeout", 5*time.Second, "how long each may take to answer before anything is begun, as `TIME`")
	c.Flags().BoolVarP(&f.order.DryRun, "dry-run", "n", false, "look, say what would be done to whom, and change nothing")
	c.Flags().StringVar(&f.pgFile, "pg-credentials", "", "the `FILE` with PostgreSQL's account (default: as psql has it)")
	c.Flags().StringVar(&f.patroniFile, "patroni-credentials", "", "the `FILE` with Patroni's user and password (default: the inventory's)")
	c.Flags().StringVar(&f.tls.CAFile, "patroni-ca", "", "the `FILE` with the authority of Patroni's certificates (default: "+patroni.DefaultCAFile+", or the system's)")
	c.Flags().StringVar(&f.tls.CertFile, "patroni-cert", "", "the `FILE` with the certificate to show to Patroni, with its key in it or in FILE.key")
	for _, file := range []string{"token-file", "ca", "pg-credentials", "patroni-credentials", "patroni-ca", "patroni-cert"} {
		c.MarkFlagFilename(file)
	}
	command.OutputFlag(c, &f.output, "table", "json")
	c.ValidArgsFunction = f.completeClusters
	c.RegisterFlagCompletionFunc("to", f.completeMembers)
	return c
}

// completeClusters offers the clusters of the inventory.
func (f *switchoverFlags) completeClusters(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if f.inventory == "" || f.inventory == standardInput || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	inv, _ := readInventory(f.inventory, c.InOrStdin())
	if inv == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return plan.Clusters(inv), cobra.ShellCompDirectiveNoFileComp
}

// completeMembers offers the members of the cluster.
func (f *switchoverFlags) completeMembers(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if f.inventory == "" || f.inventory == standardInput || len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	inv, _ := readInventory(f.inventory, c.InOrStdin())
	if inv == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	access, _ := plan.ForAccess(inv, args[0])
	return memberNames(access.Members), cobra.ShellCompDirectiveNoFileComp
}

func memberNames(members []model.Member) []string {
	var names []string
	for _, m := range members {
		names = append(names, m.Name)
	}
	return names
}

func (f *switchoverFlags) check() error {
	if err := command.OneOf("output", f.output, "table", "json"); err != nil {
		return err
	}
	switch {
	case (f.inventory == "") == (len(f.patroni) == 0):
		return command.Input(errors.New("who the members are: --inventory FILE or --patroni ADDR, one of them"))
	case f.nodes.port < 1 || f.nodes.port > 65535:
		return command.Input(fmt.Errorf("--port %d: 1 to 65535", f.nodes.port))
	case f.order.Drain < 0 || f.order.Drain > mostDrain:
		return command.Input(fmt.Errorf("--drain %s: 0s to %s", f.order.Drain, mostDrain))
	case f.order.Checkpoint <= 0:
		return command.Input(fmt.Errorf("--checkpoint %s: more than 0", f.order.Checkpoint))
	case f.order.Look <= 0:
		return command.Input(fmt.Errorf("--timeout %s: more than 0", f.order.Look))
	case f.order.Cancel && f.order.Force:
		return command.Input(errors.New("--cancel and --force: one of them"))
	}
	if err := f.tls.Check(); err != nil {
		return command.Input(err)
	}
	return nil
}

func (f *switchoverFlags) run(c *cobra.Command, cluster string) error {
	if err := f.check(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The second one isn't caught any more, and ends the command at once.
	defer context.AfterFunc(ctx, stop)()
	f.order.Cluster, f.order.ID = cluster, "switchover-"+strings.ToLower(rand.Text()[:10])
	world, servers, err := f.world(ctx, c)
	if err != nil {
		return err
	}
	defer servers.close()
	return f.change(ctx, c, world)
}

// change makes the switchover and prints what comes of it.
func (f *switchoverFlags) change(ctx context.Context, c *cobra.Command, world switchover.World) error {
	progress := safetext.Writer(c.ErrOrStderr())
	report, failed := switchover.Run(ctx, f.order, world, func(e switchover.Event) {
		if f.order.DryRun && e.Step != "" {
			return
		}
		fmt.Fprintf(progress, "%8.3f s  %-10s  %s\n", e.After.Seconds(), e.Step, e.Text)
	})
	safetext.Deep(&report)
	out := safetext.Writer(c.OutOrStdout())
	var err error
	if f.output == "json" {
		err = printJSON(out, report)
	} else {
		err = printSwitchover(out, report)
	}
	return errors.Join(failed, err)
}

// printSwitchover prints what came of a switchover, or what would be done.
func printSwitchover(w io.Writer, r switchover.Report) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	switch {
	case r.DryRun && r.Error == "":
		fmt.Fprintln(table, "STEP\tWHAT WOULD BE DONE")
		for _, s := range r.Steps {
			text := s.Text
			if s.Skipped != "" {
				text += " (" + s.Skipped + ")"
			}
			fmt.Fprintf(table, "%s\t%s\n", s.Name, text)
		}
	case r.Done:
		fmt.Fprintf(table, "%s leads %s instead of %s\n", r.To, r.Cluster, r.From)
		fmt.Fprintf(table, "  Patroni's stop of %s\t%.3f s\n", r.From, r.StopSeconds)
		fmt.Fprintf(table, "  promotion of %s\t%.3f s\n", r.To, r.PromotionSeconds)
		fmt.Fprintf(table, "  pgporter's part after that\t%.3f s\n", r.OwnSeconds)
		fmt.Fprintf(table, "  clients waited in all\t%.3f s\n", r.HeldSeconds)
		for _, h := range r.Hints {
			fmt.Fprintf(table, "  about %s\n", h)
		}
	}
	return table.Flush()
}

// world is whom the switchover is made with.
func (f *switchoverFlags) world(ctx context.Context, c *cobra.Command) (switchover.World, *memberServers, error) {
	access, hosts, err := f.whose(ctx, c)
	if err != nil {
		return switchover.World{}, nil, err
	}
	if to := f.order.To; to != "" && !slices.Contains(memberNames(access.Members), to) {
		return switchover.World{}, nil, command.Input(fmt.Errorf("--to: %w", switchover.Unknown("member", to, memberNames(access.Members))))
	}
	var world switchover.World
	if world.Nodes, err = f.told(ctx, c, hosts); err != nil {
		return switchover.World{}, nil, err
	}
	rest := &patroniAPI{client: patroni.NewClient(patroni.Options{TLS: f.tls}), members: access.Members, who: patroni.Credential{User: access.PatroniUser, Password: access.PatroniPassword}}
	if f.patroniFile != "" {
		a, err := readAccount("--patroni-credentials", f.patroniFile)
		if err != nil {
			return switchover.World{}, nil, err
		}
		rest.who = patroni.Credential{User: a.user, Password: a.password}
	}
	servers := &memberServers{members: access.Members, pooled: pooledByServices(access)}
	if servers.account, err = readAccount("--pg-credentials", f.pgFile); err != nil {
		return switchover.World{}, nil, err
	}
	world.Patroni, world.Servers = rest, servers
	return world, servers, nil
}

// whose are the cluster's members, and the hosts that carry it where an inventory says so.
func (f *switchoverFlags) whose(ctx context.Context, c *cobra.Command) (model.Access, []string, error) {
	w := whoFlags{inventory: f.inventory, cluster: f.order.Cluster, patroni: f.patroni, timeout: f.order.Look}
	if f.inventory == "" {
		members, err := w.discovered(ctx)
		if err != nil {
			return model.Access{}, nil, err
		}
		if found := w.filter.Cluster; found != f.order.Cluster {
			return model.Access{}, nil, command.Input(fmt.Errorf("--patroni: %w", switchover.Unknown("cluster", f.order.Cluster, []string{found})))
		}
		return model.Access{Cluster: f.order.Cluster, Members: members, Pooled: true}, nil, nil
	}
	inv, problems := soundInventory(f.inventory, c.InOrStdin(), engineNative)
	if inv == nil || problems.Err() != nil {
		return model.Access{}, nil, problems
	}
	access, found := plan.ForAccess(inv, f.order.Cluster)
	if found.Err() != nil {
		return model.Access{}, nil, found
	}
	carriers, _ := plan.Nodes(inv, f.order.Cluster)
	return access, carriers, nil
}

// told are the nodes that are to hold.
func (f *switchoverFlags) told(ctx context.Context, c *cobra.Command, hosts []string) ([]switchover.Node, error) {
	key, err := f.key.settle(c)
	if err != nil {
		return nil, err
	}
	if len(f.nodes.named) > 0 {
		hosts = f.nodes.named
	}
	all, err := f.reached(ctx, c, key, hosts)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range all {
		names = append(names, n.Called())
	}
	for _, name := range f.without {
		if !slices.Contains(names, name) {
			return nil, command.Input(fmt.Errorf("--without: there is no node %q; there are: %s", name, strings.Join(names, ", ")))
		}
	}
	all = slices.DeleteFunc(all, func(n switchover.Node) bool { return slices.Contains(f.without, n.Called()) })
	if len(all) == 0 {
		return nil, command.Input(errors.New("--without leaves no node: patronictl switchover is for that"))
	}
	return all, nil
}

// reached are the pgporters at hosts, or this machine's where there are none, as they are told.
func (f *switchoverFlags) reached(ctx context.Context, c *cobra.Command, key *holdKey, hosts []string) ([]switchover.Node, error) {
	var all []switchover.Node
	switch {
	case key != nil:
		port := api.DefaultPort
		if c.Flags().Changed("port") {
			port = strconv.Itoa(f.nodes.port)
		}
		if len(hosts) == 0 {
			return nil, command.Input(errors.New("--etcd: which pgporters follow the key: --node, or --inventory"))
		}
		for _, host := range hosts {
			address, err := hostPort("node", host, port)
			if err != nil {
				return nil, err
			}
			all = append(all, keyNode{name: host, status: api.Client{Address: address}, key: key})
		}
	case len(hosts) == 0:
		f.nodes.local.timeout = f.order.Look
		one, err := f.nodes.thisMachine(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	default:
		client, err := f.nodes.client()
		if err != nil {
			return nil, err
		}
		found, err := f.nodes.at(client, hosts)
		if err != nil {
			return nil, err
		}
		for _, n := range found {
			all = append(all, n)
		}
	}
	return all, nil
}
