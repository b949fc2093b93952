package patroni

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
)

const (
	// maxHeader bounds what is read before an answer's body, maxBody the body. The largest real one (/history, /metrics) is some tens of KiB.
	maxHeader = 64 << 10
	maxBody   = 1 << 20
	// MaxAnswer bounds what is read of an answer: one byte more than is taken.
	MaxAnswer = maxHeader + maxBody + 1
)

// Request is a request's text, and where it goes. It may be sent any number of times.
type Request struct {
	Text []byte
	url  *url.URL
}

// NewRequest makes the request for a path (with its query).
func NewRequest(base, path string) (Request, error) {
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	request, err := http.NewRequest(http.MethodGet, base+path, nil)
	if err != nil {
		return Request{}, fmt.Errorf("check %s%s: %w", base, path, err)
	}
	request.Header.Set("User-Agent", "pgporter")
	request.Close = true
	var text bytes.Buffer
	if err := request.Write(&text); err != nil {
		return Request{}, fmt.Errorf("check %s%s: %w", base, path, err)
	}
	return Request{text.Bytes(), request.URL}, nil
}

// Plain gives where the request goes, if no name has to be looked up for it, and no TLS to be spoken.
func (r Request) Plain() (to netip.AddrPort, is bool) {
	to, err := netip.ParseAddrPort(r.url.Host)
	return to, err == nil && r.url.Scheme == "http" && to.Addr().Zone() == ""
}

// UntilClosed is what More gives where only the connection's end tells that an answer is whole, as it does with Patroni's.
const UntilClosed = math.MaxInt

// More gives how many bytes of an answer are missing at least: 0 if it is whole, or will never be any.
func More(received []byte) int {
	line := bytes.IndexByte(received, '\n')
	switch protocol := []byte("HTTP/"); {
	case line >= 0 && !bytes.HasPrefix(received, protocol):
		return 0
	case !bytes.Contains(received, []byte("\n\r\n")) && !bytes.Contains(received, []byte("\n\n")):
		return 1
	case unmeasured(received):
		return UntilClosed
	}
	from := bytes.NewReader(received)
	reader := readers.Get().(*bufio.Reader)
	defer readers.Put(reader)
	reader.Reset(from)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	switch there := from.Len() + reader.Buffered(); {
	case response.ContentLength >= 0:
		return int(max(0, min(response.ContentLength, maxBody+1)-int64(there)))
	case len(response.TransferEncoding) == 0:
		return UntilClosed
	}
	// In chunks, the last of which ends with an empty line.
	if !bytes.HasSuffix(received, []byte("\n")) {
		return 1
	}
	n, err := io.Copy(io.Discard, io.LimitReader(response.Body, maxBody+1))
	// net/http has an error of its own, which it doesn't export, for an end in front of that line.
	if n <= maxBody && err != nil && strings.Contains(err.Error(), io.ErrUnexpectedEOF.Error()) {
		return 1
	}
	return 0
}

// unmeasured says of an answer, whose head is there, that it is one of those that Patroni gives: nothing in the head says how long the body
// is. It is said of no other, and spares nearly all a reading of the head for this alone.
func unmeasured(received []byte) bool {
	const ok, unavailable = "HTTP/1.0 200 ", "HTTP/1.0 503 "
	if !bytes.HasPrefix(received, []byte(ok)) && !bytes.HasPrefix(received, []byte(unavailable)) {
		return false
	}
	for line := range bytes.Lines(received) {
		name, _, field := bytes.Cut(line, []byte(":"))
		switch {
		case len(bytes.TrimRight(line, "\r\n")) == 0:
			return true
		case bytes.HasPrefix(line, []byte("HTTP/")):
		case !field || bytes.EqualFold(name, []byte("Content-Length")) || bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return false
		}
	}
	return false
}

// ReadAnswer is what Client.Get gives where these bytes were received, and then err came; nil and io.EOF are the connection's end.
func ReadAnswer(received []byte, err error) (Answer, error) {
	status, body, err := read(context.Background(), &replay{received, err})
	if err != nil {
		return Answer{}, err
	}
	return ParseAnswer(status, body), nil
}

// replay reads what was received, and then the error that came.
type replay struct {
	left []byte
	err  error
}

func (r *replay) Read(into []byte) (int, error) {
	if len(r.left) == 0 {
		if r.err == nil {
			return 0, io.EOF
		}
		return 0, r.err
	}
	n := copy(into, r.left)
	r.left = r.left[n:]
	return n, nil
}

// readers are buffers for answers.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 2048) }}

// read reads an answer.
func read(ctx context.Context, from io.Reader) (status int, body []byte, err error) {
	reader := readers.Get().(*bufio.Reader)
	defer readers.Put(reader)
	// Header and body together; Patroni's are some hundred bytes.
	reader.Reset(io.LimitReader(from, MaxAnswer))
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return 0, nil, inWords(ctx, err)
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return 0, nil, fmt.Errorf("the answer broke off: %w", inWords(ctx, err))
	}
	if len(body) > maxBody {
		return 0, nil, fmt.Errorf("the answer is longer than %d bytes", maxBody)
	}
	// Patroni gives no Content-Length, so a body cut short by its death looks whole to HTTP: a JSON text tells.
	if strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") && !json.Valid(body) {
		return 0, nil, errors.New("the answer broke off: its JSON isn't whole")
	}
	return response.StatusCode, body, nil
}
