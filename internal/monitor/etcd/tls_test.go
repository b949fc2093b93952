package etcd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// authority signs certificates for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// file is its own certificate.
	file string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, "ca")
	a.file = filepath.Join(a.dir, "ca.crt")
	return a
}

// sign makes a certificate, and NAME.crt and NAME.key of it.
func (a *authority) sign(template *x509.Certificate, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	fatal := func(err error) {
		if err != nil {
			a.t.Fatal(err)
		}
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(err)
	parent, parentKey := a.cert, a.key
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	fatal(err)
	cert, err := x509.ParseCertificate(der)
	fatal(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	fatal(err)
	fatal(os.WriteFile(filepath.Join(a.dir, name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	fatal(os.WriteFile(filepath.Join(a.dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return cert, key
}

// issue makes a certificate for an address, or one of a client, and gives its two files.
func (a *authority) issue(name, ip string) (cert, key string) {
	a.t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if ip != "" {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		template.IPAddresses = []net.IP{net.ParseIP(ip)}
	}
	a.sign(template, name)
	return filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key")
}

// TestTLS: an etcd that wants certificates of its clients. What doesn't fit is said in words, and a mended file is taken.
func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	serverCert, serverKey := ours.issue("server", host)
	clientCert, clientKey := ours.issue("client", "")
	otherCert, otherKey := theirs.issue("client", "")
	pair, err := tls.LoadX509KeyPair(clientCert, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ours.cert)
	e := startEtcd(t, "--cert-file="+serverCert, "--key-file="+serverKey, "--trusted-ca-file="+ours.file, "--client-cert-auth").
		connect(clientv3.Config{TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}})
	e.put("/pg/pg-test/leader", "pg-test-1")

	good := Config{Endpoints: []string{e.address}, CAFile: ours.file, CertFile: clientCert, KeyFile: clientKey}
	f := follow(t, good, unhurried)
	f.says("leader pg-test-1")
	e.put("/pg/pg-test/leader", "pg-test-2")
	f.says("leader pg-test-2")

	with := func(change func(*Config)) Config {
		c := good
		change(&c)
		return c
	}
	follow(t, with(func(c *Config) { c.CAFile = theirs.file }), unhurried).lost("signed by unknown authority")
	follow(t, with(func(c *Config) { c.CAFile = "" }), unhurried).lost("signed by unknown authority")
	// The server's reason may be lost with the connection.
	follow(t, with(func(c *Config) { c.CertFile, c.KeyFile = "", "" }), unhurried).lost(e.address)
	follow(t, with(func(c *Config) { c.CertFile, c.KeyFile = otherCert, otherKey }), unhurried).lost(e.address)
	follow(t, Config{Endpoints: []string{"http://" + e.address}}, unhurried).lost(e.address)
	// The same server by an address that its certificate isn't for.
	p := startPipeAt(t, "127.0.98.2", e.address)
	follow(t, with(func(c *Config) { c.Endpoints = []string{p.address} }), unhurried).lost("127.0.98.2")

	// A file that is replaced while pgporter runs is read with the next attempt.
	renewed := filepath.Join(t.TempDir(), "ca.crt")
	copyFile := func(from string) {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(renewed, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	copyFile(theirs.file)
	mended := follow(t, with(func(c *Config) { c.CAFile = renewed }), unhurried)
	mended.lost("signed by unknown authority")
	copyFile(ours.file)
	mended.says("leader pg-test-2")
}
