package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// replicator is the account that members replicate with, past the pool.
var replicator = service{direct.port, "replicator", "DBUser.Replicator", "postgres"}

// Slots of the test's. The first only keeps segments on the server to compare with.
const (
	keptSlot    = "bytes_kept"
	walSlot     = "bytes_wal"
	logicalSlot = "bytes_logical"
)

// slots makes the slots for WAL. Patroni takes away what nobody has configured.
func (c *cluster) slots(t *testing.T) {
	t.Helper()
	var ignored []map[string]any
	for _, name := range []string{keptSlot, walSlot, logicalSlot} {
		ignored = append(ignored, map[string]any{"name": name})
	}
	if err := c.Configure(t.Context(), map[string]any{"ignore_slots": ignored}); err != nil {
		t.Fatal(err)
	}
	c.ask(t, c.member(1), server, fmt.Sprintf("select pg_create_physical_replication_slot('%s', true)", keptSlot))
	if _, err := run(tool(t.Context(), replicator, "pg_receivewal", "--create-slot", "--slot", walSlot, "-d", replicator.conninfo(c.member(2), ""))); err != nil {
		t.Fatal(err)
	}
}

// received is a pg_receivewal and where it writes to.
type received struct {
	*cluster
	*porter
	dir   string
	first string // the name of a segment that it has to bring
}

// receivewal starts it; it goes on until compare.
func (c *cluster) receivewal(t *testing.T) *received {
	t.Helper()
	r := &received{cluster: c, porter: &porter{t: t}, dir: t.TempDir()}
	r.first = c.ask(t, c.member(1), server, "select pg_walfile_name(pg_current_wal_lsn())")
	r.cmd = tool(t.Context(), replicator, "pg_receivewal", "-D", r.dir, "--slot", walSlot, "--synchronous", "--no-loop", "-d", replicator.conninfo(c.member(2), c.verified()))
	r.cmd.Stdout, r.cmd.Stderr = r.porter, r.porter
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Only one that compare gave up on is still there.
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Process.Kill()
			_ = r.cmd.Wait()
		}
	})
	return r
}

var segmentName = regexp.MustCompile(`^[0-9A-F]{24}$`)

// compare ends the last segment, waits until it was received and says to have been flushed, and compares all of them with the server's.
func (r *received) compare(t *testing.T) {
	last := r.ask(t, r.member(1), server, "select pg_walfile_name(pg_switch_wal())")
	eventually(t, patience, func(ctx context.Context) error {
		if _, err := os.Stat(filepath.Join(r.dir, last)); err != nil {
			return fmt.Errorf("%w; pg_receivewal says %s", err, r.logged())
		}
		flushed, err := r.psql(ctx, r.member(1), server, "", "select coalesce(bool_or(pg_walfile_name(flush_lsn) >= '"+last+"'), false) from pg_stat_replication where application_name = 'pg_receivewal'")
		if err == nil && flushed != "t" {
			err = fmt.Errorf("it hasn't reported that it flushed %s", last)
		}
		return err
	})
	if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("pg_receivewal: %v: %s", err, r.logged())
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	var segments []string
	for _, e := range entries {
		if segmentName.MatchString(e.Name()) {
			segments = append(segments, e.Name())
		}
	}
	if !slices.Contains(segments, r.first) || !slices.Contains(segments, last) || len(segments) < 3 {
		t.Errorf("received were %s; want %s to %s", segments, r.first, last)
	}
	for _, name := range segments {
		got, err := os.ReadFile(filepath.Join(r.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(r.Dir(), "pg-test-1", "data", "pg_wal", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("segment %s isn't the server's", name)
		}
	}
	out, err := run(tool(t.Context(), replicator, "pg_waldump", "--stats", "-p", r.dir, r.first, last))
	if err != nil || !strings.Contains(out, "Transaction") {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%d segments received", len(segments))
}

// basebackup takes one with the WAL that it needs over a second connection, and has PostgreSQL's own program verify every file.
func (c *cluster) basebackup(t *testing.T) {
	for _, node := range c.nodes() {
		dir := filepath.Join(t.TempDir(), "backup")
		more := ""
		if node == c.member(2) {
			more = c.verified()
		}
		began := time.Now()
		if _, err := run(tool(t.Context(), replicator, "pg_basebackup", "-D", dir, "-X", "stream", "-c", "fast", "--no-sync", "--manifest-checksums", "SHA256", "-d", replicator.conninfo(node, more))); err != nil {
			t.Fatal(err)
		}
		out, err := run(tool(t.Context(), replicator, "pg_verifybackup", dir))
		if err != nil || !strings.Contains(out, "backup successfully verified") {
			t.Errorf("the backup through %s: %v: %s", node, err, out)
		}
		t.Logf("a verified backup through %s in %.1fs", node, time.Since(began).Seconds())
	}
}

// recvlogical captures changes, which the server itself shows before they are taken.
func (c *cluster) recvlogical(t *testing.T) {
	endpoint := func(more string, args ...string) (string, error) {
		return run(tool(t.Context(), direct, "pg_recvlogical", append(args, "--slot", logicalSlot, "-d", direct.conninfo(c.member(2), more))...))
	}
	// A pool before PgBouncer 1.23 isn't for it and says so; a newer one has a connection to the server for each that replicates.
	pooled := direct
	pooled.port = primary.port
	out, err := c.psql(t.Context(), c.member(2), pooled, "replication=database", "IDENTIFY_SYSTEM")
	if poolVersion(t) < 23 && (err == nil || !strings.Contains(err.Error(), "unsupported startup parameter: replication")) ||
		poolVersion(t) >= 23 && (err != nil || !strings.HasSuffix(out, "|"+direct.database)) {
		t.Errorf("replication through port %d: %s, %v", primary.port, out, err)
	}
	if _, err := endpoint("", "--create-slot", "--plugin", "test_decoding"); err != nil {
		t.Fatal(err)
	}
	c.ask(t, c.member(1), direct, "create table captured as select n, repeat(md5(n::text), n % 60) from generate_series(1, 10000) n")
	end := c.ask(t, c.member(1), server, "select pg_current_wal_insert_lsn()")
	want := c.ask(t, c.member(1), server, fmt.Sprintf("select data from pg_logical_slot_peek_changes('%s', '%s', null, 'skip-empty-xacts', '1')", logicalSlot, end))
	got, err := endpoint(c.verified(), "--start", "-f", "-", "--no-loop", "--endpos", end, "-o", "skip-empty-xacts=1")
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(got) != want || strings.Count(got, "table public.captured: INSERT:") != 10000 {
		t.Errorf("captured were %d bytes with %d rows; the server has %d bytes", len(got), strings.Count(got, "INSERT:"), len(want))
	}
	if _, err := endpoint("", "--drop-slot"); err != nil {
		t.Error(err)
	}
}
