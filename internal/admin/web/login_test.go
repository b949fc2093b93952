package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pgporter/pgporter/internal/admin/api"
)

func init() { hashRounds = 1000 }

// desk is an address at which somebody may act, with a clock.
type desk struct {
	t       *testing.T
	world   *fakeWorld
	actions *Actions
	handler http.Handler
	now     time.Time
	log     strings.Builder
}

func newDesk(t *testing.T, access Access, password string) *desk {
	d := &desk{t: t, world: newWorld(1), now: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}
	d.actions = NewActions(d.world.order, slog.New(slog.NewTextHandler(&d.log, nil)))
	d.actions.now = func() time.Time { return d.now }
	d.actions.Set(access, password)
	d.handler = Handler(Config{Status: d.world.Status, Problems: none, Names: none, Feed: NewFeed(d.world.Status, d.world), Streams: 4, Actions: d.actions, Events: d.world.Events})
	return d
}

// send sends a request as the page does, from somewhere; edit makes it another one.
func (d *desk) send(method, path, from string, body any, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	d.t.Helper()
	var text io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			d.t.Fatal(err)
		}
		text = strings.NewReader(string(b))
	}
	r := httptest.NewRequest(method, path, text)
	r.Host, r.RemoteAddr = "127.0.0.1:9101", from+":40000"
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Origin", "http://127.0.0.1:9101")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for _, e := range edit {
		e(r)
	}
	w := httptest.NewRecorder()
	d.handler.ServeHTTP(w, r)
	return w
}

type credentials struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// enter logs in, and gives what later requests bring.
func (d *desk) enter(from string, edit ...func(*http.Request)) func(*http.Request) {
	d.t.Helper()
	w := d.send("POST", "/login", from, credentials{"admin", "right horse"}, edit...)
	if w.Code != 200 {
		d.t.Fatalf("the login: %d %s", w.Code, w.Body)
	}
	var s state
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
		d.t.Fatal(err)
	}
	cookie := w.Result().Cookies()[0]
	return func(r *http.Request) {
		r.AddCookie(&http.Cookie{Name: cookie.Name, Value: cookie.Value})
		r.Header.Set("X-CSRF-Token", s.CSRF)
		for _, e := range edit {
			e(r)
		}
	}
}

func overTLS(r *http.Request) {
	tls := httptest.NewRequest("GET", "https://x/", nil)
	r.TLS = tls.TLS
	r.Header.Set("Origin", "https://127.0.0.1:9101")
}

var local = Access{On: true, User: "admin", Loopback: true}

// The page says who may act, and what an order does before it is given; who ordered it is said by the server.
func TestOrdersOfThePage(t *testing.T) {
	d := newDesk(t, local, "right horse")
	session := d.enter("127.0.0.1")
	drain := map[string]any{"cluster": "pg-test", "service": "pg-test-replica", "member": "pg-test-2", "state": "drain", "dry_run": true}
	w := d.send("POST", "/order", "127.0.0.1", drain, session)
	if w.Code != 200 || !strings.Contains(w.Body.String(), "takes no new clients") || len(d.world.orders) != 0 {
		t.Fatalf("tried: %d %s, %v", w.Code, w.Body, d.world.orders)
	}
	drain["dry_run"] = false
	if w = d.send("POST", "/haproxy/pg-test-1/order", "127.0.0.1", drain, session); w.Code != 200 || d.world.orders["pg-test-replica/pg-test-2"].By != "admin at 127.0.0.1 (page)" {
		t.Fatalf("ordered: %d %s, %v", w.Code, w.Body, d.world.orders)
	}
	if log := d.log.String(); !strings.Contains(log, `msg="an order from the page was carried out" by="admin at 127.0.0.1 (page)" cluster=pg-test service=pg-test-replica member=pg-test-2 state=drain`) {
		t.Errorf("the log: %s", log)
	}
	drain["by"] = "root"
	if w = d.send("POST", "/order", "127.0.0.1", drain, session); w.Code != 400 {
		t.Errorf("with a name of its own: %d %s", w.Code, w.Body)
	}
	delete(drain, "by")
	d.world.refuse = errors.New("there is no such server")
	if w = d.send("POST", "/order", "127.0.0.1", drain, session); w.Code != 409 || !strings.Contains(w.Body.String(), "there is no such server") {
		t.Errorf("refused: %d %s", w.Code, w.Body)
	}
	if w = d.send("POST", "/logout", "127.0.0.1", map[string]any{}, session); w.Code != 200 {
		t.Errorf("the logout: %d %s", w.Code, w.Body)
	}
	if w = d.send("POST", "/order", "127.0.0.1", drain, session); w.Code != 401 {
		t.Errorf("after the logout: %d %s", w.Code, w.Body)
	}
}

// Whoever lacks anything of what it takes changes nothing.
func TestAttackOnActions(t *testing.T) {
	const order = `{"cluster":"pg-test","member":"pg-test-1","state":"maint"}`
	off := newDesk(t, Access{}, "")
	known := newDesk(t, Access{On: true, User: "admin"}, "pigsty")
	if w := known.actions.Warning(); !strings.Contains(w, "everybody knows") {
		t.Errorf("no warning of a password that everybody knows: %q", w)
	}
	if w := newDesk(t, local, "pigsty").actions.Warning(); w != "" {
		t.Errorf("on a loopback address: %q", w)
	}
	d := newDesk(t, Access{On: true, User: "admin"}, "right horse")
	session := d.enter("127.0.0.1")
	without := func(header string) func(*http.Request) {
		return func(r *http.Request) { session(r); r.Header.Del(header) }
	}
	with := func(header, value string) func(*http.Request) {
		return func(r *http.Request) { session(r); r.Header.Set(header, value) }
	}
	for name, test := range map[string]struct {
		desk *desk
		path string
		from string
		edit func(*http.Request)
		code int
		want string
	}{
		"where there are no actions":          {off, "/order", "127.0.0.1", session, 403, "this page only shows"},
		"a login where there are none":        {off, "/login", "127.0.0.1", nil, 403, "this page only shows"},
		"admin and pigsty from another host":  {known, "/login", "10.0.0.7", nil, 403, "everybody knows"},
		"admin and pigsty over TLS":           {known, "/login", "10.0.0.7", overTLS, 403, "everybody knows"},
		"a login from elsewhere without TLS":  {d, "/login", "10.0.0.7", nil, 403, "over TLS"},
		"an order from elsewhere without TLS": {d, "/order", "10.0.0.7", session, 403, "over TLS"},
		"through a proxy on this machine":     {d, "/order", "127.0.0.1", with("X-Forwarded-For", "10.0.0.7"), 403, "over TLS"},
		"without a session":                   {d, "/order", "127.0.0.1", nil, 401, "nobody is logged in"},
		"with a session from elsewhere":       {d, "/order", "10.0.0.7", func(r *http.Request) { session(r); overTLS(r) }, 401, "nobody is logged in"},
		"with the cookie alone":               {d, "/order", "127.0.0.1", without("X-CSRF-Token"), 403, "another page"},
		"with another token":                  {d, "/order", "127.0.0.1", with("X-CSRF-Token", "x"), 403, "another page"},
		"from another site":                   {d, "/order", "127.0.0.1", with("Origin", "http://attacker.example"), 403, "another page"},
		"from another port":                   {d, "/order", "127.0.0.1", with("Origin", "http://127.0.0.1:3000"), 403, "another page"},
		"from a sandboxed frame":              {d, "/order", "127.0.0.1", with("Origin", "null"), 403, "another page"},
		"from a site beside":                  {d, "/order", "127.0.0.1", with("Sec-Fetch-Site", "same-site"), 403, "another page"},
		"as a form":                           {d, "/order", "127.0.0.1", with("Content-Type", "text/plain"), 400, "application/json"},
		"a login from another site":           {d, "/login", "127.0.0.1", with("Origin", "http://attacker.example"), 403, "another page"},
		"HAProxy's form":                      {d, "/", "127.0.0.1", func(r *http.Request) { session(r); r.SetBasicAuth("admin", "right horse") }, 403, "takes no form"},
		"HAProxy's form below a name":         {d, "/haproxy/n1/", "127.0.0.1", session, 403, "takes no form"},
	} {
		t.Run(name, func(t *testing.T) {
			var edits []func(*http.Request)
			if test.edit != nil {
				edits = append(edits, test.edit)
			}
			body := json.RawMessage(order)
			if test.path == "/login" {
				body = json.RawMessage(`{"user":"admin","password":"pigsty"}`)
			}
			w := test.desk.send("POST", test.path, test.from, body, edits...)
			if w.Code != test.code || !strings.Contains(w.Body.String(), test.want) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if len(test.desk.world.given) != 0 {
				t.Errorf("it was ordered: %+v", test.desk.world.given)
			}
		})
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE"} {
		if w := d.send(method, "/order", "127.0.0.1", nil, session); w.Code != 405 {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	if w := d.send("POST", "/order", "127.0.0.1", map[string]string{"member": strings.Repeat("x", 2*mostBody)}, session); w.Code != 400 {
		t.Errorf("a body that is too long: %d %s", w.Code, w.Body)
	}
}

// The cookie is for this host, for this page's own requests, for no script, and over TLS for TLS.
func TestCookie(t *testing.T) {
	d := newDesk(t, local, "right horse")
	for name, test := range map[string]struct {
		edit func(*http.Request)
		want string
	}{
		"plain": {func(*http.Request) {}, "pgporter=; Path=/; Max-Age=7200; HttpOnly; SameSite=Strict"},
		"TLS":   {overTLS, "__Host-pgporter=; Path=/; Max-Age=7200; HttpOnly; Secure; SameSite=Strict"},
	} {
		w := d.send("POST", "/login", "127.0.0.1", credentials{"admin", "right horse"}, test.edit)
		c := w.Result().Cookies()[0]
		if len(c.Value) != 43 {
			t.Errorf("%s: the cookie is %q", name, c.Value)
		}
		if got := strings.Replace(w.Header().Get("Set-Cookie"), c.Value, "", 1); got != test.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// A session ends by itself, when it isn't used and in the end in any case, with another password, and as the oldest of too many.
func TestSessionsEnd(t *testing.T) {
	d := newDesk(t, local, "right horse")
	who := func(session func(*http.Request)) string {
		var s state
		if err := json.Unmarshal(d.send("GET", "/session", "127.0.0.1", nil, session).Body.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		return s.User
	}
	session := d.enter("127.0.0.1")
	for range 7 {
		d.now = d.now.Add(sessionIdle - time.Minute)
		if who(session) != "admin" {
			t.Fatal("it ended though it was used")
		}
	}
	d.now = d.now.Add(sessionLife)
	if who(session) != "" {
		t.Error("it lasts")
	}
	session = d.enter("127.0.0.1")
	d.now = d.now.Add(sessionIdle + time.Second)
	if who(session) != "" {
		t.Error("it lasts without being used")
	}
	session = d.enter("127.0.0.1")
	d.actions.Set(local, "right horse")
	if who(session) != "admin" {
		t.Error("it ended though nothing has changed")
	}
	d.actions.Set(local, "another")
	if who(session) != "" {
		t.Error("it lasts with another password")
	}
	d.actions.Set(local, "right horse")
	session = d.enter("127.0.0.1")
	for range mostSessions {
		d.actions.logins.begin("admin", netip.MustParseAddr("127.0.0.1"), false, d.now)
	}
	if who(session) != "" || len(d.actions.logins.sessions) != mostSessions {
		t.Errorf("there are %d", len(d.actions.logins.sessions))
	}
}

// Passwords can't be tried quickly, from one source or from many, and who does that keeps out nobody who has been here or is on the machine.
func TestAttackOnPasswords(t *testing.T) {
	d := newDesk(t, Access{On: true, User: "admin"}, "right horse")
	try := func(from, password string) *httptest.ResponseRecorder {
		return d.send("POST", "/login", from, credentials{"admin", password}, overTLS)
	}
	if w := try("10.0.0.9", "right horse"); w.Code != 200 {
		t.Fatalf("the right one: %d %s", w.Code, w.Body)
	}
	codes := map[int]int{}
	for range 50 {
		codes[try("10.0.0.7", "wrong").Code]++
	}
	if codes[401] != sourceTries || codes[429] != 50-sourceTries {
		t.Errorf("from one source: %v", codes)
	}
	if w := try("10.0.0.7", "right horse"); w.Code != 429 || w.Header().Get("Retry-After") != "15" {
		t.Errorf("the right one after that: %d %s", w.Code, w.Header())
	}
	d.now = d.now.Add(sourceAgain)
	if w := try("10.0.0.7", "right horse"); w.Code != 200 {
		t.Errorf("the right one in time: %d %s", w.Code, w.Body)
	}
	// From as many sources as one likes: of a /64 all are one.
	clear(codes)
	for i := range 300 {
		codes[try(fmt.Sprintf("[2001:db8::%x]", i+1), "wrong").Code]++
	}
	if codes[401] != sourceTries {
		t.Errorf("from one network: %v", codes)
	}
	clear(codes)
	for i := range 200 {
		codes[try(fmt.Sprintf("10.1.%d.1", i), "wrong").Code]++
	}
	if codes[401] > allTries || codes[401] < allTries/2 {
		t.Errorf("from many sources: %v", codes)
	}
	for _, from := range []string{"10.0.0.9", "127.0.0.1"} {
		if w := try(from, "right horse"); w.Code != 200 {
			t.Errorf("%s is kept out: %d %s", from, w.Code, w.Body)
		}
	}
	if w := try("10.0.0.10", "right horse"); w.Code != 429 {
		t.Errorf("somebody new: %d", w.Code)
	}
	d.now = d.now.Add(allAgain)
	if w := try("10.0.0.10", "right horse"); w.Code != 200 {
		t.Errorf("somebody new in time: %d %s", w.Code, w.Body)
	}
	// What is remembered of sources has a bound.
	for i := range 2 * mostSources {
		d.actions.logins.may(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), d.now)
	}
	if n := len(d.actions.logins.sources); n > mostSources {
		t.Errorf("%d sources are remembered", n)
	}
	log := d.log.String()
	if n := strings.Count(log, "a login to the page failed"); n == 0 || n > 10 || strings.Contains(log, "wrong\n") || strings.Contains(log, "right horse") {
		t.Errorf("%d lines of the log:\n%.3000s", n, log)
	}
	for _, long := range []credentials{{strings.Repeat("a", longest+1), "x"}, {"admin", strings.Repeat("a", longest+1)}} {
		d.now = d.now.Add(time.Hour)
		if w := d.send("POST", "/login", "10.9.9.9", long, overTLS); w.Code != 401 {
			t.Errorf("a long one: %d %s", w.Code, w.Body)
		}
	}
}

func TestWellKnownPasswords(t *testing.T) {
	for password, want := range map[string]bool{"pigsty": true, "Pigsty": true, "admin": true, "": true, "DBUser.DBA": true, "dba_boss": true, "correct horse battery staple": false} {
		if got := IsWellKnown("dba_boss", password); got != want {
			t.Errorf("%q: %v", password, got)
		}
	}
}

// Without a password there are no actions, and the page says so.
func TestActionsWithoutPassword(t *testing.T) {
	d := newDesk(t, Access{On: true, User: "admin", Why: "/etc/pgporter/haproxy.password: no such file"}, "")
	if w := d.send("POST", "/login", "127.0.0.1", credentials{"admin", ""}); w.Code != 403 || !strings.Contains(w.Body.String(), "no such file") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if !strings.Contains(d.actions.Warning(), "no such file") {
		t.Error(d.actions.Warning())
	}
}

// What the status has of whoever ordered is text.
func TestOrderIsTold(t *testing.T) {
	d := newDesk(t, local, "right horse")
	session := d.enter("127.0.0.1")
	if w := d.send("POST", "/order", "127.0.0.1", map[string]any{"cluster": "pg-test", "member": "pg-test-3", "state": api.Maintenance}, session); w.Code != 200 {
		t.Fatal(w.Body)
	}
	w := d.send("GET", "/plain", "127.0.0.1", nil)
	if body := w.Body.String(); !strings.Contains(body, "<td>maintenance<td>") || !strings.Contains(body, "ordered by admin at 127.0.0.1 (page)") {
		t.Errorf("%s", body)
	}
}
