package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/control"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/intake"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// reloadFlags are what `pgporter reload` takes.
type reloadFlags struct {
	inventory, token, ca, output string
	port                         int
	timeout                      time.Duration
	dryRun                       bool
}

func newReloadCommand() *cobra.Command {
	var f reloadFlags
	c := &cobra.Command{
		Use:   "reload --inventory FILE CLUSTER [ADDR...]",
		Short: "Send the nodes of a cluster what an inventory says of them now",
		Long: `Makes each node's plan from an inventory and sends it to the node's pgporter, which checks it, swaps it in and answers with
what has changed. Ports that stay are not closed, sessions keep their server. The nodes are those that carry the cluster's
services, or those of them that are named. Nothing is sent unless every plan is sound.

A node that fails is named and goes on with what it ran; the exit status is 1 then. With --dry-run nothing changes
anywhere: each node says what would, or why it would refuse.

Each node has to run with --control; see pgporter credentials. A plan holds no secrets of the inventory. The nodes' own files
aren't touched: after SIGHUP a node serves what its file says, and after a restart too, unless it runs with --state-dir and
its file still says what it said before.`,
		Example: `  pgporter reload --inventory pigsty.yml pg-test --dry-run --token-file control.token --ca control.crt
  pgporter reload --inventory pigsty.yml pg-test --token-file control.token --ca control.crt
  pgporter reload --inventory pigsty.yml pg-test 10.10.10.11 10.10.10.12       # with PGPORTER_TOKEN_FILE and PGPORTER_CA`,
		RunE: func(c *cobra.Command, args []string) error { return reload(c, f, args) },
	}
	inventoryFlag(c, &f.inventory)
	credentialFlags(c, &f.token, &f.ca)
	defaultPort, _ := strconv.Atoi(control.DefaultPort)
	c.Flags().IntVar(&f.port, "port", defaultPort, "the `PORT` of the nodes' control address")
	c.Flags().DurationVar(&f.timeout, "timeout", 30*time.Second, "how long a node may take to carry it out, as `TIME`; to say who it is, it gets "+toSayWho.String()+" of it at most")
	c.Flags().BoolVarP(&f.dryRun, "dry-run", "n", false, "show what would change on each node, and change nothing")
	command.OutputFlag(c, &f.output, "text", "json")
	return c
}

func reload(c *cobra.Command, f reloadFlags, args []string) error {
	switch {
	case f.inventory == "":
		return command.Input(errors.New("--inventory is missing: which file is to be sent (a node reads its own again with pgporter reread)"))
	case len(args) == 0:
		return command.Input(errors.New("which cluster is to be reloaded"))
	case f.token == "":
		return command.Input(errors.New("--token-file is missing: the token that the nodes were started with"))
	case f.port < 1 || f.port > 65535:
		return command.Input(fmt.Errorf("--port %d: 1 to 65535", f.port))
	case f.timeout <= 0:
		return command.Input(fmt.Errorf("--timeout %s: more than 0", f.timeout))
	}
	if err := command.OneOf("output", f.output, "text", "json"); err != nil {
		return err
	}
	inv, problems := readInventory(f.inventory, c.InOrStdin())
	if problems.Err() != nil {
		return problems
	}
	cluster := args[0]
	hosts, err := reloadTargets(inv, cluster, args[1:])
	if err != nil {
		return command.Input(fmt.Errorf("%s: %w", inv.File, err))
	}
	token, err := control.ReadToken(f.token)
	if err != nil {
		return command.Input(err)
	}
	client, err := control.NewClient(token, f.ca)
	if err != nil {
		return command.Input(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	out := safetext.Writer(c.OutOrStdout())
	r := rollout{client: client, port: f.port, timeout: f.timeout, dryRun: f.dryRun, source: intake.Printable(wholePath(f.inventory)), sender: sender()}
	nodes := make([]*reloaded, len(hosts))
	for i, host := range hosts {
		nodes[i] = &reloaded{Node: host}
	}
	report := func(n *reloaded) {
		if n.err != nil && f.output == "text" {
			fmt.Fprintf(c.ErrOrStderr(), "%s: %s\n", n.Node, n.failure())
		}
	}
	r.ask(ctx, nodes, report)
	found := r.plan(inv, nodes, report)
	problems = append(problems, found...)
	if err := problems.Err(); err != nil {
		return err
	}
	for _, w := range aboutCluster(inv, cluster, problems).Warnings() {
		fmt.Fprintln(c.ErrOrStderr(), w)
	}
	printed := map[string]string{}
	r.send(ctx, nodes, func(n *reloaded) {
		report(n)
		if n.err == nil && f.output == "text" {
			printReloaded(out, n, printed)
			if n.Taken.Unkept != "" {
				fmt.Fprintf(c.ErrOrStderr(), "%s: runs it, and its next start won't have it: %s\n", n.Node, n.Taken.Unkept)
			}
		}
	})
	var names []string
	for _, n := range nodes {
		if n.err != nil {
			n.Error = n.failure()
			names = append(names, n.Node)
		}
	}
	if f.output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(nodes); err != nil {
			return err
		}
	}
	if len(names) > 0 {
		return fmt.Errorf("%d of %d nodes of %s failed: %s", len(names), len(nodes), cluster, strings.Join(names, ", "))
	}
	return nil
}

// reloadTargets are the nodes to reload: those of the cluster, or the named ones of them.
func reloadTargets(inv *inventory.Inventory, cluster string, named []string) ([]string, error) {
	carriers, members := plan.Nodes(inv, cluster)
	if len(members) == 0 {
		clusters := plan.Clusters(inv)
		if len(clusters) == 0 {
			return nil, fmt.Errorf("no cluster %q: the inventory has none", cluster)
		}
		return nil, fmt.Errorf("no cluster %q; there are: %s", cluster, strings.Join(clusters, ", "))
	}
	if len(named) == 0 {
		return carriers, nil
	}
	// A member of a delegated cluster is sent something too: that it doesn't carry the services any more.
	known := slices.Clone(carriers)
	for _, m := range members {
		if !slices.Contains(known, m) {
			known = append(known, m)
		}
	}
	var hosts, unknown []string
	for _, name := range named {
		switch {
		case !slices.Contains(known, name):
			unknown = append(unknown, strconv.Quote(name))
		case !slices.Contains(hosts, name):
			hosts = append(hosts, name)
		}
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("cluster %s has no node %s; there are: %s", cluster, strings.Join(unknown, ", "), strings.Join(known, ", "))
	}
	return hosts, nil
}

// reloaded is one node that is sent to, and what came of it.
type reloaded struct {
	Node  string     `json:"node"`
	Taken *api.Taken `json:"taken,omitempty"`
	Error string     `json:"error,omitempty"`

	engine string
	// names says that the node tells the clusters' names.
	names bool
	order intake.Order
	err   error
}

// failure says what became of a node that failed.
func (n *reloaded) failure() string {
	if errors.Is(n.err, control.ErrUnknown) {
		return fmt.Sprintf("%v; pgporter status on the node tells", n.err)
	}
	return fmt.Sprintf("goes on with what it ran: %v", n.err)
}

// rollout brings plans to nodes: first all are asked who they are, then all plans are made, then all are sent. A node that
// fails is left out of what follows.
type rollout struct {
	client         *control.Client
	port           int
	timeout        time.Duration
	dryRun         bool
	source, sender string
}

// toSayWho is how long a node may take to answer at all: one that is silent keeps the others waiting.
const toSayWho = 10 * time.Second

// together bounds how many nodes are spoken to at once.
const together = 16

// each runs f for every node that hasn't failed, several at a time, and done as they end, one at a time.
func (r *rollout) each(ctx context.Context, nodes []*reloaded, limit time.Duration, f func(ctx context.Context, address string, n *reloaded) error, done func(*reloaded)) {
	ended := make(chan *reloaded)
	slots := make(chan struct{}, together)
	var working sync.WaitGroup
	begun := 0
	for _, n := range nodes {
		if n.err != nil {
			continue
		}
		begun++
		working.Go(func() {
			slots <- struct{}{}
			one, cancel := context.WithTimeout(ctx, limit)
			n.err = f(one, net.JoinHostPort(n.Node, strconv.Itoa(r.port)), n)
			cancel()
			<-slots
			ended <- n
		})
	}
	for range begun {
		done(<-ended)
	}
	working.Wait()
}

// ask has every node say who it is and what carries its services.
func (r *rollout) ask(ctx context.Context, nodes []*reloaded, done func(*reloaded)) {
	r.each(ctx, nodes, min(toSayWho, r.timeout), func(ctx context.Context, address string, n *reloaded) error {
		who, err := r.client.Ask(ctx, address)
		switch {
		case err != nil:
			return err
		case who.Node != n.Node:
			return fmt.Errorf("the pgporter at %s serves as %s of its inventory, not as %s", address, who.Node, n.Node)
		}
		n.engine, n.names = who.Engine, who.Names
		return nil
	}, done)
}

// planners make a node's plan for an engine.
var planners = map[string]func(*inventory.Inventory, string) (model.Plan, diag.Problems){
	api.EngineNative:  plan.ForNode,
	api.EngineHAProxy: plan.ForHAProxy,
}

// plan makes the order of every node that answered.
func (r *rollout) plan(inv *inventory.Inventory, nodes []*reloaded, done func(*reloaded)) diag.Problems {
	var problems diag.Problems
	checked := map[string]bool{}
	for _, n := range nodes {
		if n.err != nil {
			continue
		}
		planned, known := planners[n.engine]
		if !known {
			n.err = fmt.Errorf("its services are carried by %q, which this version doesn't know", n.engine)
			done(n)
			continue
		}
		if !checked[n.engine] {
			checked[n.engine] = true
			problems = append(problems, plan.Refused(inv, nil, n.engine == api.EngineHAProxy)...)
		}
		p, found := planned(inv, n.Node)
		problems = append(problems, found...)
		if n.names {
			p, found = plan.WithNames(inv, p)
			problems = append(problems, found...)
		}
		n.order = intake.Order{Plan: p, Source: r.source, Sender: r.sender}
	}
	return problems
}

func (r *rollout) send(ctx context.Context, nodes []*reloaded, done func(*reloaded)) {
	r.each(ctx, nodes, r.timeout, func(ctx context.Context, address string, n *reloaded) error {
		taken, err := r.client.Send(ctx, address, n.order, r.dryRun)
		if err == nil {
			n.Taken = &taken
		}
		return err
	}, done)
}

// printReloaded tells what changed on a node; changes that an earlier node had as well aren't printed again.
func printReloaded(w io.Writer, n *reloaded, printed map[string]string) {
	changes := changesText(n.Taken.Changes)
	verb := fmt.Sprintf("runs configuration %d", n.Taken.Generation)
	if n.Taken.DryRun {
		verb = fmt.Sprintf("runs configuration %d, and with this one", n.Taken.Generation)
	}
	other, again := printed[changes]
	switch {
	case changes == "":
		fmt.Fprintf(w, "%s: %s, nothing changes\n", n.Node, verb)
	case again:
		fmt.Fprintf(w, "%s: %s, the same changes as on %s\n", n.Node, verb, other)
	default:
		printed[changes] = n.Node
		fmt.Fprintf(w, "%s: %s:\n%s", n.Node, verb, changes)
	}
}

// changesText lists changes as + (added), - (removed) and ~ (changed), one to a line.
func changesText(changes api.Changes) string {
	signs := map[api.ChangeKind]string{api.Added: "+", api.Removed: "-", api.Changed: "~"}
	var b strings.Builder
	for _, c := range changes.Clusters {
		fmt.Fprintf(&b, "  %s cluster %s", signs[c.Kind], c.Cluster)
		if len(c.What) == 1 {
			fmt.Fprintf(&b, ": %s", c.What[0])
		}
		fmt.Fprintln(&b)
		if len(c.What) > 1 {
			for _, what := range c.What {
				fmt.Fprintf(&b, "      %s\n", what)
			}
		}
	}
	for _, s := range changes.Services {
		fmt.Fprintf(&b, "  %s %s %s", signs[s.Kind], s.Service, s.Listen)
		if s.Kind == api.Added {
			fmt.Fprintf(&b, " on %s", orDash(s.ServersAdded))
		}
		fmt.Fprintln(&b)
		if s.Kind != api.Changed {
			continue
		}
		for _, what := range s.What {
			fmt.Fprintf(&b, "      %s\n", what)
		}
		for _, list := range []struct {
			sign    string
			servers []string
		}{{"+", s.ServersAdded}, {"-", s.ServersRemoved}, {"~", s.ServersChanged}} {
			for _, server := range list.servers {
				fmt.Fprintf(&b, "      %s server %s\n", list.sign, server)
			}
		}
	}
	return b.String()
}

// sender is who sends, for the nodes' logs: user@host.
func sender() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return intake.Printable(name + "@" + host)
}

// wholePath is what a file is called on other machines too.
func wholePath(path string) string {
	if path == standardInput {
		return fromInput
	}
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return path
}
