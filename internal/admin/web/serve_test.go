package web

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"
)

// One port takes TLS and plain HTTP, and who says nothing keeps neither waiting.
func TestOnePortForBoth(t *testing.T) {
	w := newWorld(1)
	s := &site{world: w, feed: NewFeed(w.Status, w), actions: NewActions(w.order, slog.New(slog.DiscardHandler)), tls: certificate(t)}
	s.config = Config{Status: w.Status, Problems: none, Names: none, Feed: s.feed, Streams: 4, Actions: s.actions, Events: w.Events}
	s.open(t)
	for range 5 {
		silent, err := net.Dial("tcp", s.at)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	for _, scheme := range []string{"http://", "https://", "http://"} {
		res, err := client.Get(scheme + s.at + "/health")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || string(body) != "ok\n" || (res.TLS != nil) != (scheme == "https://") {
			t.Errorf("%s: %q, %v", scheme, body, err)
		}
		if res.TLS != nil && res.TLS.Version < tls.VersionTLS12 {
			t.Errorf("version %x", res.TLS.Version)
		}
	}
	// An older TLS is refused, and a connection that begins as TLS and isn't is closed.
	if conn, err := tls.Dial("tcp", s.at, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		conn.Close()
		t.Error("TLS 1.1 is taken")
	}
	conn, err := net.Dial("tcp", s.at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("\x16nothing of the kind, and some more of it\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Logf("closed with %v", err)
	}
}
