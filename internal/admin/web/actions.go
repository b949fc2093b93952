package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/access/gate"
	"github.com/pgporter/pgporter/internal/admin/api"
)

// Actions have somebody who has logged in order servers in and out of service: drain, maintenance, ready, weight, and nothing else. They
// are taken over TLS or from this machine alone.
type Actions struct {
	order func(context.Context, api.Order) ([]api.OrderResult, error)
	log   *slog.Logger
	now   func() time.Time

	logins logins
	mu     sync.Mutex
	set    Access
	secret secret
	// told is when a failed login was logged last, untold how many weren't since.
	told   time.Time
	untold int
}

// Access is who may act, and where.
type Access struct {
	// On says that there are actions at all.
	On bool
	// User logs in; Why is what keeps everybody out: no password, say. It is empty where nothing does.
	User string
	Why  string
	// WellKnown says that everybody knows the password, Loopback that the address is one of this machine's own network.
	WellKnown, Loopback bool
}

// NewActions makes Actions that nobody may take yet.
func NewActions(order func(context.Context, api.Order) ([]api.OrderResult, error), log *slog.Logger) *Actions {
	return &Actions{order: order, log: log, now: time.Now}
}

// Set says who may act from now on. Who was let in with another name or another password has to log in again.
func (a *Actions) Set(set Access, password string) {
	a.mu.Lock()
	before, had := a.set, a.secret
	a.mu.Unlock()
	set.WellKnown = set.On && set.Why == "" && IsWellKnown(set.User, password)
	next := had
	if !set.On || set.Why != "" {
		next = secret{}
	} else if had.sum == nil || !had.is(password) {
		var err error
		if next, err = newSecret(password); err != nil {
			set.Why = "the password can't be hashed: " + err.Error()
		}
	}
	a.mu.Lock()
	a.set, a.secret = set, next
	a.mu.Unlock()
	if set.User != before.User || string(next.sum) != string(had.sum) {
		a.logins.end(session{})
	}
}

// Warning says what is wrong with who may act; empty if nothing is.
func (a *Actions) Warning() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.set.On && a.set.Why != "":
		return "nobody can act on the page: " + a.set.Why
	case a.set.WellKnown && !a.set.Loopback:
		return "haproxy_admin_password is one that everybody knows: nobody can act on the page until it is another one"
	}
	return ""
}

// routes adds the routes.
//
//	GET  session    whether actions are to be had, and whether somebody is logged in
//	POST login      {"user", "password"}
//	POST logout
//	POST order      api.Order, of which {"dry_run": true} changes nothing
func (a *Actions) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /session", func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, a.state(r)) })
	mux.HandleFunc("POST /login", a.login)
	mux.HandleFunc("POST /logout", a.withSession(func(w http.ResponseWriter, r *http.Request, s session) {
		a.logins.end(s)
		a.log.Info("logged out of the page", "user", s.user, "from", s.from.String())
		http.SetCookie(w, a.cookie(r, "", -1))
		answer(w, http.StatusOK, a.stateOf(r, session{}, false))
	}))
	mux.HandleFunc("POST /order", a.withSession(a.carryOut))
}

// state is what the page is told of actions.
type state struct {
	// Actions says that somebody may act who logs in; Why why not.
	Actions bool   `json:"actions"`
	Why     string `json:"why,omitempty"`
	// User is who is logged in, CSRF what his requests bring.
	User string `json:"user,omitempty"`
	CSRF string `json:"csrf,omitempty"`
}

func (a *Actions) state(r *http.Request) state {
	s, is := a.session(r)
	return a.stateOf(r, s, is)
}

func (a *Actions) stateOf(r *http.Request, s session, is bool) state {
	if why := a.refused(r); why != "" {
		return state{Why: why}
	}
	shown := state{Actions: true}
	if is {
		shown.User, shown.CSRF = s.user, s.csrf
	}
	return shown
}

// refused says why a request can't act, whoever sent it; empty if it may.
func (a *Actions) refused(r *http.Request) string {
	a.mu.Lock()
	set := a.set
	a.mu.Unlock()
	switch {
	case !set.On:
		return "this page only shows: pgporter_page_actions (page_actions in a pgporter.yml) lets admin act on it, and pgporter drain, maint, ready and weight do the same"
	case set.Why != "":
		return set.Why
	case set.WellKnown && !set.Loopback:
		return "haproxy_admin_password is one that everybody knows: nobody acts with it but on a loopback address"
	case r.TLS == nil && !isLocal(r):
		return "this page can be acted on over TLS (run --page-tls-cert) or from the node itself, and this connection is neither"
	}
	return ""
}

// isLocal says whether a request comes from this machine, and not for somebody else.
func isLocal(r *http.Request) bool {
	for _, of := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(of) != "" {
			return false
		}
	}
	return remote(r).IsLoopback()
}

// remote is the address that a request comes from.
func remote(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap()
}

// ownPage says whether a request was sent by the page itself: browsers say where a request comes from that a script or a form sends.
func ownPage(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}

// cookieName binds the cookie to this host and to TLS where there is TLS.
func cookieName(r *http.Request) string {
	if r.TLS != nil {
		return "__Host-pgporter"
	}
	return "pgporter"
}

func (a *Actions) cookie(r *http.Request, identity string, age int) *http.Cookie {
	return &http.Cookie{Name: cookieName(r), Value: identity, Path: "/", MaxAge: age, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil}
}

func (a *Actions) session(r *http.Request) (session, bool) {
	c, err := r.Cookie(cookieName(r))
	if err != nil {
		return session{}, false
	}
	return a.logins.find(c.Value, remote(r), r.TLS != nil, a.now())
}

// mostBody is how many bytes a request of an action has.
const mostBody = 8 << 10

// read reads a request's body strictly.
func read(w http.ResponseWriter, r *http.Request, into any) error {
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(kind) != "application/json" {
		return errors.New("Content-Type: application/json")
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, mostBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("the request's JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the request's JSON is followed by something")
	}
	return nil
}

func answer(w http.ResponseWriter, code int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		code, text = http.StatusInternalServerError, []byte(`{"error":"the answer can't be written"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write(text)
}

func refuse(w http.ResponseWriter, code int, why string) {
	answer(w, code, map[string]string{"error": why})
}

func (a *Actions) login(w http.ResponseWriter, r *http.Request) {
	var said struct {
		User     string `json:"user"`
		Password string `json:"password"`
	}
	switch why := a.refused(r); {
	case why != "":
		refuse(w, http.StatusForbidden, why)
		return
	case !ownPage(r):
		refuse(w, http.StatusForbidden, "this comes from another page")
		return
	}
	if err := read(w, r, &said); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	from, now := remote(r), a.now()
	if wait := a.logins.may(from, now); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)))
		a.tellFailure(from, "too many tries")
		refuse(w, http.StatusTooManyRequests, fmt.Sprintf("too many tries: again in %s", wait))
		return
	}
	a.mu.Lock()
	set, secret := a.set, a.secret
	a.mu.Unlock()
	if len(said.User) > longest || len(said.Password) > longest || !a.logins.check(said.User, said.Password, set.User, secret) {
		a.tellFailure(from, errWrong.Error())
		refuse(w, http.StatusUnauthorized, errWrong.Error())
		return
	}
	identity, s := a.logins.begin(set.User, from, r.TLS != nil, a.now())
	gate.Know(r)
	a.log.Info("logged in to the page", "user", s.user, "from", from.String())
	http.SetCookie(w, a.cookie(r, identity, int(sessionLife/time.Second)))
	answer(w, http.StatusOK, a.stateOf(r, s, true))
}

// tellFailure logs a login in vain, in ten lines a minute at most.
func (a *Actions) tellFailure(from netip.Addr, why string) {
	now := a.now()
	a.mu.Lock()
	a.untold++
	n := a.untold
	say := now.Sub(a.told) >= 6*time.Second
	if say {
		a.told, a.untold = now, 0
	}
	a.mu.Unlock()
	if say {
		a.log.Warn("a login to the page failed", "from", from.String(), "why", why, "since_last_line", n)
	}
}

// withSession lets in who is logged in and whose request the page itself has sent.
func (a *Actions) withSession(next func(http.ResponseWriter, *http.Request, session)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if why := a.refused(r); why != "" {
			refuse(w, http.StatusForbidden, why)
			return
		}
		s, is := a.session(r)
		switch {
		case !is:
			refuse(w, http.StatusUnauthorized, "nobody is logged in")
		case !ownPage(r) || !sameText(r.Header.Get("X-CSRF-Token"), s.csrf):
			refuse(w, http.StatusForbidden, "this comes from another page")
		default:
			gate.Know(r)
			next(w, r, s)
		}
	}
}

// pageOrder is what the page may order.
type pageOrder struct {
	Cluster        string          `json:"cluster"`
	Service        string          `json:"service"`
	Member         string          `json:"member"`
	State          api.ServerState `json:"state"`
	Weight         *int            `json:"weight"`
	DeclaredWeight bool            `json:"declared_weight"`
	DryRun         bool            `json:"dry_run"`
}

// orderTime bounds how long an order may take: a HAProxy that is told may hang.
const orderTime = 10 * time.Second

func (a *Actions) carryOut(w http.ResponseWriter, r *http.Request, s session) {
	var o pageOrder
	if err := read(w, r, &o); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	order := api.Order{Cluster: o.Cluster, Service: o.Service, Member: o.Member, State: o.State, Weight: o.Weight, DeclaredWeight: o.DeclaredWeight, DryRun: o.DryRun,
		By: fmt.Sprintf("%s at %s (page)", s.user, s.from)}
	ctx, cancel := context.WithTimeout(r.Context(), orderTime)
	defer cancel()
	results, err := a.order(ctx, order)
	if !o.DryRun {
		about := []any{"by", order.By, "cluster", o.Cluster, "service", o.Service, "member", o.Member, "state", o.State}
		if o.Weight != nil {
			about = append(about, "weight", *o.Weight)
		}
		if o.DeclaredWeight {
			about = append(about, "weight", "declared")
		}
		if err != nil {
			a.log.Warn("an order from the page was refused", append(about, "why", err.Error())...)
		} else {
			a.log.Info("an order from the page was carried out", about...)
		}
	}
	if err != nil {
		refuse(w, http.StatusConflict, err.Error())
		return
	}
	answer(w, http.StatusOK, map[string][]api.OrderResult{"results": results})
}
