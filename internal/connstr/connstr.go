// Package connstr renders how clients reach services: so far libpq's connection service file, by which
// `psql service=pg-test-primary` needs no address. Rendering is pure, and neither users nor passwords are in it: those stay
// in each client's own settings.
package connstr

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/pgporter/pgporter/internal/service"
	"github.com/pgporter/pgporter/internal/stamp"
)

// File is the service file's name.
const File = "pg_service.conf"

// connectTimeout, in seconds, is how long libpq tries one host before the next. It exceeds how long a service holds a client
// while its cluster has no primary, so that a switchover doesn't look like a dead host.
const connectTimeout = 10

var (
	nameForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
	hostForm = regexp.MustCompile(`^[A-Za-z0-9_.:-]+$`)
)

// ServiceFile renders libpq's service file (PostgreSQL's manual, section 34.17) with a section for each entry.
func ServiceFile(entries []service.Entry) (string, error) {
	b := &strings.Builder{}
	b.WriteString(stamp.Stamp{Kind: stamp.PGService, File: File}.Line())
	b.WriteString("# psql 'service=NAME dbname=… user=…', with PGSERVICEFILE set to where this file is.\n")
	for _, e := range entries {
		if !nameForm.MatchString(e.Name) || len(e.Hosts) == 0 || e.Port < 1 || e.Port > 65535 {
			return "", fmt.Errorf("service %q: a name, hosts and a port are needed", e.Name)
		}
		for _, h := range e.Hosts {
			if !hostForm.MatchString(h) {
				return "", fmt.Errorf("service %q: host %q: an address or a host name", e.Name, h)
			}
		}
		fmt.Fprintf(b, "\n[%s]\nhost=%s\nport=%d\nconnect_timeout=%d\n", e.Name, strings.Join(e.Hosts, ","), e.Port, connectTimeout)
	}
	return b.String(), nil
}
