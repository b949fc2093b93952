package haproxy

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/render/fileset"
	"github.com/pgporter/pgporter/internal/render/haproxycfg"
)

// confDir is where the services' files are, below the directory of haproxy.cfg.
const confDir = "conf.d"

// layout is a set of files, with what HAProxy has once it has read them. Nobody changes one that was made.
type layout struct {
	files   []fileset.File
	proxies []proxy
}

// proxy is one listen section.
type proxy struct {
	name string
	// cluster is empty for a TCP service.
	cluster string
	ip      string
	port    int
	// text is the file without comments; head is it without its servers' weights and, for a cluster's, without servers.
	text, head string
	servers    []server
}

// server is one server of a proxy.
type server struct {
	name, host string
	port       int
	weight     int
	backup     bool
	// checked says that HAProxy checks it, so that it may begin as down.
	checked bool
	// check is what a cluster's member is asked, and where and how.
	check string
}

func (p proxy) address() string { return net.JoinHostPort(p.ip, strconv.Itoa(p.port)) }

func (p proxy) find(name string) (server, bool) {
	i := slices.IndexFunc(p.servers, func(s server) bool { return s.name == name })
	if i < 0 {
		return server{}, false
	}
	return p.servers[i], true
}

func (l *layout) find(name string) (proxy, bool) {
	if l != nil {
		for _, p := range l.proxies {
			if p.name == name {
				return p, true
			}
		}
	}
	return proxy{}, false
}

// same says that two layouts are the same files but for comments.
func (l *layout) same(other *layout) bool {
	texts := func(l *layout) map[string]string {
		all := make(map[string]string, len(l.files))
		for _, f := range l.files {
			all[f.Path] = withoutComments(f.Text)
		}
		return all
	}
	return l != nil && other != nil && maps.Equal(texts(l), texts(other))
}

// material is what a layout is rendered from.
type material struct {
	// base makes haproxy.cfg; nil leaves the one that is there.
	base     *model.Base
	tcp      []model.TCPService
	clusters []resolved
}

// resolved is a cluster with its services as they are to be rendered.
type resolved struct {
	declared model.Cluster
	services []model.Service
}

// render makes the files of a node. bind is what "*" means; extra goes to the end of every section, own is the text of a
// file that is beside the services', if it isn't empty.
func render(node, bind string, m material, extra, own string) (*layout, error) {
	l := &layout{}
	if m.base != nil {
		text, err := haproxycfg.Base(*m.base)
		if err != nil {
			return nil, err
		}
		l.files = append(l.files, fileset.File{Path: haproxycfg.BaseFile, Text: text, Private: true})
	}
	if own != "" {
		l.files = append(l.files, fileset.File{Path: confDir + "/" + ownFile, Text: own})
	}
	here := func(ip string) string {
		if ip == "*" && bind != "" {
			return bind
		}
		return ip
	}
	add := func(p proxy, text string) {
		text += extra
		p.text = withoutComments(text)
		l.files = append(l.files, fileset.File{Path: confDir + "/" + haproxycfg.FileName(p.name), Text: text})
		l.proxies = append(l.proxies, p)
	}
	for _, c := range m.clusters {
		members := map[string]model.Member{}
		for _, member := range c.declared.Members {
			members[member.Name] = member
		}
		for _, s := range c.services {
			s.IP = here(s.IP)
			text, err := haproxycfg.Service(node, c.declared, s)
			if err != nil {
				return nil, fmt.Errorf("cluster %s: %w", c.declared.Name, err)
			}
			p := proxy{name: s.FullName, cluster: c.declared.Name, ip: s.IP, port: s.Port}
			for _, to := range s.Servers {
				p.servers = append(p.servers, serverOf(s.Definition, members[to.Member], to))
			}
			p.head = withoutServers(text)
			add(p, text)
		}
	}
	for _, g := range m.tcp {
		g.IP = here(g.IP)
		text, err := haproxycfg.TCPService(node, g)
		if err != nil {
			return nil, err
		}
		p := proxy{name: g.Name, ip: g.IP, port: g.Port, head: withoutComments(text)}
		for _, to := range g.Servers {
			words := strings.Fields(g.Default + " " + to.Options)
			s := server{name: to.Name, host: to.Host, port: to.Port, weight: 1, backup: to.Backup}
			s.checked = slices.Contains(words, "check") && !slices.Contains(words, "no-check") && !slices.Contains(words, "track")
			if to.Weight != nil {
				s.weight = *to.Weight
			}
			p.servers = append(p.servers, s)
		}
		add(p, text)
	}
	return l, nil
}

// serverOf makes a cluster's server of a service.
func serverOf(d model.Definition, m model.Member, to model.Server) server {
	return server{
		name: to.Member, host: to.Host, port: to.Port, weight: to.Weight, backup: to.Backup, checked: true,
		check: fmt.Sprint(d.Check, m.PatroniPort, m.PatroniTLS, d.Options.CheckAddr, d.Options.CheckTLS),
	}
}

// withoutComments leaves what HAProxy reads of a file, blank lines away.
func withoutComments(text string) string {
	return filterLines(text, func(line string) bool { return line != "" && !strings.HasPrefix(line, "#") })
}

// withoutServers also leaves the lines of servers out.
func withoutServers(text string) string {
	return filterLines(text, func(line string) bool {
		return line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "server ")
	})
}

func filterLines(text string, keep func(line string) bool) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); keep(line) {
			kept.WriteString(line + "\n")
		}
	}
	return kept.String()
}

// commands gives what has to be sent to the runtime API so that a worker which has read loaded does what wanted says, without a
// reload. Parked servers are in loaded and out of service since an earlier call. False if a reload is needed: servers may
// leave, come back and change their weight; flags, order, addresses and everything else of a service are read at a start only.
//
// A server that comes back begins as down: the caller says by its health who is up.
func commands(loaded, wanted *layout, parked map[serverID]bool) (needed []string, parks map[serverID]bool, ok bool) {
	if len(loaded.proxies) != len(wanted.proxies) {
		return nil, nil, false
	}
	parks = map[serverID]bool{}
	for i, was := range loaded.proxies {
		is := wanted.proxies[i]
		if was.name != is.name || was.head != is.head || was.address() != is.address() {
			return nil, nil, false
		}
		next := 0
		for _, s := range was.servers {
			at := serverID{was.name, s.name}
			if next < len(is.servers) && is.servers[next].name == s.name {
				to := is.servers[next]
				next++
				if s.weight != to.weight && was.cluster != "" {
					needed = append(needed, fmt.Sprintf("set server %s weight %d", at, to.weight))
					s.weight = to.weight
				}
				if s != to {
					return nil, nil, false
				}
				if parked[at] {
					// Straight to ready it would be up until its first check fails.
					needed = append(needed, "set server "+at.String()+" state drain", "set server "+at.String()+" health down",
						"set server "+at.String()+" state ready")
				}
				continue
			}
			if was.cluster == "" {
				return nil, nil, false
			}
			parks[at] = true
			if !parked[at] {
				needed = append(needed, "set server "+at.String()+" state maint", "shutdown sessions server "+at.String())
			}
		}
		if next != len(is.servers) {
			return nil, nil, false
		}
	}
	return needed, parks, baseOf(loaded) == baseOf(wanted)
}

// baseOf is what a layout's files say besides services.
func baseOf(l *layout) string {
	var text strings.Builder
	for _, f := range l.files {
		if f.Path == haproxycfg.BaseFile || f.Path == confDir+"/"+ownFile {
			text.WriteString(withoutComments(f.Text))
		}
	}
	return text.String()
}

// missing lists what a layout has and a worker hasn't.
func (l *layout) missing(servers map[serverID]serverState, counted map[serverID]counters) []string {
	var absent []string
	for _, p := range l.proxies {
		if _, there := counted[serverID{p.name, Frontend}]; !there {
			absent = append(absent, "service "+p.name)
			continue
		}
		for _, s := range p.servers {
			at := serverID{p.name, s.name}
			has, there := servers[at]
			switch {
			case !there:
				absent = append(absent, "server "+at.String())
			case has.Port != s.port || !sameHost(has.Address, s.host):
				absent = append(absent, fmt.Sprintf("server %s at %s, not %s", at, net.JoinHostPort(s.host, strconv.Itoa(s.port)),
					net.JoinHostPort(has.Address, strconv.Itoa(has.Port))))
			}
		}
	}
	return absent
}

// sameHost compares addresses; what a name resolves to is HAProxy's business.
func sameHost(has, declared string) bool {
	want, err := netip.ParseAddr(declared)
	if err != nil {
		return true
	}
	got, err := netip.ParseAddr(has)
	return err == nil && got.Unmap() == want.Unmap()
}
