package cli

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/admin/control"
	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/daemon"
)

// controlFlags say where orders are taken, and from whom.
type controlFlags struct {
	address string
	files   control.Files
}

func (f *controlFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.address, "control", "", "take orders and new configurations at this `ADDRESS[:PORT]`, * for what --bind says, port "+control.DefaultPort+" unless given (default: nowhere)")
	c.Flags().StringVar(&f.files.Token, "control-token-file", "", "the `FILE` with the token that --control asks for; its owner's alone (mode 0600)")
	c.Flags().StringVar(&f.files.Certificate, "control-tls-cert", "", "the `FILE` with the certificate that --control shows (PEM)")
	c.Flags().StringVar(&f.files.Key, "control-tls-key", "", "the `FILE` with its key (PEM)")
	c.Flags().StringVar(&f.files.ClientCA, "control-client-ca", "", "let in who shows a certificate of the authorities in this `FILE` (PEM) at --control, as who has the token")
}

// settle gives what the flags say: nil if no orders are to be taken. There is no control address without credentials.
func (f *controlFlags) settle(bind netip.Addr) (*daemon.Control, error) {
	parts := []struct{ flag, value string }{
		{"--control", f.address}, {"--control-token-file", f.files.Token}, {"--control-tls-cert", f.files.Certificate}, {"--control-tls-key", f.files.Key},
	}
	var missing []string
	for _, p := range parts {
		if p.value == "" {
			missing = append(missing, p.flag)
		}
	}
	switch {
	case len(missing) == len(parts) && f.files.ClientCA != "":
		return nil, command.Input(errors.New("--control-client-ca goes with --control"))
	case len(missing) == len(parts):
		return nil, nil
	case len(missing) > 0:
		return nil, command.Input(fmt.Errorf("an address that takes orders needs a token and a certificate too (pgporter credentials makes both): %s missing", strings.Join(missing, ", ")))
	}
	address, err := listenAddress("control", f.address, control.DefaultPort, bind)
	if err != nil {
		return nil, err
	}
	credentials, err := control.LoadCredentials(f.files)
	if err != nil {
		return nil, command.Input(err)
	}
	return &daemon.Control{Address: address, Credentials: credentials}, nil
}

// listenAddress completes a flag's address to listen on: "*", or a port alone, means what it means for services.
func listenAddress(flag, text, defaultPort string, bind netip.Addr) (string, error) {
	if rest, all := strings.CutPrefix(text, "*"); all && (rest == "" || rest[0] == ':') {
		text = rest
	}
	if text == "" || strings.HasPrefix(text, ":") && strings.Count(text, ":") == 1 {
		port := strings.TrimPrefix(text, ":")
		if text == "" {
			port = defaultPort
		}
		host := ""
		if bind.IsValid() {
			host = bind.String()
		}
		text = net.JoinHostPort(host, port)
	}
	return hostPort(flag, text, defaultPort)
}
