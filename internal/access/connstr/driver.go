package connstr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pgporter/pgporter/internal/config/diag"
	"github.com/pgporter/pgporter/internal/config/model"
)

// Driver is what opens connections, and so what their URLs have to look like.
type Driver struct {
	Name string
	// Version is libpq's (psycopg's is that of the libpq it has) or Npgsql's; 0 for one that is as new as need be.
	Version int
}

// Drivers are the names that a Driver may have.
var Drivers = []string{"libpq", "psycopg", "pgx", "jdbc", "npgsql"}

// Since when there is what (PostgreSQL's release notes; Npgsql's documentation, "Multiple Hosts, Failover and Load Balancing").
const (
	libpqHosts   = 10
	libpqPrimary = 14
	libpqSpread  = 16
	npgsqlHosts  = 6
)

// ParseDriver reads a driver's name, with a version behind an @: libpq@15.
func ParseDriver(text string) (Driver, error) {
	name, version, versioned := strings.Cut(text, "@")
	if !slices.Contains(Drivers, name) {
		if near := diag.Nearest(name, Drivers); near != "" {
			return Driver{}, fmt.Errorf("driver %q: did you mean %s", name, near)
		}
		return Driver{}, fmt.Errorf("driver %q: one of %s", name, strings.Join(Drivers, ", "))
	}
	if !versioned {
		return Driver{Name: name}, nil
	}
	n, err := strconv.Atoi(version)
	switch {
	case name == "pgx" || name == "jdbc":
		return Driver{}, fmt.Errorf("driver %q: %s is written the same way for pgx 5 and JDBC 42.5: without a version", text, name)
	case err != nil || n < 1 || n > 1000:
		return Driver{}, fmt.Errorf("driver %q: a major version, as in libpq@15", text)
	}
	return Driver{Name: name, Version: n}, nil
}

func (d Driver) libpq() bool { return d.Name == "libpq" || d.Name == "psycopg" }

// before tells of a version that is older.
func (d Driver) before(version int) bool { return d.Version > 0 && d.Version < version }

// Lacks says why the driver can't take an endpoint; empty if it can.
func (d Driver) Lacks(w Endpoint) string {
	several := len(w.Hosts) > 1
	switch {
	case d.libpq() && several && d.before(libpqHosts):
		return fmt.Sprintf("libpq %d takes one host: several since %d", d.Version, libpqHosts)
	case d.Name == "npgsql" && several && d.before(npgsqlHosts):
		return fmt.Sprintf("Npgsql %d takes one host: several since %d", d.Version, npgsqlHosts)
	case d.libpq() && w.Session == "prefer-standby" && d.before(libpqPrimary):
		return fmt.Sprintf("libpq %d can't look for a standby: prefer-standby since %d", d.Version, libpqPrimary)
	case d.libpq() && w.Spread && d.before(libpqSpread):
		return fmt.Sprintf("libpq %d takes the hosts in their order: load_balance_hosts since %d", d.Version, libpqSpread)
	case d.Name == "pgx" && w.Spread:
		return "pgx takes the hosts in their order: it has no load_balance_hosts"
	}
	return ""
}

// Remark is what has to be known of a driver before a URL of its is used; empty for nothing.
func (d Driver) Remark(w Endpoint) string {
	if d.libpq() && w.Spread && d.Version == 0 {
		return fmt.Sprintf("libpq %d and later", libpqSpread)
	}
	return ""
}

// Caution is what has to be known of a driver before it is asked to look for something; empty for nothing.
func (d Driver) Caution(w Endpoint) string {
	if d.Name == "npgsql" && w.Session != "" {
		return "for NpgsqlConnection; an NpgsqlDataSourceBuilder takes no Target Session Attributes, but has BuildMultiHost and WithTargetSession"
	}
	return ""
}

// URL writes an endpoint as the driver reads it, with its password if that is wanted.
func (d Driver) URL(w Endpoint, password bool) (string, error) {
	if err := w.sound(); err != nil {
		return "", err
	}
	if lack := d.Lacks(w); lack != "" {
		return "", fmt.Errorf("service %q: %s", w.FullName, lack)
	}
	secret := ""
	if password {
		secret = w.Password.Reveal()
	}
	switch d.Name {
	case "npgsql":
		return d.pairs(w, secret), nil
	case "jdbc":
		parameters := []string{"user=" + escape(w.User)}
		if secret != "" {
			parameters = append(parameters, "password="+escape(secret))
		}
		switch w.Session {
		case "primary":
			parameters = append(parameters, "targetServerType=primary")
		case "prefer-standby":
			parameters = append(parameters, "targetServerType=preferSecondary")
		}
		if w.Spread {
			parameters = append(parameters, "loadBalanceHosts=true")
		}
		return "jdbc:postgresql://" + authority(w) + "/" + escape(w.Database) + "?" + strings.Join(parameters, "&"), nil
	}
	user := escape(w.User)
	if secret != "" {
		user += ":" + escape(secret)
	}
	url := "postgres://" + user + "@" + authority(w) + "/" + escape(w.Database)
	var parameters []string
	switch {
	case w.Session == "primary" && d.libpq() && d.before(libpqPrimary):
		parameters = append(parameters, "target_session_attrs=read-write")
	case w.Session != "":
		parameters = append(parameters, "target_session_attrs="+w.Session)
	}
	if w.Spread {
		parameters = append(parameters, "load_balance_hosts=random")
	}
	if len(parameters) > 0 {
		url += "?" + strings.Join(parameters, "&")
	}
	return url, nil
}

// sound refuses what no URL can say.
func (w Endpoint) sound() error {
	if len(w.Hosts) == 0 || len(w.Ports) != len(w.Hosts) {
		return fmt.Errorf("service %q: hosts with a port each are needed", w.FullName)
	}
	for i, host := range w.Hosts {
		if w.Ports[i] < 1 || w.Ports[i] > 65535 || !model.IsHost(host) {
			return fmt.Errorf("service %q: %q, port %d: an address or a host name with a port", w.FullName, host, w.Ports[i])
		}
	}
	for _, text := range []string{w.User, w.Database, w.Password.Reveal()} {
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("service %q: a user, database or password of more than one line", w.FullName)
		}
	}
	return nil
}

// pairs is ADO.NET's form: a value with what ends values in it is quoted, quotes in it doubled.
func (d Driver) pairs(w Endpoint, secret string) string {
	quote := func(text string) string {
		if text == "" || strings.ContainsAny(text, `;'"=`) || strings.TrimSpace(text) != text {
			return `"` + strings.ReplaceAll(text, `"`, `""`) + `"`
		}
		return text
	}
	text := "Host=" + authority(w) + ";Database=" + quote(w.Database) + ";Username=" + quote(w.User)
	if secret != "" {
		text += ";Password=" + quote(secret)
	}
	if w.Session != "" {
		text += ";Target Session Attributes=" + w.Session
	}
	if w.Spread {
		text += ";Load Balance Hosts=true"
	}
	return text
}

// authority is host:port of each, an IPv6 address in brackets.
func authority(w Endpoint) string {
	all := make([]string, len(w.Hosts))
	for i, host := range w.Hosts {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		all[i] = fmt.Sprintf("%s:%d", host, w.Ports[i])
	}
	return strings.Join(all, ",")
}

// escape leaves what RFC 3986 calls unreserved and percent-encodes all else: libpq takes + for itself.
func escape(text string) string {
	b := &strings.Builder{}
	for i := range len(text) {
		c := text[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(b, "%%%02X", c)
	}
	return b.String()
}
