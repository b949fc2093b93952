package load

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Hikari are pools of HikariCP with PostgreSQL's JDBC driver, for clients as Pooled has them in Go. One Java has them all.
type Hikari struct {
	Pools []HikariPool
	// SQL writes one row and returns the address of the server that did, as text. Every and Limit are as in Pooled.
	SQL          string
	Every, Limit time.Duration
	// Dir is where the program is written to; its complaints are in hikari.log there.
	Dir string
}

// HikariPool is one of them.
type HikariPool struct {
	// URL is JDBC's (see JDBC).
	URL string
	// Clients is how many share it, each with a connection.
	Clients int
	// Ledger keeps what became of their transactions and connections.
	Ledger *Ledger
}

// javaPath is where Debian's packages have what the program needs.
const javaPath = "/usr/share/java/HikariCP.jar:/usr/share/java/postgresql.jar:/usr/share/java/slf4j-api.jar:/usr/share/java/slf4j-simple.jar"

//go:embed Pooled.java
var javaSource []byte

// Run works until ctx ends. A Java that ends before that is an error.
func (h Hikari) Run(ctx context.Context) error {
	source, complaints := filepath.Join(h.Dir, "Pooled.java"), filepath.Join(h.Dir, "hikari.log")
	if err := os.WriteFile(source, javaSource, 0o644); err != nil {
		return err
	}
	log, err := os.Create(complaints)
	if err != nil {
		return err
	}
	defer log.Close()
	// Little memory, and no second compiler: there are more important things on the machine.
	command := exec.CommandContext(ctx, "java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-cp", javaPath, source,
		strconv.FormatInt(h.Every.Milliseconds(), 10), strconv.Itoa(int(h.Limit.Seconds())), h.SQL)
	command.Stderr = log
	// It ends with its input, which ends with us, however that is.
	in, err := command.StdinPipe()
	if err != nil {
		return err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	var failed error
	for _, p := range h.Pools {
		if _, failed = fmt.Fprintf(in, "%d\t%s\n", p.Clients, p.URL); failed != nil {
			break
		}
	}
	for lines := bufio.NewScanner(out); failed == nil && lines.Scan(); {
		failed = h.read(lines.Text())
	}
	if failed != nil {
		command.Process.Kill() //nolint:errcheck // it has ended then
	}
	failed = errors.Join(failed, command.Wait())
	if ctx.Err() != nil {
		return nil
	}
	said, _ := os.ReadFile(complaints)
	return fmt.Errorf("java ended: %w\n%s", failed, said[max(0, len(said)-2000):])
}

// fates are the program's words.
var fates = map[string]Fate{"committed": Committed, "unanswered": Unanswered, "lost": Lost}

func (h Hikari) read(line string) error {
	fields := strings.Split(line, "\t")
	bad := fmt.Errorf("a line of the Java program can't be read: %q", line)
	var numbers []int64
	for _, f := range fields[1:] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			break
		}
		numbers = append(numbers, n)
	}
	if len(numbers) < 2 || numbers[0] < 0 || numbers[0] >= int64(len(h.Pools)) {
		return bad
	}
	ledger := h.Pools[numbers[0]].Ledger
	switch {
	case fields[0] == "opened" && len(fields) == 3:
		ledger.Open()
		return nil
	case fields[0] == "closed" && len(fields) == 3:
		ledger.Close(time.UnixMicro(numbers[1]))
		return nil
	case fields[0] == "transaction" && len(fields) == 8 && len(numbers) >= 4:
		t := Transaction{Client: int(numbers[1]), Began: time.UnixMicro(numbers[2]), Ended: time.UnixMicro(numbers[3]), Server: fields[6]}
		fate, known := fates[fields[5]]
		if !known {
			return bad
		}
		if t.Fate = fate; fate != Committed {
			t.Err = errors.New(fields[7])
		}
		ledger.Add(t)
		return nil
	}
	return bad
}

// JDBC gives a URL of pgx in the words of PostgreSQL's JDBC driver ("Connecting to the Database" and "Connection Fail-over" of its
// documentation). limit bounds how long an answer is waited for.
func JDBC(text string, limit time.Duration) (string, error) {
	config, err := pgx.ParseConfig(text)
	if err != nil {
		return "", err
	}
	at := strings.IndexByte(text, '@')
	if at < 0 {
		return "", errors.New("a URL without a user")
	}
	hosts, _, _ := strings.Cut(text[at+1:], "/")
	_, query, _ := strings.Cut(text, "?")
	given, err := url.ParseQuery(query)
	if err != nil {
		return "", err
	}
	words := url.Values{
		"user": {config.User}, "password": {config.Password}, "sslmode": {given.Get("sslmode")},
		// A pooler in transaction mode keeps no prepared statements.
		"prepareThreshold": {"0"},
		"socketTimeout":    {strconv.Itoa(int(limit.Seconds()))},
	}
	if seconds := given.Get("connect_timeout"); seconds != "" {
		words.Set("connectTimeout", seconds)
	}
	if slices.Contains([]string{"read-write", "primary"}, given.Get("target_session_attrs")) {
		words.Set("targetServerType", "primary")
	}
	return "jdbc:postgresql://" + hosts + "/" + config.Database + "?" + words.Encode(), nil
}
