package shadow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/pgporter/pgporter/internal/engine/haproxy"
)

// Source is where HAProxy's statistics are had from.
type Source interface {
	// Statistics asks once.
	Statistics(ctx context.Context) (string, error)
	// String says where, for people.
	String() string
}

// Socket is the path of a HAProxy's runtime API (stats socket). Any level will do.
type Socket string

// Statistics sends `show stat`.
func (s Socket) Statistics(ctx context.Context) (string, error) {
	return haproxy.Ask(ctx, string(s), "show stat")
}

func (s Socket) String() string { return string(s) }

// Page is a HAProxy's page with statistics.
type Page struct {
	// URL is the page's, without credentials.
	URL *url.URL
	// User and Password are sent if User isn't empty (HTTP Basic).
	User, Password string
}

// mostPage bounds what is read of a page: ten thousand servers make 4 MB.
const mostPage = 16 << 20

// Statistics gets the page as CSV, which is at the same path with `;csv` behind it.
func (p Page) Statistics(ctx context.Context) (string, error) {
	at := *p.URL
	at.Path += ";csv"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return "", err
	}
	if p.User != "" {
		request.SetBasicAuth(p.User, p.Password)
	}
	response, err := pages.Do(request)
	if err != nil {
		var whole *url.Error
		if errors.As(err, &whole) {
			err = whole.Err // which says the URL again
		}
		return "", fmt.Errorf("HAProxy's page %s: %w", p, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, mostPage))
	switch {
	case response.StatusCode == http.StatusUnauthorized:
		return "", fmt.Errorf("HAProxy's page %s wants another user or password", p)
	case response.StatusCode != http.StatusOK:
		return "", fmt.Errorf("HAProxy's page %s answers %s", p, response.Status)
	case err != nil:
		return "", fmt.Errorf("HAProxy's page %s: %w", p, err)
	case !strings.HasPrefix(string(text), "# pxname,"):
		return "", fmt.Errorf("what answers at %s isn't HAProxy's page with statistics", p)
	}
	return string(text), nil
}

func (p Page) String() string { return p.URL.Redacted() }

// pages follows no redirect: credentials are for this page. The page is asked directly, whatever proxies the environment names.
var pages = &http.Client{
	Transport:     &http.Transport{MaxIdleConns: 1, MaxResponseHeaderBytes: 64 << 10},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}
