package gate

import (
	"bytes"
	"log"
	"log/slog"
)

// ErrorLog is where an http.Server says what went wrong with a connection. What strangers do to theirs is for whoever looks closely; a panic
// of ours, which the server recovers from and tells the client nothing of, is a fault.
func ErrorLog(to *slog.Logger) *log.Logger { return log.New(errorLog{to}, "", 0) }

type errorLog struct{ *slog.Logger }

func (l errorLog) Write(line []byte) (int, error) {
	text := string(bytes.TrimSuffix(line, []byte("\n")))
	if bytes.HasPrefix(line, []byte("http: panic serving")) {
		l.Error("a request wasn't answered, for a fault of this program", "fault", text)
	} else {
		l.Debug(text)
	}
	return len(line), nil
}
