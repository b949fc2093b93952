package daemon

import (
	"fmt"

	"github.com/pgporter/pgporter/internal/engine"
	"github.com/pgporter/pgporter/internal/engine/proxy"
)

// shortfall says in words that there may be more clients than descriptors for them, if so: slots are the clients that there
// are descriptors for. A service without a maxconn asks for nothing.
func shortfall(o engine.Offer, slots int) string {
	clients := 0
	for _, c := range o.Clusters {
		for _, definition := range c.Definitions {
			clients += definition.MaxConn
		}
	}
	for _, s := range o.TCP.Services {
		clients += s.MaxConn
	}
	if clients <= slots {
		return ""
	}
	return fmt.Sprintf("the limit of open files allows for %d clients at a time, the services' maxconn for %d: whoever comes beyond the first waits to be accepted. "+
		"A hard limit of %d would do: LimitNOFILE= in pgporter's systemd unit, elsewhere ulimit -Hn", slots, clients, proxy.FilesFor(clients))
}

// tellShortfall logs it, once for as long as it stays the same. d.taking is held.
func (d *Daemon) tellShortfall(o engine.Offer) {
	if d.tcpcheck == nil {
		return // HAProxy has limits of its own
	}
	if text := shortfall(o, proxy.Slots()); text != d.short {
		if d.short = text; text != "" {
			d.log.Warn(text)
		}
	}
}
