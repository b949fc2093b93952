package sandbox

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"
)

// TestCertificate is a client's look at what the sandbox's servers show.
func TestCertificate(t *testing.T) {
	l := mustLayout(t, Config{Members: 2, TLS: true})
	now := time.Now()
	files, err := l.certificateFiles(now)
	if err != nil || len(files) != 2 || files[1].mode != 0o600 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	pair, err := tls.X509KeyPair([]byte(files[0].text), []byte(files[1].text))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	for name, ok := range map[string]bool{"127.0.1.11": true, "127.0.1.12": true, "pg-test-2": true, "pg-test": true, "127.0.1.13": false, "pg-test-3": false} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now}); (err == nil) != ok {
			t.Errorf("verified for %s: %v", name, err)
		}
	}
	if files, err := mustLayout(t, Config{}).certificateFiles(now); err != nil || len(files) != 0 {
		t.Errorf("without TLS: %d files, %v", len(files), err)
	}
}
