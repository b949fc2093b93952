package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/control"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/cli/nodes"
	"github.com/pgporter/pgporter/internal/daemon"
)

// nodesFlags say which running pgporters a command is about: this machine's, or others at their control addresses.
type nodesFlags struct {
	local     localFlags
	named     []string
	inventory string
	cluster   string
	port      int
	token     string
	ca        string
	cert, key string
}

const aboutNodes = `

It is about the pgporter of this machine, which root and its own user may give orders. With --node it is about those at other
control addresses (run --control), with --inventory and --cluster about every node that carries the cluster: that takes the
nodes' token (--token-file) or a client certificate (--client-cert). A node that fails is named, the others go on, and the exit
status is 1 then.`

func (f *nodesFlags) add(c *cobra.Command) {
	f.local.add(c)
	c.Flags().StringSliceVar(&f.named, "node", nil, "the pgporters at these control addresses, `HOST[:PORT],...`, instead of this machine's")
	inventoryFlag(c, &f.inventory)
	c.Flags().StringVar(&f.cluster, "cluster", "", "this cluster alone, by `NAME`; with --inventory, on every node that carries it")
	f.addControl(c)
}

// addControl adds how control addresses are spoken to.
func (f *nodesFlags) addControl(c *cobra.Command) {
	defaultPort, _ := strconv.Atoi(control.DefaultPort)
	c.Flags().IntVar(&f.port, "port", defaultPort, "the `PORT` of the nodes' control address, where none is given")
	credentialFlags(c, &f.token, &f.ca)
	c.Flags().StringVar(&f.cert, "client-cert", os.Getenv("PGPORTER_CLIENT_CERT"), "show nodes the certificate in this `FILE` instead of a token (environment: PGPORTER_CLIENT_CERT)")
	c.Flags().StringVar(&f.key, "client-key", os.Getenv("PGPORTER_CLIENT_KEY"), "the `FILE` with its key (environment: PGPORTER_CLIENT_KEY)")
}

// credentialFlags are those by which nodes are spoken to.
func credentialFlags(c *cobra.Command, token, ca *string) {
	c.Flags().StringVar(token, "token-file", os.Getenv("PGPORTER_TOKEN_FILE"), "the `FILE` with the nodes' token (environment: PGPORTER_TOKEN_FILE)")
	c.Flags().StringVar(ca, "ca", os.Getenv("PGPORTER_CA"), "trust nodes whose certificate is in this `FILE`, or signed by one in it (default: the system's authorities; environment: PGPORTER_CA)")
}

// here says that the command is about this machine's pgporter.
func (f *nodesFlags) here() bool { return len(f.named) == 0 && f.inventory == "" }

// find gives the nodes.
func (f *nodesFlags) find(ctx context.Context, c *cobra.Command) ([]*nodes.Node, error) {
	switch {
	case f.local.timeout <= 0:
		return nil, command.Input(fmt.Errorf("--timeout %s: more than 0", f.local.timeout))
	case f.port < 1 || f.port > 65535:
		return nil, command.Input(fmt.Errorf("--port %d: 1 to 65535", f.port))
	case f.inventory != "" && f.cluster == "":
		return nil, command.Input(errors.New("--inventory: --cluster says which cluster's nodes"))
	case f.inventory != "" && len(f.named) > 0:
		return nil, command.Input(errors.New("--inventory and --node: one of them"))
	}
	if f.here() {
		one, err := f.thisMachine(ctx)
		if err != nil {
			return nil, err
		}
		return []*nodes.Node{one}, nil
	}
	for _, flag := range []string{"admin", "pid"} {
		if c.Flags().Changed(flag) {
			return nil, command.Input(fmt.Errorf("--%s is about this machine's pgporter: it doesn't go with --node or --inventory", flag))
		}
	}
	client, err := f.client()
	if err != nil {
		return nil, err
	}
	hosts := f.named
	if f.inventory != "" {
		inv, problems := readInventory(f.inventory, c.InOrStdin())
		if problems.Err() != nil {
			return nil, problems
		}
		if hosts, err = reloadTargets(inv, f.cluster, nil); err != nil {
			return nil, command.Input(fmt.Errorf("%s: %w", inv.File, err))
		}
	}
	return f.at(client, hosts)
}

// at are the nodes at control addresses, each once.
func (f *nodesFlags) at(client *control.Client, hosts []string) ([]*nodes.Node, error) {
	var all []*nodes.Node
	seen := map[string]bool{}
	for _, host := range hosts {
		address, err := hostPort("node", host, strconv.Itoa(f.port))
		if err != nil {
			return nil, err
		}
		if !seen[address] {
			seen[address] = true
			all = append(all, nodes.At(host, client, address))
		}
	}
	return all, nil
}

// client is what control addresses are spoken to with.
func (f *nodesFlags) client() (*control.Client, error) {
	credential := control.Credential{Certificate: f.cert, Key: f.key}
	switch {
	case f.token == "" && f.cert == "":
		return nil, command.Input(errors.New("--token-file is missing: the token that the nodes were started with (or --client-cert and --client-key)"))
	case (f.cert == "") != (f.key == ""):
		return nil, command.Input(errors.New("--client-cert and --client-key: both of them"))
	case f.token != "":
		var err error
		if credential.Token, err = control.ReadToken(f.token); err != nil {
			return nil, command.Input(err)
		}
	}
	client, err := control.NewClientWith(credential, f.ca)
	if err != nil {
		return nil, command.Input(err)
	}
	return client, nil
}

// thisMachine is the pgporter that runs here. Each order looks anew whom it is for: another process may have taken over.
func (f *nodesFlags) thisMachine(ctx context.Context) (*nodes.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, f.local.timeout)
	defer cancel()
	address, status, err := f.local.find(ctx)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		status, err := api.Client{Address: address}.Status(ctx)
		if err != nil {
			return nil, err
		}
		at, err := resolved(ctx, address)
		if err != nil {
			return nil, err
		}
		conn, err := daemon.Steer(ctx, status.PID, at)
		if err != nil {
			return nil, notSteered(address, status.PID, err)
		}
		return conn, nil
	}
	name := status.Node
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			name = "here"
		}
	}
	return nodes.Here(name, control.NewLocalClient(dial), api.Client{Address: address}), nil
}

// notSteered says why a process here isn't given orders.
func notSteered(address string, pid int, err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("the pgporter at %s (pid %d) takes no orders from you: %w: do it as its user, or as root", address, pid, err)
	}
	return notAsked(address, pid, err)
}

// progress is a line on a terminal that tells who hasn't answered; elsewhere it is nothing.
type progress struct {
	c       *cobra.Command
	shown   bool
	waiting []string
	all     int
}

func newProgress(c *cobra.Command, all []*nodes.Node) *progress {
	p := &progress{c: c, all: len(all)}
	file, is := c.ErrOrStderr().(interface{ Fd() uintptr })
	p.shown = is && term.IsTerminal(int(file.Fd())) && len(all) > 1
	for _, n := range all {
		p.waiting = append(p.waiting, n.Name)
	}
	p.show()
	return p
}

// heard notes that a node has answered; a failure is printed at once.
func (p *progress) heard(node string, err error) {
	for i, name := range p.waiting {
		if name == node {
			p.waiting = append(p.waiting[:i:i], p.waiting[i+1:]...)
			break
		}
	}
	if err != nil {
		p.clear()
		fmt.Fprintf(p.c.ErrOrStderr(), "%s: %s\n", node, nodeFailure(err))
	}
	p.show()
}

func (p *progress) show() {
	if !p.shown {
		return
	}
	p.clear()
	if len(p.waiting) > 0 {
		text := fmt.Sprintf("%d of %d nodes have answered, not yet: %s", p.all-len(p.waiting), p.all, strings.Join(p.waiting, ", "))
		fmt.Fprint(p.c.ErrOrStderr(), text[:min(len(text), 78)])
	}
}

func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.c.ErrOrStderr(), "\r"+strings.Repeat(" ", 79)+"\r")
	}
}

// nodeFailure says what became of a node that failed.
func nodeFailure(err error) string {
	if errors.Is(err, control.ErrUnknown) {
		return fmt.Sprintf("%v; pgporter status on the node tells", err)
	}
	return err.Error()
}

// ask has all nodes asked, with a line of progress.
func ask[T any](ctx context.Context, c *cobra.Command, all []*nodes.Node, limit time.Duration, question func(context.Context, *nodes.Node) (T, error)) []nodes.Answer[T] {
	p := newProgress(c, all)
	return nodes.Ask(ctx, all, limit, question, func(a nodes.Answer[T]) { p.heard(a.Node, a.Err) })
}

// ended is how a command ends that has printed why nodes failed.
func ended[T any](answers []nodes.Answer[T]) error {
	err := nodes.Failed(answers)
	if err != nil && len(answers) == 1 {
		return command.Status(command.ExitFailed)
	}
	return err
}
