package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// endpoint is where a command is started and what it is to connect to.
type endpoint struct {
	sandbox *sandbox.Sandbox
	// node is where it runs on the documents' network; empty on loopback addresses, where all is one network.
	node        string
	environment []string
}

// endpoint finds out what a target means: a service or a pool is used from the client, a member on its own node.
func (f *accessFlags) endpoint(s *sandbox.Sandbox, target string) (endpoint, error) {
	w := endpoint{sandbox: s}
	if s.HasNetwork() {
		w.node = sandbox.Client
		if target == sandbox.Client {
			w.environment = []string{"PGPASSFILE=" + s.PasswordFile()}
			return w, nil
		}
		if _, err := s.Namespace(target); err == nil {
			w.node = target
		}
	}
	access, err := s.Access(target, f.via)
	if err != nil {
		return w, err
	}
	access, err = access.As(f.user, f.database)
	w.environment = access.Environment()
	return w, err
}

// become replaces this program by another one.
func (w endpoint) become(command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("%s: %w", command[0], err)
	}
	// Settings of the caller's would win over, or contradict, those that point at the sandbox.
	environment := []string{}
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "PG") || strings.HasPrefix(name, "PGPORTER_") {
			environment = append(environment, v)
		}
	}
	if w.node != "" {
		// The thread that calls execve(2) is the one that the new program goes on with.
		runtime.LockOSThread()
		if err := w.sandbox.Enter(w.node); err != nil {
			return err
		}
	}
	err = syscall.Exec(path, command, append(environment, w.environment...))
	return fmt.Errorf("%s: %w", path, err)
}

const nodeHelp = `
NODE is a member (pg-test-2, or 2; pg-meta-1), or client. The sandbox must have been started with --netns.`

func sandboxCut(dir *string) *cobra.Command {
	var oneWay bool
	c := &cobra.Command{
		Use:   "cut NODE [NODE...]",
		Short: "Cut a node off from others",
		Long: `Has every frame between the first node and the others vanish, ARP included; without others it is cut off from all. Links
stay up and nobody is refused, as when a switch fails. Cuts add up until pgporter-lab heal. What pgporter-lab itself asks and
orders still reaches every node.` + nodeHelp,
		Example: `  pgporter-lab cut 1 2                       # pg-test-1 and pg-test-2 don't hear each other
  pgporter-lab cut 1                         # nobody hears pg-test-1
  pgporter-lab cut --one-way 1 pg-meta-1     # pg-test-1 hears etcd, and isn't heard`,
		Args: cobra.MinimumNArgs(1),
		RunE: onNetwork(dir, func(_ context.Context, s *sandbox.Sandbox, args []string) error {
			return s.Cut(oneWay, args[0], args[1:]...)
		}),
	}
	c.Flags().BoolVar(&oneWay, "one-way", false, "lose only what the first node sends")
	return c
}

func sandboxUnplug(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:     "unplug NODE...",
		Short:   "Pull nodes' network cables",
		Long:    `Takes nodes' links down: their interfaces lose the carrier, their addresses stay. pgporter-lab heal plugs them in.` + nodeHelp,
		Example: `  pgporter-lab unplug 1`,
		Args:    cobra.MinimumNArgs(1),
		RunE: onNetwork(dir, func(_ context.Context, s *sandbox.Sandbox, args []string) error {
			return s.Unplug(args...)
		}),
	}
}

func sandboxLose(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "lose NODE",
		Short: "Take a node's power away",
		Long: `The node's link goes, everything that runs on it is killed, and addresses that it had taken are gone. pgporter-lab heal
and pgporter-lab start bring it back.` + nodeHelp,
		Example: `  pgporter-lab lose 1
  pgporter-lab heal
  pgporter-lab start 1/patroni 1/pgbouncer 1/pgporter`,
		Args: cobra.ExactArgs(1),
		RunE: onNetwork(dir, func(ctx context.Context, s *sandbox.Sandbox, args []string) error {
			return s.Lose(ctx, args[0])
		}),
	}
}

func sandboxHeal(dir *string) *cobra.Command {
	return &cobra.Command{
		Use:     "heal",
		Short:   "End all cuts and plug every cable in",
		Long:    `Ends what pgporter-lab cut and unplug did. Processes that pgporter-lab lose killed are started with pgporter-lab start.`,
		Example: `  pgporter-lab heal`,
		Args:    cobra.NoArgs,
		RunE: onNetwork(dir, func(_ context.Context, s *sandbox.Sandbox, _ []string) error {
			return s.Heal()
		}),
	}
}

// onNetwork does something to a sandbox's network and shows what is wrong with it then.
func onNetwork(dir *string, do func(context.Context, *sandbox.Sandbox, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		s, ctx, stop, err := openSandbox(c, *dir)
		if err != nil {
			return err
		}
		defer stop()
		if err := do(ctx, s, args); err != nil {
			return input(err)
		}
		faults, err := s.Faults()
		if err != nil {
			return err
		}
		fmt.Fprint(c.OutOrStdout(), faults)
		return nil
	}
}
