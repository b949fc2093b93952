package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/access/connstr"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/plan"
)

// urlFlags are those of url.
type urlFlags struct {
	endpoints         endpointFlags
	driver, format    string
	all, plain, shown bool
}

// endpointFlags choose among the endpoints of a cluster.
type endpointFlags struct {
	inventory, engine string
	by                string
	choice            connstr.Choice
}

func (f *endpointFlags) add(c *cobra.Command) {
	kinds := make([]string, len(connstr.Kinds))
	for i, k := range connstr.Kinds {
		kinds[i] = string(k)
	}
	inventoryFlag(c, &f.inventory)
	engineFlag(c, &f.engine)
	c.Flags().StringVar(&f.by, "by", "", "what the client calls the node, `WAY`: "+strings.Join(kinds, ", "))
	c.RegisterFlagCompletionFunc("by", cobra.FixedCompletions(kinds, cobra.ShellCompDirectiveNoFileComp))
	c.Flags().StringVar(&f.choice.Service, "service", "", "this service alone: its `NAME`, with -door behind it for the pool before it; or postgres or pgbouncer for the members' own ports")
	c.Flags().StringVar(&f.choice.User, "user", "", "come as this `USER` (default: the users of pg_users that fit)")
	c.Flags().StringVar(&f.choice.Database, "db", "", "ask for this `DATABASE` (default: one of pg_databases)")
}

// read gives what the inventory says of the cluster that the arguments name.
func (f *endpointFlags) read(c *cobra.Command, args []string) (model.Access, error) {
	cluster, err := clusterArguments(&f.inventory, args)
	if err != nil {
		return model.Access{}, err
	}
	if f.by != "" {
		allowed := make([]string, len(connstr.Kinds))
		for i, k := range connstr.Kinds {
			allowed[i] = string(k)
		}
		if err := command.OneOf("by", f.by, allowed...); err != nil {
			return model.Access{}, err
		}
	}
	if err := command.OneOf("engine", f.engine, engineNative, engineHAProxy); err != nil {
		return model.Access{}, err
	}
	f.choice.By = connstr.By(f.by)
	inv, problems := soundInventory(f.inventory, c.InOrStdin(), f.engine)
	if inv == nil || problems.Err() != nil {
		return model.Access{}, problems
	}
	if cluster == "" {
		return model.Access{}, whichCluster(inv)
	}
	access, found := plan.ForAccess(inv, cluster)
	problems = append(problems, found...)
	if err := problems.Err(); err != nil {
		return model.Access{}, err
	}
	for _, p := range aboutCluster(inv, cluster, problems).Warnings() {
		fmt.Fprintln(c.ErrOrStderr(), p)
	}
	return access, nil
}

func newURLCommand() *cobra.Command {
	f := urlFlags{}
	c := &cobra.Command{
		Use:   "url CLUSTER {FILE | --inventory FILE}",
		Short: "List the URLs by which clients reach a cluster's services",
		Long: `Lists how clients reach a cluster, from what its inventory defines: its name, its virtual address, its instances'
names and addresses, each with PostgreSQL's own port, PgBouncer's and those of the services; and the URLs of clients that
choose among several hosts themselves. Behind each is what it goes through.

Without --by and --all the ways by the cluster's name are listed, or, where it has none, those by its virtual address or
its instances' addresses. Users and the database are those of the inventory that fit: the database's owner, the
administrator for what goes straight to the primary, a user with dbrole_offline for the offline instance.

Without a cluster the error names those that there are.`,
		Example: `  pgporter url pg-test pigsty.yml
  pgporter url pg-test pigsty.yml --all
  pgporter url pg-test pigsty.yml --service primary --plain                   # for a script
  pgporter url pg-test pigsty.yml --by smart --driver jdbc
  pgporter url pg-test pigsty.yml --by smart --driver libpq@13                # for an old libpq
  pgporter url pg-test pigsty.yml --by ip --format service                    # a pg_service.conf
  pgporter url pg-test pigsty.yml --all --format pgpass --with-password       # a .pgpass`,
		Args: cobra.MaximumNArgs(2),
		RunE: f.run,
	}
	f.endpoints.add(c)
	c.Flags().BoolVar(&f.all, "all", false, "list the ways of every kind")
	c.Flags().StringVar(&f.driver, "driver", connstr.Drivers[0], "write them for `DRIVER`, one of "+strings.Join(connstr.Drivers, ", ")+"; libpq@15 for a version of libpq, psycopg or npgsql")
	c.RegisterFlagCompletionFunc("driver", cobra.FixedCompletions(connstr.Drivers, cobra.ShellCompDirectiveNoFileComp))
	c.Flags().StringVar(&f.format, "format", "uri", "`FORMAT`: uri, service (pg_service.conf), pgpass (.pgpass)")
	c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"uri", "service", "pgpass"}, cobra.ShellCompDirectiveNoFileComp))
	c.Flags().BoolVar(&f.shown, "with-password", false, "show passwords, those that the inventory has")
	c.Flags().BoolVar(&f.plain, "plain", false, "URLs alone, one a line")
	return c
}

func (f *urlFlags) run(c *cobra.Command, args []string) error {
	if err := command.OneOf("format", f.format, "uri", "service", "pgpass"); err != nil {
		return err
	}
	driver, err := connstr.ParseDriver(f.driver)
	given := c.Flags().Changed
	switch {
	case err != nil:
		return command.Input(fmt.Errorf("--%w", err))
	case f.all && f.endpoints.by != "":
		return command.Input(errors.New("--all lists the ways of every kind, --by those of one: one or the other"))
	case f.format != "uri" && (given("driver") || given("plain")):
		return command.Input(fmt.Errorf("--driver and --plain are for URLs, not for --format %s", f.format))
	case f.format == "pgpass" && !f.shown:
		return command.Input(errors.New("--format pgpass is a list of passwords: it goes with --with-password"))
	case f.format == "service" && f.shown:
		return command.Input(errors.New("--with-password is for URLs and .pgpass: a pg_service.conf is for everybody to read"))
	}
	access, err := f.endpoints.read(c, args)
	if err != nil {
		return err
	}
	if f.endpoints.by == "" && !f.all {
		f.endpoints.choice.By = handiest(access)
	}
	endpoints, err := connstr.Endpoints(access, f.endpoints.choice)
	if err != nil && f.endpoints.by == "" && !f.all && f.endpoints.choice.By != connstr.ByIP {
		// What is at no name is at an address.
		f.endpoints.choice.By = connstr.ByIP
		endpoints, err = connstr.Endpoints(access, f.endpoints.choice)
	}
	if err != nil {
		return command.Input(err)
	}
	return f.print(c.OutOrStdout(), c.ErrOrStderr(), endpoints, driver)
}

// handiest is the kind of endpoint that needs to know least.
func handiest(a model.Access) connstr.By {
	switch {
	case a.Name != "":
		return connstr.ByDNS
	case a.VIP != "":
		return connstr.ByVIP
	}
	return connstr.ByIP
}

func (f *urlFlags) print(w, remarks io.Writer, endpoints []connstr.Endpoint, driver connstr.Driver) error {
	var text string
	var without []string
	var err error
	switch f.format {
	case "service":
		text, err = connstr.ServiceFile(connstr.Entries(endpoints))
	case "pgpass":
		text, without, err = connstr.PasswordFile(endpoints)
		if len(without) > 0 {
			fmt.Fprintf(remarks, "pgporter: the inventory has no password that a client could use for %s\n", strings.Join(without, ", "))
		}
	default:
		text, err = connstr.Listing(endpoints, connstr.Style{Driver: driver, Passwords: f.shown, Plain: f.plain})
	}
	if err != nil {
		return command.Input(err)
	}
	_, err = io.WriteString(w, text)
	return err
}
