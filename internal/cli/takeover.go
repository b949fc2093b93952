package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/daemon"
)

func newTakeoverCommand() *cobra.Command {
	var local localFlags
	var socket, reload string
	var back bool
	c := &cobra.Command{
		Use:   "takeover [SERVICE…]",
		Short: "Have a shadow take services from HAProxy, or give them back",
		Long: `Has the pgporter that runs with --shadow on this machine serve services that HAProxy carries: those that are named (by their full
names), or all. No client is refused meanwhile: pgporter gets HAProxy's own listening sockets, so that both accept from one queue,
and then HAProxy is told to accept nobody any more (shutdown frontend). Sessions that HAProxy has go on there until they end by
themselves. Should HAProxy not do as it is told, pgporter lets go of the socket again.

Which services are taken is kept in --state-dir, without which nothing is taken: a restart serves them again. HAProxy serves them
again with its next reload, as long as its files have them. So take those files away once all is well.

With --back HAProxy gets them back: put its files in place again first if you took them away. HAProxy is reloaded, and once it listens
and leads clients where pgporter does, new ones go there. Sessions that pgporter has go on until they end by themselves.

It takes root (or whoever HAProxy was started by): only he may have a copy of another program's socket, or one beside it.`,
		Example: `  pgporter takeover pg-test-replica
  pgporter takeover
  pgporter takeover --back pg-test-replica
  pgporter takeover --back --haproxy-reload 'systemctl start haproxy'`,
		RunE: func(c *cobra.Command, names []string) error {
			if c.Flags().Changed("haproxy-reload") && !back {
				return command.Input(errors.New("--haproxy-reload: HAProxy is reloaded to give services back, it goes with --back"))
			}
			ctx, cancel := context.WithTimeout(context.Background(), local.timeout)
			defer cancel()
			shadow, err := local.shadow(ctx, c.Flags().Changed("pid"))
			if err != nil {
				return err
			}
			carried, err := shadow.Carried(ctx)
			if err != nil {
				return err
			}
			chosen, err := chosenServices(carried, names, back)
			if err != nil || len(chosen) == 0 {
				return err
			}
			if back {
				return giveBack(ctx, c.OutOrStdout(), shadow, chosen, socket, reload)
			}
			for _, one := range chosen {
				if err := daemon.TakeFromHAProxy(ctx, shadow, one, socket); err != nil {
					return fmt.Errorf("service %s stays HAProxy's: %w", one.Service, err)
				}
				fmt.Fprintf(c.OutOrStdout(), "%s: pgporter serves %s, HAProxy's sessions finish there\n", one.Service, one.Address)
			}
			return nil
		},
	}
	local.add(c)
	c.Flags().BoolVar(&back, "back", false, "give services back to HAProxy")
	c.Flags().StringVar(&socket, "haproxy-socket", systemSocket, "HAProxy's runtime API (stats socket) at level admin, as `PATH`")
	c.Flags().StringVar(&reload, "haproxy-reload", systemReload, "with --back, the `COMMAND` that has HAProxy read its files")
	return c
}

// chosenServices are those that are named, or all that there is something to do for.
func chosenServices(carried []daemon.Carried, names []string, back bool) ([]daemon.Carried, error) {
	var chosen []daemon.Carried
	var there []string
	for _, c := range carried {
		there = append(there, c.Service)
		if len(names) == 0 && c.Taken == back || slices.Contains(names, c.Service) {
			chosen = append(chosen, c)
		}
	}
	for _, name := range names {
		if !slices.Contains(there, name) {
			return nil, command.Input(fmt.Errorf("no service %q here; there are: %s", name, orDash(there)))
		}
	}
	for _, c := range chosen {
		if c.Taken != back {
			return nil, fmt.Errorf("service %s is %s already", c.Service, map[bool]string{true: "pgporter's", false: "HAProxy's"}[c.Taken])
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("there is nothing to do: all services are %s already", map[bool]string{false: "pgporter's", true: "HAProxy's"}[back])
	}
	return chosen, nil
}

// giveBack has HAProxy serve services again.
func giveBack(ctx context.Context, w io.Writer, shadow daemon.Local, chosen []daemon.Carried, socket, reload string) error {
	words := strings.Fields(reload)
	if len(words) == 0 {
		return command.Input(errors.New("--haproxy-reload: the command that has HAProxy read its files"))
	}
	lent, err := daemon.Lend(ctx, shadow, chosen)
	if err != nil {
		return fmt.Errorf("nothing was given back: %w", err)
	}
	defer lent.Close()
	if out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("nothing was given back: %s: %w\n%s", reload, err, out)
	}
	if err := lent.Await(ctx, socket); err != nil {
		return fmt.Errorf("nothing was given back: %w", err)
	}
	names := make([]string, len(chosen))
	for i, one := range chosen {
		names[i] = one.Service
	}
	if err := shadow.GiveBack(ctx, names, false); err != nil {
		return fmt.Errorf("nothing was given back: %w", err)
	}
	for _, one := range chosen {
		fmt.Fprintf(w, "%s: HAProxy serves %s, pgporter's sessions finish here\n", one.Service, one.Address)
	}
	return nil
}

// shadow finds the pgporter that the flags mean. chosen says that it was named by its number.
func (l localFlags) shadow(ctx context.Context, chosen bool) (daemon.Local, error) {
	if l.timeout <= 0 {
		return daemon.Local{}, command.Input(fmt.Errorf("--timeout %s: more than 0", l.timeout))
	}
	address, status, err := l.find(ctx)
	if err != nil {
		return daemon.Local{}, err
	}
	if status.Shadow == nil {
		return daemon.Local{}, fmt.Errorf("the pgporter at %s (pid %d) is no shadow: services are taken by one that runs with --shadow", address, status.PID)
	}
	at, err := resolved(ctx, address)
	if err != nil {
		return daemon.Local{}, err
	}
	found, err := daemon.Shadow(status.PID, at, chosen)
	if err != nil {
		return daemon.Local{}, notAsked(address, status.PID, err)
	}
	return found, nil
}
