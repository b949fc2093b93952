package throughput

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// pgbench is a run of PostgreSQL's benchmark with its script select-only.
type pgbench struct {
	address, port string
	clients       int
	lasts         time.Duration
	// reconnect opens a session for each transaction (-C); statements are prepared otherwise.
	reconnect bool
}

// transactions are what pgbench says of a run.
type transactions struct {
	count int64
	// perSecond is without the time to connect at first, or with all of it if each transaction has its connection.
	perSecond float64
	// average and p99 are latencies in milliseconds; p99 is of every single transaction.
	average, p99 float64
	// all is every single one, in no order.
	all []transaction
}

// transaction is a line of pgbench's log.
type transaction struct {
	took  time.Duration
	ended time.Time
}

// run has pgbench run, with its log of transactions in a directory that is its own.
func (p pgbench) run(ctx context.Context, dir string) (transactions, error) {
	bin, _, err := sandbox.PostgresBin()
	if err != nil {
		return transactions{}, err
	}
	dir, err = os.MkdirTemp(dir, "pgbench-")
	if err != nil {
		return transactions{}, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(ctx, p.lasts+time.Minute)
	defer cancel()
	args := []string{"--no-vacuum", "--select-only", "--client", strconv.Itoa(p.clients), "--jobs", strconv.Itoa(min(2, p.clients)),
		"--time", strconv.Itoa(int(p.lasts.Round(time.Second).Seconds())), "--log", "--log-prefix", filepath.Join(dir, "log"),
		"--host", p.address, "--port", p.port, "--username", databaseUser}
	if p.reconnect {
		args = append(args, "--connect")
	} else {
		args = append(args, "--protocol", "prepared")
	}
	command := exec.CommandContext(ctx, filepath.Join(bin, "pgbench"), append(args, databaseName)...)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the benchmark
	command.Env = append(os.Environ(), "PGSSLMODE=disable", "PGGSSENCMODE=disable", "PGCONNECT_TIMEOUT=10")
	said, err := command.CombinedOutput()
	if err != nil {
		return transactions{}, fmt.Errorf("pgbench %s: %w\n%s", strings.Join(args, " "), err, said)
	}
	t, err := parseSummary(string(said))
	if err != nil {
		return transactions{}, fmt.Errorf("what pgbench says: %w\n%s", err, said)
	}
	logs, err := filepath.Glob(filepath.Join(dir, "log.*"))
	if err != nil {
		return transactions{}, err
	}
	for _, path := range logs {
		if t.all, err = appendLog(t.all, path); err != nil {
			return transactions{}, err
		}
	}
	if int64(len(t.all)) != t.count {
		return transactions{}, fmt.Errorf("pgbench counts %d transactions and logged %d", t.count, len(t.all))
	}
	latencies := make([]time.Duration, len(t.all))
	for i, one := range t.all {
		latencies[i] = one.took
	}
	t.p99 = float64(percentile(latencies, 0.99).Microseconds()) / 1000
	return t, nil
}

// What pgbench says at its end (PostgreSQL 15, "pgbench").
var (
	saidCount   = regexp.MustCompile(`(?m)^number of transactions actually processed: (\d+)`)
	saidFailed  = regexp.MustCompile(`(?m)^number of failed transactions: (\d+)`)
	saidAverage = regexp.MustCompile(`(?m)^latency average = ([\d.]+) ms`)
	saidRate    = regexp.MustCompile(`(?m)^tps = ([\d.]+) \((?:without initial connection time|including reconnection times)\)`)
)

// parseSummary reads what pgbench says at its end. That a transaction failed is an error; a client that was lost is one of
// pgbench's own.
func parseSummary(said string) (transactions, error) {
	var t transactions
	var errs []error
	number := func(of *regexp.Regexp) float64 {
		m := of.FindStringSubmatch(said)
		if m == nil {
			errs = append(errs, fmt.Errorf("nothing like %s", of))
			return 0
		}
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			errs = append(errs, err)
		}
		return n
	}
	t.count = int64(number(saidCount))
	if failed := number(saidFailed); failed > 0 {
		errs = append(errs, fmt.Errorf("%.0f transactions failed", failed))
	}
	if len(errs) == 0 && t.count == 0 {
		// Then it tells no more.
		return t, errStill
	}
	t.perSecond, t.average = number(saidRate), number(saidAverage)
	return t, errors.Join(errs...)
}

func appendLog(all []transaction, path string) ([]transaction, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err = parseLog(all, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

// parseLog appends the transactions of a log: `client_id transaction_no time script_no time_epoch time_us`, one line for
// each. The first time is how long it took, in microseconds, the other two are when it ended.
func parseLog(all []transaction, log io.Reader) ([]transaction, error) {
	lines := bufio.NewScanner(log)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 {
			return nil, fmt.Errorf("line %d has %d fields, not 6: %q", n, len(fields), lines.Text())
		}
		var numbers [3]int64
		for i, field := range []int{2, 4, 5} {
			var err error
			if numbers[i], err = strconv.ParseInt(fields[field], 10, 64); err != nil || numbers[i] < 0 || numbers[i] > mostMicroseconds {
				return nil, fmt.Errorf("line %d: %q is no time", n, fields[field])
			}
		}
		all = append(all, transaction{time.Duration(numbers[0]) * time.Microsecond, time.Unix(numbers[1], numbers[2]*1000)})
	}
	return all, lines.Err()
}

// mostMicroseconds fit into a time.Duration.
const mostMicroseconds = math.MaxInt64 / 1000

// percentile gives the least of the values that so large a part of all, from 0 to 1, doesn't exceed; 0 if there are none.
// The values are sorted.
func percentile(values []time.Duration, part float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[max(1, int(math.Ceil(part*float64(len(values)))))-1]
}
