package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pgporter/pgporter/internal/cli/command"
	"github.com/pgporter/pgporter/internal/engine/haproxy"
)

// Engines that --engine names.
const (
	engineNative  = "native"
	engineHAProxy = "haproxy"
)

// Where the system's HAProxy is on Debian and on Pigsty's nodes.
const (
	systemDir    = "/etc/haproxy"
	systemSocket = "/var/run/haproxy.sock"
	systemMaster = "/run/haproxy-master.sock"
	systemReload = "systemctl reload haproxy"
)

// haproxyFlags say which engine carries the services, and how HAProxy is run.
type haproxyFlags struct {
	engine, dir, socket, master, reload, binary, password string
	system                                                bool
	// What follows is for a shadow.
	shadow bool
	page   string
}

func (h *haproxyFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&h.engine, "engine", engineNative, "what carries the services, as `ENGINE`: native, haproxy")
	f.BoolVar(&h.system, "haproxy-system", false, "take over the HAProxy that the system starts: its haproxy.cfg stays, the services in its conf.d are pgporter's")
	f.StringVar(&h.dir, "haproxy-dir", "", "`DIR` of haproxy.cfg and conf.d (default: pgporter-haproxy below /run or $XDG_RUNTIME_DIR; "+systemDir+" with --haproxy-system)")
	f.BoolVar(&h.shadow, "shadow", false, "serve nobody: compare what would be done with what the HAProxy beside does, at --haproxy-socket or --haproxy-page")
	f.StringVar(&h.page, "haproxy-page", "", "with --shadow, the `URL` of HAProxy's page with statistics, where its socket can't be reached: http://[USER@]ADDRESS:9101/haproxy/NODE/")
	f.StringVar(&h.socket, "haproxy-socket", systemSocket, "runtime API's socket of the system's HAProxy, at level admin, as `PATH`")
	f.StringVar(&h.master, "haproxy-master-socket", "", "master CLI's socket of the system's HAProxy (haproxy -S), as `PATH` (default: "+systemMaster+" if it is there)")
	f.StringVar(&h.reload, "haproxy-reload", systemReload, "the `COMMAND` that reloads the system's HAProxy where there is no master socket")
	f.StringVar(&h.password, "haproxy-password-file", "", "`FILE` with the password of the statistics page, HAProxy's or pgporter's own, in its first line (default: the inventory's haproxy_admin_password, or the file that the plan names)")
	f.StringVar(&h.binary, "haproxy-binary", "", "HAProxy's program, as `PATH` (default: haproxy in PATH or /usr/sbin)")
}

// config gives what the HAProxy engine needs; nil for the native one. Flags that make no sense together are refused by name.
func (h haproxyFlags) config(c *cobra.Command, run runFlags) (*haproxy.Config, error) {
	if err := command.OneOf("engine", h.engine, engineNative, engineHAProxy); err != nil {
		return nil, err
	}
	given := func(name string) bool { return c.Flags().Changed(name) }
	refuse := func(why string, names ...string) error {
		for _, name := range names {
			if given(name) {
				return command.Input(fmt.Errorf("--%s %s", name, why))
			}
		}
		return nil
	}
	if !h.shadow {
		if err := refuse("is what a shadow asks: it goes with --shadow", "haproxy-page"); err != nil {
			return nil, err
		}
	}
	if h.engine == engineNative {
		if h.shadow {
			return nil, refuse("is for a HAProxy that pgporter runs: not with --shadow",
				"haproxy-system", "haproxy-dir", "haproxy-master-socket", "haproxy-reload", "haproxy-binary")
		}
		return nil, refuse("is for HAProxy: it goes with --engine haproxy",
			"haproxy-system", "haproxy-dir", "haproxy-socket", "haproxy-master-socket", "haproxy-reload", "haproxy-binary")
	}
	if h.shadow {
		return nil, command.Input(errors.New("--shadow: a HAProxy of pgporter's own has nothing to be compared with, it goes with --engine native"))
	}
	if len(run.patroni) > 0 {
		return nil, command.Input(errors.New("--patroni: HAProxy's files are rendered from an inventory, it goes with --engine native"))
	}
	if err := refuse("is for the native engine: a client that finds no server is refused by HAProxy at once", "hold"); err != nil {
		return nil, err
	}
	config := &haproxy.Config{System: h.system, Dir: h.dir, Binary: h.binary}
	if !h.system {
		if err := refuse("is for the system's HAProxy: it goes with --haproxy-system", "haproxy-socket", "haproxy-master-socket", "haproxy-reload"); err != nil {
			return nil, err
		}
		if config.Dir == "" {
			runtime := os.Getenv("XDG_RUNTIME_DIR")
			if os.Geteuid() == 0 {
				runtime = "/run"
			}
			if runtime == "" {
				return nil, command.Input(errors.New("say where HAProxy's files are to be: --haproxy-dir DIR (there is no XDG_RUNTIME_DIR)"))
			}
			config.Dir = filepath.Join(runtime, "pgporter-haproxy")
		}
	} else {
		if err := refuse("is for a HAProxy of pgporter's own: whoever started the system's stops it", "stop-timeout"); err != nil {
			return nil, err
		}
		if err := refuse("is for a HAProxy of pgporter's own: the system's has its haproxy.cfg", "haproxy-password-file"); err != nil {
			return nil, err
		}
		if config.Dir == "" {
			config.Dir = systemDir
		}
		config.Socket, config.Master, config.Reload = h.socket, h.master, strings.Fields(h.reload)
		if config.Master == "" && !given("haproxy-reload") {
			if info, err := os.Stat(systemMaster); err == nil && info.Mode()&os.ModeSocket != 0 {
				config.Master = systemMaster
			}
		}
		if config.Master == "" && len(config.Reload) == 0 {
			return nil, command.Input(errors.New("--haproxy-reload: the command that reloads HAProxy"))
		}
		if given("haproxy-master-socket") {
			if err := refuse("isn't run where there is a master socket: one of them", "haproxy-reload"); err != nil {
				return nil, err
			}
		}
	}
	var err error
	if config.Dir, err = filepath.Abs(config.Dir); err != nil {
		return nil, fmt.Errorf("--haproxy-dir: %w", err)
	}
	return config, nil
}
