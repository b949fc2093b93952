package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// transact has a scripted server answer BEGIN, the statement, and COMMIT; where there is nothing more it hangs up.
func transact(conn net.Conn, answers ...[]pgproto3.BackendMessage) {
	backend := pgproto3.NewBackend(conn, conn)
	if _, err := backend.ReceiveStartupMessage(); err != nil {
		return
	}
	say := func(messages []pgproto3.BackendMessage) bool {
		for _, m := range messages {
			backend.Send(m)
		}
		return backend.Flush() == nil
	}
	if !say(welcome) {
		return
	}
	for {
		m, err := backend.Receive()
		if err != nil {
			return
		}
		switch m.(type) {
		case *pgproto3.Query, *pgproto3.Sync:
			if len(answers) == 0 || !say(answers[0]) {
				return
			}
			answers = answers[1:]
		case *pgproto3.Terminate:
			return
		}
	}
}

func done(tag string, status byte) []pgproto3.BackendMessage {
	return []pgproto3.BackendMessage{&pgproto3.CommandComplete{CommandTag: []byte(tag)}, &pgproto3.ReadyForQuery{TxStatus: status}}
}

// TestFates: what had begun is told from what was never answered.
func TestFates(t *testing.T) {
	begun, committed := done("BEGIN", 'T'), done("COMMIT", 'I')
	wrote := []pgproto3.BackendMessage{&pgproto3.ParseComplete{}, &pgproto3.BindComplete{}}
	wrote = append(wrote, answered("10.1.2.3")[:3]...)
	wrote = append(wrote, &pgproto3.ReadyForQuery{TxStatus: 'T'})
	for name, c := range map[string]struct {
		answers [][]pgproto3.BackendMessage
		want    Fate
	}{
		"committed":                {[][]pgproto3.BackendMessage{begun, wrote, committed}, Committed},
		"hung up on at BEGIN":      {nil, Unanswered},
		"ended at BEGIN":           {[][]pgproto3.BackendMessage{fatal("57P01")}, Unanswered},
		"hung up on after BEGIN":   {[][]pgproto3.BackendMessage{begun}, Lost},
		"on a replica":             {[][]pgproto3.BackendMessage{begun, append(fatal("25006"), &pgproto3.ReadyForQuery{TxStatus: 'E'}), done("ROLLBACK", 'I')}, Lost},
		"hung up on before COMMIT": {[][]pgproto3.BackendMessage{begun, wrote}, Lost},
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var serving sync.WaitGroup
			serving.Go(func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					serving.Go(func() {
						defer conn.Close()
						transact(conn, c.answers...)
					})
				}
			})
			defer serving.Wait()
			defer listener.Close()
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			var first Transaction
			var once sync.Once
			broken := make(chan struct{})
			p := Pooled{URL: fmt.Sprintf("postgres://u:p@%s/d?sslmode=disable", listener.Addr()), SQL: "insert $1, $2", Clients: 1, Every: time.Millisecond, Limit: time.Minute}
			p.Observe = func(transaction Transaction) {
				once.Do(func() {
					first = transaction
					if transaction.Fate == Committed || name == "on a replica" { // its connection is as good as before
						close(broken)
					}
				})
				<-broken
				stop()
			}
			var closing sync.Once
			p.Broken = func(time.Time) { closing.Do(func() { close(broken) }) }
			if err := p.Run(ctx, nil); err != nil {
				t.Fatal(err)
			}
			if first.Fate != c.want || (first.Err == nil) != (c.want == Committed) || (first.Server == "10.1.2.3") != (len(c.answers) > 1 && name != "on a replica") {
				t.Errorf("%+v", first)
			}
		})
	}
}

func TestEntry(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	var l Ledger
	add := func(client, began, ended int, f Fate) {
		l.Add(Transaction{Client: client, Began: at(began), Ended: at(ended), Fate: f})
	}
	add(0, 100, 110, Committed)
	add(1, 100, 120, Committed)
	add(0, 150, 160, Lost)
	add(1, 150, 900, Committed)
	add(0, 200, 400, Unanswered)
	add(0, 450, 500, Committed)
	l.Close(at(160))
	if n := l.CommittedSince(at(149)); n != 2 {
		t.Errorf("%d have committed what they began after 149", n)
	}
	if n := l.CommittedSince(at(150)); n != 1 {
		t.Errorf("%d have committed what they began after 150", n)
	}
	e := l.Take()
	if got := e.Pause(2, at(0), at(1000)); got != 780*time.Millisecond {
		t.Errorf("pause %s", got)
	}
	if got := e.Pause(2, at(0), at(2000)); got != 1500*time.Millisecond {
		t.Errorf("a pause that lasts to the end: %s", got)
	}
	if got := e.Pause(3, at(0), at(2000)); got != 2*time.Second {
		t.Errorf("one hangs all the time: %s", got)
	}
	if len(e.Failed(Lost)) != 1 || len(e.Failed(Unanswered)) != 1 || len(e.Closed) != 1 {
		t.Errorf("%+v", e)
	}
	if e := l.Take(); len(e.Transactions)+len(e.Closed) > 0 {
		t.Errorf("taken twice: %+v", e)
	}
}

func TestJDBC(t *testing.T) {
	got, err := JDBC("postgres://dba:p.D%26@10.0.0.1:5432,10.0.0.2:5432/test?sslmode=disable&target_session_attrs=read-write&connect_timeout=2", 30*time.Second)
	const want = "jdbc:postgresql://10.0.0.1:5432,10.0.0.2:5432/test?connectTimeout=2&password=p.D%26&prepareThreshold=0&socketTimeout=30&sslmode=disable&targetServerType=primary&user=dba"
	if err != nil || got != want {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := JDBC("postgres://10.0.0.1:99999999/x", time.Second); err == nil {
		t.Error("a URL that is none")
	}
}

// TestHikariLines: what the Java program says is read, and what can't be read is an error.
func TestHikariLines(t *testing.T) {
	h := Hikari{Pools: []HikariPool{{Ledger: &Ledger{}}, {Ledger: &Ledger{}}}}
	for _, line := range []string{
		"transaction\t1\t7\t1000000\t1500000\tcommitted\t10.1.2.3\t",
		"transaction\t1\t8\t1000000\t1600000\tunanswered\t\t08006 An I/O error",
		"opened\t1\t900000", "opened\t1\t900001", "closed\t1\t1600000",
	} {
		if err := h.read(line); err != nil {
			t.Error(err)
		}
	}
	if n := h.Pools[1].Ledger.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
	e := h.Pools[1].Ledger.Take()
	want := Transaction{Client: 7, Began: time.Unix(1, 0), Ended: time.UnixMilli(1500), Fate: Committed, Server: "10.1.2.3"}
	if len(e.Transactions) != 2 || e.Transactions[0] != want || e.Transactions[1].Fate != Unanswered || e.Transactions[1].Err.Error() != "08006 An I/O error" ||
		!slices.Equal(e.Closed, []time.Time{time.UnixMilli(1600)}) {
		t.Errorf("%+v", e)
	}
	for _, line := range []string{"", "closed", "closed\t2\t1", "closed\t-1\t1", "closed\t0\tx", "made\t0\t1", "transaction\t0\t1\t2\t3\tgone\t\t", "transaction\t0\t1\t2\t3\tlost\t"} {
		if err := h.read(line); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", line)) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// TestHikariEnds: a Java that ends by itself is an error with what it said.
func TestHikariEnds(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := (Hikari{Dir: t.TempDir()}).Run(t.Context()); err == nil || errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
