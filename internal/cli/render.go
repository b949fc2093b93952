package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/render"
	"github.com/pgporter/pgporter/internal/render/fileset"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// rendering is what `pgporter render` was asked for.
type rendering struct {
	inventory, out  string
	wanted          render.Wanted
	only            []string
	diff, keepGoing bool
}

func newRenderCommand() *cobra.Command {
	var r rendering
	kinds := make([]string, 0, len(stamp.Kinds))
	for _, k := range stamp.Kinds {
		kinds = append(kinds, string(k))
	}
	c := &cobra.Command{
		Use:   "render {FILE | --inventory FILE} --out DIR",
		Short: "Write the files of HAProxy, dnsmasq, vip-manager, libpq and PgBouncer",
		Long: `Writes what an inventory means for other programs, a directory for each host:

  DIR/<host>/<cluster>-<service>.cfg          a service for HAProxy's conf.d, on every host that carries it
  DIR/<host>/<name>.cfg                       one of the node's haproxy_services
  DIR/<host>/haproxy.cfg                      the base file for them, with --base; holds the administrator's password
  DIR/<host>/dnsmasq.d/pigsty/<name>          the names of instances and clusters, on the hosts of the group infra or, without
                                              one, on the members
  DIR/<host>/vip-manager.yml                  the virtual address, on the members of a cluster that has one; holds etcd's password
  DIR/<host>/pg_service.conf                  psql service=<cluster>-<service>
  DIR/<host>/pgbouncer.ini, userlist.txt      the PgBouncer before services with pool: door, on every host that carries one, for
                                              /etc/pgporter/door there; the second holds passwords

Files that are as they should be are not touched, the others are replaced whole. A file that an earlier run made and
that isn't rendered any more is removed; it is known by its first line. Nothing else in DIR is touched.

With a problem in the inventory nothing is written and the exit status is 2. --keep-going writes all that is sound, removes
nothing, and exits with 2 all the same.`,
		Example: `  pgporter render pigsty.yml --out rendered
  pgporter render pigsty.yml --out rendered --diff                 # what would change; 1 if anything
  pgporter render pigsty.yml --out rendered --host pg-test-1 --base
  pgporter render pigsty.yml --out rendered --cluster pg-test --only haproxy,pg-service`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := inventoryArgument(&r.inventory, args); err != nil {
				return err
			}
			if r.out == "" {
				return command.Input(errors.New("--out is missing: which directory"))
			}
			for _, k := range r.only {
				if err := command.OneOf("only", k, kinds...); err != nil {
					return err
				}
				r.wanted.Kinds = append(r.wanted.Kinds, stamp.Kind(k))
			}
			return r.run(c.InOrStdin(), safetext.Writer(c.OutOrStdout()), c.ErrOrStderr())
		},
	}
	inventoryFlag(c, &r.inventory)
	flags := c.Flags()
	flags.StringVarP(&r.out, "out", "d", "", "the `DIR` to write to; made if it isn't there")
	flags.StringSliceVar(&r.wanted.Hosts, "host", nil, "only the files of this `HOST`, or instance (may be repeated)")
	flags.StringSliceVar(&r.wanted.Clusters, "cluster", nil, "only this `CLUSTER`'s files (may be repeated)")
	flags.BoolVar(&r.wanted.Base, "base", false, "haproxy.cfg too")
	flags.BoolVar(&r.diff, "diff", false, "write nothing, show what would change; exit status 1 if anything would")
	flags.BoolVar(&r.keepGoing, "keep-going", false, "write what is sound in spite of problems; exit status 2 all the same")
	flags.StringSliceVar(&r.only, "only", kinds, "files for these `PROGRAMS`")
	c.MarkFlagDirname("out")
	c.RegisterFlagCompletionFunc("only", cobra.FixedCompletions(kinds, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (r *rendering) run(stdin io.Reader, stdout, stderr io.Writer) error {
	// What is rendered is HAProxy's.
	inv, problems := soundInventory(r.inventory, stdin, engineHAProxy)
	if inv == nil {
		return problems
	}
	if err := r.known(inv); err != nil {
		return err
	}
	files, found := render.Files(inv, r.wanted)
	problems = append(problems, found...).Sorted()
	broken := problems.Err() != nil
	if broken && !r.keepGoing {
		return problems
	}
	if clusters := r.wanted.Clusters; len(clusters) > 0 && !broken {
		problems = slices.DeleteFunc(problems, func(p diag.Problem) bool {
			return !slices.ContainsFunc(clusters, func(c string) bool { return len(aboutCluster(inv, c, diag.Problems{p})) > 0 })
		})
	}
	if len(problems) > 0 {
		fmt.Fprintln(stderr, problems)
	}
	var sound []fileset.File
	var notes []string
	var left int
	for _, f := range files {
		if broken && f.Whole {
			left++
			continue
		}
		for _, note := range f.Notes {
			if !slices.Contains(notes, note) {
				notes = append(notes, note)
				fmt.Fprintf(stderr, "pgporter: %s\n", note)
			}
		}
		sound = append(sound, fileset.File{Path: f.Path, Text: f.Text, Private: f.Private})
	}
	// A service that can't be rendered for a mistake in it still has its file from before.
	removable := r.wanted.Covers
	if broken {
		removable = func(string, stamp.Stamp) bool { return false }
	}
	changes, err := fileset.Compare(r.out, sound, removable)
	if err != nil {
		return fmt.Errorf("comparing with %s: %w", r.out, err)
	}
	switch {
	case r.diff:
		if err := fileset.Show(stdout, r.out, changes); err != nil {
			return err
		}
	default:
		if err := fileset.Apply(r.out, changes); err != nil {
			return fmt.Errorf("writing to %s: %w", r.out, err)
		}
		fmt.Fprintln(stdout, summary(r.out, len(sound), changes))
	}
	switch {
	case broken:
		if left > 0 {
			fmt.Fprintf(stderr, "pgporter: left alone because of the problems: %d files of several clusters (pg_service.conf, pgbouncer.ini, userlist.txt), and files that aren't rendered any more\n", left)
		}
		return command.Status(command.ExitInput)
	case r.diff && len(changes) > 0:
		return command.Status(command.ExitFailed)
	}
	return nil
}

// summary says what was done.
func summary(dir string, files int, changes []fileset.Change) string {
	var added, changed, removed int
	for _, c := range changes {
		switch {
		case c.Added:
			added++
		case c.Removed:
			removed++
		default:
			changed++
		}
	}
	return fmt.Sprintf("%s: %d files, %d of them new, %d changed; %d removed", dir, files, added, changed, removed)
}

// known refuses hosts and clusters that the inventory doesn't have, naming those that it has.
func (r *rendering) known(inv *inventory.Inventory) error {
	if len(r.wanted.Hosts) == 0 && len(r.wanted.Clusters) == 0 {
		return nil
	}
	hosts, clusters := render.Known(inv)
	for i, name := range r.wanted.Hosts {
		if host, known := plan.HostOf(inv, name); known {
			r.wanted.Hosts[i] = host
		}
	}
	var problems diag.Problems
	check := func(code diag.Code, what string, asked, have []string) {
		for _, name := range asked {
			if !slices.Contains(have, name) {
				problems.Errorf(code, diag.Position{File: inv.File}, "one of "+listed(have), "there is no %s %q", what, name)
			}
		}
	}
	check(diag.NodeUnknown, "host", r.wanted.Hosts, hosts)
	check(diag.ClusterUnknown, "cluster", r.wanted.Clusters, clusters)
	return problems.Err()
}

// listed joins names; of very many the first.
func listed(names []string) string {
	const most = 50
	switch {
	case len(names) == 0:
		return "none: the inventory has none"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
