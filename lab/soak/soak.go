// Package soak loads a real pgporter process for as long and as hard as it is asked, and looks whether all of it is there at
// the end: bytes, sessions, descriptors, memory. `make soak` runs it.
//
// Clients and server are other processes: this same program, started anew (see BePeer). The server isn't PostgreSQL but a
// trivial one that does what its client's startup packet asks for, with a fake Patroni beside it; so nothing but
// pgporter and the kernel takes part, and both ends know every byte that has to come (stream.go).
//
// The parts: bulk (two long streams at once), sessions (many short ones with every ending, by script.go), idle (very many
// that say nothing), storm (more clients at once than the limits let in), scarce (too few descriptors).
package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pgporter/pgporter/lab/fakepatroni"
)

// Config is how much to do.
type Config struct {
	// Binary is the pgporter.
	Binary string
	// Host is a loopback address that nobody else uses.
	Host string
	// Bytes go each way, Sessions are short, Idle ones say nothing, Storm clients come at once; 0 leaves the part out.
	Bytes                 int64
	Sessions, Idle, Storm int
	// Scarce has descriptors run out.
	Scarce bool
	// Memory has memory judged; that of a pgporter with the race detector grows by itself.
	Memory bool
	// Seed says what scripts do.
	Seed uint64
	// Out gets what was found, a line for each thing.
	Out io.Writer
}

// The services: all connect to the same server, each with limits and counters of its own.
const (
	exactPort = 7001 + iota
	rudePort
	idlePort
	queuePort
	limitedPort
)

// How the server is checked. Calmly, silence would have to last for 50 s before it counts as down: a part leaves no
// descriptor for checks for a while. Closely, for 1.5 s.
const (
	calmly  = "inter 5s fastinter 5s downinter 1s rise 1 fall 10 on-marked-down shutdown-sessions"
	closely = "inter 1s fastinter 500ms downinter 1s rise 1 fall 3 on-marked-down shutdown-sessions"
)

// Limits of the services in the storm. The queue's server takes 200 sessions, and 100 clients may wait for it; the limited
// service lets in 300 clients.
const (
	queueSessions, queueWaiting = 200, 100
	limitedClients              = 300
)

func services(checked string) []fakepatroni.Service {
	limited := func(maxconn, maxqueue int) string {
		return fmt.Sprintf("%s maxconn %d maxqueue %d weight 100", checked, maxconn, maxqueue)
	}
	free := limited(0, 0)
	return []fakepatroni.Service{
		{Name: "exact", Port: exactPort, MaxConn: 60000, Options: free},
		{Name: "rude", Port: rudePort, MaxConn: 60000, Options: free},
		{Name: "idle", Port: idlePort, MaxConn: 60000, Options: free},
		{Name: "queue", Port: queuePort, MaxConn: 5000, Options: limited(queueSessions, queueWaiting)},
		{Name: "limited", Port: limitedPort, MaxConn: limitedClients, Options: free},
	}
}

// rig is a pgporter with a server behind it and clients before it.
type rig struct {
	Config
	// dir has the inventory.
	dir             string
	porter          *porter
	server, clients *peer
}

// Run does all parts and prints what it found. The error says what was broken; nil means that everything was as it has to
// be.
func Run(ctx context.Context, c Config) error {
	r, err := setUp(ctx, c, calmly, 0)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		do   func(context.Context) error
		on   bool
	}{
		{"bulk", r.bulk, c.Bytes > 0}, {"sessions", r.sessions, c.Sessions > 0}, {"idle", r.idle, c.Idle > 0}, {"storm", r.storm, c.Storm > 0},
		{"scarce", r.scarce, c.Scarce},
	} {
		if !part.on {
			r.say("%s: NOT RUN", part.name)
			continue
		}
		if partErr := part.do(ctx); partErr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", part.name, partErr))
			r.say("%s: FAILED: %v", part.name, partErr)
		}
		if ctx.Err() != nil {
			err = errors.Join(err, context.Cause(ctx))
			break
		}
	}
	err = errors.Join(err, r.tearDown())
	if c.Scarce && ctx.Err() == nil {
		if fewErr := few(ctx, c); fewErr != nil {
			err = errors.Join(err, fmt.Errorf("few: %w", fewErr))
			r.say("few: FAILED: %v", fewErr)
		}
	}
	return err
}

// setUp starts the processes; files limits pgporter's open files if it isn't 0.
func setUp(ctx context.Context, c Config, checked string, files uint64) (*rig, error) {
	dir, err := os.MkdirTemp("", "pgporter-soak-")
	if err != nil {
		return nil, err
	}
	r := &rig{Config: c, dir: dir}
	if r.server, err = startPeer(ctx, serverPeer); err != nil {
		return nil, errors.Join(err, r.tearDown())
	}
	var at hello
	if err = r.server.ask(c.Host, &at); err == nil && at.Failed != "" {
		err = errors.New(at.Failed)
	}
	if err == nil {
		r.clients, err = startPeer(ctx, clientPeer)
	}
	if err == nil {
		inventory := fakepatroni.Member{Host: c.Host, Port: at.Port, PatroniPort: at.PatroniPort}.Inventory(services(checked)...)
		r.porter, err = startPorter(ctx, c.Binary, dir, c.Host, inventory, files)
	}
	if err == nil {
		// What pgporter opens with its first session stays.
		if _, err = r.have(Task{Do: Hold, Address: r.address(idlePort), Count: 1}); err == nil {
			_, err = r.have(Task{Do: Drop})
		}
		if err == nil {
			err = until(ctx, "the first session has ended", func() error {
				s, err := r.porter.service(ctx, "idle")
				return errors.Join(err, check("sessions", int64(s.Sessions), 0))
			})
		}
	}
	if err != nil {
		return nil, errors.Join(err, r.tearDown())
	}
	return r, nil
}

// tearDown ends the processes and says what was wrong with pgporter's end.
func (r *rig) tearDown() error {
	if r.clients != nil {
		r.clients.stop()
	}
	var err error
	if r.porter != nil {
		err = r.porter.stop()
		if n := r.porter.log.count("DATA RACE"); n > 0 {
			err = errors.Join(err, fmt.Errorf("pgporter has %d data races:\n%s", n, r.porter.log))
		}
	}
	if r.server != nil {
		r.server.stop()
	}
	return errors.Join(err, os.RemoveAll(r.dir))
}

func (r *rig) say(format string, a ...any) { fmt.Fprintf(r.Out, format+"\n", a...) }

func (r *rig) address(port int) string { return fmt.Sprintf("%s:%d", r.Host, port) }

// have gives the clients a task; what failed for them is the error.
func (r *rig) have(task Task) (Done, error) {
	var done Done
	if err := r.clients.ask(task, &done); err != nil {
		return done, err
	}
	return done, failures("clients", done.Failures, done.First)
}

// seenAll is what the server has seen since it was asked last, once it has no connection any more.
func (r *rig) seenAll(ctx context.Context) (Seen, error) {
	var all Seen
	err := until(ctx, "the server has no connection", func() error {
		var now Seen
		if err := r.server.ask("report", &now); err != nil {
			return err
		}
		all.add(now)
		return check("connections", now.Open, 0)
	})
	return all, errors.Join(err, failures("the server", all.Failures, all.First))
}

func failures(whose string, n int64, first []string) error {
	if n == 0 {
		return nil
	}
	errs := []error{fmt.Errorf("%d failures of %s, first", n, whose)}
	for _, text := range first {
		errs = append(errs, errors.New("  "+text))
	}
	return errors.Join(errs...)
}

// quiet waits until no service has a client and the server has no connection, and pgporter holds no more than a state has,
// but for a margin of memory. It gives what it holds then.
func (r *rig) quiet(ctx context.Context, most *state) (state, error) {
	var now state
	err := until(ctx, "everything is as it was", func() error {
		s, err := r.porter.status(ctx)
		if err != nil {
			return err
		}
		for _, service := range s.Clusters[0].Services {
			if service.Sessions+service.Queued > 0 {
				return fmt.Errorf("service %s has %d sessions and %d clients that wait", service.Name, service.Sessions, service.Queued)
			}
		}
		if now, err = r.porter.holds(ctx); err != nil || most == nil {
			return err
		}
		// A check that is under way has a descriptor and goroutines for a moment, and it may have had none before.
		if now.files > most.files || now.goroutines > most.goroutines {
			return fmt.Errorf("%s; before: %s", now, *most)
		}
		return nil
	})
	if err == nil && most != nil && r.Memory && now.rss > most.rss+memoryMargin {
		err = fmt.Errorf("memory has grown: %s; before: %s", now, *most)
	}
	return now, err
}

// memoryMargin is for what a Go process gives back to the kernel late.
const memoryMargin = 32 << 20

// check is an equality that has to hold.
func check(what string, got, want int64) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("%s: %d, want %d", what, got, want)
}

func (r *rig) bulk(ctx context.Context) error {
	before, err := r.quiet(ctx, nil)
	if err != nil {
		return err
	}
	began, err := r.porter.processorTime()
	if err != nil {
		return err
	}
	done, err := r.have(Task{Do: Bulk, Address: r.address(exactPort), Bytes: r.Bytes, Seed: r.Seed})
	seen, seenErr := r.seenAll(ctx)
	used, timeErr := r.porter.processorTime()
	if err = errors.Join(err, seenErr, timeErr); err != nil {
		return err
	}
	for _, direction := range []struct {
		what      string
		sent, got tally
	}{{"to the server", done.BulkSent, seen.BulkGot}, {"to the client", seen.BulkSent, done.BulkGot}} {
		err = errors.Join(err, check("bytes "+direction.what, direction.got.Bytes, r.Bytes))
		if direction.sent != direction.got {
			err = errors.Join(err, fmt.Errorf("%s: sent %+v, got %+v", direction.what, direction.sent, direction.got))
		}
		r.say("bulk: %s: %d bytes, CRC-32C %08x sent, %08x received", direction.what, direction.got.Bytes, direction.sent.Sum, direction.got.Sum)
	}
	after, quietErr := r.quiet(ctx, nil)
	r.say("bulk: %.1f s, %.0f MB/s each way, both at once; pgporter used %.1f s of processor; before: %s; after: %s", done.Took.Seconds(),
		mega(r.Bytes)/done.Took.Seconds(), (used - began).Seconds(), before, after)
	return errors.Join(err, quietErr)
}

// atOnce is how many scripts run at a time.
const atOnce = 64

func (r *rig) sessions(ctx context.Context) error {
	// Warm: pools, threads and the page tables of sockets stay with a process.
	warm := max(r.Sessions/50, 500)
	if err := r.scripts(ctx, 0, warm, nil); err != nil {
		return err
	}
	before, err := r.quiet(ctx, nil)
	if err != nil {
		return err
	}
	return r.scripts(ctx, warm, r.Sessions, &before)
}

// scripts has sessions go by their scripts, and looks whether they were all counted; with a state before, whether they left
// anything.
func (r *rig) scripts(ctx context.Context, from, count int, before *state) error {
	exact, err := r.porter.service(ctx, "exact")
	if err != nil {
		return err
	}
	rude, err := r.porter.service(ctx, "rude")
	if err != nil {
		return err
	}
	done, doneErr := r.have(Task{Do: Scripts, Address: r.address(exactPort), Rude: r.address(rudePort), Seed: r.Seed, From: from, Count: count, Workers: atOnce})
	after, quietErr := r.quiet(ctx, before)
	seen, seenErr := r.seenCancels(ctx, done.Cancels)
	if err = errors.Join(doneErr, quietErr, seenErr); err != nil {
		return err
	}
	exactNow, err := r.porter.service(ctx, "exact")
	if err != nil {
		return err
	}
	rudeNow, err := r.porter.service(ctx, "rude")
	if err != nil {
		return err
	}
	counted := int64(exactNow.Total - exact.Total)
	countedRude := int64(rudeNow.Total - rude.Total)
	err = errors.Join(check("sessions that clients had", done.Served, int64(count)), check("sessions that pgporter counted", counted, int64(count)),
		check("sessions that the server saw", seen.Sessions[aimScript], int64(count)), check("cancel requests that the server saw", seen.Cancels, done.Cancels),
		check("refused", int64(exactNow.Refused-exact.Refused+rudeNow.Refused-rude.Refused), 0))
	if countedRude > seen.Sessions[aimNothing] {
		err = errors.Join(err, fmt.Errorf("pgporter counted %d sessions of rude clients, the server saw %d", countedRude, seen.Sessions[aimNothing]))
	}
	if before == nil {
		return err
	}
	r.say("sessions: %d in %.0f s (%.0f a second), pgporter counted %d, the server saw %d; sessions now: 0", done.Served, done.Took.Seconds(),
		float64(done.Served)/done.Took.Seconds(), counted, seen.Sessions[aimScript])
	r.say("sessions: to the server %d bytes written, %d read; to the client %d written, %d read (less where a side reset or left)",
		done.Sent, seen.Passed, seen.Sent, done.Passed)
	r.say("sessions: and %d rude clients: %d cancel requests, all passed on; %d that left during the startup got to the server, pgporter counted %d of them",
		done.Rude, done.Cancels, seen.Sessions[aimNothing], countedRude)
	r.say("sessions: before: %s; after: %s", *before, after)
	return err
}

// seenCancels gives what the server has seen, once there are so many cancel requests among it or a few seconds are over: whoever sends one
// needn't wait until it has arrived.
func (r *rig) seenCancels(ctx context.Context, want int64) (Seen, error) {
	seen, err := r.seenAll(ctx)
	for until := time.Now().Add(5 * time.Second); err == nil && seen.Cancels < want && time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return seen, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		var later Seen
		later, err = r.seenAll(ctx)
		seen.add(later)
	}
	return seen, err
}

// add adds what was seen later.
func (s *Seen) add(later Seen) {
	if s.Sessions == nil {
		s.Sessions = map[string]int64{}
	}
	for aim, n := range later.Sessions {
		s.Sessions[aim] += n
	}
	s.Cancels += later.Cancels
	s.Sent += later.Sent
	s.Passed += later.Passed
	s.MostTurns = max(s.MostTurns, later.MostTurns)
	if later.BulkSent.Bytes+later.BulkGot.Bytes > 0 {
		s.BulkSent, s.BulkGot = later.BulkSent, later.BulkGot
	}
	s.Failures += later.Failures
	s.First = append(s.First, later.First...)
}

func (r *rig) idle(ctx context.Context) error {
	before, err := r.quiet(ctx, nil)
	if err != nil {
		return err
	}
	done, err := r.have(Task{Do: Hold, Address: r.address(idlePort), Count: r.Idle})
	if err == nil {
		_, err = r.have(Task{Do: Ask})
	}
	if err != nil {
		// What comes next begins without them.
		_, dropErr := r.have(Task{Do: Drop})
		return errors.Join(err, dropErr)
	}
	idle, err := r.porter.holds(ctx)
	if err != nil {
		return err
	}
	service, err := r.porter.service(ctx, "idle")
	if err != nil {
		return err
	}
	err = errors.Join(check("sessions that clients hold", done.Served, int64(r.Idle)), check("sessions by the status", int64(service.Sessions), int64(r.Idle)))
	if idle.files < 2*r.Idle {
		err = errors.Join(err, fmt.Errorf("%d descriptors can't be %d sessions", idle.files, r.Idle))
	}
	again, askErr := r.have(Task{Do: Ask})
	err = errors.Join(err, askErr, check("sessions that answer", again.Served, int64(r.Idle)))
	frozen, handed, upgradeErr := r.porter.upgrade(ctx)
	err = errors.Join(err, upgradeErr, check("sessions that another process took over", int64(handed), int64(r.Idle)))
	again, askErr = r.have(Task{Do: Ask})
	err = errors.Join(err, askErr, check("sessions that answer after an upgrade", again.Served, int64(r.Idle)))
	if _, dropErr := r.have(Task{Do: Drop}); dropErr != nil {
		return errors.Join(err, dropErr)
	}
	after, quietErr := r.quiet(ctx, &state{files: before.files, goroutines: before.goroutines, rss: idle.rss})
	r.say("idle: %d sessions opened in %.1f s; held: %s, %.1f KB a session; all answer", r.Idle, done.Took.Seconds(), idle,
		float64(idle.rss-before.rss)/1024/float64(r.Idle))
	r.say("idle: another process took over %d of them, all stood still for %s; all answer", handed, frozen)
	r.say("idle: before: %s; after: %s", before, after)
	return errors.Join(err, quietErr)
}

// storm lets everybody come at once to a service that is bounded by its server, and to one that is bounded by its own limit.
func (r *rig) storm(ctx context.Context) error {
	var err error
	for _, s := range []struct {
		name               string
		port               int
		most, mostWaiting  int
		mayRefuse, mayHold bool
	}{{"queue", queuePort, queueSessions, queueWaiting, true, true}, {"limited", limitedPort, limitedClients, 0, false, false}} {
		if _, err := r.seenAll(ctx); err != nil {
			return err
		}
		before, beforeErr := r.porter.service(ctx, s.name)
		if beforeErr != nil {
			return beforeErr
		}
		watching, stop := context.WithCancel(ctx)
		// Who only waits for those before him to arrive at the server has a place there, beside those of maxqueue.
		type peak struct{ sessions, queued, all, looks int }
		peaks := make(chan peak)
		go func() {
			var p peak
			for watching.Err() == nil {
				if now, err := r.porter.service(watching, s.name); err == nil {
					p = peak{max(p.sessions, now.Sessions), max(p.queued, now.Queued), max(p.all, now.Sessions+now.Queued), p.looks + 1}
				}
			}
			peaks <- p
		}()
		done, doneErr := r.have(Task{Do: Storm, Address: r.address(s.port), Count: r.Storm, Stay: 20 * time.Millisecond})
		stop()
		most := <-peaks
		seen, seenErr := r.seenAll(ctx)
		after, afterErr := r.porter.service(ctx, s.name)
		err = errors.Join(err, doneErr, seenErr, afterErr,
			check("clients that were served or told 53300", done.Served+done.Refused, int64(r.Storm)),
			check("sessions that the server saw", seen.Sessions[aimTurn], done.Served),
			check("clients that pgporter says to have refused", int64(after.Refused-before.Refused), done.Refused))
		if done.Served == 0 || int(seen.MostTurns) > s.most || most.sessions > s.most || most.all > s.most+s.mostWaiting || !s.mayRefuse && done.Refused > 0 {
			err = errors.Join(err, fmt.Errorf("service %s: %d served, %d refused, at most %d sessions at the server (limit %d), %d by the status, %d clients waiting (limit %d, and the places that are free), %d clients in all",
				s.name, done.Served, done.Refused, seen.MostTurns, s.most, most.sessions, most.queued, s.mostWaiting, most.all))
		}
		r.say("storm: %d clients connected to %s within %.2f s: %d served, %d told 53300, in %.1f s; at most %d sessions at the server at a time (limit %d), %d clients waiting (limit %d) in %d looks",
			r.Storm, s.name, done.Connecting.Seconds(), done.Served, done.Refused, done.Took.Seconds(), seen.MostTurns, s.most, most.queued, s.mostWaiting, most.looks)
	}
	_, quietErr := r.quiet(ctx, nil)
	return errors.Join(err, quietErr)
}
