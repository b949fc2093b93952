package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
)

// tlsConfig reads the files as they are now.
func (e *Etcd) tlsConfig(hostPort string) (*tls.Config, error) {
	host, _, _ := net.SplitHostPort(hostPort)
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if e.cfg.CAFile != "" {
		pem, err := os.ReadFile(e.cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA file of etcd: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file of etcd: %s holds no certificate", e.cfg.CAFile)
		}
	}
	if e.cfg.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(e.cfg.CertFile, e.cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate for etcd (%s, %s): %w", e.cfg.CertFile, e.cfg.KeyFile, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// handshakes are TLS credentials that tell when a handshake fails: gRPC itself would only try again.
type handshakes struct {
	credentials.TransportCredentials
	failed func(error)
	end    *connError
}

func (h handshakes) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := h.TransportCredentials.ClientHandshake(ctx, authority, conn)
	if err != nil {
		h.failed(fmt.Errorf("TLS: %w", err))
		return nil, nil, err
	}
	return h.end.of(secured), info, nil
}

// Clone is what gRPC calls for each connection; the embedded one would lose the rest.
func (h handshakes) Clone() credentials.TransportCredentials {
	return handshakes{h.TransportCredentials.Clone(), h.failed, h.end}
}

// connError remembers what ended a connection. A server that refuses a client's certificate says so only there, after the
// handshake (TLS 1.3), if the reset of the connection doesn't overtake it.
type connError struct{ err atomic.Pointer[error] }

// of gives conn with its end under watch.
func (l *connError) of(conn net.Conn) net.Conn { return observedConn{conn, l} }

func (l *connError) note(err error) {
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		l.err.CompareAndSwap(nil, &err)
	}
}

// broken is the error of a connection that has ended.
func (l *connError) broken() error {
	if err := l.err.Load(); err != nil {
		return fmt.Errorf("%w: %w", errBroken, *err)
	}
	return errBroken
}

type observedConn struct {
	net.Conn
	end *connError
}

func (w observedConn) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.end.note(err)
	return n, err
}

func (w observedConn) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	w.end.note(err)
	return n, err
}
