// Package fakepatroni pretends to be a cluster where PostgreSQL itself would only be in the way: to load pgporter with more
// than forking servers bear, to see every byte at both ends, or to count what it asks. A Member is the only one of its cluster,
// and always the primary by the word of its Patroni, which is a handler here; what answers at its port is the user's own. A Crowd
// is the members of many clusters.
//
// What runs against a fake shows what pgporter does with sockets, bytes and counters. It shows nothing about clusters:
// for those there is the sandbox.
package fakepatroni

import (
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Cluster is the name of a fake's cluster.
const Cluster = "pg-test"

// Member is the cluster's only member.
type Member struct {
	// Host is its address, the node's too.
	Host string
	// Port is the server's, PatroniPort its Patroni's.
	Port, PatroniPort int
}

// Service is one to be declared.
type Service struct {
	Name string
	Port int
	// MaxConn bounds the clients of the service; 0 leaves pgporter's default.
	MaxConn int
	// Options are HAProxy's words for default-server; empty leaves the default.
	Options string
}

// Patroni answers checks as the Patroni of a primary does that runs (its REST API's documentation, "Health check endpoints" and
// "Monitoring endpoint").
func Patroni() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := http.StatusServiceUnavailable
		switch r.URL.Path {
		case "/", "/primary", "/master", "/leader", "/read-write", "/read-only", "/health", "/patroni":
			status = http.StatusOK
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `{"state": "running", "role": "primary", "server_version": 150000, "timeline": 1, "patroni": {"version": "3.0.2", "scope": "`+Cluster+`"}}`)
		}
	})
}

// Inventory declares the member and its services, which all connect to its port while its Patroni calls it the primary.
func (m Member) Inventory(services ...Service) string {
	var list strings.Builder
	for _, s := range services {
		fmt.Fprintf(&list, "      - { name: %s, port: %d, dest: postgres, check: /primary, selector: '[]'", s.Name, s.Port)
		if s.MaxConn > 0 {
			fmt.Fprintf(&list, ", maxconn: %d", s.MaxConn)
		}
		if s.Options != "" {
			fmt.Fprintf(&list, ", options: '%s'", s.Options)
		}
		list.WriteString(" }\n")
	}
	return fmt.Sprintf(`%s:
  hosts:
    %s: { pg_seq: 1, pg_role: primary, pg_port: %d, patroni_port: %d }
  vars:
    pg_cluster: %s
    pg_default_services:
%s`, Cluster, m.Host, m.Port, m.PatroniPort, Cluster, list.String())
}
