// Package web serves the admin address: the status as JSON, a page for people, and an answer per service that an external
// load balancer understands.
//
// Everything here only reads, so nothing asks for credentials; whatever changes the daemon goes elsewhere (signals, the
// control address). The package keeps no state: each request asks for the status anew.
package web

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/admin/api"
)

//go:embed page.html
var page []byte

// Handler answers the routes of the admin address from what status gives, and problems: what keeps the daemon from its work, a line
// each, which has to be known also where status can't be had.
//
//	GET /                  the page
//	GET /status            api.Status
//	GET /services          one line per service: name, up or down
//	GET /services/NAME     200 while the service (by full name) connects clients to a server, else 503; 404 if there is none
//	GET /health            200 as long as the daemon works, else 503 and the problems
func Handler(status func() api.Status, problems func() []string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'")
		w.Write(page)
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		var body bytes.Buffer
		encoder := json.NewEncoder(&body)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(status()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Write(body.Bytes())
	})
	mux.HandleFunc("GET /services", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK)
		for _, s := range services(status()) {
			fmt.Fprintf(w, "%s %s\n", s.FullName, upOrDown(s))
		}
	})
	mux.HandleFunc("GET /services/{name}", func(w http.ResponseWriter, r *http.Request) {
		all := services(status())
		i := slices.IndexFunc(all, func(s api.Service) bool { return s.FullName == r.PathValue("name") })
		if i < 0 {
			names := make([]string, len(all))
			for i, s := range all {
				names[i] = s.FullName
			}
			plain(w, http.StatusNotFound)
			fmt.Fprintf(w, "no service %q here; there are: %s\n", r.PathValue("name"), strings.Join(names, ", "))
			return
		}
		code := http.StatusOK
		if !all[i].Up {
			code = http.StatusServiceUnavailable
		}
		plain(w, code)
		fmt.Fprintf(w, "%s %s\n", all[i].FullName, upOrDown(all[i]))
		for _, server := range all[i].Servers {
			fmt.Fprintf(w, "%s %s\n", server.Member, server.Reason)
		}
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		found := problems()
		if len(found) > 0 {
			plain(w, http.StatusServiceUnavailable)
			fmt.Fprintln(w, strings.Join(found, "\n"))
			return
		}
		plain(w, http.StatusOK)
		fmt.Fprintln(w, "ok")
	})
	return mux
}

func plain(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
}

func services(s api.Status) []api.Service {
	var all []api.Service
	for _, c := range s.Clusters {
		all = append(all, c.Services...)
	}
	return append(all, s.TCPServices...)
}

func upOrDown(s api.Service) string {
	if s.Up {
		return "up"
	}
	return "down"
}
