package logqueue

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// reader is what a log is written to: while it is blocked a write waits, as one to a full pipe does.
type reader struct {
	mu      sync.Mutex
	open    *sync.Cond
	blocked bool
	fail    error
	text    strings.Builder
}

func newReader() *reader {
	r := &reader{}
	r.open = sync.NewCond(&r.mu)
	return r
}

func (r *reader) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.blocked {
		r.open.Wait()
	}
	if r.fail != nil {
		return 0, r.fail
	}
	return r.text.Write(p)
}

func (r *reader) set(blocked bool, fail error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocked, r.fail = blocked, fail
	r.open.Broadcast()
}

func (r *reader) read() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func missing(out io.Writer, n uint64) error {
	_, err := fmt.Fprintf(out, "%d missing\n", n)
	return err
}

// fourLines is the limit of the queues here: lines are of 2 bytes.
const fourLines = 8

func TestQueue(t *testing.T) {
	broken := errors.New("broken pipe")
	for _, test := range []struct {
		name string
		// steps are lines to log, `blocked`, `open` and `broken` of what happens to the reader; the queue comes to rest after
		// each.
		steps   string
		want    string
		dropped uint64
	}{
		{"read at once", "a b c", "a b c", 0},
		{"blocked for a while", "a blocked b c open d", "a b c d", 0},
		// b is being written, c to f wait.
		{"full", "a blocked b c d e f open g", "a b c d e f g", 0},
		{"too full", "blocked b c d e f g h i open j", "b c d e f 3 missing j", 3},
		{"too full twice", "blocked b c d e f g open blocked h i j k l m n open o", "b c d e f 1 missing h i j k l 2 missing o", 3},
		{"nobody logs after that", "blocked b c d e f g open", "b c d e f 1 missing", 1},
		{"the reader goes and another comes", "a broken b c open d", "a d 2 missing", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReader()
				q := newQueue(r, missing, fourLines)
				for _, step := range strings.Fields(test.steps) {
					switch step {
					case "blocked":
						r.set(true, nil)
					case "open":
						r.set(false, nil)
					case "broken":
						r.set(false, broken)
					default:
						if n, err := io.WriteString(q, step+"\n"); n != 2 || err != nil {
							t.Errorf("%s: %d, %v", step, n, err)
						}
					}
					synctest.Wait()
				}
				q.Close(time.Minute)
				if got := strings.Join(strings.Split(strings.TrimSpace(r.read()), "\n"), " "); got != test.want {
					t.Errorf("read %q, want %q", got, test.want)
				}
				if n := q.Dropped(); n != test.dropped {
					t.Errorf("%d dropped, want %d", n, test.dropped)
				}
			})
		})
	}
}

func TestALineLongerThanTheLimitIsTakenWhereNothingWaits(t *testing.T) {
	r := newReader()
	q := newQueue(r, missing, fourLines)
	long := strings.Repeat("x", 3*fourLines) + "\n"
	io.WriteString(q, long)
	q.Close(time.Minute)
	if r.read() != long {
		t.Errorf("read %q", r.read())
	}
}

func TestCloseWaitsNoLongerThanItsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader()
		r.set(true, nil)
		q := New(r, missing)
		io.WriteString(q, "a\n")
		began := time.Now()
		q.Close(time.Second)
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %s", took)
		}
		io.WriteString(q, "b\n")
		r.set(false, nil)
		synctest.Wait()
		if r.read() != "a\n1 missing\n" || q.Dropped() != 1 {
			t.Errorf("read %q, %d dropped", r.read(), q.Dropped())
		}
	})
}

// TestMemoryIsBounded logs for a long time to a pipe that nobody reads.
func TestMemoryIsBounded(t *testing.T) {
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	q := New(to, missing)
	log := slog.New(slog.NewTextHandler(q, nil))
	const lines = 30_000
	for n := range lines {
		log.Info("a line that nobody reads", "n", n)
	}
	q.mu.Lock()
	waiting := len(q.queued)
	q.mu.Unlock()
	if waiting > limit+200 {
		t.Errorf("%d bytes wait", waiting)
	}
	lost := q.Dropped()
	if lost == 0 {
		t.Error("nothing was dropped")
	}
	// Now somebody reads: each line is there, or counted.
	text := make(chan string)
	go func() {
		all, _ := io.ReadAll(from)
		text <- string(all)
	}()
	q.Close(time.Minute)
	to.Close()
	read := <-text
	if got := uint64(strings.Count(read, "msg=")); got+lost != lines || !strings.Contains(read, fmt.Sprintf("%d missing\n", lost)) {
		t.Errorf("%d lines were read and %d dropped of %d", got, lost, lines)
	}
}

// TestManyLog has goroutines log while the reader comes and goes.
func TestManyLog(t *testing.T) {
	r := newReader()
	q := newQueue(r, missing, 1000)
	var logging sync.WaitGroup
	const writers, lines = 8, 500
	for range writers {
		logging.Go(func() {
			for n := range lines {
				fmt.Fprintf(q, "line %d\n", n)
				if n%100 == 0 {
					r.set(n%200 == 0, nil)
				}
			}
		})
	}
	logging.Wait()
	r.set(false, nil)
	q.Close(time.Minute)
	read, logged := 0, uint64(0)
	for line := range strings.Lines(r.read()) {
		var n uint64
		if _, err := fmt.Sscanf(line, "%d missing", &n); err == nil {
			logged += n
		} else {
			read++
		}
	}
	if logged != q.Dropped() || uint64(read)+logged != writers*lines {
		t.Errorf("%d read, %d logged as missing, %d dropped, of %d", read, logged, q.Dropped(), writers*lines)
	}
}
