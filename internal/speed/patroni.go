package speed

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// standIn answers like the REST API of the Patroni of a primary that runs, until the function that is given is called.
// There is no Patroni: nothing fails over while speed is measured, and checks are all that the proxies ask of one.
func standIn(ctx context.Context, address string, port int) (stop func(), err error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", fmt.Sprintf("%s:%d", address, port))
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(answer), ReadHeaderTimeout: 5 * time.Second}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) }) //nolint:errcheck // without it checks fail, and so do sessions
	return func() {
		server.Close() //nolint:errcheck // nobody waits for an answer any more
		serving.Wait()
	}, nil
}

// answer is a primary's, of Patroni 3 (REST API, "Health check endpoints").
func answer(w http.ResponseWriter, r *http.Request) {
	status := http.StatusServiceUnavailable
	switch r.URL.Path {
	case "/", "/primary", "/master", "/leader", "/read-write", "/read-only", "/health":
		status = http.StatusOK
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if r.Method != http.MethodGet {
		return
	}
	fmt.Fprintf(w, `{"state": "running", "role": "primary", "server_version": 150000, "timeline": 1, "xlog": {"location": 1}, "patroni": {"version": "3.0.2", "scope": "%s"}}`, clusterName) //nolint:errcheck // who asks has gone
}
