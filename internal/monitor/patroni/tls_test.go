package patroni

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// issuer is an authority made for a test.
type issuer struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{t: t, dir: t.TempDir()}
	i.cert, i.key = i.make(&x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return i
}

// make signs a certificate, with the authority's own key if there is one.
func (i *issuer) make(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := i.cert, i.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		i.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		i.t.Fatal(err)
	}
	return cert, key
}

// issue signs a certificate for names.
func (i *issuer) issue(names ...string) (*x509.Certificate, *ecdsa.PrivateKey) {
	i.t.Helper()
	return i.make(&x509.Certificate{Subject: pkix.Name{CommonName: "x"}, DNSNames: names, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
}

// write puts certificates and a key, each of them if it isn't nil, into a file.
func (i *issuer) write(name string, cert *x509.Certificate, key *ecdsa.PrivateKey) string {
	i.t.Helper()
	var text []byte
	if cert != nil {
		text = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	}
	if key != nil {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			i.t.Fatal(err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	}
	path := filepath.Join(i.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		i.t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		i.t.Fatal(err)
	}
	return path
}

// TestOwnTLS asks an API that wants a client's certificate, or doesn't, with every setting of a TLS. The API tells what
// name it was asked for and who asked.
func TestOwnTLS(t *testing.T) {
	ours, theirs := newIssuer(t), newIssuer(t)
	serve := func(asks tls.ClientAuthType) string {
		cert, key := ours.issue("pg-test-1.example", "*.pg-test.example")
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			shown := "nobody"
			if len(r.TLS.PeerCertificates) > 0 {
				shown = r.TLS.PeerCertificates[0].DNSNames[0]
			}
			fmt.Fprintf(w, `{"role": "primary", "state": "asked for %s by %s"}`, r.TLS.ServerName, shown)
		}))
		pool := x509.NewCertPool()
		pool.AddCert(ours.cert)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}, ClientAuth: asks, ClientCAs: pool}
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	open, closed := serve(tls.NoClientCert), serve(tls.RequireAndVerifyClientCert)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(open, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	byName := "https://localhost:" + port
	ca, otherCA := ours.write("ca.crt", ours.cert, nil), theirs.write("ca.crt", theirs.cert, nil)
	us, key := ours.issue("pgporter")
	both := ours.write("both.pem", us, key)
	apart := ours.write("apart.pem", us, nil)
	ours.write("apart.pem.key", nil, key)
	ours.write("dir/some.pem", theirs.cert, nil)
	dir := filepath.Dir(ours.write("dir/ours.crt", ours.cert, nil))
	ours.write("dir/.hidden.crt", nil, nil)
	ours.write("dir/notes.txt", nil, nil)
	hidden := filepath.Dir(ours.write("hidden/.ca.crt", ours.cert, nil))
	for _, test := range []struct {
		name string
		tls  TLS
		base string
		want string
	}{
		{"its authority", TLS{CAFile: ca}, open, "asked for  by nobody"},
		{"a directory with its authority", TLS{CAFile: dir}, open, "asked for  by nobody"},
		{"a directory that hides it", TLS{CAFile: hidden}, open, "holds no certificate"},
		{"another authority", TLS{CAFile: otherCA}, open, "unknown authority"},
		{"the machine's authorities", TLS{CAFile: SystemCA, VerifyHost: "pg-test-1.example"}, open, "unknown authority"},
		{"the machine's authorities sign anybody's: the host is compared", TLS{CAFile: SystemCA}, open, "cannot validate certificate for 127.0.0.1"},
		{"any certificate", TLS{CAFile: otherCA, NoVerify: true, VerifyHost: "wrong.example"}, open, "asked for  by nobody"},
		{"the host is asked for where nothing is said", TLS{CAFile: ca}, byName, "asked for localhost by nobody"},
		{"another name is asked for", TLS{CAFile: ca, SNI: "pg-test-1.example"}, open, "asked for pg-test-1.example by nobody"},
		{"a name that it hasn't is asked for", TLS{CAFile: ca, SNI: "pg-test-2.example"}, open, "not pg-test-2.example"},
		{"a name is compared", TLS{CAFile: ca, VerifyHost: "a.pg-test.example"}, open, "asked for  by nobody"},
		{"a name that it hasn't is compared", TLS{CAFile: ca, VerifyHost: "pg-test.example"}, open, "not pg-test.example"},
		{"who is asked for goes before", TLS{CAFile: ca, VerifyHost: "wrong.example", SNI: "pg-test-1.example"}, open, "asked for pg-test-1.example by nobody"},
		{"nothing to show", TLS{CAFile: ca}, closed, "certificate required"},
		{"shown", TLS{CAFile: ca, CertFile: both}, closed, "asked for  by pgporter"},
		{"shown, with a key apart", TLS{CAFile: ca, CertFile: apart}, closed, "asked for  by pgporter"},
		{"nobody wants to see it", TLS{CAFile: ca, CertFile: both}, open, "asked for  by nobody"},
		{"a key that is gone", TLS{CAFile: ca, CertFile: ca}, closed, "has no key in it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer, err := NewClient(Options{CAFile: otherCA}).With(test.tls).Get(t.Context(), test.base, "/primary")
			got := answer.State
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	// A renewed file is read at the next handshake.
	c := NewClient(Options{}).With(TLS{CAFile: otherCA})
	if _, err := c.Get(t.Context(), open, "/"); err == nil {
		t.Error("another authority is trusted")
	}
	theirs.write("ca.crt", ours.cert, nil)
	if _, err := c.Get(t.Context(), open, "/"); err != nil {
		t.Errorf("with the renewed file: %v", err)
	}
}

func TestTLSCheck(t *testing.T) {
	i := newIssuer(t)
	cert, key := i.issue("a")
	_, other := i.issue("b")
	ca, both, alone, mixed := i.write("ca.crt", i.cert, nil), i.write("both.pem", cert, key), i.write("alone.pem", cert, nil), i.write("mixed.pem", cert, other)
	for _, test := range []struct {
		tls  TLS
		want string
	}{
		{TLS{}, ""},
		{TLS{CAFile: SystemCA}, ""},
		{TLS{CAFile: ca, CertFile: both}, ""},
		{TLS{CAFile: filepath.Join(i.dir, "none")}, "CA file: open " + filepath.Join(i.dir, "none") + ": no such file or directory"},
		{TLS{CAFile: both + "/x", CertFile: alone}, "CA file: open " + both + "/x: not a directory\nclient certificate " + alone +
			" has no key in it: open " + alone + ".key: no such file or directory"},
		{TLS{CertFile: mixed}, "client certificate " + mixed + " with the key in " + mixed + ": tls: private key does not match public key"},
	} {
		got := ""
		if err := test.tls.Check(); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%+v: %q, want %q", test.tls, got, test.want)
		}
	}
}
