package runtime

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

// fake is a daemon of which orders are kept.
type fake struct {
	t      testing.TB
	mu     sync.Mutex
	orders []string
	// refuses is what an order is answered.
	refuses error
}

func (f *fake) Status() api.Status {
	content, err := os.ReadFile("../statistics/testdata/status.json")
	if err != nil {
		f.t.Error(err)
	}
	var s api.Status
	if err := json.Unmarshal(content, &s); err != nil {
		f.t.Error(err)
	}
	return s
}

func (f *fake) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.orders = append(f.orders, fmt.Sprintf(format, args...))
}

func (f *fake) Order(_ context.Context, o api.Order) ([]api.OrderResult, error) {
	what := string(o.State)
	if o.Weight != nil {
		what = fmt.Sprintf("weight %d", *o.Weight)
	}
	if o.DeclaredWeight {
		what = "declared weight"
	}
	f.note("%s/%s %s by %s", o.Service, o.Member, what, o.By)
	return nil, f.refuses
}

var began = time.Date(2026, 11, 30, 10, 0, 0, 0, time.UTC)

func (f *fake) Sessions(filter api.SessionFilter) (api.Sessions, error) {
	all := api.Sessions{Now: began.Add(26 * time.Hour), Sessions: []api.Session{
		{ID: 17, Service: "pg-test-primary", Member: "pg-test-1", Client: "10.0.0.7:40000", Local: "10.10.10.11:50000", Server: "10.10.10.11:6432", Began: began, ToServer: 5, ToClient: 6},
		{ID: 18, Service: "minio", Member: "m1", Client: "[fd00::7]:40001", Local: "[fd00::1]:50001", Server: "[fd00::1]:9000", Began: began.Add(26*time.Hour - 63*time.Second)},
	}}
	if filter.ID != 0 {
		all.Sessions = slices.DeleteFunc(all.Sessions, func(s api.Session) bool { return s.ID != filter.ID })
	} else {
		all.More = 3
	}
	return all, nil
}

func (f *fake) EndSessions(_ context.Context, e api.EndSessions, by string) (api.SessionsEnded, error) {
	f.note("end %s/%s %d by %s", e.Filter.Service, e.Filter.Member, e.Filter.ID, by)
	if e.Filter.ID == 99 {
		return api.SessionsEnded{}, nil
	}
	return api.SessionsEnded{Ended: 1}, nil
}

// served gives the path of a socket at which f answers until the test ends.
func served(t *testing.T, f *fake) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	socket, err := Prepare(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := socket.Publish(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, socket, f, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		socket.Discard()
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return path
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

// ask writes a line and reads all that comes until the connection is closed.
func ask(t *testing.T, path, line string) string {
	t.Helper()
	conn := dial(t, path)
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestCommands(t *testing.T) {
	f := &fake{t: t}
	path := served(t, f)
	for _, c := range []struct {
		line, want string
		// ordered is what the daemon is told; with a comma between several.
		ordered string
	}{
		{"show version", "2.6.0-pgporter-1.2.3\n\n", ""},
		{"show backend", "# name\npg-test-primary\npg-test-replica\npg-test-offline\nminio\n\n", ""},
		{"show backend; show version", "# name\npg-test-primary\npg-test-replica\npg-test-offline\nminio\n\n2.6.0-pgporter-1.2.3\n\n", ""},
		{"@1 show version", "2.6.0-pgporter-1.2.3\n\n", ""},
		{"@@1 show version;@!42 show version", "2.6.0-pgporter-1.2.3\n\n2.6.0-pgporter-1.2.3\n\n", ""},
		{"show\tversion\r", "2.6.0-pgporter-1.2.3\n\n", ""},
		{"get weight pg-test-replica/pg-test-2", "50 (initial 100)\n\n", ""},
		{"get weight x/y", "No such backend.\n\n", ""},
		{"get weight minio/y", "No such server.\n\n", ""},
		{"get weight minio", "Require 'backend/server'.\n\n", ""},
		{"get weight", "Require 'backend/server'.\n\n", ""},
		{"disable server minio/m1", "\n", "minio/m1 maint by runtime socket"},
		{"enable server minio/m1", "\n", "minio/m1 ready by runtime socket"},
		{"get weight minio/m1 ; disable server minio/m1 ; enable server minio/m2", "1 (initial 1)\n\n\n\n", "minio/m1 maint by runtime socket,minio/m2 ready by runtime socket"},
		{"set server pg-test-replica/pg-test-2 state drain", "\n", "pg-test-replica/pg-test-2 drain by runtime socket"},
		{"set server pg-test-replica/pg-test-2 state off", "'set server <srv> state' expects 'ready', 'drain' and 'maint'.\n\n", ""},
		{"set server pg-test-replica/pg-test-2 weight 50%", "\n", "pg-test-replica/pg-test-2 weight 50 by runtime socket"},
		{"set weight pg-test-replica/pg-test-2 100%", "\n", "pg-test-replica/pg-test-2 declared weight by runtime socket"},
		{"set weight pg-test-replica/pg-test-2 999%", "\n", "pg-test-replica/pg-test-2 weight 256 by runtime socket"},
		{"set weight pg-test-replica/pg-test-2 256", "\n", "pg-test-replica/pg-test-2 weight 256 by runtime socket"},
		{"set weight pg-test-replica/pg-test-2 257", "Absolute weight can only be between 0 and 256 inclusive.\n\n", ""},
		{"set weight pg-test-replica/pg-test-2 -1%", "Relative weight must be positive.\n\n", ""},
		{"set weight pg-test-replica/pg-test-2 99999999999999999999", "Trailing garbage in weight string\n\n", ""},
		{"set weight pg-test-replica/pg-test-2 x", "Empty weight string empty or preceded by garbage\n\n", ""},
		{"set weight pg-test-replica/pg-test-2 5x", "Trailing garbage in weight string\n\n", ""},
		{"set weight pg-test-replica/pg-test-2", "Require <weight> or <weight%>.\n\n", ""},
		{"set server minio/m1 addr 10.0.0.1 port 5", "A server's address follows from the inventory: change it there and reload (pgporter reload).\n\n", ""},
		{"set server minio/m1 health down", "Health follows from the checks alone. To take a server out of service use 'set server <srv> state drain' or 'maint'.\n\n", ""},
		{"set server minio/m1 agent up", "agent checks are not enabled on this server.\n\n", ""},
		{"set server minio/m1", "usage: set server <backend>/<server> addr | agent | agent-addr | agent-port | agent-send | check-addr | check-port | fqdn | health | ssl | state | weight\n\n", ""},
		{"enable health minio/m1", "Health check was not configured on this server, cannot enable.\n\n", ""},
		{"enable health minio/m2", "\n", ""},
		{"enable agent minio/m2", "Agent was not configured on this server, cannot enable.\n\n", ""},
		{"disable agent minio/m2", "\n", ""},
		{"set maxconn frontend", "A frontend name is expected.\n\n", ""},
		{"set maxconn frontend x 5", "No such frontend.\n\n", ""},
		{"set maxconn frontend minio 5", "A service's maxconn follows from the inventory: change it there and reload (pgporter reload).\n\n", ""},
		{"add server minio/m3 10.0.0.1:9000", "Servers follow from the inventory and from who is a member now: change it in the inventory and reload (pgporter reload).\n\n", ""},
		{"shutdown sessions server pg-test-primary/pg-test-1", "\n", "end pg-test-primary/pg-test-1 0 by runtime socket"},
		{"shutdown session 0x11", "\n", "end / 17 by runtime socket"},
		{"shutdown session 99", "No such session (use 'show sess').\n\n", "end / 99 by runtime socket"},
		{"shutdown session", "Session pointer expected (use 'show sess').\n\n", ""},
		{"shutdown session 0", "No such session (use 'show sess').\n\n", ""},
		{"show sess", "0x11: proto=tcpv4 src=10.0.0.7:40000 fe=pg-test-primary be=pg-test-primary srv=pg-test-1 age=1d2h local=10.10.10.11:50000 dst=10.10.10.11:6432 in=5 out=6\n" +
			"0x12: proto=tcpv6 src=[fd00::7]:40001 fe=minio be=minio srv=m1 age=1m3s local=[fd00::1]:50001 dst=[fd00::1]:9000 in=0 out=0\n# 3 more aren't shown\n\n", ""},
		{"show sess 0x13", "Session not found.\n\n", ""},
		{"show errors", "Total events captured on [30/Nov/2026:12:00:07.750] : 0\n\n", ""},
		{"show table", "\n", ""},
		{"show table x", "No such table\n\n", ""},
		{"show servers state minio", "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port\n" +
			"5 minio 1 m1 fd00::1 2 0 1 1 7207 1 0 1 0 0 0 0 - 9000 - 0 0 - - 0\n5 minio 2 m2 10.10.10.12 0 0 1 1 7207 1 0 0 6 0 0 0 - 9000 - 0 0 - - 0\n\n", ""},
		{"show servers state x", "Can't find backend.\n\n", ""},
		{"show stat x 1 1", "No such proxy.\n\n", ""},
		{"show stat domain x", "Invalid statistics domain.\n\n", ""},
		{"set timeout cli", "Expects an integer value.\n\n", ""},
		{"set timeout cli 0", "Invalid timeout value.\n\n", ""},
		{"set timeout cli 30;set timeout cli 24d", "\n\n", ""},
		{"set timeout cli 25d", "Invalid timeout value.\n\n", ""},
		{"set timeout web 5", "'set timeout' only supports 'cli'.\n\n", ""},
		{"operator; show cli level; disable server minio/m1; admin-of-nothing", "\noperator\n\nPermission denied\n\n", ""},
		{"user; show sess", "\nPermission denied\n\n", ""},
		{"quit", "", ""},
		{"show version; quit; show version", "2.6.0-pgporter-1.2.3\n\n", ""},
		{`get weight minio\/m1`, "1 (initial 1)\n\n", ""},
		{`get weight minio/m\;1`, "No such server.\n\n", ""},
	} {
		f.mu.Lock()
		f.orders = nil
		f.mu.Unlock()
		got := ask(t, path, c.line)
		if !strings.HasPrefix(got, c.want) || got != c.want && !strings.Contains(got, "Unknown command") {
			t.Errorf("%s is answered\n%s\ninstead of\n%s", c.line, got, c.want)
		}
		f.mu.Lock()
		if ordered := strings.Join(f.orders, ","); ordered != c.ordered {
			t.Errorf("%s orders %q instead of %q", c.line, ordered, c.ordered)
		}
		f.mu.Unlock()
	}
}

// Words that aren't known bring the list of those that are, in HAProxy's form: tools look for its beginning.
func TestUnknown(t *testing.T) {
	path := served(t, &fake{t: t})
	for line, want := range map[string]string{
		"foo":          "Unknown command. Please enter one of the following commands only:\n",
		"show":         "Unknown command, but maybe one of the following ones is a better match:\n  show backend",
		"show foo":     "Unknown command, but maybe one of the following ones is a better match:\n  show backend",
		"":             "Unknown command. Please enter one of the following commands only:\n",
		"help":         "The following commands are valid at this level:\n",
		"help show":    "The following commands match your request:\n  show backend",
		"help foo bar": "The command doesn't exist. Valid commands are:\n",
	} {
		if got := ask(t, path, line); !strings.HasPrefix(got, want) || !strings.Contains(got, "\n  prompt ") || !strings.HasSuffix(got, "\n\n") {
			t.Errorf("%q is answered\n%s", line, got)
		}
	}
}

// An order that isn't taken is answered with the reason.
func TestRefusedOrder(t *testing.T) {
	path := served(t, &fake{t: t, refuses: errors.New("it is the last server")})
	if got := ask(t, path, "disable server minio/m1"); got != "it is the last server\n\n" {
		t.Errorf("the answer is %q", got)
	}
}

// hatop's way: `prompt`, then a command after another.
func TestPrompt(t *testing.T) {
	conn := dial(t, served(t, &fake{t: t}))
	in := bufio.NewReader(conn)
	for _, step := range [][2]string{
		{"prompt\n", "\n> "},
		{"set timeout cli 60\n", "\n> "},
		{"show version\n", "2.6.0-pgporter-1.2.3\n\n> "},
		{"show version;get weight minio/m1\n", "2.6.0-pgporter-1.2.3\n\n> 1 (initial 1)\n\n> "},
		{"prompt\n", "\n"},
	} {
		if _, err := io.WriteString(conn, step[0]); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(step[1]))
		if _, err := io.ReadFull(in, got); err != nil || string(got) != step[1] {
			t.Fatalf("%q is answered %q, %v", step[0], got, err)
		}
	}
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		t.Errorf("then comes %q, %v", rest, err)
	}
}

func TestTooLong(t *testing.T) {
	conn := dial(t, served(t, &fake{t: t}))
	_, _ = io.WriteString(conn, strings.Repeat("x", longest+1))
	if answer, _ := io.ReadAll(conn); len(answer) > 0 {
		t.Errorf("it is answered %q", answer)
	}
}

// Clients beyond the limit wait, and are served when there is room.
func TestManyClients(t *testing.T) {
	path := served(t, &fake{t: t})
	var silent []net.Conn
	for range clients {
		conn := dial(t, path)
		if _, err := io.WriteString(conn, "prompt\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		silent = append(silent, conn)
	}
	late := dial(t, path)
	if _, err := io.WriteString(late, "show version\n"); err != nil {
		t.Fatal(err)
	}
	_ = late.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := late.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	_ = silent[0].Close()
	_ = late.SetReadDeadline(time.Now().Add(time.Minute))
	if answer, err := io.ReadAll(late); err != nil || string(answer) != "2.6.0-pgporter-1.2.3\n\n" {
		t.Errorf("%q, %v", answer, err)
	}
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	make := func() *Socket {
		t.Helper()
		s, err := Prepare(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Publish(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := make()
	if info, err := os.Lstat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Fatalf("it is %v, %v", info.Mode(), err)
	}
	// Who lives keeps it.
	if _, err := Prepare(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another process answers there") {
		t.Fatalf("it isn't refused: %v", err)
	}
	// Who takes over gets it as it is.
	file, err := first.Listener.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	handed, err := net.FileListener(file)
	_ = file.Close()
	if err != nil {
		t.Fatal(err)
	}
	second, err := Inherit(handed.(*net.UnixListener), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Publish(); err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	// What a process leaves that ends without a word is replaced.
	_ = second.Close()
	make().Discard()
	if left, _ := filepath.Glob(path + "*"); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
	if _, err := Inherit(nil, path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a name that isn't there is taken over: %v", err)
	}
	// Another process's is left alone.
	gone := make()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	theirs := make()
	gone.Discard()
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
	theirs.Discard()
	if err := os.WriteFile(path, []byte("not a socket"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Prepare(t.Context(), path); err == nil || !strings.Contains(err.Error(), "something else than a socket") {
		t.Errorf("a file is taken for one: %v", err)
	}
}

// Nothing that is written stops the parser, and no command is longer than it may be.
func FuzzCommand(f *testing.F) {
	for _, line := range []string{"show stat\n", "get weight a/b;set weight a/b 5%\n", `a\;b\\ c` + "\n", "@1 show info", "\r\n", ";;\n", "\\", strings.Repeat("a ", 80) + "\n"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, input string) {
		in := bufio.NewReader(strings.NewReader(input))
		for range len(input) + 2 {
			line, _, err := readCommand(in)
			if err != nil {
				return
			}
			if len(line) > longest {
				t.Fatalf("a command of %d bytes", len(line))
			}
			if got := words(line); len(got) > most {
				t.Fatalf("%d words", len(got))
			}
			for n := range words(line) {
				if words(line)[n] == "" && !strings.Contains(line, `\`) {
					t.Fatalf("%q has an empty word", line)
				}
			}
		}
		t.Fatal("it doesn't end")
	})
}

// piped hands out ends of pipes: their deadlines are those of a bubble's clock.
type piped struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *piped) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *piped) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *piped) Addr() net.Addr { return &net.UnixAddr{} }

// A client that says nothing, and one that doesn't read, are closed in time.
func TestClientsThatDoNothing(t *testing.T) {
	for name, c := range map[string]struct {
		says string
		// reads is how much it reads, then it waits for the end; after is when that comes.
		reads int
		after time.Duration
	}{
		"silent":                    {"", 0, idle},
		"silent with a prompt":      {"prompt\n", 3, idle},
		"silent for longer":         {"prompt\nset timeout cli 1h\n", 6, time.Hour},
		"in the middle of a word":   {"show st", 0, idle},
		"doesn't read what it asks": {"show stat\n", 0, reading},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				l := &piped{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
				l.conns <- theirs
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- Serve(ctx, l, &fake{t: t}, slog.New(slog.DiscardHandler)) }()
				start := time.Now()
				if _, err := io.WriteString(ours, c.says); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(ours, make([]byte, c.reads)); err != nil {
					t.Fatal(err)
				}
				if c.after == reading {
					time.Sleep(c.after)
					synctest.Wait()
				}
				if rest, err := io.ReadAll(ours); err != nil || len(rest) > 0 {
					t.Errorf("%q, %v", rest, err)
				}
				if took := time.Since(start); took != c.after {
					t.Errorf("it is closed after %v", took)
				}
				stop()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A stop ends clients at once.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		l := &piped{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
		l.conns <- theirs
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- Serve(ctx, l, &fake{t: t}, slog.New(slog.DiscardHandler)) }()
		synctest.Wait()
		start := time.Now()
		stop()
		if err := <-ended; err != nil || time.Since(start) != 0 {
			t.Errorf("it ends after %v with %v", time.Since(start), err)
		}
		_ = ours.Close()
	})
}
