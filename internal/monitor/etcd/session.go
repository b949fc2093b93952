package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
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
	// now is what the keys say at revision; the leader key may have been read later, at leaderAt.
	now                Reading
	revision, leaderAt int64
	// optime is what now gets with the next read.
	optime int64
	// lease is the leader key's; 0 if there is none.
	lease clientv3.LeaseID
}

// Sizes in bytes. There is a connection for each cluster, and answers are short, so its buffers are too; a window that doesn't
// adapt saves a ping with each answer. mostRead is how long an answer may be, which no cluster's keys come near to: a longer
// one is a loss of etcd.
const buffer, window, mostRead = 4 << 10, 64 << 10, 16 << 20

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
	// Until the first reading everything together is bounded by the attempt's time, and what is known from the connection
	// before must not be believed for much longer than if that had been silent.
	limit := w.pace.attempt
	if w.published != nil && w.published.Lost == "" {
		due := time.Until(w.published.Read.Add(w.pace.beat + w.pace.read))
		limit = min(limit, max(due, w.pace.beat).Round(time.Millisecond))
	}
	late := time.AfterFunc(limit, func() { fail(fmt.Errorf("timed out after %s", limit)) })
	defer late.Stop()
	words := func(err error) error { return inWords(ctx, hostPort, err) }

	client, err := w.etcd.connect(ctx, hostPort, w.pace.attempt, fail)
	if err != nil {
		return false, words(err)
	}
	s := &session{Watcher: w, client: client}
	defer client.Close()
	beside, end := context.WithCancel(ctx)
	var joined sync.WaitGroup
	defer joined.Wait()
	defer end()
	for {
		answer := s.read(ctx, true)
		if answer.err != nil {
			return read, words(answer.err)
		}
		s.take(answer)
		late.Stop()
		w.tell(ctx, s.now, deliver)
		if !read && w.deliverOrder != nil {
			joined.Go(func() { s.followOrders(beside) })
		}
		read = true
		if w.hook != nil {
			w.hook(s.revision)
		}
		err = s.follow(ctx, deliver)
		if !errors.Is(err, rpctypes.ErrCompacted) {
			return true, words(err)
		}
	}
}

// connect makes a client for one connection, which ends with ctx. fail gets whatever goes wrong with that.
func (e *Etcd) connect(ctx context.Context, hostPort string, within time.Duration, fail context.CancelCauseFunc) (*clientv3.Client, error) {
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
		if e.tls {
			return conn, nil
		}
		return end.of(conn), nil
	}
	config := clientv3.Config{
		Endpoints: []string{hostPort}, Context: ctx, DialTimeout: within, Logger: zap.NewNop(),
		MaxCallRecvMsgSize: mostRead,
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(dial),
			grpc.WithReadBufferSize(buffer), grpc.WithWriteBufferSize(buffer),
			grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window),
		},
	}
	if e.tls {
		secure, err := e.tlsConfig(hostPort)
		if err != nil {
			return nil, err
		}
		over := handshakes{credentials.NewTLS(secure), func(err error) { fail(err) }, &end}
		config.DialOptions = append(config.DialOptions, grpc.WithTransportCredentials(over))
	}
	if e.cfg.User != "" {
		password, err := e.password()
		if err != nil {
			return nil, err
		}
		config.Username, config.Password = e.cfg.User, password
	}
	return clientv3.New(config)
}

// key is the path of one of the cluster's keys.
func (w *Watcher) key(name string) string { return w.path + "/" + name }

// answered is what came of a read.
type answered struct {
	*clientv3.GetResponse
	// whole says that all keys were read, not the leader key alone.
	whole bool
	asked time.Time
	err   error
}

// read reads the leader key, or all keys, through the quorum, in the time that a read may take.
func (s *session) read(ctx context.Context, whole bool) answered {
	a := answered{whole: whole, asked: time.Now()}
	ctx, cancel := context.WithTimeoutCause(ctx, s.pace.read, fmt.Errorf("timed out after %s", s.pace.read))
	defer cancel()
	if whole {
		a.GetResponse, a.err = s.client.Get(ctx, s.key(""), clientv3.WithPrefix())
	} else {
		a.GetResponse, a.err = s.client.Get(ctx, s.key("leader"))
	}
	if a.err != nil && context.Cause(ctx) != nil {
		a.err = context.Cause(ctx)
	}
	return a
}

// take makes an answer the picture, unless the watch has delivered more already; what that delivered happened after the answer.
func (s *session) take(a answered) {
	if at := a.Header.Revision; at >= max(s.revision, s.leaderAt) {
		was := s.now
		switch {
		case a.whole:
			s.now, s.optime, s.lease, s.revision = Reading{}, 0, 0, at
		case len(a.Kvs) == 0:
			s.gone(s.key("leader"))
		}
		s.leaderAt = at
		for _, kv := range a.Kvs {
			s.put(kv)
		}
		if a.whole {
			s.remember(was)
		}
	}
	s.now.Read, s.now.Optime = a.asked, s.optime
	if !s.leased.Load() {
		s.now.Renewed = time.Time{}
	}
}

// remember adds to a picture that was read anew what such a read can't tell.
func (s *session) remember(was Reading) {
	for i, m := range s.now.Members {
		for _, before := range was.Members {
			if m.Name == before.Name && m.Role == before.Role && m.State == before.State {
				s.now.Members[i].Revision = before.Revision
			}
		}
	}
	if s.now.LeaderRevision == was.LeaderRevision {
		s.now.Renewed = was.Renewed
	}
}

// put takes a key's value in.
func (s *session) put(kv *mvccpb.KeyValue) {
	name, _ := strings.CutPrefix(string(kv.Key), s.path+"/")
	switch name {
	case "leader":
		if kv.ModRevision != s.now.LeaderRevision {
			s.now.Renewed = time.Time{}
		}
		s.now.Leader, s.now.LeaderRevision, s.lease = printable(kv.Value), kv.ModRevision, clientv3.LeaseID(kv.Lease)
	case "failover":
		value := printable(kv.Value)
		// Patroni empties the key when it has done what was asked for.
		if strings.TrimSpace(value) == "{}" {
			value = ""
		}
		s.now.Failover, s.now.FailoverRevision = value, kv.ModRevision
	case "initialize":
		s.now.System = printable(kv.Value)
	case "config":
		s.now.Standby = standbyOf(kv.Value)
	case "status":
		s.optime = optimeOf(kv.Value)
	default:
		if member, is := memberName(name); is {
			role, state := memberOf(kv.Value)
			s.putMember(MemberKey{member, role, state, kv.ModRevision})
		}
	}
}

// gone takes a key's end in.
func (s *session) gone(key string) {
	name, _ := strings.CutPrefix(key, s.path+"/")
	switch name {
	case "leader":
		s.now.Leader, s.now.LeaderRevision, s.now.Renewed, s.lease = "", 0, time.Time{}, 0
	case "failover":
		s.now.Failover, s.now.FailoverRevision = "", 0
	case "initialize":
		s.now.System = ""
	case "config":
		s.now.Standby = false
	case "status":
		s.optime = 0
	default:
		if member, is := memberName(name); is {
			s.now.Members = slices.DeleteFunc(slices.Clone(s.now.Members), func(m MemberKey) bool { return m.Name == member })
		}
	}
}

// memberName is whose key this is; false for a key of another kind.
func memberName(key string) (string, bool) {
	name, is := strings.CutPrefix(key, "members/")
	return printable([]byte(name)), is && name != "" && !strings.Contains(name, "/")
}

// putMember takes a member in; the slice that was delivered stays as it is.
func (s *session) putMember(m MemberKey) {
	i, there := slices.BinarySearchFunc(s.now.Members, m.Name, func(have MemberKey, name string) int { return strings.Compare(have.Name, name) })
	switch {
	case !there:
		s.now.Members = slices.Insert(slices.Clone(s.now.Members), i, m)
	case s.now.Members[i].Role != m.Role || s.now.Members[i].State != m.State:
		s.now.Members = slices.Clone(s.now.Members)
		s.now.Members[i] = m
	}
}

// changed takes the events of a watch in; those that a read has delivered already are left out.
func (s *session) changed(events []*clientv3.Event) {
	leader := s.key("leader")
	for _, event := range events {
		key, at := string(event.Kv.Key), event.Kv.ModRevision
		if at <= s.revision || key == leader && at <= s.leaderAt {
			continue
		}
		if event.Type == mvccpb.Event_DELETE {
			s.gone(key)
		} else {
			s.put(event.Kv)
		}
	}
	// All events of a revision come in one response unless fragments are asked for.
	for _, event := range events {
		s.revision = max(s.revision, event.Kv.ModRevision)
	}
}

// lived is what etcd said of a lease: renewed is the earliest moment at which it can have been renewed last, zero if it said
// nothing.
type lived struct {
	lease   clientv3.LeaseID
	renewed time.Time
}

// life asks how much time a lease has left.
func (s *session) life(ctx context.Context, lease clientv3.LeaseID) lived {
	ctx, cancel := context.WithTimeout(ctx, s.pace.read)
	defer cancel()
	asked := time.Now()
	answer, err := s.client.TimeToLive(ctx, lease)
	if err != nil || answer.TTL < 0 {
		return lived{lease: lease}
	}
	// Both are whole seconds, what is left is rounded down. It is more than was granted after an election of etcd's.
	gone := time.Duration(answer.GrantedTTL-answer.TTL) * time.Second
	return lived{lease, asked.Add(-max(gone, 0))}
}

// follow watches the keys from the revision after the picture's, reads the leader key again every beat and when asked, and
// sometimes all. It gives the error that ended it, ErrCompacted if only the watch's revision has gone.
func (s *session) follow(ctx context.Context, deliver Deliver) error {
	ctx, cancel := context.WithCancel(ctx)
	var joined sync.WaitGroup
	defer joined.Wait()
	defer cancel()

	watch, since := make(chan clientv3.WatchResponse), s.revision+1
	joined.Go(func() {
		defer close(watch)
		// Watch itself blocks until the server has answered, so it must not be called where the beat is taken.
		responses := s.client.Watch(clientv3.WithRequireLeader(ctx), s.key(""), clientv3.WithPrefix(), clientv3.WithRev(since))
		for response := range responses {
			select {
			case watch <- response:
			case <-ctx.Done():
				return
			}
		}
	})
	// Watchers that begin together don't read together for ever.
	beat := time.NewTimer(rand.N(s.pace.beat))
	defer beat.Stop()
	all := time.Now().Add(s.pace.all)
	results, lives := make(chan answered, 1), make(chan lived, 1)
	busy, again, asking := false, false, false
	askLife := func() {
		if lease := s.lease; !asking && lease != 0 && s.leased.Load() {
			asking = true
			joined.Go(func() { lives <- s.life(ctx, lease) })
		}
	}
	askLife()
	read := func() {
		askLife()
		if again = busy; busy {
			return
		}
		busy = true
		now := time.Now()
		whole := now.After(all)
		if whole {
			all = now.Add(s.pace.all)
		}
		beat.Reset(s.pace.beat)
		joined.Go(func() { results <- s.read(ctx, whole) })
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
		case a := <-results:
			if a.err != nil {
				return a.err
			}
			s.take(a)
			s.tell(ctx, s.now, deliver)
			if busy = false; again {
				read()
			}
		case l := <-lives:
			if asking = false; l.lease == s.lease && s.leased.Load() && l.renewed.After(s.now.Renewed) {
				s.now.Renewed = l.renewed
				s.tell(ctx, s.now, deliver)
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
	case ours(err):
		text = "this node can't ask: " + plainErrno(err)
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

// plainErrno gives the system's word for an error that has one.
func plainErrno(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

// worded is a failure with a short text.
type worded struct {
	text  string
	cause error
}

func (w worded) Error() string { return w.text }
func (w worded) Unwrap() error { return w.cause }
