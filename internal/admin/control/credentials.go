package control

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pgporter/pgporter/internal/config/safetext"
)

// Files are where a node's credentials are kept.
type Files struct {
	// Token is what a request has to bring, Certificate and Key what the node shows, both PEM.
	Token, Certificate, Key string
	// ClientCA has the authorities (PEM) of certificates that do in the token's place; empty for none.
	ClientCA string
}

// Credentials are a node's, read from its Files; safe for concurrent use.
type Credentials struct {
	files   Files
	current atomic.Pointer[read]
}

type read struct {
	// digest is the token's SHA-256: comparing digests takes as long for any two tokens, whatever their lengths.
	digest      [sha256.Size]byte
	certificate tls.Certificate
	// clients are the authorities of clients' certificates; nil for none.
	clients *x509.CertPool
}

// LoadCredentials reads the files. Everything that is wrong with them is in the error.
func LoadCredentials(files Files) (*Credentials, error) {
	c := &Credentials{files: files}
	return c, c.Renew()
}

// Renew reads the files again, after a token or a certificate was replaced. If anything is wrong with them those read
// before stay.
func (c *Credentials) Renew() error {
	token, tokenErr := ReadToken(c.files.Token)
	certificate, certificateErr := readCertificate(c.files.Certificate, c.files.Key)
	var clients *x509.CertPool
	var clientsErr error
	if c.files.ClientCA != "" {
		clients, clientsErr = readAuthority(c.files.ClientCA)
	}
	if err := errors.Join(tokenErr, certificateErr, clientsErr); err != nil {
		return err
	}
	c.current.Store(&read{sha256.Sum256([]byte(token)), certificate, clients})
	return nil
}

// Expires is when the certificate does.
func (c *Credentials) Expires() time.Time { return c.current.Load().certificate.Leaf.NotAfter }

// admits says who a request comes from that has credentials, or why it has none.
func (c *Credentials) admits(r *http.Request) (who string, err error) {
	now := c.current.Load()
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		from = r.RemoteAddr
	}
	token, ok := tokenOf(r.Header.Get("Authorization"))
	digest := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(digest[:], now.digest[:]) == 1 && ok {
		return "token at " + from, nil
	}
	if now.clients == nil || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return "", errors.New("the token isn't this node's")
	}
	// The handshake has shown that the key is the client's. The certificate is judged here, with every request: by the authorities
	// of now, and with a refusal that says why.
	leaf := r.TLS.PeerCertificates[0]
	others := x509.NewCertPool()
	for _, one := range r.TLS.PeerCertificates[1:] {
		others.AddCert(one)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: now.clients, Intermediates: others, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return "", fmt.Errorf("the client's certificate isn't trusted here: %w", err)
	}
	return fmt.Sprintf("certificate %s at %s", safetext.Short(leaf.Subject.CommonName, 64), from), nil
}

func (c *Credentials) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// What a resumed session has shown was shown to the credentials of then.
		SessionTicketsDisabled: true,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now := c.current.Load()
			config := &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, Certificates: []tls.Certificate{now.certificate}}
			if now.clients != nil {
				config.ClientAuth, config.ClientCAs = tls.RequestClientCert, now.clients
			}
			return config, nil
		},
		// A server wants one to begin with.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c.current.Load().certificate, nil },
	}
}

// readAuthority reads certificates (PEM) whose signature is trusted.
func readAuthority(path string) (*x509.CertPool, error) {
	text, err := readBounded(path)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", path, plain(err))
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("authority %s: it has no certificate (PEM)", path)
	}
	return pool, nil
}

// leastToken is how many characters a token has at least; those that MakeCredentials makes have 64.
const leastToken = 32

// ReadToken reads a token: one word in a file that nobody but its owner can read.
func ReadToken(path string) (string, error) {
	text, err := readPrivate("token", path, 0o077, "chmod 600")
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if len(token) < leastToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", fmt.Errorf("token %s: one word of at least %d visible characters; `pgporter credentials` makes one", path, leastToken)
	}
	return token, nil
}

func readCertificate(path, keyPath string) (tls.Certificate, error) {
	certificate, err := readBounded(path)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate %s: %w", path, plain(err))
	}
	// A group may read it: some systems keep one for those who may use keys.
	key, err := readPrivate("key", keyPath, 0o007, "chmod o=")
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate %s with key %s: %w", path, keyPath, err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return tls.Certificate{}, fmt.Errorf("certificate %s: %w", path, err)
		}
	}
	return pair, nil
}

// readPrivate reads a file that none of those in the mask can do anything with, and that belongs to who may decide what is in it.
func readPrivate(what, path string, mask fs.FileMode, mend string) ([]byte, error) {
	text, err := readChecked(path, func(info fs.FileInfo) error {
		if info.Mode().Perm()&mask != 0 {
			return fmt.Errorf("others than its owner have access to it (mode %04o); %s it", info.Mode().Perm(), mend)
		}
		if owner, is := info.Sys().(*syscall.Stat_t); is && !trusted(int(owner.Uid), os.Geteuid()) {
			return fmt.Errorf("it belongs to the user with id %d, who can put in it what he likes; chown it to yourself or to root", owner.Uid)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, path, plain(err))
	}
	return text, nil
}

// trusted tells whether a user may rely on what is in another's file: his own, root's, and any for root, who chose to name it.
func trusted(owner, us int) bool { return owner == us || owner == 0 || us == 0 }

// readBounded reads a file that isn't a device, a pipe or by mistake something huge.
func readBounded(path string) ([]byte, error) {
	return readChecked(path, func(fs.FileInfo) error { return nil })
}

// readChecked reads a file that is found right once it is open, so that it can't become another one in between.
func readChecked(path string, check func(fs.FileInfo) error) ([]byte, error) {
	const most = 1 << 20
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("isn't a file")
	}
	if err := check(info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(text) > most {
		err = errors.New("is too large")
	}
	return text, err
}

// plain takes the path out of an error whose text names it already.
func plain(err error) error {
	if failed := (*fs.PathError)(nil); errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

// ReadPrivate reads a file of secrets that nobody but its owner can do anything with; what says what it holds.
func ReadPrivate(what, path string) ([]byte, error) {
	return readPrivate(what, path, 0o077, "chmod 600")
}
