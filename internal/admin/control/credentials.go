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
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// Files are where a node's credentials are kept.
type Files struct {
	// Token is what a request has to bring, Certificate and Key what the node shows, both PEM.
	Token, Certificate, Key string
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
	certificate, certificateErr := readCertificate(c.files)
	if err := errors.Join(tokenErr, certificateErr); err != nil {
		return err
	}
	c.current.Store(&read{sha256.Sum256([]byte(token)), certificate})
	return nil
}

// Expires is when the certificate does.
func (c *Credentials) Expires() time.Time { return c.current.Load().certificate.Leaf.NotAfter }

// admits says whether an Authorization header holds the token.
func (c *Credentials) admits(header string) bool {
	token, ok := tokenOf(header)
	digest := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(digest[:], c.current.Load().digest[:]) == 1 && ok
}

func (c *Credentials) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c.current.Load().certificate, nil },
	}
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

func readCertificate(files Files) (tls.Certificate, error) {
	certificate, err := readBounded(files.Certificate)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate %s: %w", files.Certificate, plain(err))
	}
	// A group may read it: some systems keep one for those who may use keys.
	key, err := readPrivate("key", files.Key, 0o007, "chmod o=")
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate %s with key %s: %w", files.Certificate, files.Key, err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return tls.Certificate{}, fmt.Errorf("certificate %s: %w", files.Certificate, err)
		}
	}
	return pair, nil
}

// readPrivate reads a file that none of those in the mask can do anything with.
func readPrivate(what, path string, mask fs.FileMode, mend string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&mask != 0 {
		return nil, fmt.Errorf("%s %s: others than its owner have access to it (mode %04o); %s it", what, path, info.Mode().Perm(), mend)
	}
	var text []byte
	if err == nil {
		text, err = readBounded(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, path, plain(err))
	}
	return text, nil
}

// readBounded reads a file that isn't a device, a pipe or by mistake something huge.
func readBounded(path string) ([]byte, error) {
	const most = 1 << 20
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("isn't a file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
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
