package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/pgporter/pgporter/internal/access/connstr"
	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Stage is how far a probe came.
type Stage string

// Stages, in their order.
const (
	NotTried  Stage = "not tried"
	Resolving Stage = "resolve"
	Dialling  Stage = "dial"
	LoggingIn Stage = "login"
	Asking    Stage = "ask"
	Answered  Stage = "answered"
)

// Fault is how a stage failed.
type Fault string

// Faults. BySQL is a server's own error, with its code; Unfit that servers answered, but none that the client looks for.
const (
	None        Fault = ""
	TimedOut    Fault = "timeout"
	Refused     Fault = "refused"
	Unreachable Fault = "unreachable"
	Closed      Fault = "closed"
	BySQL       Fault = "error"
	Unfit       Fault = "unfit"
	NoSuchName  Fault = "no such name"
	Other       Fault = "other"
)

// Outcome is what became of one endpoint.
type Outcome struct {
	Stage Stage
	Fault Fault
	// Resolved are the addresses of a name, Address the one that was dialled last, with its port.
	Resolved []string
	Address  string
	// Code (SQLSTATE), Message and Detail are a server's own words, short and on one line; Text says everything else.
	Code, Message, Detail, Text string
	// Answer is set with the stage Answered.
	Answer  *Answer
	Latency time.Duration
	// TLS is the version's name; empty for none.
	TLS string
}

// Answer is what a server says of itself.
type Answer struct {
	// Host is empty and Port 0 for one that was reached over a local socket.
	Host string
	Port int
	// Recovery is pg_is_in_recovery(), ReadOnly transaction_read_only.
	Recovery, ReadOnly bool
	// System is the system identifier, empty where the user may not know it; Started when the server was.
	System, Started string
	// Reported is in_hot_standby as it was reported at the start of the session: on, off, or empty. PgBouncer reports it for
	// its server.
	Reported string
}

const (
	question = "select coalesce(host(inet_server_addr()), ''), coalesce(inet_server_port(), 0), pg_is_in_recovery()," +
		" current_setting('transaction_read_only'), extract(epoch from pg_postmaster_start_time())"
	systemQuestion = "select system_identifier from pg_control_system()"
)

// Probe opens an endpoint and asks who is there. The hosts of an endpoint are tried in their order, as libpq does.
func Probe(ctx context.Context, w connstr.Endpoint, cfg Config) Outcome {
	if ctx.Err() != nil {
		return Outcome{Stage: NotTried, Fault: TimedOut, Text: "there was no time left"}
	}
	began := time.Now()
	var last Outcome
	var spare *Outcome
	for i, host := range w.Hosts {
		o := probeHost(ctx, w, host, w.Ports[i], cfg)
		o.Latency = time.Since(began)
		a := o.Answer
		switch {
		case a == nil:
			if last.Fault == None || last.Fault == Unfit {
				last = o
			}
			continue
		case w.Session == "primary" && a.Recovery:
			last = Outcome{Stage: Answered, Fault: Unfit, Address: o.Address, Text: "no host of these is the primary"}
			continue
		case w.Session == "prefer-standby" && !a.Recovery:
			if spare == nil {
				spare = &o
			}
			continue
		}
		return o
	}
	if spare != nil {
		return *spare
	}
	return last
}

func probeHost(ctx context.Context, w connstr.Endpoint, host string, port int, cfg Config) Outcome {
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	o := Outcome{Stage: Resolving}
	addresses := []string{host}
	if _, err := netip.ParseAddr(host); err != nil {
		found, err := cfg.Resolver.LookupHost(ctx, host)
		if err != nil {
			o.unresolved(err)
			return o
		}
		o.Resolved, addresses = found, found
	}
	config, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s target_session_attrs=any", quote(host), port, quote(w.User), quote(w.Database)))
	if err != nil {
		o.Stage, o.Fault, o.Text = LoggingIn, Other, "the client's own settings can't be used: "+err.Error()
		return o
	}
	if w.Password != "" && (config.Password == "" || !cfg.OwnPassword) {
		config.Password = w.Password.Reveal()
	}
	config.RuntimeParams["application_name"] = "pgporter doctor"
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		frontend := pgproto3.NewFrontend(r, w)
		frontend.SetMaxBodyLen(mostRead)
		return frontend
	}
	resolved := o.Resolved
	for _, address := range addresses {
		o = probeAddress(ctx, config, address, port)
		o.Resolved = resolved
		if o.Answer != nil || o.Fault == BySQL {
			break
		}
	}
	return o
}

// unresolved keeps why a name has no address.
func (o *Outcome) unresolved(err error) {
	o.Fault = Other
	var wrong *net.DNSError
	if !errors.As(err, &wrong) {
		o.Text = innermost(err)
		return
	}
	o.Text = shown(wrong.Err)
	switch {
	case wrong.IsNotFound:
		o.Fault = NoSuchName
	case wrong.IsTimeout:
		o.Fault = TimedOut
	case strings.HasSuffix(wrong.Err, syscall.ECONNREFUSED.Error()):
		// The resolver keeps the text alone.
		o.Fault = Refused
	}
}

// probeAddress connects as the client's settings say: with TLS if the server has it, and once more without where that may be
// what it minds (PostgreSQL's manual, sslmode=prefer).
func probeAddress(ctx context.Context, config *pgconn.Config, address string, port int) Outcome {
	encryption := []*tls.Config{config.TLSConfig}
	for _, f := range config.Fallbacks {
		if f.Host == config.Host && f.Port == config.Port {
			encryption = append(encryption, f.TLSConfig)
		}
	}
	var o Outcome
	for i, with := range encryption {
		negotiating := negotiation{with: with, optional: i+1 < len(encryption)}
		o = Outcome{Stage: Dialling, Address: net.JoinHostPort(address, strconv.Itoa(port))}
		one := config.Copy()
		one.Fallbacks, one.TLSConfig = nil, nil
		one.LookupFunc = func(context.Context, string) ([]string, error) { return []string{address}, nil }
		one.DialFunc = negotiating.dial
		conn, err := pgconn.ConnectConfig(ctx, one)
		if negotiating.dialled {
			o.Stage = LoggingIn
		}
		if err != nil {
			o.fail(ctx, err)
			// Only a refusal of who comes how may be another without TLS.
			if o.Fault != BySQL || !strings.HasPrefix(o.Code, "28") || o.Code == "28P01" {
				return o
			}
			continue
		}
		if encrypted, isTLS := conn.Conn().(*tls.Conn); isTLS {
			o.TLS = strings.TrimPrefix(tls.VersionName(encrypted.ConnectionState().Version), "TLS ")
		}
		o.ask(ctx, conn)
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		// The server is sent a Terminate; whether it hears it changes nothing.
		_ = conn.Close(closing)
		cancel()
		<-conn.CleanupDone()
		return o
	}
	return o
}

// ask asks the server who it is.
func (o *Outcome) ask(ctx context.Context, conn *pgconn.PgConn) {
	o.Stage = Asking
	row, err := oneRow(ctx, conn, question, 5)
	if err != nil {
		o.fail(ctx, err)
		if o.Fault == Other && conn.IsClosed() {
			o.Fault = Closed
		}
		return
	}
	port, err := strconv.Atoi(row[1])
	if err != nil {
		o.Fault, o.Text = Other, "its answer can't be read: "+shown(err.Error())
		return
	}
	a := &Answer{Host: row[0], Port: port, Recovery: row[2] == "t", ReadOnly: row[3] == "on", Started: row[4],
		Reported: shown(conn.ParameterStatus("in_hot_standby"))}
	// Not every user may ask.
	if row, err := oneRow(ctx, conn, systemQuestion, 1); err == nil {
		a.System = row[0]
	}
	o.Stage, o.Answer = Answered, a
}

func oneRow(ctx context.Context, conn *pgconn.PgConn, sql string, columns int) ([]string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != columns {
		return nil, errors.New("another answer than one row was given")
	}
	row := make([]string, columns)
	for i, field := range results[0].Rows[0] {
		row[i] = shown(string(field))
	}
	return row, nil
}

// fail keeps how a stage ended.
func (o *Outcome) fail(ctx context.Context, err error) {
	var said *pgconn.PgError
	var network net.Error
	switch {
	case errors.As(err, &said):
		o.Fault, o.Code, o.Message, o.Detail = BySQL, shown(said.Code), shown(said.Message), shown(strings.ReplaceAll(said.Detail, "\n", "; "))
	case errors.Is(err, syscall.ECONNREFUSED):
		o.Fault = Refused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		o.Fault = Unreachable
	case ctx.Err() != nil, errors.As(err, &network) && network.Timeout():
		o.Fault = TimedOut
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		o.Fault = Closed
	default:
		o.Fault = Other
		o.Text = innermost(err)
	}
}

// innermost is what an error is about, without those that handed it on; of several the last.
func innermost(err error) string {
	for {
		inner := errors.Unwrap(err)
		if several, is := err.(interface{ Unwrap() []error }); is && len(several.Unwrap()) > 0 {
			inner = several.Unwrap()[len(several.Unwrap())-1]
		}
		if inner == nil {
			return shown(err.Error())
		}
		err = inner
	}
}

// shown is what is kept of a text that a server wrote.
func shown(text string) string { return safetext.Short(text, 500) }

// quote writes a value of libpq's keyword/value form.
func quote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}
