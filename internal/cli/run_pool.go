package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/access/pool"
	"github.com/pgporter/pgporter/internal/admin/control"
	"github.com/pgporter/pgporter/internal/cli/command"
)

// poolFlags say which PgBouncers are watched over.
type poolFlags struct {
	addresses          []string
	user, passwordFile string
}

func (f *poolFlags) add(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.addresses, "pool", nil, "watch over the PgBouncers at these `ADDRESSES`, HOST:PORT or the directory of a Unix socket with :PORT: they pause while a switchover is made")
	c.Flags().StringVar(&f.user, "pool-user", "", "`NAME` of one of their admin_users to log in as (default: pgbouncer, which takes a Unix socket and PgBouncer's own user)")
	c.Flags().StringVar(&f.passwordFile, "pool-password-file", "", "`FILE` with that user's password in its first line")
	c.MarkFlagFilename("pool-password-file")
}

// config is what the daemon is given; nil without --pool. What is paused is noted in the state directory, or in the system's directory for
// what runs: without either a pgporter that is killed would leave clients waiting.
func (f *poolFlags) config(c *cobra.Command, stateDir string) (*pool.Config, error) {
	given := c.Flags().Changed
	var problems []error
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if !given("pool") {
		for _, name := range []string{"pool-user", "pool-password-file"} {
			if given(name) {
				return nil, command.Input(fmt.Errorf("--%s goes with --pool", name))
			}
		}
		return nil, nil
	}
	cfg := &pool.Config{User: f.user, Dir: stateDir}
	if len(f.addresses) == 0 {
		wrong("--pool: at which address")
	}
	for _, text := range f.addresses {
		a, err := pool.ParseAddress(text)
		switch {
		case err != nil:
			wrong("--pool %w", err)
		case slices.Contains(cfg.Addresses, a):
			wrong("--pool %s: twice", a)
		default:
			cfg.Addresses = append(cfg.Addresses, a)
			if f.user == "" && !a.Socket() {
				wrong("--pool %s: without --pool-user pgporter logs in at a Unix socket alone, as in --pool /var/run/postgresql:%d", a, a.Port)
			}
		}
	}
	if given("pool-user") && f.user == "" {
		wrong("--pool-user: who")
	}
	if f.passwordFile != "" {
		if f.user == "" {
			wrong("--pool-password-file is the password of --pool-user: say who")
		}
		cfg.Password = func() (string, error) {
			text, err := control.ReadPrivate("--pool-password-file", f.passwordFile)
			line, _, _ := strings.Cut(string(text), "\n")
			return strings.TrimSuffix(line, "\r"), err
		}
		if _, err := cfg.Password(); err != nil {
			problems = append(problems, err)
		}
	}
	if cfg.Dir == "" {
		cfg.Dir = os.Getenv("XDG_RUNTIME_DIR")
		if os.Geteuid() == 0 {
			cfg.Dir = "/run"
		}
		if cfg.Dir == "" {
			wrong("--pool: what is paused has to be noted where that outlives a pgporter that is killed: say --state-dir DIR (there is no XDG_RUNTIME_DIR)")
		}
	}
	if len(problems) > 0 {
		return nil, command.Input(errors.Join(problems...))
	}
	return cfg, nil
}
