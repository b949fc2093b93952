package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
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
	// handler answers, by what the running configuration says; actions are taken there.
	handler atomic.Pointer[http.Handler]
	actions *web.Actions
	// warned is what the log was told last of who may act.
	warned string

	// mu guards what follows.
	mu sync.Mutex
	// want is the running configuration's, nil for none, and number counts them. changed is closed with the next.
	want    *model.Page
	number  uint64
	changed chan struct{}
	// inherited are the sockets that the process before had, by address.
	inherited map[string]*net.TCPListener
	// listener is open at the address at; nil while there is none, for the reason problem, if it is wanted.
	listener *net.TCPListener
	at       string
	problem  string
	// now answers at the listener, or at the one before; nil while nobody does.
	now *pageServer
	// yielding says that a configuration is being taken of which a service may have the port.
	yielding bool
}

// wanted gives what is wanted and its number, and what is closed when that is something else.
func (p *pagePort) wanted() (want *model.Page, number uint64, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.want, p.number, p.changed
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
		want, _, _ := d.page.wanted()
		return want
	}
	return l.Page
}

// set has the page be another one.
func (p *pagePort) set(next *model.Page) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// Also where it is the same: a password in a file may be another one.
	p.want = next
	p.number++
	p.tell()
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
	if p.now == nil {
		return nil
	}
	return p.now.ended
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
	// Who has it may be told in other words each time: his process comes, goes, or can't be seen.
	said := p.at == at && p.problem != ""
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
		p.problem = err.Error()
		if !said && ctx.Err() == nil {
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
	defer func() { p.end(p.now) }()
	var shown uint64
	for ctx.Err() == nil {
		want, number, changed := p.wanted()
		if number != shown || shown == 0 {
			d.showPage(want)
			shown = number
		}
		var again <-chan time.Time
		if !d.openPage(ctx) {
			again = time.After(pageAgain)
		}
		var ended <-chan struct{}
		if now := d.answerAtPage(ctx); now != nil {
			ended = now.ended
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-again:
		case <-ended:
			// It gave way, or the kernel has taken the socket.
			p.end(p.now)
		}
	}
	return nil
}

// showPage has the port's handler show what a configuration says.
func (d *Daemon) showPage(want *model.Page) {
	shown := d.shown(d.budget.page)
	shown.Actions = d.page.actions
	if want != nil {
		shown.MetricsPath = want.MetricsPath
	}
	handler := web.Handler(shown)
	d.page.handler.Store(&handler)
	d.setAccess(want)
}

// pageServer is the server at a listener.
type pageServer struct {
	listener *net.TCPListener
	stop     context.CancelFunc
	ended    chan struct{}
}

// answer answers at a listener until that is closed or it is stopped.
func (d *Daemon) answer(ctx context.Context, listener *net.TCPListener) *pageServer {
	ctx, stop := context.WithCancel(ctx)
	a := &pageServer{listener, stop, make(chan struct{})}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*d.page.handler.Load()).ServeHTTP(w, r) })
	var encryption *tls.Config
	if d.cfg.PageTLS != nil {
		encryption = d.cfg.PageTLS.config()
	}
	go func() {
		defer close(a.ended)
		defer stop()
		if err := web.Serve(ctx, d.guard(listener, "page", d.budget.page), handler, encryption, d.log); err != nil && !errors.Is(err, net.ErrClosed) {
			d.log.Warn("the page's port is opened anew", "error", err)
		}
	}()
	return a
}

// answerAtPage has somebody answer at the listener, if there is one, and nobody at another.
func (d *Daemon) answerAtPage(ctx context.Context) *pageServer {
	p := &d.page
	p.mu.Lock()
	before, listener := p.now, p.listener
	p.mu.Unlock()
	if before != nil && before.listener != listener {
		p.end(before)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == nil && p.listener != nil {
		p.now = d.answer(ctx, p.listener)
	}
	return p.now
}

// end waits until nobody answers at a listener any more, which is closed then.
func (p *pagePort) end(a *pageServer) {
	if a == nil {
		return
	}
	a.stop()
	<-a.ended
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = nil
	if p.listener == a.listener {
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
	return &api.Page{Listen: p.at, Metrics: p.want.MetricsPath, Node: p.want.Node, Problem: p.problem, Actions: p.want.Actions, Warning: p.actions.Warning()}
}

// setAccess says who may act on the page, by what a configuration says. What keeps everybody out is told and changes nothing else.
func (d *Daemon) setAccess(want *model.Page) {
	var access web.Access
	password := ""
	if want != nil && want.Actions {
		at, err := netip.ParseAddrPort(d.pageAddress(want))
		access = web.Access{On: true, User: want.User, Loopback: err == nil && at.Addr().IsLoopback()}
		if password, err = d.pagePassword(want); err != nil {
			access.Why = err.Error()
		}
	}
	p := &d.page
	p.actions.Set(access, password)
	warning := p.actions.Warning()
	if warning != "" && warning != p.warned {
		d.log.Warn(warning, "page", d.pageAddress(want))
	}
	p.warned = warning
}

// pagePassword is the password of who may act: a file's, the one that was said or the one that the plan names, or the inventory's.
func (d *Daemon) pagePassword(want *model.Page) (string, error) {
	file := d.cfg.HAProxyPassword
	if file == "" && want.Password != "" {
		return want.Password.Reveal(), nil
	}
	if file = cmp.Or(file, want.PasswordFile); file == "" {
		return "", errors.New("nothing says where the password is: --haproxy-password-file FILE")
	}
	password, err := FirstLine(file)
	if err == nil && password == "" {
		err = fmt.Errorf("%s: its first line is empty", file)
	}
	return password, err
}

// PageTLS is the certificate of the page's port. It is read again with each reload.
type PageTLS struct {
	certificate, key string
	current          atomic.Pointer[tls.Certificate]
}

// LoadPageTLS reads a certificate and its key.
func LoadPageTLS(certificate, key string) (*PageTLS, error) {
	p := &PageTLS{certificate: certificate, key: key}
	return p, p.renew()
}

func (p *PageTLS) renew() error {
	c, err := tls.LoadX509KeyPair(p.certificate, p.key)
	if err != nil {
		return fmt.Errorf("the certificate of the page: %w", err)
	}
	p.current.Store(&c)
	return nil
}

func (p *PageTLS) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.current.Load(), nil }}
}
