// Package web serves the admin address: the status as JSON, a page for people, and an answer per service that an external
// load balancer understands.
//
// Nearly everything here only reads, and nothing that reads asks for credentials. Where Actions are configured, who has logged in may order
// servers in and out of service; ending sessions and moving the primary go elsewhere (the control address, the node itself). Of state the
// package keeps what charts show (Feed) and who is logged in (Actions).
package web

import (
	"bytes"
	"cmp"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/admin/api"
	"github.com/pgporter/pgporter/internal/admin/metrics"
)

//go:embed page.html page.css *.js
var page embed.FS

// scripts are the modules of the page.
var scripts = []string{"page.js", "actions.js", "dom.js", "draw.js", "format.js", "stream.js", "views.js"}

// Config is what an address shows.
type Config struct {
	// Status gives everything that is shown. Problems are what keeps the daemon from its work, a line each, which has to be known also
	// where a status can't be had.
	Status   func() api.Status
	Problems func() []string
	// Names are those by which the address may be asked for besides the ones that nobody on the Internet can have lead here (isOurs).
	Names func() []string
	// MetricsPath is where the metrics are; /metrics if it is empty.
	MetricsPath string
	// Events are what happened after the event with an ID, the oldest first; nil for none.
	Events func(after uint64) []api.Event
	// Feed is what viewers of the page are sent, Streams how many of them there may be at this address.
	Feed    *Feed
	Streams int
	// Actions is who may act at this address; nil for nobody.
	Actions *Actions
	// CSV is the status as the CSV of HAProxy's statistics page; nil for none.
	CSV func(api.Status) []byte
}

// Handler answers the routes of an address. All of them are also below /haproxy/NAME/, whatever the name is: a proxy before many nodes
// tells by it which of them is meant, and passes the path on as it came.
//
//	GET /                  the page, with page.css and page.js
//	GET /stream            what the page shows, as server-sent events (stream.go)
//	GET /history           what its charts begin with
//	GET /plain             the same without scripts
//	GET /session           whether somebody may act here (actions.go)
//	GET /status            api.Status
//	GET /services          one line per service: name, up or down; shadow where nobody listens for it
//	GET /services/NAME     200 while the service (by full name) connects clients to a server, else 503; 404 if there is none
//	GET /health            200 as long as the daemon works, else 503 and the problems
//	GET /events            api.Events, those after ?after=ID
//	GET /openapi.json      what all of these are, and the routes of the control address
//	GET /metrics           for Prometheus
//	GET /;csv              as HAProxy's statistics page has it
func Handler(c Config) http.Handler {
	status, problems := c.Status, c.Problems
	mux := http.NewServeMux()
	if c.CSV != nil {
		mux.HandleFunc("GET /;csv", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Cache-Control", "no-store")
			w.Write(c.CSV(status()))
		})
	}
	mux.HandleFunc("GET /stream", stream(c.Feed, c.Streams))
	mux.HandleFunc("GET /history", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, c.Feed.past(r.FormValue("cluster")))
	})
	mux.HandleFunc("GET /plain", func(w http.ResponseWriter, _ *http.Request) { table(w, status()) })
	if c.Actions != nil {
		c.Actions.routes(mux)
	} else {
		mux.HandleFunc("GET /session", func(w http.ResponseWriter, _ *http.Request) {
			answer(w, http.StatusOK, state{Why: "this address only shows"})
		})
	}
	// What HAProxy's page posts, and community.general's predecessors with it.
	mux.HandleFunc("POST /{$}", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusForbidden)
		fmt.Fprintln(w, "this is pgporter, which takes no form of HAProxy's page; its own page may (pgporter_page_actions), and pgporter drain, maint, ready and weight do")
	})
	files := map[string]string{"/{$}": "page.html", "/page.css": "page.css"}
	for _, name := range scripts {
		files["/"+name] = name
	}
	for path, file := range files {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-cache")
			http.ServeFileFS(w, r, page, file)
		})
	}
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
	mux.HandleFunc("GET /events", c.events)
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-cache")
		w.Write(api.OpenAPI)
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
		if !all[i].Up || all[i].Shadow {
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
	exporter, exporterPath := metrics.Handler(c.Status), cmp.Or(c.MetricsPath, "/metrics")
	return guarded(belowAnyNode(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == exporterPath && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			exporter.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}), c.Names)
}

// belowAnyNode takes /haproxy/NAME off a request's path. Without the slash behind it links of the page would lead elsewhere.
func belowAnyNode(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rest, is := strings.CutPrefix(r.URL.Path, "/haproxy/")
		if !is {
			next(w, r)
			return
		}
		name, path, slash := strings.Cut(rest, "/")
		if name == "" {
			http.NotFound(w, r)
			return
		}
		if !slash {
			w.Header().Set("Location", (&url.URL{Path: "./" + name + "/"}).EscapedPath())
			w.WriteHeader(http.StatusMovedPermanently)
			return
		}
		inner := r.Clone(r.Context())
		inner.URL.Path, inner.URL.RawPath = "/"+path, ""
		next(w, inner)
	}
}

// guarded refuses what was meant for another host, and tells browsers what may become of the answers: the page is made of its own
// files alone, nobody shows it inside another, nothing is taken for what it doesn't say that it is.
func guarded(next http.Handler, names func() []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		if !isOurs(r.Host, names) {
			plain(w, http.StatusMisdirectedRequest)
			fmt.Fprintf(w, "this pgporter isn't known as %.100q; run --admin-name says by which names it is asked for, besides its addresses\n", r.Host)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isOurs tells whether a request's Host is a name by which this may be asked for. A page of any site can have a browser ask what its
// own name leads to, which may be an address of ours by then (DNS rebinding), and read the answer; but not by an address, nor by a
// name without a dot, which no public DNS has.
func isOurs(host string, names func() []string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") || strings.HasSuffix(host, ".localhost") {
		return true
	}
	return slices.ContainsFunc(names(), func(name string) bool { return strings.EqualFold(strings.TrimSuffix(name, "."), host) })
}

// sameText compares in constant time.
func sameText(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

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
	if s.Shadow {
		return "shadow"
	}
	if s.Up {
		return "up"
	}
	return "down"
}
