package tcpservice

import (
	"fmt"
	"strconv"
	"time"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/model"
)

// Pigsty's defaults of HAProxy for what no line says.
const (
	connectTimeout = 3 * time.Second
	checkTimeout   = 3 * time.Second
)

// readServers makes the servers and their checks, and gives the service's own options.
func (r *reader) readServers() model.Options {
	common, wrong := model.ParseOptions(r.g.Default)
	r.complain(diag.ServerOption, InDefault, 0, 0, wrong)
	r.complain(diag.NativeUnsupported, InDefault, 0, 0, common.HAProxyOnly)
	for i, g := range r.g.Servers {
		// HAProxy reads the words from left to right: what the keys say comes first.
		keys := ""
		if g.Backup {
			keys += "backup "
		}
		if g.Weight != nil {
			keys += "weight " + strconv.Itoa(*g.Weight) + " "
		}
		own, wrong := model.ParseServerOptions(r.g.Default, keys+g.Options)
		r.complain(diag.ServerOption, InServer, i, len(keys), wrong)
		r.complain(diag.NativeUnsupported, InServer, i, len(keys), own.HAProxyOnly)
		server := model.Server{Member: g.Name, Host: g.Host, Port: g.Port, Weight: own.Weight, Backup: own.Backup, Own: &own}
		r.s.Servers = append(r.s.Servers, server)
		r.s.Checks = append(r.s.Checks, r.checkOf(i, server, own))
	}
	return common
}

// complain tells of words that can't be used; skip is what stands before the text that a user wrote.
func (r *reader) complain(code diag.Code, part Part, index, skip int, wrong []model.OptionProblem) {
	for _, o := range wrong {
		r.add(Problem{Code: code, Part: part, Index: index, Offset: max(0, o.Offset-skip), What: fmt.Sprintf("option %s %s", o.Word, o.What), Want: o.Want})
	}
}

// checkOf makes a server's check out of its words and the service's lines; nil if it isn't checked. What HAProxy wouldn't start
// with is a problem either way.
func (r *reader) checkOf(i int, s model.Server, o model.Options) *Check {
	c := &Check{Host: s.Host, Port: s.Port, Connect: connectTimeout, Timeout: checkTimeout, HTTP: r.http}
	if o.CheckAddr.IsValid() {
		c.Host = o.CheckAddr.String()
	}
	if o.CheckPort != 0 {
		c.Port = o.CheckPort
	}
	with := o.CheckTLS
	if to := r.connect; to != nil {
		if to.addr != "" {
			c.Host = to.addr
		}
		if to.port != 0 {
			c.Port = to.port
		}
		if !to.own {
			with.On, with.SNI = false, ""
		}
		with.On = with.On || to.tls
		if to.sni != "" {
			with.SNI = to.sni
		}
	}
	if with.On {
		c.TLS = &with
	}
	if (with.On || o.CheckTLS.On) && !with.NoVerify && with.CAFile == "" {
		r.add(Problem{Code: diag.ServerOption, Part: InServer, Index: i, What: "its check speaks TLS, and nothing says whom to trust",
			Want: "ca-file with the authorities that sign its certificate, or verify none"})
	}
	// As HAProxy has it: connecting within `timeout connect` and inter, and then `timeout check` for the answer.
	if r.s.Connect != 0 {
		c.Connect = r.s.Connect
	}
	c.Connect = min(c.Connect, o.Inter)
	if r.check != 0 {
		c.Timeout = r.check
	}
	c.Timeout += c.Connect
	if !o.Check {
		return nil
	}
	return c
}
