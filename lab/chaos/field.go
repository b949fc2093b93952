package chaos

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/lab/sandbox"
)

// scope is the cluster's name.
const scope = "pg-test"

// field is where it all happens: the sandbox, what watches it, and what was done to it.
type field struct {
	*sandbox.Sandbox
	members []sandbox.Member
	ledger  *ledger
	keys    *keyWatcher
	roles   *roleWatcher
	// sessions are those to leaders, doors those at the PgBouncers before pgporters.
	sessions *sessions
	doors    *doors
	out      io.Writer
	began    time.Time

	mu sync.Mutex
	// claimed are the processes that a fault has in hand.
	claimed map[string]bool
	// freezes are the times in which pgporters hung, silences those in which nodes couldn't be heard by clients.
	freezes, silences []freeze
	journal           []entry
	// deeds are the faults that were done to something, in order of their beginning.
	deeds []deed
	// consumers are the frozen replication clients, by the time of their fault.
	consumers map[time.Duration]*consumer
	// died are pgporters that ended though no fault ended them.
	died []string

	// following joins those who watch over processes that took over, until over is closed.
	following sync.WaitGroup
	over      chan struct{}

	// inventory guards the file that all pgporters read: whoever starts one has to find a sound one.
	inventory sync.Mutex
	sound     string
	edits     int
}

// freeze is a time in which a node's pgporter hung, or its node was cut off; to is zero while it lasts.
type freeze struct {
	node     string
	from, to time.Time
}

// entry is a line of what was done.
type entry struct {
	when time.Time
	text string
}

func newField(s *sandbox.Sandbox, out io.Writer) *field {
	f := &field{Sandbox: s, ledger: newLedger(), out: out, began: time.Now(), claimed: map[string]bool{}, consumers: map[time.Duration]*consumer{}, over: make(chan struct{})}
	for _, m := range s.Declared() {
		if m.Cluster == scope {
			f.members = append(f.members, m)
		}
	}
	f.roles = newRoleWatcher(f)
	f.sessions = &sessions{field: f}
	f.doors = &doors{field: f}
	s.OnExit(func(what, why string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if strings.HasSuffix(what, "/pgporter") && !f.claimed[what] {
			f.died = append(f.died, fmt.Sprintf("%s %s ended by itself: %s", clock(time.Now()), what, why))
		}
	})
	return f
}

func (f *field) names() []string {
	var names []string
	for _, m := range f.members {
		names = append(names, m.Name)
	}
	return names
}

// name is the member's that has an address; the address itself if none has.
func (f *field) name(address string) string {
	for _, m := range f.members {
		if m.Address == address {
			return m.Name
		}
	}
	return address
}

// say notes what was done, and prints it with the time since the faults began.
func (f *field) say(format string, args ...any) {
	e := f.note(format, args...)
	fmt.Fprintf(f.out, "%s %6.1fs  %s\n", clock(e.when), e.when.Sub(f.began).Seconds(), e.text)
}

// note puts something into the journal, which is only shown if a promise was broken.
func (f *field) note(format string, args ...any) entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := entry{time.Now(), fmt.Sprintf(format, args...)}
	f.journal = append(f.journal, e)
	return e
}

// claim takes processes into one fault's hand; false if another one has any of them.
func (f *field) claim(whats []string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.ContainsFunc(whats, func(w string) bool { return f.claimed[w] }) {
		return false
	}
	for _, w := range whats {
		f.claimed[w] = true
	}
	return true
}

func (f *field) release(whats []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range whats {
		delete(f.claimed, w)
	}
}

func (f *field) freeze(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.freezes = append(f.freezes, freeze{node: node, from: time.Now()})
}

func (f *field) thaw(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.freezes {
		if f.freezes[i].node == node && f.freezes[i].to.IsZero() {
			f.freezes[i].to = time.Now()
		}
	}
}

// frozen is for how much of a time a node's pgporter hung.
func (f *field) frozen(node string, from, to time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return overlap(f.freezes, node, from, to)
}

// silence notes that clients don't hear of a node for a while from now on: what it sends meanwhile is sent again after up to
// as long a time again (TCP doubles its patience).
func (f *field) silence(node string, lasts time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.silences = append(f.silences, freeze{node, now, now.Add(2*lasts + time.Second)})
}

// unheard is for how much of a time a node's pgporter hung or couldn't be heard.
func (f *field) unheard(node string, from, to time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return overlap(f.freezes, node, from, to) + overlap(f.silences, node, from, to)
}

// silent is for how much of a time a node couldn't be heard.
func (f *field) silent(node string, from, to time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return overlap(f.silences, node, from, to)
}

// dialer connects from a node, where nodes are on a network of their own.
func (f *field) dialer(from string) func(ctx context.Context, network, address string) (net.Conn, error) {
	if f.Sandbox == nil || !f.HasNetwork() {
		return new(net.Dialer).DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return f.Dial(ctx, from, network, address)
	}
}

func overlap(freezes []freeze, node string, from, to time.Time) time.Duration {
	sum := time.Duration(0)
	for _, z := range freezes {
		if z.node != node {
			continue
		}
		begin, end := z.from, z.to
		if end.IsZero() || end.After(to) {
			end = to
		}
		if begin.Before(from) {
			begin = from
		}
		sum += max(0, end.Sub(begin))
	}
	return sum
}

// startPgporter starts a node's pgporter and waits until it answers, with an inventory that stays sound meanwhile.
func (f *field) startPgporter(ctx context.Context, what string) error {
	f.inventory.Lock()
	defer f.inventory.Unlock()
	return f.Start(ctx, what)
}

// readers is a service that the sandbox has besides the default ones for this test: through PgBouncer, and never to the
// primary. (The replica service may connect there, so that nobody's session has to leave when a replica is promoted.)
const (
	readersPort = 5437
	readers     = "          - { name: readers, port: 5437, dest: pgbouncer, check: /replica, selector: '[]' }\n"
)

// excludesPrimary says whether a service never connects to the primary: those whose check is /replica.
func excludesPrimary(port int) bool { return port == readersPort || port == offlinePort }

// services are all of every node's.
func (f *field) services() []sandbox.Access {
	all := slices.DeleteFunc(f.URLs(), func(to sandbox.Access) bool { return !strings.HasPrefix(to.Name, scope+"-") })
	for _, to := range all {
		if to.Port == replicaPort {
			to.Name, to.Port = scope+"-readers", readersPort
			all = append(all, to)
		}
	}
	return all
}

// addReaders has every pgporter offer the readers service, and makes that the inventory that edits begin from.
func (f *field) addReaders(ctx context.Context) error {
	text, err := os.ReadFile(f.Inventory())
	if err != nil {
		return err
	}
	f.sound = strings.Replace(string(text), servicesKey, servicesKey+readers, 1)
	if f.sound == string(text) {
		return fmt.Errorf("no place for a service in %s", f.Inventory())
	}
	if err := f.changeInventory(f.sound); err != nil {
		return err
	}
	for _, m := range f.members {
		if err := f.Kill(ctx, syscall.SIGHUP, m.Name+"/pgporter"); err != nil {
			return err
		}
	}
	for _, to := range f.services() {
		if err := f.answers(ctx, to, answersWithin(to.Port)); err != nil {
			return fmt.Errorf("%s on %s: %w", to.Name, to.Node, err)
		}
	}
	return nil
}

// changeInventory writes the file that all pgporters read, in one step.
func (f *field) changeInventory(text string) error {
	path := f.Inventory()
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", []byte(text), info.Mode().Perm()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
