package cli

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/control"
	"github.com/pgporter/pgporter/internal/cli/command"
)

func newCredentialsCommand() *cobra.Command {
	var path, dir string
	var days int
	c := &cobra.Command{
		Use:   "credentials --out DIR {HOST... | --inventory FILE}",
		Short: "Make the token and the certificate by which nodes take orders",
		Long: `Writes a random token and a self-signed certificate with its key, for the named hosts or for all of an inventory:

  DIR/` + control.TokenFile + `   for the nodes (run --control-token-file) and for who reloads them (reload --token-file)
  DIR/` + control.CertificateFile + `     for the nodes (run --control-tls-cert) and for who reloads them (reload --ca)
  DIR/` + control.KeyFile + `     for the nodes alone (run --control-tls-key)

Whoever has the token may change what the nodes serve. Certificates of an authority of your own do as well. Files that
exist are never replaced; nodes read new ones on SIGHUP.`,
		Example: `  pgporter credentials --out /etc/pgporter --inventory pigsty.yml
  pgporter credentials --out /tmp/trial 127.0.1.11 127.0.1.12 127.0.1.13 --days 7`,
		RunE: func(c *cobra.Command, hosts []string) error {
			switch {
			case dir == "":
				return command.Input(errors.New("--out is missing: which directory"))
			case days < 1 || days > 36500:
				return command.Input(fmt.Errorf("--days %d: 1 or more", days))
			case path == "" && len(hosts) == 0:
				return command.Input(errors.New("which hosts is the certificate for: name them, or say --inventory FILE"))
			}
			if path != "" {
				inv, problems := readInventory(path, c.InOrStdin())
				if err := problems.Err(); err != nil {
					return err
				}
				for _, h := range inv.Hosts() {
					if !slices.Contains(hosts, h.Name) {
						hosts = append(hosts, h.Name)
					}
				}
			}
			files, err := control.MakeCredentials(dir, hosts, time.Now(), time.Duration(days)*24*time.Hour)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s\n%s\n%s\n", files.Token, files.Certificate, files.Key)
			return nil
		},
	}
	inventoryFlag(c, &path)
	c.Flags().StringVar(&dir, "out", "", "the `DIRECTORY` to write to; it is made if it isn't there")
	c.MarkFlagDirname("out")
	c.Flags().IntVar(&days, "days", 365, "how many `DAYS` the certificate is good for")
	return c
}
