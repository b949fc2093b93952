package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/access/connstr"
	"github.com/pgporter/pgporter/internal/access/doctor"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/daemon"
)

// doctorFlags are those of doctor.
type doctorFlags struct {
	endpoints                 endpointFlags
	passwordFile, dns, output string
	timeout, deadline         time.Duration
}

func newDoctorCommand() *cobra.Command {
	f := doctorFlags{}
	c := &cobra.Command{
		Use:   "doctor CLUSTER {FILE | --inventory FILE}",
		Short: "Try every way to a cluster, and say what is wrong",
		Long: `Opens every way that url lists, asks who is at its end, and prints a table: which instance answered, whether it takes
writes, over which TLS and after how long; then what is broken, and what to do about it. Each member's Patroni is asked once for
what makes checks of it dear. It changes nothing.

Passwords are those of the inventory; with --user first those of --password-file, PGPASSWORD and ~/.pgpass, as psql
has them. Nothing shows them. TLS is as PGSSLMODE says. Without a cluster the error names those that there are.

Exit status: 0 all is well, 1 something is broken, 2 the input can't be used.`,
		Example: `  pgporter doctor pg-test pigsty.yml
  pgporter doctor pg-test pigsty.yml --dns 10.10.10.10                        # ask this name server
  pgporter doctor pg-test pigsty.yml --service primary --by vip
  pgporter doctor pg-test pigsty.yml -o json | jq '.ways[] | select(.broken)'`,
		Args: cobra.MaximumNArgs(2),
		RunE: f.run,
	}
	f.endpoints.add(c)
	c.Flags().StringVar(&f.passwordFile, "password-file", "", "the password of --user is the first line of `FILE`")
	c.MarkFlagFilename("password-file")
	c.Flags().StringVar(&f.dns, "dns", "", "ask the name server at `ADDRESS[:PORT]` instead of the system's")
	c.Flags().DurationVar(&f.timeout, "timeout", 10*time.Second, "how long one host of a way may take, as `TIME`: longer than pgporter's --hold")
	c.Flags().DurationVar(&f.deadline, "deadline", time.Minute, "how long all of it may take, as `TIME`")
	command.OutputFlag(c, &f.output, "table", "json")
	return c
}

func (f *doctorFlags) run(c *cobra.Command, args []string) error {
	if err := command.OneOf("output", f.output, "table", "json"); err != nil {
		return err
	}
	resolver, err := nameServer(f.dns)
	switch {
	case err != nil:
		return command.Input(err)
	case f.timeout <= 0 || f.deadline < f.timeout:
		return command.Input(fmt.Errorf("--timeout %s, --deadline %s: a time, and one that is at least as long", f.timeout, f.deadline))
	case f.passwordFile != "" && f.endpoints.choice.User == "":
		return command.Input(errors.New("--password-file is the password of --user: say which"))
	}
	access, err := f.endpoints.read(c, args)
	if err != nil {
		return err
	}
	endpoints, err := connstr.Endpoints(access, f.endpoints.choice)
	if err != nil {
		return command.Input(err)
	}
	// Those that spread their clients end where others do.
	endpoints = slices.DeleteFunc(endpoints, func(w connstr.Endpoint) bool { return w.Spread })
	own := f.endpoints.choice.User != ""
	if f.passwordFile != "" {
		password, err := passwordOf(f.passwordFile)
		if err != nil {
			return command.Input(err)
		}
		for i := range endpoints {
			endpoints[i].Password = password
		}
		own = false
	}
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var findings []doctor.Finding
	var standbyLeader string
	var asking sync.WaitGroup
	asking.Go(func() { findings, standbyLeader = doctor.AskPatronis(ctx, access.Members, f.timeout) })
	results := doctor.Examine(ctx, endpoints, doctor.Config{Timeout: f.timeout, Total: f.deadline, Resolver: resolver, OwnPassword: own, Members: access.Members})
	asking.Wait()
	for i := range results {
		if standbyLeader != "" {
			results[i].InStandbyCluster(standbyLeader, access.Upstream)
		}
	}
	report := reportOf(access.Cluster, results)
	report.Findings = findings
	safetext.Deep(&report)
	out := safetext.Writer(c.OutOrStdout())
	if f.output == "json" {
		err = printJSON(out, report)
	} else {
		err = report.print(out)
	}
	if err != nil {
		return err
	}
	if report.Broken > 0 || len(report.Findings) > 0 {
		return command.Status(command.ExitFailed)
	}
	return nil
}

// nameServer gives the resolver that asks one name server, or the system's for none.
func nameServer(address string) (*net.Resolver, error) {
	if address == "" {
		return &net.Resolver{}, nil
	}
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		bare, bareErr := netip.ParseAddr(strings.Trim(address, "[]"))
		if bareErr != nil {
			return nil, fmt.Errorf("--dns %q: an IP address, with a port if it isn't %s", address, dnsPort)
		}
		port, err := strconv.ParseUint(dnsPort, 10, 16)
		if err != nil {
			return nil, err
		}
		target = netip.AddrPortFrom(bare, uint16(port))
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, target.String())
	}}, nil
}

// passwordOf reads the first line of a file.
func passwordOf(path string) (model.Secret, error) {
	line, err := daemon.FirstLine(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("--password-file: %w", err)
	case line == "":
		return "", fmt.Errorf("--password-file %s: its first line is empty", path)
	}
	return model.Secret(line), nil
}

// doctorReport is what `pgporter doctor -o json` prints.
type doctorReport struct {
	Cluster   string           `json:"cluster"`
	Broken    int              `json:"broken"`
	Endpoints []doctorEndpoint `json:"ways"`
	// Findings are what is wrong with members.
	Findings []doctor.Finding `json:"findings,omitempty"`
}

// doctorEndpoint is one endpoint of a doctorReport. What nobody answered is null or empty.
type doctorEndpoint struct {
	By       connstr.By  `json:"by"`
	Service  string      `json:"service"`
	Target   string      `json:"target"`
	Session  string      `json:"target_session_attrs,omitempty"`
	User     string      `json:"user"`
	Database string      `json:"database"`
	Resolved []string    `json:"resolved,omitempty"`
	Answered string      `json:"answered"`
	Recovery *bool       `json:"in_recovery"`
	ReadOnly *bool       `json:"read_only"`
	System   string      `json:"system_identifier,omitempty"`
	TLS      string      `json:"tls,omitempty"`
	Seconds  float64     `json:"seconds"`
	Result   doctor.Kind `json:"result"`
	Broken   bool        `json:"broken"`
	SQLState string      `json:"sqlstate,omitempty"`
	What     string      `json:"what,omitempty"`
	Advice   string      `json:"advice,omitempty"`
}

func reportOf(cluster string, results []doctor.Result) doctorReport {
	report := doctorReport{Cluster: cluster, Endpoints: []doctorEndpoint{}}
	for _, r := range results {
		targets := make([]string, len(r.Endpoint.Hosts))
		for i, host := range r.Endpoint.Hosts {
			targets[i] = net.JoinHostPort(host, strconv.Itoa(r.Endpoint.Ports[i]))
		}
		w := doctorEndpoint{By: r.Endpoint.By, Service: r.Endpoint.Service, Target: strings.Join(targets, ","), Session: r.Endpoint.Session, User: r.Endpoint.User, Database: r.Endpoint.Database,
			Resolved: r.Outcome.Resolved, Answered: r.Member, TLS: r.Outcome.TLS, Seconds: r.Outcome.Latency.Seconds(), SQLState: r.Outcome.Code,
			Result: r.Verdict.Kind, Broken: r.Verdict.Broken(), What: r.Verdict.What, Advice: r.Verdict.Advice}
		if a := r.Outcome.Answer; a != nil {
			w.Recovery, w.ReadOnly, w.System = &a.Recovery, &a.ReadOnly, a.System
		}
		if w.Broken {
			report.Broken++
		}
		report.Endpoints = append(report.Endpoints, w)
	}
	return report
}

// shownTargets is how much of a list of hosts the table shows.
const shownTargets = 1

func (w doctorEndpoint) target() string {
	first, rest, several := strings.Cut(w.Target, ",")
	if !several {
		return first
	}
	text := fmt.Sprintf("%s and %d more", first, strings.Count(rest, ",")+shownTargets)
	if w.Session != "" {
		text += ", " + w.Session
	}
	return text
}

// told says that the report has more to say of an endpoint than its row.
func (w doctorEndpoint) told() bool { return w.Broken || w.Result == doctor.Follower }

func (w doctorEndpoint) mode() string {
	switch {
	case w.ReadOnly == nil:
		return "-"
	case *w.ReadOnly:
		return "read"
	}
	return "read, write"
}

func (r doctorReport) print(out io.Writer) error {
	var text bytes.Buffer
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "BY\tSERVICE\tWHERE\tUSER\tANSWERED\tMODE\tTLS\tTIME\tRESULT")
	for _, w := range r.Endpoints {
		took := time.Duration(w.Seconds * float64(time.Second))
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", w.By, w.Service, w.target(), w.User, orNone(w.Answered), w.mode(), orNone(w.TLS), took.Round(time.Millisecond), w.Result)
	}
	table.Flush()
	if r.Broken == 0 {
		fmt.Fprintf(&text, "\nAll %d ways to %s are well.\n", len(r.Endpoints), r.Cluster)
	} else {
		fmt.Fprintf(&text, "\nBroken: %d of %d ways to %s.\n", r.Broken, len(r.Endpoints), r.Cluster)
	}
	for i, w := range r.Endpoints {
		if !w.told() || r.repeats(i) {
			continue
		}
		fmt.Fprintf(&text, "\n%s: %s\n", w.Result, w.What)
		for _, other := range r.Endpoints {
			if other.told() && other.What == w.What && other.Advice == w.Advice {
				fmt.Fprintf(&text, "  %s %s at %s\n", other.By, other.Service, other.target())
			}
		}
		fmt.Fprintf(&text, "  do: %s\n", w.Advice)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&text, "\ndear checks: %s\n  do: %s\n", f.What, f.Advice)
	}
	_, err := text.WriteTo(out)
	return err
}

// repeats tells whether an endpoint before this one has the same trouble.
func (r doctorReport) repeats(i int) bool {
	for _, before := range r.Endpoints[:i] {
		if before.told() && before.What == r.Endpoints[i].What && before.Advice == r.Endpoints[i].Advice {
			return true
		}
	}
	return false
}

func orNone(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
