package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/config/safetext"
	"github.com/pgporter/pgporter/internal/daemon/logqueue"
	"github.com/pgporter/pgporter/internal/engine"
)

// SessionLog writes a line of JSON when a session begins and one when it ends. No session waits for it: lines wait in a bounded queue,
// those for which there is no room are dropped and counted.
type SessionLog struct {
	queue *logqueue.Queue
	// file is nil for a log that isn't a file.
	file *logFile
	// below is what of 2^64 is sampled.
	below uint64
}

// sessionLine is a line: the beginning's has none of the fields from ToServer on. Fields are added, never renamed.
type sessionLine struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"`
	// ID is the session's in the status and in lists of sessions, the same after an upgrade.
	ID      uint64 `json:"id"`
	Cluster string `json:"cluster,omitempty"`
	Service string `json:"service"`
	Member  string `json:"member"`
	Client  string `json:"client"`
	Listen  string `json:"listen"`
	Local   string `json:"local"`
	Server  string `json:"server"`

	ToServer *int64           `json:"bytes_to_server,omitempty"`
	ToClient *int64           `json:"bytes_to_client,omitempty"`
	Seconds  *float64         `json:"seconds,omitempty"`
	Why      engine.EndReason `json:"why,omitempty"`
	// Cause says more of a session that didn't end in order.
	Cause string `json:"cause,omitempty"`
}

// OpenSessionLog has sessions written to a file, or to out if that is "-". sample is the part of them that is, above 0 and up to 1.
func OpenSessionLog(path string, out io.Writer, sample float64) (*SessionLog, error) {
	if !(sample > 0 && sample <= 1) {
		return nil, fmt.Errorf("a sample of %v: above 0, and up to 1 for all sessions", sample)
	}
	l := &SessionLog{below: math.MaxUint64}
	if sample < 1 {
		l.below = uint64(sample * (1 << 63) * 2)
	}
	if path != "-" {
		l.file = &logFile{path: path}
		if err := l.file.reopen(); err != nil {
			return nil, err
		}
		out = l.file
	}
	l.queue = logqueue.New(out, func(out io.Writer, dropped uint64) error {
		_, err := fmt.Fprintf(out, `{"time":%q,"event":"dropped","lines":%d}`+"\n", time.Now().Format(time.RFC3339Nano), dropped)
		return err
	})
	return l, nil
}

// Close writes what waits, for as long as patience at most.
func (l *SessionLog) Close(patience time.Duration) { l.queue.Close(patience) }

// Dropped is how many lines were dropped; 0 without a log.
func (l *SessionLog) Dropped() uint64 {
	if l == nil {
		return 0
	}
	return l.queue.Dropped()
}

// Reopen goes on in a new file of the same name, as after a rotation. With an error the old one goes on.
func (l *SessionLog) Reopen() error {
	if l == nil || l.file == nil {
		return nil
	}
	return l.file.reopen()
}

// Wants tells whether a session is sampled. It goes by its ID alone, so that the next process wants the same ones.
func (l *SessionLog) Wants(id uint64) bool {
	// The finalizer of SplitMix64 spreads the numbers.
	id = (id ^ id>>30) * 0xbf58476d1ce4e5b9
	id = (id ^ id>>27) * 0x94d049bb133111eb
	return id^id>>31 <= l.below
}

// Began writes a session's first line.
func (l *SessionLog) Began(s engine.Session) { l.write(lineOf(s, s.Began, "start")) }

// Ended writes its last one.
func (l *SessionLog) Ended(s engine.Session, at time.Time, why engine.EndReason, cause error) {
	line := lineOf(s, at, "end")
	seconds := math.Round(at.Sub(s.Began).Seconds()*1e6) / 1e6
	line.ToServer, line.ToClient, line.Seconds, line.Why = &s.ToServer, &s.ToClient, &seconds, why
	if cause != nil {
		line.Cause = safetext.Line(cause.Error())
	}
	l.write(line)
}

func lineOf(s engine.Session, at time.Time, event string) sessionLine {
	text := addressText
	return sessionLine{Time: at.Round(0), Event: event, ID: s.ID, Cluster: s.Cluster, Service: s.Service, Member: s.Member, Client: text(s.Client), Listen: text(s.Listen),
		Local: text(s.Local), Server: text(s.Server)}
}

func (l *SessionLog) write(line sessionLine) {
	text, err := json.Marshal(line)
	if err != nil {
		return // no field of it can't be written
	}
	_, _ = l.queue.Write(append(text, '\n'))
}

// logFile is a file that is written at its end, and may be replaced by another of its name.
type logFile struct {
	path string
	now  atomic.Pointer[os.File]
}

// Write is the queue's goroutine's alone.
func (f *logFile) Write(line []byte) (int, error) {
	for {
		file := f.now.Load()
		n, err := file.Write(line)
		if n == 0 && errors.Is(err, fs.ErrClosed) && f.now.Load() != file {
			continue // it was replaced meanwhile
		}
		return n, err
	}
}

// reopen opens the file, and only then closes the one before. A pipe (FIFO) has to have a reader.
func (f *logFile) reopen() error {
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		return fmt.Errorf("the session log: %w", err)
	}
	if old := f.now.Swap(file); old != nil {
		_ = old.Close()
	}
	return nil
}
