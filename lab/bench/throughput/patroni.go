package throughput

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/pgporter/pgporter/lab/fakepatroni"
)

// servePatroni answers like the REST API of the Patroni of a primary that runs, until the function that is given is called.
// There is no Patroni: nothing fails over while speed is measured, and checks are all that the proxies ask of one.
func servePatroni(ctx context.Context, address string, port int) (stop func(), err error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", fmt.Sprintf("%s:%d", address, port))
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: fakepatroni.Patroni(), ReadHeaderTimeout: 5 * time.Second}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) }) //nolint:errcheck // without it checks fail, and so do sessions
	return func() {
		server.Close() //nolint:errcheck // nobody waits for an answer any more
		serving.Wait()
	}, nil
}
