package patroni

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// SystemCA as a TLS.CAFile means the authorities that the machine trusts.
const SystemCA = "@system-ca"

// TLS is how a Client speaks TLS to an API where more is known than the Client's Options say. It is comparable. The zero TLS
// says nothing more.
type TLS struct {
	// CAFile replaces Options.CAFile. It is a PEM file, a directory of such files (.pem, .crt, .cer), or SystemCA.
	CAFile string
	// NoVerify takes any certificate.
	NoVerify bool
	// CertFile is a PEM file with a certificate to show when asked, and its key: there, or in the file of this name and .key.
	CertFile string
	// SNI is the name to ask for instead of the host's. It has to be in the server's certificate, or VerifyHost where it is
	// empty. With neither the certificate's names are compared as Options.CAFile says.
	SNI, VerifyHost string
}

// Check reads the files and says what is wrong with them. They are read again at each handshake.
func (t TLS) Check() error {
	var problems []error
	if t.CAFile != "" {
		_, err := authorities(t.CAFile)
		problems = append(problems, err)
	}
	if t.CertFile != "" {
		_, err := t.certificate()
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// Config is for a connection to host that has nothing to do with a Client: authorities are those of t alone. With neither SNI
// nor VerifyHost the certificate's names aren't compared.
func (t TLS) Config(host string) *tls.Config { return t.config("", host) }

// config is for a connection to host, with the authorities of defaultCA where t names none.
func (t TLS) config(defaultCA, host string) *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: host,
		// Verification is verify's: the roots are read afresh, and whether a name counts depends on them.
		InsecureSkipVerify: true,
	}
	if t.SNI != "" {
		cfg.ServerName = t.SNI
	}
	if t.CAFile == "" {
		t.CAFile = defaultCA
	}
	if !t.NoVerify {
		cfg.VerifyConnection = func(s tls.ConnectionState) error { return t.verify(s, host) }
	}
	if t.CertFile != "" {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return t.certificate() }
	}
	return cfg
}

// certificate reads the one to show.
func (t TLS) certificate() (*tls.Certificate, error) {
	text, err := os.ReadFile(t.CertFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	key, keyFile := text, t.CertFile
	if !strings.Contains(string(text), "PRIVATE KEY-----") {
		keyFile += ".key"
		if key, err = os.ReadFile(keyFile); err != nil {
			return nil, fmt.Errorf("client certificate %s has no key in it: %w", t.CertFile, err)
		}
	}
	pair, err := tls.X509KeyPair(text, key)
	if err != nil {
		return nil, fmt.Errorf("client certificate %s with the key in %s: %w", t.CertFile, keyFile, err)
	}
	return &pair, nil
}

// verify checks a server's certificate against the private authorities of CAFile. host is whom the connection is for: an
// address of IP isn't in the state of a connection.
func (t TLS) verify(s tls.ConnectionState, host string) error {
	want := x509.VerifyOptions{Intermediates: x509.NewCertPool(), CurrentTime: time.Now()}
	file := t.CAFile
	if file == "" {
		file = DefaultCAFile
	}
	switch roots, err := authorities(file); {
	case err == nil:
		want.Roots = roots
	case t.CAFile != "" || !errors.Is(err, fs.ErrNotExist):
		return err
	}
	switch {
	case t.SNI != "":
		want.DNSName = t.SNI
	case t.VerifyHost != "":
		want.DNSName = t.VerifyHost
	case want.Roots == nil:
		want.DNSName = host
	}
	if len(s.PeerCertificates) == 0 {
		return errors.New("the server sent no certificate")
	}
	for _, intermediate := range s.PeerCertificates[1:] {
		want.Intermediates.AddCert(intermediate)
	}
	_, err := s.PeerCertificates[0].Verify(want)
	return err
}

// authorities reads a file or a directory of them; nil is for the machine's.
func authorities(name string) (*x509.CertPool, error) {
	if name == SystemCA {
		return nil, nil
	}
	files := []string{name}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		entries, err := os.ReadDir(name)
		if err != nil {
			return nil, fmt.Errorf("CA directory: %w", err)
		}
		files = nil
		for _, e := range entries {
			if slices.Contains([]string{".pem", ".crt", ".cer"}, filepath.Ext(e.Name())) && !strings.HasPrefix(e.Name(), ".") {
				files = append(files, filepath.Join(name, e.Name()))
			}
		}
	}
	roots, some := x509.NewCertPool(), false
	for _, file := range files {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		some = roots.AppendCertsFromPEM(pem) || some
	}
	if !some {
		return nil, fmt.Errorf("CA file %s holds no certificate", name)
	}
	return roots, nil
}
