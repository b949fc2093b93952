package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// session is one connection to one of etcd's members.
type session struct {
	*Watcher
	client *clientv3.Client
	// now is what the keys say at revision.
	now      Reading
	revision int64
}

var errBroken = errors.New("the connection broke")

// session connects to an address, reads the keys and follows them until something fails. read says whether the keys were
// read at all.
//
// The client library would reconnect and resume by itself, without a word and with pauses of its own. So each session has
// its own client, which is given one connection; a second one, or any failure before the first is up, ends the session
// with the reason.
func (w *Watcher) session(ctx context.Context, hostPort string, deliver Deliver) (read bool, err error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	// Until the first reading everything together is bounded by the attempt's time.
	late := time.AfterFunc(w.pace.attempt, func() { fail(fmt.Errorf("timed out after %s", w.pace.attempt)) })
	defer late.Stop()
	words := func(err error) error { return inWords(ctx, hostPort, err) }

	client, err := w.connect(ctx, hostPort, fail)
	if err != nil {
		return false, words(err)
	}
	s := &session{Watcher: w, client: client}
	defer client.Close()
	for {
		asked := time.Now()
		answer, err := s.readAll(ctx)
		if err != nil {
			return read, words(err)
		}
		s.take(answer, asked)
		read = true
		late.Stop()
		w.tell(ctx, s.now, deliver)
		if w.hook != nil {
			w.hook(s.revision)
		}
		err = s.follow(ctx, deliver)
		if !errors.Is(err, rpctypes.ErrCompacted) {
			return true, words(err)
		}
	}
}

// connect makes a client for one connection. fail gets whatever goes wrong with that.
func (w *Watcher) connect(ctx context.Context, hostPort string, fail context.CancelCauseFunc) (*clientv3.Client, error) {
	var dialed atomic.Bool
	var end connError
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		if dialed.Swap(true) {
			err := end.broken()
			fail(err)
			return nil, err
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", hostPort)
		if err != nil {
			fail(err)
			return nil, err
		}
		if w.etcd.tls {
			return conn, nil
		}
		return end.of(conn), nil
	}
	config := clientv3.Config{
		Endpoints: []string{hostPort}, Context: ctx, DialTimeout: w.pace.attempt, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)},
	}
	if w.etcd.tls {
		secure, err := w.etcd.tlsConfig(hostPort)
		if err != nil {
			return nil, err
		}
		over := handshakes{credentials.NewTLS(secure), func(err error) { fail(err) }, &end}
		config.DialOptions = append(config.DialOptions, grpc.WithTransportCredentials(over))
	}
	if w.etcd.cfg.User != "" {
		password, err := w.etcd.password()
		if err != nil {
			return nil, err
		}
		config.Username, config.Password = w.etcd.cfg.User, password
	}
	return clientv3.New(config)
}

// The range of keys that is followed: see the package's documentation.
func (w *Watcher) from() string     { return w.path + "/failover" }
func (w *Watcher) upTo() string     { return w.path + "/leader\x00" }
func (w *Watcher) leader() string   { return w.path + "/leader" }
func (w *Watcher) failover() string { return w.path + "/failover" }
func (w *Watcher) system() string   { return w.path + "/initialize" }

// readAll reads the keys through the quorum, in the time that a read may take.
func (s *session) readAll(ctx context.Context) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.pace.read, fmt.Errorf("timed out after %s", s.pace.read))
	defer cancel()
	answer, err := s.client.Get(ctx, s.from(), clientv3.WithRange(s.upTo()))
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	return answer, err
}

// take makes an answer the picture, unless the watch has delivered more already; what that delivered happened after the answer.
func (s *session) take(answer *clientv3.GetResponse, asked time.Time) {
	if s.now.Read = asked; answer.Header.Revision < s.revision {
		return
	}
	s.now, s.revision = Reading{Read: asked}, answer.Header.Revision
	for _, kv := range answer.Kvs {
		s.put(kv)
	}
}

// put takes a key's value in.
func (s *session) put(kv *mvccpb.KeyValue) {
	switch value := printable(kv.Value); string(kv.Key) {
	case s.leader():
		s.now.Leader, s.now.LeaderRevision = value, kv.ModRevision
	case s.failover():
		// Patroni empties the key when it has done what was asked for.
		if strings.TrimSpace(value) == "{}" {
			value = ""
		}
		s.now.Failover, s.now.FailoverRevision = value, kv.ModRevision
	case s.system():
		s.now.System = value
	}
}

// gone takes a key's end in.
func (s *session) gone(key string) {
	switch key {
	case s.leader():
		s.now.Leader, s.now.LeaderRevision = "", 0
	case s.failover():
		s.now.Failover, s.now.FailoverRevision = "", 0
	case s.system():
		s.now.System = ""
	}
}

// changed takes the events of a watch in; those that a read has delivered already are left out.
func (s *session) changed(events []*clientv3.Event) {
	for _, event := range events {
		if event.Kv.ModRevision <= s.revision {
			continue
		}
		if event.Type == mvccpb.Event_DELETE {
			s.gone(string(event.Kv.Key))
		} else {
			s.put(event.Kv)
		}
	}
	// All events of a revision come in one response unless fragments are asked for.
	for _, event := range events {
		s.revision = max(s.revision, event.Kv.ModRevision)
	}
}

// follow watches the keys from the revision after the picture's, and reads them again every beat and when asked. It gives
// the error that ended it, ErrCompacted if only the watch's revision has gone.
func (s *session) follow(ctx context.Context, deliver Deliver) error {
	ctx, cancel := context.WithCancel(ctx)
	var joined sync.WaitGroup
	defer joined.Wait()
	defer cancel()

	watch, since := make(chan clientv3.WatchResponse), s.revision+1
	joined.Go(func() {
		defer close(watch)
		// Watch itself blocks until the server has answered, so it must not be called where the beat is taken.
		responses := s.client.Watch(clientv3.WithRequireLeader(ctx), s.from(), clientv3.WithRange(s.upTo()), clientv3.WithRev(since))
		for response := range responses {
			select {
			case watch <- response:
			case <-ctx.Done():
				return
			}
		}
	})
	beat := time.NewTicker(s.pace.beat)
	defer beat.Stop()
	type result struct {
		answer *clientv3.GetResponse
		asked  time.Time
		err    error
	}
	results := make(chan result, 1)
	busy, again := false, false
	read := func() {
		if again = busy; busy {
			return
		}
		busy = true
		joined.Go(func() {
			asked := time.Now()
			answer, err := s.readAll(ctx)
			results <- result{answer, asked, err}
		})
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case response, open := <-watch:
			if !open {
				return errors.Join(context.Cause(ctx), errBroken)
			}
			if err := response.Err(); err != nil {
				return err
			}
			was := s.now.LeaderRevision
			s.changed(response.Events)
			s.tell(ctx, s.now, deliver)
			if s.now.LeaderRevision != was {
				// A change may be old when it arrives. That somebody leads now is known after a read.
				read()
			}
		case <-beat.C:
			read()
		case <-s.confirm:
			read()
		case r := <-results:
			if r.err != nil {
				return r.err
			}
			s.take(r.answer, r.asked)
			s.tell(ctx, s.now, deliver)
			if busy = false; again {
				read()
			}
		}
	}
}

// inWords says in short why an address of etcd gave nothing. What the session was ended for goes before what its calls
// made of that.
func inWords(ctx context.Context, hostPort string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	text := ""
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		text = "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		text = "connection reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		text = "no route to the host"
	case errors.Is(err, context.DeadlineExceeded):
		text = "timed out"
	default:
		text = err.Error()
		if s, ok := status.FromError(err); ok {
			text = s.Message()
		}
	}
	return worded{hostPort + ": " + printable([]byte(text)), err}
}

// worded is a failure with a short text.
type worded struct {
	text  string
	cause error
}

func (w worded) Error() string { return w.text }
func (w worded) Unwrap() error { return w.cause }
