package web

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pgporter/pgporter/internal/access/gate"
)

// Times and bounds of logins.
const (
	// sessionIdle is how long a session may be unused, sessionLife how long it lasts at most; mostSessions is how many there are.
	sessionIdle  = 15 * time.Minute
	sessionLife  = 2 * time.Hour
	mostSessions = 64

	// A source may be wrong sourceTries times in a row, and once more each sourceAgain; all of them together allTries and allAgain. Those
	// limits together say how many passwords can be tried: 43,000 in a day.
	sourceTries = 5
	sourceAgain = 15 * time.Second
	allTries    = 30
	allAgain    = 2 * time.Second
	// mostSources are remembered.
	mostSources = 4096

	// longest is how many bytes a name or a password has at most.
	longest = 1024
)

// hashRounds are those of PBKDF2 with SHA-256, as OWASP wants them: a fifth of a second of a processor. Tests, which log in hundreds of
// times, have fewer.
var hashRounds = 600_000

// secret is a password of which only a hash is kept. Its salt is new with each process: it is never stored.
type secret struct{ salt, sum []byte }

func newSecret(password string) (secret, error) {
	s := secret{salt: make([]byte, 16)}
	rand.Read(s.salt)
	var err error
	s.sum, err = s.hash(password)
	return s, err
}

func (s secret) hash(password string) ([]byte, error) {
	return pbkdf2.Key(sha256.New, password, s.salt, hashRounds, sha256.Size)
}

// is compares in constant time.
func (s secret) is(password string) bool {
	sum, err := s.hash(password)
	return err == nil && subtle.ConstantTimeCompare(sum, s.sum) == 1
}

// wellKnown are passwords that stand in documents and in lists of those that are tried first.
var wellKnown = []string{
	"pigsty", "admin", "haproxy", "pgporter", "password", "passwd", "postgres", "postgresql", "patroni", "pgbouncer", "root", "secret", "changeme", "change-me", "default",
	"test", "guest", "letmein", "welcome", "qwerty", "123456", "12345678", "123456789", "1234567890", "12345", "1234", "111111", "000000", "abc123", "admin123", "password1",
	"dbuser.dba", "dbuser.monitor", "dbuser.replicator", "patroni.api", "grafana", "minioadmin", "s3user.backup",
}

// IsWellKnown says whether everybody knows a password.
func IsWellKnown(user, password string) bool {
	lower := strings.ToLower(password)
	return password == "" || strings.EqualFold(user, password) || slices.Contains(wellKnown, lower)
}

// session is of somebody who has logged in.
type session struct {
	user string
	// from is the address that he comes from: nobody else's cookie is taken.
	from netip.Addr
	// csrf is what each request has to bring besides the cookie, which a browser sends by itself.
	csrf         string
	began, used  time.Time
	overTLS      bool
	identityHash [sha256.Size]byte
}

// logins are the sessions, and who may try to begin one.
type logins struct {
	mu       sync.Mutex
	sessions []session
	sources  map[netip.Prefix]*tries
	all      tries
	// known are sources from which somebody has logged in: what others do never keeps them out.
	known map[netip.Prefix]bool
	// hashing is held while a password is hashed: there is one at a time.
	hashing sync.Mutex
}

// tries is a bucket of wrong passwords.
type tries struct {
	left float64
	at   time.Time
}

// fill gives back what time has brought.
func (t *tries) fill(now time.Time, most int, again time.Duration) {
	if t.at.IsZero() {
		t.left = float64(most)
	} else {
		t.left = min(float64(most), t.left+now.Sub(t.at).Seconds()/again.Seconds())
	}
	t.at = now
}

// may says whether a source may try now, and takes a try from it; otherwise, when it may.
func (l *logins) may(from netip.Addr, now time.Time) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sources == nil {
		l.sources = map[netip.Prefix]*tries{}
	}
	source := gate.Network(from)
	s := l.sources[source]
	if s == nil {
		if len(l.sources) >= mostSources {
			for name, other := range l.sources {
				if other.fill(now, sourceTries, sourceAgain); other.left >= sourceTries {
					delete(l.sources, name)
				}
			}
		}
		if len(l.sources) >= mostSources && !from.IsLoopback() {
			return sourceAgain
		}
		s = &tries{}
		l.sources[source] = s
	}
	s.fill(now, sourceTries, sourceAgain)
	l.all.fill(now, allTries, allAgain)
	if s.left < 1 {
		return wants(s.left, sourceAgain)
	}
	// What the whole world tries doesn't keep out who has been here before, nor who is on this machine.
	if l.all.left < 1 && !from.IsLoopback() && !l.known[source] {
		return wants(l.all.left, allAgain)
	}
	s.left--
	l.all.left = max(0, l.all.left-1)
	return 0
}

// wants is how long a bucket takes until it has one.
func wants(left float64, again time.Duration) time.Duration {
	return max(time.Second, time.Duration((1-left)*float64(again)).Round(time.Second))
}

// begin makes a session, and gives its identity.
func (l *logins) begin(user string, from netip.Addr, overTLS bool, now time.Time) (identity string, s session) {
	identity = random()
	s = session{user: user, from: from, csrf: random(), began: now, used: now, overTLS: overTLS, identityHash: sha256.Sum256([]byte(identity))}
	l.mu.Lock()
	defer l.mu.Unlock()
	source := gate.Network(from)
	// He was right: what he tried before doesn't count.
	delete(l.sources, source)
	if l.known == nil || len(l.known) >= mostSources {
		l.known = map[netip.Prefix]bool{}
	}
	l.known[source] = true
	l.sessions = slices.DeleteFunc(l.sessions, func(s session) bool { return s.over(now) })
	if len(l.sessions) >= mostSessions {
		l.sessions = l.sessions[1:]
	}
	l.sessions = append(l.sessions, s)
	return identity, s
}

func random() string {
	b := make([]byte, 32)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

func (s *session) over(now time.Time) bool {
	return now.Sub(s.used) > sessionIdle || now.Sub(s.began) > sessionLife
}

// find gives the session of an identity, which counts as used now.
func (l *logins) find(identity string, from netip.Addr, overTLS bool, now time.Time) (session, bool) {
	if identity == "" || len(identity) > longest {
		return session{}, false
	}
	hash := sha256.Sum256([]byte(identity))
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.sessions {
		s := &l.sessions[i]
		if hmac.Equal(s.identityHash[:], hash[:]) && s.from == from && s.overTLS == overTLS && !s.over(now) {
			s.used = now
			return *s, true
		}
	}
	return session{}, false
}

// end ends a session, or all of them if it has no identity.
func (l *logins) end(s session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions = slices.DeleteFunc(l.sessions, func(o session) bool { return s.user == "" || o.identityHash == s.identityHash })
}

// errWrong is what everybody hears who may not come in, whatever was wrong.
var errWrong = errors.New("the name or the password is wrong")

// check says whether somebody is who he says, in the same time whatever is wrong.
func (l *logins) check(user, password string, wantUser string, want secret) bool {
	l.hashing.Lock()
	defer l.hashing.Unlock()
	said, is := sha256.Sum256([]byte(user)), sha256.Sum256([]byte(wantUser))
	right := want.is(password)
	return subtle.ConstantTimeCompare(said[:], is[:]) == 1 && right
}
