package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/web"
	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/engine/proxy"
)

// pageAgain is between two attempts to open the page's port while somebody else has it: a HAProxy, say, that will be stopped.
const pageAgain = 3 * time.Second

// pagePort is the address at which a node's HAProxy would be asked for its statistics, and where this pgporter answers instead. Nothing
// that becomes of it keeps a configuration from being taken.
type pagePort struct {
	// handler answers, by what the running configuration says.
	handler atomic.Pointer[http.Handler]

	// mu guards what follows.
	mu sync.Mutex
	// want is the running configuration's; nil for none. changed is closed when it is another one.
	want    *model.Page
	changed chan struct{}
	// inherited are the sockets that the process before had, by address.
	inherited map[string]*net.TCPListener
	// listener is open at the address at; nil while there is none, for the reason problem, if it is wanted.
	listener *net.TCPListener
	at       string
	problem  string
	// served is closed when nobody accepts at the listener any more; nil while nobody does yet.
	served chan struct{}
	// yielding says that a configuration is being taken of which a service may have the port.
	yielding bool
}

// wanted gives what is wanted, and what is closed when that is something else.
func (p *pagePort) wanted() (*model.Page, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.want, p.changed
}

// hasPage says whether this daemon answers in HAProxy's place: not where there is one.
func (d *Daemon) hasPage() bool { return d.cfg.HAProxy == nil && d.cfg.Shadow == nil }

// pageAddress is where a page is to be, as net.Listen takes it.
func (d *Daemon) pageAddress(p *model.Page) string {
	host := p.IP
	if host == "*" {
		host = d.cfg.Bind
	}
	if host == "*" {
		host = ""
	}
	return net.JoinHostPort(host, strconv.Itoa(p.Port))
}

// pageOf is what a configuration says of the page. A plan that was sent says nothing of it: what was said before holds.
func (d *Daemon) pageOf(l Loaded) *model.Page {
	switch {
	case !d.hasPage():
		return nil
	case l.Sent != nil:
		want, _ := d.page.wanted()
		return want
	}
	return l.Page
}

// set has the page be another one.
func (p *pagePort) set(next *model.Page) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !reflect.DeepEqual(p.want, next) {
		p.want = next
		p.tell()
	}
}

// giveWay closes the port where a service is to have it. Until the caller calls again it isn't opened.
func (p *pagePort) giveWay(plan model.Plan) (again func()) {
	if served := p.closeFor(plan); served != nil {
		// A socket in which somebody waits is closed once he has left it (internal/poll.FD).
		<-served
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.yielding {
			p.yielding = false
			p.tell()
		}
	}
}

// tell wakes who waits for a change. p.mu is held.
func (p *pagePort) tell() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// closeFor closes the port where a service is to have it, and gives what is closed when it is free.
func (p *pagePort) closeFor(plan model.Plan) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == nil {
		return nil
	}
	ours := p.listener.Addr().(*net.TCPAddr).Port
	wanted := false
	for _, c := range plan.Clusters {
		for _, definition := range c.Definitions {
			wanted = wanted || definition.Port == ours
		}
	}
	for _, s := range plan.TCPServices {
		wanted = wanted || s.Port == ours
	}
	if !wanted {
		return nil
	}
	_ = p.listener.Close()
	p.listener, p.yielding = nil, true
	return p.served
}

// inherit takes the page's sockets from what the process before has given.
func (p *pagePort) inherit(i *Inherited) error {
	if i == nil {
		return nil
	}
	p.inherited = map[string]*net.TCPListener{}
	for name := range i.sockets {
		at, is := strings.CutPrefix(name, pageSocket)
		if !is {
			continue
		}
		l, err := i.listener(name)
		if err != nil {
			return err
		}
		p.inherited[at] = l
	}
	return nil
}

// close closes what is open.
func (p *pagePort) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.inherited {
		_ = l.Close()
	}
	p.inherited = nil
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
}

// openPage opens the port that is wanted, if it isn't open; false if it can't be now. The log is told when that changes.
func (d *Daemon) openPage(ctx context.Context) bool {
	p := &d.page
	p.mu.Lock()
	defer p.mu.Unlock()
	at := ""
	if p.want != nil {
		at = d.pageAddress(p.want)
	}
	if p.listener != nil && p.at == at {
		return true
	}
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	if p.yielding {
		return false
	}
	if p.at = at; at == "" {
		p.problem = ""
		return true
	}
	if p.listener = p.inherited[at]; p.listener != nil {
		delete(p.inherited, at)
		p.problem = ""
		return true
	}
	listener, err := listenForPage(ctx, at)
	if err != nil {
		if p.problem != err.Error() && ctx.Err() == nil {
			p.problem = err.Error()
			d.log.Warn("no page and no metrics at the port of HAProxy's; the services go on, and it is tried again until it is free", "page", at, "problem", err.Error())
		}
		return false
	}
	p.listener, p.problem = listener, ""
	d.log.Info("the page and metrics are where HAProxy's would be", "page", listener.Addr().String(), "metrics", p.want.MetricsPath, "actions", p.want.Actions)
	return true
}

// listenForPage opens an address; if somebody has it, the error says who.
func listenForPage(ctx context.Context, at string) (*net.TCPListener, error) {
	network := "tcp"
	if address, err := netip.ParseAddrPort(at); err == nil && address.Addr().Is4() {
		network = "tcp4"
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, network, at)
	if err == nil {
		return l.(*net.TCPListener), nil
	}
	var refused *net.OpError
	if errors.As(err, &refused) {
		if taken, is := refused.Addr.(*net.TCPAddr); is && errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("%w: %s", syscall.EADDRINUSE, proxy.Holder(taken.AddrPort()))
		}
		err = refused.Err
	}
	return nil, err
}

// servePage answers at the page's port until ctx ends, wherever the running configuration has it.
func (d *Daemon) servePage(ctx context.Context) error {
	if !d.hasPage() {
		return nil
	}
	p := &d.page
	defer p.close()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*p.handler.Load()).ServeHTTP(w, r) })
	for ctx.Err() == nil {
		want, changed := p.wanted()
		shown := d.shown()
		if want != nil {
			shown.MetricsPath = want.MetricsPath
		}
		answer := web.Handler(shown)
		p.handler.Store(&answer)
		var again <-chan time.Time
		if !d.openPage(ctx) {
			again = time.After(pageAgain)
		}
		p.mu.Lock()
		listener, served := p.listener, make(chan struct{})
		p.served = served
		p.mu.Unlock()
		if listener == nil {
			close(served)
			select {
			case <-ctx.Done():
			case <-changed:
			case <-again:
			}
			continue
		}
		d.answerAtPage(ctx, listener, handler, changed)
		close(served)
	}
	return nil
}

// answerAtPage answers at a listener until it is another's turn.
func (d *Daemon) answerAtPage(ctx context.Context, listener *net.TCPListener, handler http.Handler, changed <-chan struct{}) {
	serving, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		var encryption *tls.Config
		ended <- web.Serve(serving, d.guard(listener, "page", d.budget.page), handler, encryption, d.log)
	}()
	select {
	case <-changed:
	case err := <-ended:
		// It gave way, or the kernel has taken it: it is opened again.
		if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
			d.log.Warn("the page's port is opened anew", "error", err)
		}
		d.page.forget(listener)
		return
	}
	stop()
	<-ended
	d.page.forget(listener)
}

// forget notes that a listener is closed.
func (p *pagePort) forget(l *net.TCPListener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == l {
		p.listener = nil
	}
}

// status is what is known of the port; nil where none is wanted.
func (p *pagePort) status() *api.Page {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.want == nil {
		return nil
	}
	return &api.Page{Listen: p.at, Metrics: p.want.MetricsPath, Node: p.want.Node, Problem: p.problem, Actions: p.want.Actions}
}
