package haproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/pgporter/pgporter/internal/engine"
)

// answerTime bounds one command on a socket; an answer is made within milliseconds, unless the machine is overloaded.
const answerTime = 5 * time.Second

// maxAnswer bounds an answer: 65,535 sessions make about 20 MB of `show sess`.
const maxAnswer = 64 << 20

// control speaks to HAProxy's sockets. With master empty only the newest worker can be asked, over socket.
type control struct {
	// master is the master CLI's socket (-S), socket the runtime API's (stats socket).
	master, socket string
}

// procLine is a line of the master's `show proc`.
type procLine struct {
	PID int
	// Reloads counts reloads of the master, or those that a worker has outlived.
	Reloads int
}

// processes are HAProxy's.
type processes struct {
	// Master is zero without a master socket.
	Master procLine
	// Failed is how many of the last reloads failed in a row.
	Failed int
	// Current is the worker that takes new clients; zero if there is none. Old are those that only finish their sessions.
	Current procLine
	Old     []procLine
}

// Ask gives one command to a HAProxy's socket and returns the whole answer, within the time of ctx and 5 s at most. The writing side
// is closed at once: without that the master CLI waits for more commands (management guide 2.6, section 9.4).
func Ask(ctx context.Context, socket, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return "", fmt.Errorf("HAProxy's socket: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })()
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		return "", fmt.Errorf("HAProxy's socket %s: %w", socket, err)
	}
	if half, ok := conn.(*net.UnixConn); ok {
		if err := half.CloseWrite(); err != nil {
			return "", fmt.Errorf("HAProxy's socket %s: %w", socket, err)
		}
	}
	answer, err := io.ReadAll(io.LimitReader(conn, maxAnswer))
	if err != nil {
		return string(answer), fmt.Errorf("HAProxy's socket %s: %q: %w", socket, command, err)
	}
	return string(answer), nil
}

// ask gives a command to a worker.
func (c control) ask(ctx context.Context, pid int, command string) (string, error) {
	if c.master == "" {
		return Ask(ctx, c.socket, command)
	}
	answer, err := Ask(ctx, c.master, "@!"+strconv.Itoa(pid)+" "+command)
	if err == nil && strings.HasPrefix(answer, "Can't find the target") {
		err = fmt.Errorf("HAProxy has no worker %d", pid)
	}
	return answer, err
}

// tell gives a command that answers nothing if it was done.
func (c control) tell(ctx context.Context, pid int, command string) error {
	answer, err := c.ask(ctx, pid, command)
	if err == nil && strings.TrimSpace(answer) != "" {
		err = fmt.Errorf("HAProxy refuses %q: %s", command, strings.TrimSpace(answer))
	}
	return err
}

// processes tells which processes there are.
func (c control) processes(ctx context.Context) (processes, error) {
	if c.master == "" {
		answer, err := Ask(ctx, c.socket, "show info")
		if err != nil {
			return processes{}, err
		}
		for line := range strings.Lines(answer) {
			if pid, found := strings.CutPrefix(strings.TrimSpace(line), "Pid: "); found {
				n, err := strconv.Atoi(pid)
				return processes{Current: procLine{PID: n}}, err
			}
		}
		return processes{}, fmt.Errorf("no Pid in the answer of HAProxy's socket %s", c.socket)
	}
	answer, err := Ask(ctx, c.master, "show proc")
	if err != nil {
		return processes{}, err
	}
	return parseProcesses(answer)
}

// parseProcesses reads `show proc` (management guide 2.6, section 9.4): a table of master, workers and old workers.
func parseProcesses(text string) (processes, error) {
	var p processes
	section := ""
	for line := range strings.Lines(text) {
		if title, isTitle := strings.CutPrefix(strings.TrimSpace(line), "# "); isTitle {
			section = title
			continue
		}
		words := strings.Fields(line)
		if len(words) < 3 || strings.HasPrefix(words[0], "#") {
			continue
		}
		pid, err := strconv.Atoi(words[0])
		if err != nil {
			return p, fmt.Errorf("a line of HAProxy's process table: %q", line)
		}
		reloads, err := strconv.Atoi(words[2])
		if err != nil {
			return p, fmt.Errorf("a line of HAProxy's process table: %q", line)
		}
		found := procLine{pid, reloads}
		switch {
		case words[1] == "master":
			p.Master = found
			if len(words) > 4 && words[3] == "[failed:" {
				p.Failed, _ = strconv.Atoi(strings.TrimSuffix(words[4], "]"))
			}
		case words[1] != "worker":
		case section == "old workers":
			p.Old = append(p.Old, found)
		default:
			p.Current = found
		}
	}
	if p.Master.PID == 0 {
		return p, errors.New("HAProxy's process table names no master")
	}
	return p, nil
}

// serverID names a server of a service, as HAProxy does.
type serverID struct{ proxy, server string }

func (p serverID) String() string { return p.proxy + "/" + p.server }

// Operational states of a server, as `show servers state` has them (management guide 2.6, section 9.3).
const (
	opStopped  = 0
	opStarting = 1
	opRunning  = 2
	opStopping = 3
)

// Administrative states that an operator sets over the runtime API, and that a reload must keep.
const (
	adminMaintenance = 0x01
	adminDrain       = 0x08
)

// serverState is a line of `show servers state`.
type serverState struct {
	Address string
	Port    int
	// Op and Admin are the operational and the administrative state.
	Op, Admin int
	// Weight is the one in use, Initial the configuration's.
	Weight, Initial int
	// Since is for how many seconds it has been in this state.
	Since int
	// Checked says that health checks are configured and on, Passed that the last one passed.
	Checked, Passed bool
}

// running says that HAProxy would lead new clients to the server if an operator hadn't drained it. Of one in maintenance nothing is
// known: it isn't checked.
func (s serverState) running() bool {
	return (s.Op == opRunning || s.Op == opStarting) && s.Admin&^adminDrain == 0
}

// takesClients says that new clients are connected to the server.
func (s serverState) takesClients() bool {
	return (s.Op == opRunning || s.Op == opStarting) && s.Admin == 0
}

// servers gives the state of every server that a worker has.
func (c control) servers(ctx context.Context, pid int) (map[serverID]serverState, error) {
	answer, err := c.ask(ctx, pid, "show servers state")
	if err != nil {
		return nil, err
	}
	return parseServers(answer)
}

// stateVersion is the first line of `show servers state`, and of the file that it is read from at a start.
const stateVersion = "1"

// parseServers reads `show servers state`; the order of its columns is that of version 1.
func parseServers(text string) (map[serverID]serverState, error) {
	version, rest, _ := strings.Cut(text, "\n")
	if strings.TrimSpace(version) != stateVersion {
		return nil, fmt.Errorf("HAProxy's server states are of version %q, not %s", version, stateVersion)
	}
	servers := map[serverID]serverState{}
	for line := range strings.Lines(rest) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) < 20 {
			return nil, fmt.Errorf("a line of HAProxy's server states: %q", line)
		}
		s := serverState{Address: words[4]}
		var err error
		var check, result int
		for at, to := range map[int]*int{5: &s.Op, 6: &s.Admin, 7: &s.Weight, 8: &s.Initial, 9: &s.Since, 11: &result, 13: &check, 18: &s.Port} {
			n, bad := strconv.Atoi(words[at])
			*to, err = n, errors.Join(err, bad)
		}
		if err != nil {
			return nil, fmt.Errorf("a line of HAProxy's server states: %q: %w", line, err)
		}
		const configuredAndEnabled = 0x02 | 0x04
		const passed = 3
		s.Passed = result == passed
		s.Checked = check&configuredAndEnabled == configuredAndEnabled
		servers[serverID{words[1], words[3]}] = s
	}
	return servers, nil
}

// session is a line of `show sess`.
type session struct {
	// ID is what `shutdown session` takes.
	ID string
	serverID
}

// sessions gives the sessions that a worker has with servers.
func (c control) sessions(ctx context.Context, pid int) ([]session, error) {
	answer, err := c.ask(ctx, pid, "show sess")
	if err != nil {
		return nil, err
	}
	return parseSessions(answer), nil
}

func parseSessions(text string) []session {
	var found []session
	for line := range strings.Lines(text) {
		id, rest, isSession := strings.Cut(line, ": ")
		number, isHex := strings.CutPrefix(id, "0x")
		if !isSession || !isHex || strings.Trim(number, "0123456789abcdef") != "" {
			continue
		}
		s := session{ID: id}
		for _, word := range strings.Fields(rest) {
			if name, is := strings.CutPrefix(word, "be="); is {
				s.proxy = name
			}
			if name, is := strings.CutPrefix(word, "srv="); is {
				s.server = name
			}
		}
		if s.server != "" && s.server != "<none>" {
			found = append(found, s)
		}
	}
	return found
}

// counters are what a worker counted of a server, or of a service where the server's name is BACKEND or FRONTEND.
type counters struct {
	engine.Counts
	// Refused are connections that found no server, or that none could be made for.
	Refused uint64
	// Accepted, Denied, Rate, RateMax and Limit are a frontend's.
	Accepted, Denied     uint64
	Rate, RateMax, Limit int
}

// add adds what a worker has counted that gets no more clients: totals, and what was most.
func (c *counters) add(o counters) {
	c.TotalSessions += o.TotalSessions
	c.SessionsMax, c.QueuedMax = max(c.SessionsMax, o.SessionsMax), max(c.QueuedMax, o.QueuedMax)
	c.SessionRateMax, c.RateMax = max(c.SessionRateMax, o.SessionRateMax), max(c.RateMax, o.RateMax)
	c.ToServer += o.ToServer
	c.ToClient += o.ToClient
	c.Attempts += o.Attempts
	c.ConnectFailures += o.ConnectFailures
	c.Retries += o.Retries
	c.Redispatches += o.Redispatches
	c.ClientAborts += o.ClientAborts
	c.ServerAborts += o.ServerAborts
	c.Refused += o.Refused
	c.Accepted += o.Accepted
	c.Denied += o.Denied
	if o.LastSession.After(c.LastSession) {
		c.LastSession = o.LastSession
	}
}

// counts gives a worker's counters.
func (c control) counts(ctx context.Context, pid int) (map[serverID]counters, error) {
	answer, err := c.ask(ctx, pid, "show stat")
	if err != nil {
		return nil, err
	}
	return parseCounts(answer, time.Now())
}

// parseCounts reads the counters of `show stat` as of a time.
func parseCounts(text string, now time.Time) (map[serverID]counters, error) {
	lines, err := ParseStatistics(text)
	if err != nil {
		return nil, err
	}
	found := make(map[serverID]counters, len(lines))
	for _, l := range lines {
		n := counters{Counts: l.Counted, Refused: l.Failed, Accepted: l.Accepted, Denied: l.Denied, Rate: l.Rate, RateMax: l.RateMax, Limit: l.Limit}
		if l.Idle >= 0 {
			n.LastSession = now.Add(-time.Duration(l.Idle) * time.Second)
		}
		found[serverID{l.Service, l.Server}] = n
	}
	return found, nil
}
