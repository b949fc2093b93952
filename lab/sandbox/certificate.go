package sandbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// Certificate is the file with the certificate that every PostgreSQL and PgBouncer of a sandbox with Config.TLS shows. It is
// signed by itself, so that a client verifies with it: sslrootcert=FILE, and with sslmode=verify-full through each node.
func (s *Sandbox) Certificate() string { return s.layout.certificate() }

// makeCertificate makes a certificate for names and addresses, and its key, both as PEM.
//
// The key is ECDSA's: with Ed25519 there would be no channel binding, as such a signature names no hash (RFC 5929, section 4.1).
func makeCertificate(hosts []string, now time.Time) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("the sandbox's key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, fmt.Errorf("the sandbox's certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "pgporter sandbox"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, fmt.Errorf("the sandbox's certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("the sandbox's key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), nil
}

// certificateFiles are the certificate and its key; none without Config.TLS. Unlike the other files they are never the same.
func (l layout) certificateFiles(now time.Time) ([]file, error) {
	if !l.config.TLS {
		return nil, nil
	}
	var hosts []string
	for _, m := range l.members {
		hosts = append(hosts, m.Address, m.Name)
	}
	certificate, key, err := makeCertificate(append(hosts, l.clusters()...), now)
	if err != nil {
		return nil, err
	}
	return []file{{l.certificate(), string(certificate), 0o644}, {l.certificateKey(), string(key), 0o600}}, nil
}
