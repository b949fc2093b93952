package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
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
)

func newStatusCommand() *cobra.Command {
	var f nodesFlags
	var output string
	var watch bool
	var interval time.Duration
	c := &cobra.Command{
		Use:   "status [CLUSTER]",
		Short: "Show who serves what now, and why",
		Long: `Asks the pgporter at the admin address which server carries each service now: role, state, the reason, open sessions, and
since when. With --watch it goes on until interrupted: on a terminal the table is redrawn, elsewhere a table is printed
whenever something has changed. With a cluster's name that cluster alone is shown.

A server is serving (takes clients), ready (would take them if those before it were gone) or down; drain and maint were ordered.

With --node, or --inventory and --cluster, each of several nodes says what it is at (run --control), and what they have is summed up:
a server that only some have serving says on how many. pgporter top shows that live.`,
		Example: `  pgporter status
  pgporter status pg-test --admin 10.10.10.11 --watch
  pgporter status --inventory pigsty.yml --cluster pg-test --token-file control.token --ca control.crt
  pgporter status -o json | jq '.clusters[].services[] | select(.up | not) | .full_name'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := command.OneOf("output", output, "table", "json", "yaml"); err != nil {
				return err
			}
			if interval < 100*time.Millisecond {
				return command.Input(fmt.Errorf("--interval %s: at least 100ms", interval))
			}
			cluster := f.cluster
			if len(args) > 0 {
				cluster = args[0]
			}
			if !f.here() {
				if watch {
					return command.Input(errors.New("--watch is about this machine's pgporter: pgporter top shows several live"))
				}
				return statusOfNodes(c, f, cluster, output)
			}
			address, err := adminAddress(f.local.admin)
			if f.local.pid != 0 {
				address, err = adminOf(f.local.pid)
			}
			if err != nil {
				return err
			}
			client := api.Client{Address: address}
			ask := func(ctx context.Context) (*api.Status, error) {
				status, err := client.Status(ctx)
				if err == nil && cluster != "" {
					err = only(status, cluster)
				}
				return status, err
			}
			w := c.OutOrStdout()
			if watch {
				ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
				defer stop()
				return watchStatus(ctx, ask, w, output, interval)
			}
			status, err := ask(context.Background())
			if err != nil {
				return err
			}
			_, colour := command.Terminal(w)
			return printStatus(w, status, output, colour)
		},
	}
	f.add(c)
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on showing it until interrupted")
	c.Flags().DurationVar(&interval, "interval", time.Second, "with --watch, the `TIME` between two looks")
	command.OutputFlag(c, &output, "table", "json", "yaml")
	return c
}

// only leaves one cluster in a status; one that isn't there is an error that names those that are.
func only(s *api.Status, cluster string) error {
	var there []string
	for _, c := range s.Clusters {
		there = append(there, c.Name)
	}
	i := slices.Index(there, cluster)
	if i < 0 {
		return command.Input(fmt.Errorf("no cluster %q is served here; there are: %s", cluster, orDash(there)))
	}
	s.Clusters, s.TCPServices = s.Clusters[i:i+1], nil
	return nil
}

// adminFlag adds --admin for commands that ask a daemon.
func adminFlag(c *cobra.Command, admin *string) {
	fallback := os.Getenv("PGPORTER_ADMIN")
	if fallback == "" {
		fallback = "127.0.0.1:" + api.DefaultPort
	}
	c.Flags().StringVar(admin, "admin", fallback, "`ADDRESS` of the pgporter to ask, port "+api.DefaultPort+" unless given (environment: PGPORTER_ADMIN)")
}

// adminAddress completes an address with the default port.
func adminAddress(text string) (string, error) { return hostPort("admin", text, api.DefaultPort) }

// hostPort completes a flag's address with a port.
func hostPort(flag, text, defaultPort string) (string, error) {
	wrong := command.Input(fmt.Errorf("--%s %q: an address or address:port", flag, text))
	if _, port, err := net.SplitHostPort(text); err == nil {
		if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
			return "", wrong
		}
		return text, nil
	}
	host := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	if host == "" || strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return "", wrong
	}
	return net.JoinHostPort(host, defaultPort), nil
}

// watchStatus shows the status again and again. A daemon that doesn't answer is said and asked again: it may be restarting.
func watchStatus(ctx context.Context, ask func(context.Context) (*api.Status, error), w io.Writer, output string, interval time.Duration) error {
	isTerminal, colour := command.Terminal(w)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	last := ""
	for {
		var frame bytes.Buffer
		status, err := ask(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			fmt.Fprintf(&frame, "%v\n", err)
		default:
			if err := printStatus(&frame, status, output, colour); err != nil {
				return err
			}
		}
		switch now := digest(status, frame.String()); {
		case isTerminal:
			// Home, the frame with each line's rest erased, then everything below it: no flicker.
			text := strings.ReplaceAll(frame.String(), "\n", "\x1b[K\n")
			if _, err := fmt.Fprintf(w, "\x1b[H%s\x1b[J", text); err != nil {
				return err
			}
		case now != last:
			last = now
			if _, err := fmt.Fprintf(w, "%s\n%s\n", time.Now().Format(time.RFC3339), frame.String()); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// digest is what must differ for a status to be printed again: everything but the passing of time and what changes with
// every client.
func digest(s *api.Status, frame string) string {
	if s == nil {
		return frame
	}
	var b strings.Builder
	fmt.Fprintln(&b, s.Started, s.Config.Generation, s.Config.Refused, s.Stalled)
	if p := s.Config.Plan; p != nil {
		fmt.Fprintln(&b, p.Hash, p.Kept, p.Unkept, p.Instead)
	}
	for _, p := range s.Pools {
		fmt.Fprintln(&b, p.Address, p.Problem)
		for _, d := range p.Databases {
			fmt.Fprintln(&b, d.Name, d.Service, d.Member, d.State)
		}
	}
	if h := s.Shadow; h != nil {
		fmt.Fprintln(&b, h.Silent, len(h.Events), h.Dropped)
		for _, d := range h.Standing {
			fmt.Fprintln(&b, d.Service, d.Server, d.Kind)
		}
	}
	for _, c := range withTCPServices(s) {
		if c.LeaderKey != nil {
			fmt.Fprintln(&b, c.Name, *c.LeaderKey)
		}
		if c.Hold != nil {
			fmt.Fprintln(&b, c.Name, c.Hold.ID)
		}
		if c.VIP != nil {
			words, _ := virtualState(*c.VIP)
			fmt.Fprintln(&b, c.Name, c.VIP.Address, words)
		}
		for _, v := range c.Services {
			for _, r := range v.Servers {
				fmt.Fprintln(&b, v.FullName, v.Listen, r.Member, r.Role, r.Up, r.Serving, r.Reason)
			}
		}
	}
	return b.String()
}

// withTCPServices gives the clusters and, as one without a name, the services that belong to none.
func withTCPServices(s *api.Status) []api.Cluster {
	return append(slices.Clone(s.Clusters), api.Cluster{Services: s.TCPServices})
}

func printStatus(w io.Writer, s *api.Status, output string, colour bool) error {
	switch output {
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(s)
	case "yaml":
		return printYAML(w, s)
	}
	paint := painter(colour)
	where := s.Config.Source
	if s.Node != "" {
		where = s.Node + " of " + where
	}
	sent := ""
	if s.Config.Sent != nil {
		sent = fmt.Sprintf(", sent by %s from %s", s.Config.Sent.Sender, s.Config.Sent.From)
	}
	does := "serves"
	if s.Shadow != nil {
		does = "is a shadow for"
	}
	fmt.Fprintf(w, "pgporter %s (pid %d) %s %s, up %s, configuration %d of %s%s\n", s.Version, s.PID, does, where,
		command.Age(s.Now.Sub(s.Started)), s.Config.Generation, s.Config.Loaded.Local().Format("15:04:05"), sent)
	printPlan(w, s, paint)
	if u := s.Upgrade; u != nil && u.Problem == "" {
		fmt.Fprintf(w, "took over from %s (pid %d) %s ago: %s, %s\n", u.Version, u.PID, command.Age(s.Now.Sub(u.At)), command.Plural(u.Sessions, "session"), command.Plural(u.Clients, "waiting client"))
	} else if u != nil {
		fmt.Fprintf(w, "%s %s\n", paint(fmt.Sprintf("the upgrade of %s was in vain:", u.At.Local().Format("15:04:05")), red), u.Problem)
	}
	for _, l := range s.Stalled {
		fmt.Fprintln(w, paint(fmt.Sprintf("%s stands still for %s: what it decides is as old", l.Loop, command.Age(s.Now.Sub(l.Since))), red))
	}
	for _, a := range s.Config.Assumed {
		fmt.Fprintf(w, "assumed: %s\n", a)
	}
	if s.Config.Refused != "" {
		fmt.Fprintf(w, "%s\n%s\n", paint("the last reload was refused:", red), s.Config.Refused)
	}
	if s.SessionLogDropped > 0 {
		fmt.Fprintln(w, paint(fmt.Sprintf("lines of the session log that couldn't be written: %d were dropped", s.SessionLogDropped), red))
	}
	if s.LogDropped > 0 {
		fmt.Fprintln(w, paint(fmt.Sprintf("lines of the log that nobody read in time: %d were dropped", s.LogDropped), red))
	}
	for _, c := range s.Clusters {
		if c.LeaderKey != nil && c.LeaderKey.Lost != "" {
			fmt.Fprintf(w, "%s %s\n", paint(c.Name+": etcd is lost, the checks decide alone:", red), c.LeaderKey.Lost)
		}
		if c.Hold != nil {
			fmt.Fprintln(w, paint(c.Name+": "+c.Hold.Words(), yellow))
		}
		for _, m := range c.Members {
			if m.Remark != "" {
				fmt.Fprintf(w, "%s %s\n", paint(m.Name+":", red), m.Remark)
			}
		}
	}
	for _, c := range s.Clusters {
		if c.VIP != nil {
			words, code := virtualState(*c.VIP)
			fmt.Fprintln(w, paint(fmt.Sprintf("%s: virtual address %s %s", c.Name, c.VIP.Address, words), code))
		}
	}
	printPools(w, s.Pools, paint)
	printShadow(w, s, paint)
	// Colours have no width but tabwriter would count them: the state's cell is padded by hand and goes in painted afterwards.
	var plain bytes.Buffer
	table := tabwriter.NewWriter(&plain, 0, 0, 2, ' ', 0)
	var painted []colourCode
	fmt.Fprintln(table, "\nSERVICE\tLISTEN\tSERVER\tROLE\tSTATE\tSESSIONS\tFOR\tWHY")
	for _, c := range withTCPServices(s) {
		for _, v := range c.Services {
			name, listen := v.FullName, v.Listen
			if v.Shadow {
				listen = "(shadow)"
			}
			if len(v.Servers) == 0 {
				why := "no member is selected"
				if c.Name == "" {
					why = "it has no servers"
				}
				fmt.Fprintf(table, "%s\t%s\t-\t-\tdown\t0\t-\t%s\n", name, listen, why)
				painted = append(painted, red)
			}
			for _, r := range v.Servers {
				word, code := serverState(v, r)
				member, role, since := r.Member, r.Role, command.Age(s.Now.Sub(r.Since))
				if role == "" {
					role = "-"
				}
				if r.Since.IsZero() {
					since = "-"
				}
				if r.Backup {
					member += " (backup)"
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", name, listen, member, role, word, r.Sessions, since, reasonOf(r))
				painted = append(painted, code)
				name, listen = "", ""
			}
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	lines := strings.Split(strings.TrimRight(plain.String(), "\n"), "\n")
	for i, line := range lines {
		if i >= 2 && colour {
			line = paint(line, painted[i-2])
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	for _, c := range s.Clusters {
		for _, v := range c.Services {
			if v.Queued > 0 {
				fmt.Fprintf(w, "%s\n", paint(fmt.Sprintf("%s: %d waiting for a server", v.FullName, v.Queued), red))
			}
		}
	}
	return nil
}

// shortHash is how much of a plan's hash is shown: enough to compare two by eye.
const shortHash = 12

// printPlan tells how the plan came to the node, where there is more to say than which file it read at its start.
func printPlan(w io.Writer, s *api.Status, paint func(string, colourCode) string) {
	p := s.Config.Plan
	if p == nil {
		return
	}
	if p.Kept != "" || p.Unkept != "" || p.MadeBy != s.Version || !p.Made.Equal(p.Accepted) {
		origin := "from its file"
		if p.Origin == api.FromControl {
			origin = "from the control address"
		}
		fmt.Fprintf(w, "plan %s of %s, accepted %s (%s ago) %s, made by pgporter %s at %s", p.Hash[:min(len(p.Hash), shortHash)], p.MadeFrom,
			p.Accepted.Local().Format(time.DateTime), command.Age(s.Now.Sub(p.Accepted)), origin, p.MadeBy, p.Made.Local().Format(time.DateTime))
		if p.Kept != "" {
			fmt.Fprintf(w, ", kept in %s", p.Kept)
		}
		fmt.Fprintln(w)
	}
	if p.Unkept != "" {
		fmt.Fprintf(w, "%s %s\n", paint("the plan isn't kept, the next start won't have it:", red), p.Unkept)
	}
	if p.Instead != "" {
		fmt.Fprintf(w, "%s\n%s\n", paint("the node's own file can't be used, this is the plan that it accepted before:", red), p.Instead)
	}
}

// printPools tells of the PgBouncers that are watched over, a line each, and who is waited for.
func printPools(w io.Writer, pools []api.Pool, paint func(string, colourCode) string) {
	for _, p := range pools {
		var parts, busy []string
		code := none
		for _, d := range p.Databases {
			where := "in front of " + d.Service
			if d.Member != "" {
				where = "behind " + d.Member
			}
			parts = append(parts, fmt.Sprintf("%s (%s) %s, %d active, %d waiting", d.Name, where, d.State, d.Active, d.Waiting))
			for _, b := range d.Busy {
				busy = append(busy, fmt.Sprintf("  %s waits for %s", d.Name, b))
			}
			if d.State != api.PoolRunning {
				code = yellow
			}
		}
		if len(parts) == 0 && p.Problem == "" {
			parts = []string{"none of its databases leads to a service or a member of this node"}
		}
		if p.Problem != "" {
			parts, code = append([]string{p.Problem}, parts...), red
		}
		fmt.Fprintln(w, paint(fmt.Sprintf("PgBouncer %s: %s", p.Address, strings.Join(parts, "; ")), code))
		for _, b := range busy {
			fmt.Fprintln(w, b)
		}
	}
}

// virtualState says where a virtual address is. What should be mended is red.
func virtualState(v api.VirtualIP) (string, colourCode) {
	words, code := "is elsewhere: "+v.Why, none
	if v.Here {
		words, code = fmt.Sprintf("is here, on %s: %s", v.Interface, v.Why), green
	}
	if v.Problem != "" {
		code = red
		if v.Problem == v.Why {
			words = "can't be kept here: " + v.Why
		} else {
			words += "; " + v.Problem
		}
	}
	if len(v.Others) > 0 {
		words, code = words+"; "+strings.Join(v.Others, ", ")+" has it too", red
	}
	return words, code
}

// serverState is a server's word and colour. One that is down is red only where that is alarming: nobody serves, or its
// PostgreSQL isn't well. Every replica is down behind the leader's check.
func serverState(s api.Service, r api.Server) (string, colourCode) {
	switch {
	case r.Order != nil && r.Order.State != api.Ready:
		return string(r.Order.State), yellow
	case r.Serving:
		return "serving", green
	case r.Up:
		return "ready", none
	case s.Up && strings.HasSuffix(r.Reason, " running"):
		return "down", none
	}
	return "down", red
}

// reasonOf is what was ordered of a server, and what its checks say.
func reasonOf(r api.Server) string {
	switch {
	case r.Order == nil:
		return r.Reason
	case r.Order.State == api.Ready && r.Order.Weight != nil:
		return fmt.Sprintf("weight %d by order of %s; %s", *r.Order.Weight, r.Order.By, r.Reason)
	}
	return fmt.Sprintf("by order of %s; %s", r.Order.By, r.Reason)
}

type colourCode int

// SGR codes (ECMA-48).
const (
	none   colourCode = 0
	red    colourCode = 31
	green  colourCode = 32
	yellow colourCode = 33
)

func painter(on bool) func(string, colourCode) string {
	return func(text string, code colourCode) string {
		if !on || code == none {
			return text
		}
		return fmt.Sprintf("\x1b[%dm%s\x1b[0m", code, text)
	}
}
