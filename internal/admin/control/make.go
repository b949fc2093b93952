package control

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// The names of the files that MakeCredentials writes.
const (
	TokenFile       = "control.token"
	CertificateFile = "control.crt"
	KeyFile         = "control.key"
)

// MakeCredentials writes a random token and a self-signed certificate with its key into a directory, which it makes if it
// isn't there. The certificate is for the given hosts, addresses or names, from now for as long as valid says; whoever
// takes it for an authority (--ca) trusts it and nothing else. Files that exist are never replaced.
func MakeCredentials(dir string, hosts []string, now time.Time, valid time.Duration) (Files, error) {
	files := Files{Token: filepath.Join(dir, TokenFile), Certificate: filepath.Join(dir, CertificateFile), Key: filepath.Join(dir, KeyFile)}
	if len(hosts) == 0 {
		return files, errors.New("a certificate is for one host at least")
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	certificate, key, err := selfSigned(hosts, now, valid)
	if err != nil {
		return files, fmt.Errorf("making a certificate: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return files, fmt.Errorf("directory %s: %w", dir, plain(err))
	}
	var written []string
	for _, f := range []struct {
		path string
		mode fs.FileMode
		text []byte
	}{
		{files.Token, 0o600, []byte(hex.EncodeToString(secret) + "\n")},
		{files.Certificate, 0o644, certificate},
		{files.Key, 0o600, key},
	} {
		if err := writeNew(f.path, f.mode, f.text); err != nil {
			for _, path := range written {
				os.Remove(path)
			}
			return files, fmt.Errorf("%s: %w", f.path, plain(err))
		}
		written = append(written, f.path)
	}
	return files, nil
}

// selfSigned makes a certificate and its key as PEM.
func selfSigned(hosts []string, now time.Time, valid time.Duration) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "pgporter control"},
		// Clocks differ a little.
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(valid),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// writeNew writes a file that must not be there yet; one that was written in part is removed.
func writeNew(path string, mode fs.FileMode, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}
