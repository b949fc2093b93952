package restproxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// listenControl makes the socket that orders come through: a file, so that it is reached from any network namespace.
func listenControl(path string) (net.Listener, error) {
	// One that was killed leaves it behind.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", path)
}

// handler takes orders and tells what was asked.
func (p *proxy) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /order", func(w http.ResponseWriter, _ *http.Request) {
		order, _, _ := p.now()
		write(w, order)
	})
	mux.HandleFunc("PUT /order", func(w http.ResponseWriter, r *http.Request) {
		var order Order
		err := json.NewDecoder(r.Body).Decode(&order)
		if err == nil {
			err = order.Check()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.change(func() {
			if p.order = order; order.Fault == Hang {
				p.hangs++
			}
		})
		write(w, order)
	})
	mux.HandleFunc("GET /requests", func(w http.ResponseWriter, r *http.Request) {
		since, err := time.Parse(time.RFC3339Nano, r.URL.Query().Get("since"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		write(w, p.since(since))
	})
	return mux
}

func write(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer) //nolint:errcheck // who asked has gone
}

// Client talks to the proxy of a control socket.
type Client struct{ Socket string }

// Do has the proxy follow an order from now on.
func (c Client) Do(ctx context.Context, order Order) error {
	if err := order.Check(); err != nil {
		return err
	}
	return c.ask(ctx, http.MethodPut, "/order", order, &order)
}

// Order is the one that the proxy follows.
func (c Client) Order(ctx context.Context) (Order, error) {
	var order Order
	return order, c.ask(ctx, http.MethodGet, "/order", nil, &order)
}

// Requests are the questions that arrived since a time, in order. Those of long ago may be forgotten: the last 90,000 aren't.
func (c Client) Requests(ctx context.Context, since time.Time) ([]Request, error) {
	var all []Request
	return all, c.ask(ctx, http.MethodGet, "/requests?since="+url.QueryEscape(since.Format(time.RFC3339Nano)), nil, &all)
}

func (c Client) ask(ctx context.Context, method, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var text bytes.Buffer
	if err := json.NewEncoder(&text).Encode(body); err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://restproxy"+path, &text)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.Socket)
	}}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return fmt.Errorf("the proxy at %s says %d: %s", c.Socket, response.StatusCode, strings.TrimSpace(string(said)))
	}
	return json.NewDecoder(response.Body).Decode(answer)
}
