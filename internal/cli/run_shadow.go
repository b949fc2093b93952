package cli

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/daemon"
	"github.com/pgporter/pgporter/internal/engine/shadow"
)

// compared is the HAProxy that a shadow asks; nil without --shadow. What a shadow must not do is refused by name.
func (h haproxyFlags) compared(c *cobra.Command) (shadow.Source, error) {
	if !h.shadow {
		return nil, nil
	}
	given := func(name string) bool { return c.Flags().Changed(name) }
	for _, f := range []struct{ name, why string }{
		{"vip", "a shadow holds no virtual address"},
		{"pool", "a shadow pauses nothing"},
		{"dns", "a shadow tells no names"},
		{"dnsmasq-dir", "a shadow writes no names"},
	} {
		if given(f.name) {
			return nil, command.Input(fmt.Errorf("--%s and --shadow: %s", f.name, f.why))
		}
	}
	if h.page == "" {
		if given("haproxy-password-file") {
			return nil, command.Input(errors.New("--haproxy-password-file: HAProxy's socket has no password, it goes with --haproxy-page"))
		}
		return shadow.Socket(h.socket), nil
	}
	if given("haproxy-socket") {
		return nil, command.Input(errors.New("--haproxy-socket and --haproxy-page: one of them"))
	}
	at, err := url.Parse(h.page)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" || at.RawQuery != "" || at.Fragment != "" {
		return nil, command.Input(errors.New("--haproxy-page: a URL such as http://127.0.0.1:9101/haproxy/pg-test-1/"))
	}
	page := shadow.Page{URL: at, User: at.User.Username()}
	if _, has := at.User.Password(); has {
		return nil, command.Input(errors.New("--haproxy-page: without a password, which everybody sees who lists processes; it goes into --haproxy-password-file"))
	}
	at.User = nil
	if given("haproxy-password-file") != (page.User != "") {
		return nil, command.Input(errors.New("--haproxy-page with a user (http://USER@…) and --haproxy-password-file: both or none"))
	}
	if page.User != "" {
		if page.Password, err = daemon.FirstLine(h.password); err != nil {
			return nil, command.Input(fmt.Errorf("--haproxy-password-file: %w", err))
		}
	}
	return page, nil
}
