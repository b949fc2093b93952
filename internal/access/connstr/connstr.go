// Package connstr renders how clients reach services: Endpoints lists all there are, Driver writes each down as a client's driver
// reads it, Listing all of them with what they lead through; ServiceFile is libpq's connection service file, by which
// `psql service=pg-test-primary` needs no address, PasswordFile its .pgpass. Rendering is pure: text from values. Passwords
// are in it where they are asked for, and nowhere else.
package connstr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// File is the service file's name.
const File = "pg_service.conf"

// connectTimeout, in seconds, is how long libpq tries one host before the next. It exceeds how long a service holds a client
// while its cluster has no primary, so that a switchover doesn't look like a dead host.
const connectTimeout = 10

// ServiceFile renders libpq's service file (PostgreSQL's manual, section 34.17) with a section for each entry.
func ServiceFile(entries []model.Entry) (string, error) {
	b := &strings.Builder{}
	b.WriteString(stamp.Stamp{Kind: stamp.PGService, File: File}.Line())
	b.WriteString("# psql 'service=NAME dbname=… user=…', with PGSERVICEFILE set to where this file is.\n")
	for _, e := range entries {
		if !model.IsName(e.Name) || len(e.Hosts) == 0 || len(e.Ports) != len(e.Hosts) {
			return "", fmt.Errorf("service %q: a name, and hosts with a port each, are needed", e.Name)
		}
		ports := make([]string, len(e.Ports))
		for i, port := range e.Ports {
			if port < 1 || port > 65535 || !model.IsHost(e.Hosts[i]) {
				return "", fmt.Errorf("service %q: %q, port %d: an address or a host name with a port", e.Name, e.Hosts[i], port)
			}
			ports[i] = strconv.Itoa(port)
		}
		// One port holds for all hosts.
		if len(slices.Compact(slices.Clone(ports))) == 1 {
			ports = ports[:1]
		}
		fmt.Fprintf(b, "\n[%s]\nhost=%s\nport=%s\nconnect_timeout=%d\n", e.Name, strings.Join(e.Hosts, ","), strings.Join(ports, ","), connectTimeout)
		for _, setting := range [][2]string{{"user", e.User}, {"dbname", e.Database}} {
			if strings.ContainsAny(setting[1], "\r\n\x00") || strings.TrimSpace(setting[1]) != setting[1] {
				return "", fmt.Errorf("service %q: %s %q: a service file can't hold it", e.Name, setting[0], setting[1])
			}
			if setting[1] != "" {
				fmt.Fprintf(b, "%s=%s\n", setting[0], setting[1])
			}
		}
	}
	return b.String(), nil
}
