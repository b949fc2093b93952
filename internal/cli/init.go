package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/inventory"
	"github.com/pgporter/pgporter/internal/config/inventory/ownfile"
	"github.com/pgporter/pgporter/internal/config/plan"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/monitor/discover"
	"github.com/pgporter/pgporter/internal/render/draft"
)

// initFlags are what `pgporter init` takes.
type initFlags struct {
	patroni       []string
	out           string
	force, schema bool
}

func newInitCommand() *cobra.Command {
	var f initFlags
	c := &cobra.Command{
		Use:   "init {--patroni ADDRESS[,…] [--out FILE] | --schema}",
		Short: "Write a first pgporter.yml of a living cluster",
		Long: `Asks Patroni who its members are, how they are reached and what they are, and writes a pgporter.yml: what an inventory is for
others, for those who have Patroni alone. Addresses of several clusters make a file with all of them; one address of each is
enough. Nothing is asked but Patroni, and whether a PgBouncer answers on port 6432 of each member.

What Patroni doesn't tell stands in the file as a comment with LOOK. The file is checked before it is written: pgporter check
finds no error in it.

--schema prints the JSON Schema of such files, for editors and for CI.`,
		Example: `  pgporter init --patroni 10.10.10.11                                 # to standard output
  pgporter init --patroni 10.10.10.11:8008 --out pgporter.yml
  pgporter init --patroni https://10.10.10.11:8008,10.10.20.11 --out pgporter.yml      # two clusters
  pgporter init --schema                                                               # what a file may hold, for editors`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	c.Flags().StringSliceVar(&f.patroni, "patroni", nil, "ask the Patroni REST API at these `ADDRESSES`")
	c.Flags().StringVarP(&f.out, "out", "o", "", "the `FILE` to write to, which must not be there (default: standard output)")
	c.Flags().BoolVar(&f.force, "force", false, "write over a file that is there")
	c.Flags().BoolVar(&f.schema, "schema", false, "print the JSON Schema of a pgporter.yml, and ask nobody")
	return c
}

func (f initFlags) run(c *cobra.Command) error {
	switch {
	case f.schema && (len(f.patroni) > 0 || f.out != "" || f.force):
		return command.Input(errors.New("--schema prints what a file may hold: it goes alone"))
	case f.schema:
		_, err := c.OutOrStdout().Write(ownfile.Schema())
		return err
	case len(f.patroni) == 0:
		return command.Input(errors.New("which cluster: --patroni ADDRESS, one of its members'"))
	case f.force && f.out == "":
		return command.Input(errors.New("--force writes over a file: it goes with --out FILE"))
	}
	if _, err := os.Lstat(f.out); f.out != "" && !f.force && !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = errors.New("there is such a file: --force writes over it")
		}
		return command.Input(fmt.Errorf("--out %s: %w", f.out, err))
	}
	text, err := firstFile(c.Context(), f.patroni, f.out)
	if err != nil {
		return err
	}
	if f.out == "" {
		_, err := c.OutOrStdout().Write([]byte(text))
		return err
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if f.force {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	file, err := os.OpenFile(f.out, flags, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	out := safetext.Writer(c.OutOrStdout())
	_, err = fmt.Fprintf(out, "%s: written; go through what is marked LOOK, and then: pgporter check %s\n", f.out, f.out)
	return err
}

// firstFile asks clusters and writes what they tell; name is what messages call the file.
func firstFile(ctx context.Context, addresses []string, name string) (string, error) {
	surveyed, err := discover.Survey(ctx, addresses)
	if err != nil {
		return "", err
	}
	clusters := make([]draft.Cluster, 0, len(surveyed))
	for _, s := range surveyed {
		one := draft.Cluster{Scope: s.Cluster.Name, Silent: s.Silent, At: s.At, Version: s.Version, TTL: s.Config.TTL, Standby: s.Config.Standby, Upstream: s.Config.Upstream}
		if s.ConfigErr != nil {
			one.Unread = s.ConfigErr.Error()
		}
		for _, m := range s.Cluster.Members {
			one.Members = append(one.Members, draft.Member{Member: m, Pooled: s.Pooled[m.Name], Tags: s.Tags[m.Name]})
		}
		clusters = append(clusters, one)
	}
	text := draft.File(clusters)
	if name == "" {
		name = "pgporter.yml"
	}
	inv, problems := inventory.Parse(name, []byte(text))
	if inv != nil {
		problems = plan.Refused(inv, problems, false)
	}
	if err := problems.Err(); err != nil {
		// It is no input of the user's, who has no such file.
		return "", errors.New("what Patroni tells makes no file that could be used:\n" + err.Error())
	}
	return text, nil
}
