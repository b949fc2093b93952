package haproxycfg

import (
	"fmt"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// caFile is where Pigsty's nodes have the certificate authority that Patroni's certificates are of.
const caFile = "/pg/cert/ca.crt"

// Service renders a service of a cluster as a node's file. node is only named in the file's head; the cluster's members say
// where each server's Patroni answers. An error says what can't be written.
func Service(node string, c model.Cluster, s model.Service) (string, error) {
	members := make(map[string]model.Member, len(c.Members))
	for _, m := range c.Members {
		members[m.Name] = m
	}
	b := &builder{}
	b.Grow(1024 + 80*len(s.Servers))
	b.WriteString(stamp.Stamp{Kind: stamp.HAProxy, Cluster: c.Name, File: FileName(s.FullName)}.Line())
	b.WriteString(rule)
	fmt.Fprintf(b, "# service: %s @ %s:%d\n", s.FullName, b.host("host", node), s.Port)
	b.WriteString(rule)
	b.WriteString("# service instances " + hosts(s.Servers, false) + "\n")
	b.WriteString("# service backups   " + hosts(s.Servers, true) + "\n")
	fmt.Fprintf(b, "listen %s\n", b.name("service", s.FullName))
	b.line("bind %s", b.bind(s.IP, s.Port))
	b.line("mode tcp")
	b.line("maxconn %d", s.MaxConn)
	b.allow(s.Allow)
	b.line("balance %s", b.words("balance", string(s.Balance)))
	b.line("option httpchk")
	b.line("option http-keep-alive")
	b.line("http-check send meth OPTIONS uri %s", b.quote("check", s.Check))
	b.line("http-check expect status 200")
	b.line("default-server %s", b.words("options", s.Options.Text))
	b.WriteString("\n    # servers\n")
	for _, server := range s.Servers {
		m, known := members[server.Member]
		if !known {
			b.fail("server %q is no member of cluster %q", server.Member, c.Name)
		}
		tls := ""
		if m.PatroniTLS {
			tls = " check-ssl ca-file " + caFile
		}
		backup := ""
		if server.Backup && !s.Options.Backup { // the default-server line says it of all
			backup = " backup"
		}
		b.line("server %s %s:%d%s check port %d weight %d%s%s", b.server(server.Member), b.host("host", server.Host),
			b.port("port", server.Port), tls, b.port("patroni_port", m.PatroniPort), server.Weight, backup, initAddr(server.Host, s.Options.Text))
	}
	if b.err != nil {
		return "", fmt.Errorf("service %q: %w", s.FullName, b.err)
	}
	return b.String(), nil
}

// hosts lists the addresses of a service's servers for the head of its file.
func hosts(servers []model.Server, backups bool) string {
	var names []string
	for _, s := range servers {
		if !backups || s.Backup {
			names = append(names, s.Host)
		}
	}
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ", ")
}
