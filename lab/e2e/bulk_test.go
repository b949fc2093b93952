package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	wire "encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// How much is brought in and out in one stream.
const (
	copiedIn  = 128 << 20
	copiedOut = 128 << 20
	largest   = 24<<20 + 12_345 // a large object
)

// noise fills what it reads with bytes that don't repeat.
func noise(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

// copyIn has the server look at each row as it comes, and throw it away: a row stays in the table only if it isn't the one
// that was sent, or not in its turn.
func (c *cluster) copyIn(t *testing.T) {
	conn, err := connect(t.Context(), c.member(2), direct)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "create table brought (n bigint, body bytea, sum bytea); create sequence brought_in cache 10000"); err != nil {
		t.Fatal(err)
	}
	rows := newRows(copiedIn)
	began := time.Now()
	tag, err := conn.PgConn().CopyFrom(t.Context(), rows,
		"copy brought from stdin (format binary) where nextval('brought_in') <> n or sha256(body) <> sum")
	took := time.Since(began).Seconds()
	if err != nil || tag.RowsAffected() != 0 {
		t.Errorf("%s rows weren't what was sent, %v", tag, err)
	}
	// Of the whole stream nothing may be missing at its end either.
	var taken int64
	if err := conn.QueryRow(t.Context(), "select currval('brought_in')").Scan(&taken); err != nil || taken != rows.n || rows.left > 0 {
		t.Errorf("the server has taken %d of %d rows, %v", taken, rows.n, err)
	}
	t.Logf("%d rows, %d MB in %.1fs: %.0f MB/s", rows.n, copiedIn>>20, took, copiedIn/took/1e6)
}

// rowsIn makes rows for copyIn, in PostgreSQL's binary format of COPY (documentation of COPY, "Binary Format"), until it has
// made enough bytes. All but their numbers is made before: to the race detector each byte that is touched is a cost.
type rowsIn struct {
	left  int
	n     int64
	order *rand.Rand
	made  [][]byte
	parts [][]byte // what is to be read next
	ended bool
}

func newRows(size int) *rowsIn {
	r := &rowsIn{left: size, order: rand.New(rand.NewPCG(1, 2)), parts: [][]byte{append([]byte("PGCOPY\n\xff\r\n\x00"), make([]byte, 8)...)}}
	// Half of the rows are below a kilobyte, and most bytes are in those of up to a megabyte.
	random := noise(1)
	for i := range 40 {
		body := make([]byte, 1<<(i/2)+r.order.IntN(1<<(i/2)))
		_, _ = io.ReadFull(random, body) // it never ends
		sum := sha256.Sum256(body)
		row := append(wire.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
		r.made = append(r.made, append(wire.BigEndian.AppendUint32(row, sha256.Size), sum[:]...))
	}
	return r
}

// Read gives at most a part of a row.
func (r *rowsIn) Read(p []byte) (int, error) {
	if len(r.parts) == 0 {
		switch {
		case r.ended:
			return 0, io.EOF
		case r.left <= 0:
			r.ended = true
			r.parts = [][]byte{{0xff, 0xff}}
		default:
			r.n++
			head := wire.BigEndian.AppendUint16(nil, 3)
			head = wire.BigEndian.AppendUint64(wire.BigEndian.AppendUint32(head, 8), uint64(r.n))
			r.parts = [][]byte{head, r.made[r.order.IntN(len(r.made))]}
		}
	}
	n := copy(p, r.parts[0])
	r.left -= n
	if r.parts[0] = r.parts[0][n:]; len(r.parts[0]) == 0 {
		r.parts = r.parts[1:]
	}
	return n, nil
}

// copyOut compares what comes through the services with what the server itself gives to the same statement.
func (c *cluster) copyOut(t *testing.T) {
	const statement = "copy (select n, repeat(md5(n::text), n * 31 %% 8000) from generate_series(1, %d) n) to stdout (format %s)"
	for _, w := range []struct {
		format    string
		bytes     int64
		endpoints []service
	}{
		{"binary", copiedOut, []service{direct}},
		{"text", copiedOut / 4, []service{direct, primary, offline}},
	} {
		rows := w.bytes / 128_000
		want, most := c.sumOut(t, c.member(1), server, fmt.Sprintf(statement, rows, w.format))
		if most < w.bytes*3/4 {
			t.Errorf("only %d bytes", most)
		}
		for _, endpoint := range w.endpoints {
			began := time.Now()
			sum, n := c.sumOut(t, c.member(2), endpoint, fmt.Sprintf(statement, rows, w.format))
			if sum != want || n != most {
				t.Errorf("%s through port %d: %d bytes with checksum %s, the server gives %d with %s", w.format, endpoint.port, n, sum, most, want)
			}
			took := time.Since(began).Seconds()
			t.Logf("%s through port %d: %d MB in %.1fs: %.0f MB/s", w.format, endpoint.port, n>>20, took, float64(n)/took/1e6)
		}
	}
}

// sums counts and sums what is written.
type sums struct {
	hash.Hash
	n int64
}

func (s *sums) Write(p []byte) (int, error) {
	s.n += int64(len(p))
	return s.Hash.Write(p)
}

func (c *cluster) sumOut(t *testing.T, node string, s service, statement string) (sum string, n int64) {
	t.Helper()
	conn, err := connect(t.Context(), node, s)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	into := &sums{Hash: sha256.New()}
	if _, err := conn.PgConn().CopyTo(t.Context(), into, statement); err != nil {
		t.Fatalf("port %d of %s: %v", s.port, node, err)
	}
	return fmt.Sprintf("%x", into.Sum(nil)), into.n
}

// largeObjects imports a file over TLS, and exports it through another node without.
func (c *cluster) largeObjects(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	random := make([]byte, largest)
	if _, err := io.ReadFull(noise(2), random); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in, random, 0o600); err != nil {
		t.Fatal(err)
	}
	oid, err := c.psql(t.Context(), c.member(2), direct, c.verified(), `\lo_import `+in, `select max(oid) from pg_largeobject_metadata`)
	if err != nil {
		t.Fatal(err)
	}
	if sum := c.ask(t, c.member(1), server, "select encode(sha256(lo_get("+oid+")), 'hex')"); sum != fmt.Sprintf("%x", sha256.Sum256(random)) {
		t.Errorf("the server has %s, which is something else", sum)
	}
	if _, err := c.psql(t.Context(), c.member(1), direct, "", `\lo_export `+oid+" "+out); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, random) {
		t.Errorf("%d bytes come back, not the %d that went in, %v", len(got), len(random), err)
	}
}

// hard is a table with what is written specially or not at all.
const hard = `create table hard as select n, case when n % 7 > 0 then e'\\N\t\\.\n\r"''' || repeat(chr(n + 160), n) end as words,
	(select string_agg(set_byte('\x00', 0, b), '') from generate_series(0, 255) b) as every_byte, n::float8 / 3 as third, array[n, null] as list
	from generate_series(1, 1000) n`

// dumpAndRestore brings a database with all that the other parts of the test have left in it into another one: out through
// one node with TLS, in through the other without.
func (c *cluster) dumpAndRestore(t *testing.T) {
	c.ask(t, c.member(1), direct, hard)
	c.ask(t, c.member(1), direct, "create database copied template template0")
	copied := direct
	copied.database = "copied"
	dump := tool(t.Context(), direct, "pg_dump", "-d", direct.conninfo(c.member(1), c.verified()))
	restore := tool(t.Context(), copied, "psql", "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", copied.conninfo(c.member(2), ""))
	var complaints bytes.Buffer
	var err error
	if restore.Stdin, err = dump.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	dump.Stderr = &complaints
	if err := dump.Start(); err != nil {
		t.Fatal(err)
	}
	_, restored := run(restore)
	if err := errors.Join(restored, dump.Wait()); err != nil {
		t.Fatalf("%v: %s", err, &complaints)
	}
	want, got := c.contents(t, server), c.contents(t, service{5432, direct.user, direct.password, "copied"})
	if got != want {
		t.Errorf("the copy has\n%s\nnot\n%s", got, want)
	}
	for _, table := range []string{"pgbench_accounts 100000 ", "pgbench_history ", "hard 1000 ", "captured ", "large objects 1 "} {
		if !strings.Contains(want, table) {
			t.Errorf("there was no %q to copy:\n%s", table, want)
		}
	}
}

// contents sums up a database at its server: each table's rows in an order of their own, and the large objects.
func (c *cluster) contents(t *testing.T, s service) string {
	t.Helper()
	var lines []string
	for _, table := range strings.Fields(c.ask(t, c.member(1), s, "select tablename from pg_tables where schemaname = 'public' order by 1")) {
		lines = append(lines, c.ask(t, c.member(1), s, fmt.Sprintf(
			"select '%s ' || count(*) || ' ' || coalesce(md5(string_agg(sum, '' order by sum)), '') from (select md5(r::text) sum from %s r) x", table, table)))
	}
	return strings.Join(append(lines, c.ask(t, c.member(1), s,
		"select 'large objects ' || count(*) || ' ' || md5(string_agg(md5(lo_get(oid)), '' order by oid)) from pg_largeobject_metadata")), "\n")
}
