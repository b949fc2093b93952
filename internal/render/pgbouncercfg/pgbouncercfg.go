// Package pgbouncercfg renders the door of a node, a PgBouncer before services, as PgBouncer's configuration: pgbouncer.ini, and
// userlist.txt with the passwords.
//
// Rendering is pure: values in, text out. Settings are those that PgBouncer has from 1.18 to today, since a version doesn't start with one
// that it doesn't know: what only newer ones have is left to their defaults, or to the inventory (pgporter_door_settings). Every value is
// either known to be harmless, quoted, or refused with an error. The facts are those of pgbouncer.ini(5) and of PgBouncer's loader, which
// takes a comment in userlist.txt only behind a semicolon and no quotes around the name of a database.
package pgbouncercfg

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/render/stamp"
)

// The files of a door.
const (
	File     = "pgbouncer.ini"
	UserFile = "userlist.txt"
)

// Where a node has the files, and the socket at which the door's console is: pgporter comes there as the user of its own process.
const (
	Directory       = "/etc/pgporter/door"
	SocketDirectory = "/run/pgporter/door"
)

// builder writes a file and keeps the first thing that can't be written.
type builder struct {
	strings.Builder
	err error
}

func (b *builder) line(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }

func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// set writes a setting, with what it is for.
func (b *builder) set(name string, value any, why string) {
	for line := range strings.Lines(why) {
		b.line("; %s", strings.TrimSuffix(line, "\n"))
	}
	b.line("%s = %v", name, value)
}

var keyForm = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// key checks the name of a database or a user on the left of a line.
func (b *builder) key(what, name string) string {
	if !keyForm.MatchString(name) {
		b.fail("%s %q: letters, digits, dashes, dots and underscores are what PgBouncer's file can name", what, name)
	}
	return name
}

// quote makes one value of a connection string of a text.
func (b *builder) quote(what, text string) string {
	if text == "" || strings.ContainsFunc(text, isControl) {
		b.fail("%s: neither empty nor with control characters", what)
	}
	if keyForm.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", "''") + "'"
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// Share says how the pools of a cluster multiply.
func Share(s model.DoorShare) string {
	return fmt.Sprintf("the pools of cluster %s multiply: %s x %s x %s have %d connections to the primary at most, of the %d of its max_connections",
		s.Cluster, counted(s.Nodes, "node"), counted(s.Databases, "database"), counted(s.Services, "service"), s.Together, s.MaxConnections)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Config renders pgbouncer.ini.
func Config(d model.PgBouncerDoor) (string, error) {
	b := &builder{}
	b.WriteString(stamp.Stamp{Kind: stamp.PgBouncer, File: File}.Line())
	b.line("; Clients come to this PgBouncer, it comes to pgporter, and pgporter leads it to the member that serves. Sizes are this node's part:")
	for _, s := range d.Shares {
		b.line("; %s.", Share(s))
	}
	b.line("; All users of a database share its max_db_connections.")
	b.databases(d)
	b.users(d)
	b.settings(d)
	if b.err != nil {
		return "", fmt.Errorf("%s: %w", File, b.err)
	}
	return b.String(), nil
}

func (b *builder) databases(d model.PgBouncerDoor) {
	b.line("\n[databases]")
	service := ""
	for _, db := range d.Databases {
		if db.Service != service {
			service = db.Service
			b.line("; by %s", service)
		}
		fmt.Fprintf(b, "%s = host=%s port=%d dbname=%s pool_mode=%s pool_size=%d", b.key("database", db.Name), db.Host, db.Port, b.quote("database", db.Database), db.Mode, db.PoolSize)
		for _, n := range []struct {
			name string
			n    int
		}{{"min_pool_size", db.MinPoolSize}, {"reserve_pool", db.Reserve}, {"max_db_connections", db.MaxConnections}} {
			if n.n > 0 {
				fmt.Fprintf(b, " %s=%d", n.name, n.n)
			}
		}
		if db.AuthUser != "" {
			fmt.Fprintf(b, " auth_user=%s", b.quote("user", db.AuthUser))
		}
		b.line("")
	}
}

func (b *builder) users(d model.PgBouncerDoor) {
	headed := false
	for _, u := range d.Users {
		var own []string
		if u.Mode != "" {
			own = append(own, "pool_mode="+u.Mode)
		}
		if u.MaxConnections > 0 {
			own = append(own, fmt.Sprintf("max_user_connections=%d", u.MaxConnections))
		}
		if len(own) > 0 && !headed {
			b.line("\n[users]")
			headed = true
		}
		if len(own) > 0 {
			b.line("%s = %s", b.key("user", u.Name), strings.Join(own, " "))
		}
	}
}

func (b *builder) settings(d model.PgBouncerDoor) {
	b.line("\n[pgbouncer]")
	b.set("listen_addr", d.IP, "")
	b.set("listen_port", d.Port, "")
	b.set("unix_socket_dir", SocketDirectory, "The console, for who runs this PgBouncer: as the user pgbouncer it takes no password of him.")
	b.set("unix_socket_mode", "0700", "")
	b.set("admin_users", "pgbouncer", "")
	b.set("so_reuseport", 0, "One process: of several pgporter would pause one alone.")
	authType, why := "scram-sha-256", "A password of userlist.txt is plain, or a SCRAM secret: with that a client's login opens the server only if the server keeps the very same."
	if slices.ContainsFunc(d.Users, func(u model.DoorUser) bool { return isMD5(u.Password.Reveal()) }) {
		authType, why = "md5", "Some passwords of userlist.txt are md5 hashes, which nothing else takes. With a SCRAM secret a client logs in by SCRAM all the same, and comes\n"+
			"to the server only if that keeps the very same secret."
	}
	b.set("auth_type", authType, why)
	b.set("auth_file", Directory+"/"+UserFile, "")
	if d.AuthQuery != "" {
		b.set("auth_query", d.AuthQuery, "")
	}
	b.set("max_client_conn", d.MaxClients, "The maxconn of the services together.")
	b.set("server_connect_timeout", d.Patience, "A connection may wait in pgporter for who leads next: longer than any hold lasts.")
	b.set("query_wait_timeout", d.Patience+30, "And a client for that connection, also one that is only logging in.")
	b.set("client_login_timeout", d.Patience+30, "")
	b.set("server_login_retry", 1, "Once pgporter has refused one, clients are refused at once for as long.")
	b.set("server_lifetime", 600, "Connections move to where they belong by themselves, if nobody has told them.")
	if d.Spread {
		b.set("server_round_robin", 1, "Several members serve: all connections have their turn.")
	}
	b.set("ignore_startup_parameters", strings.Join(d.IgnoredParameters, ","), "What clients may ask for at their start, and don't get if this version doesn't keep track of it.")
	b.set("log_connections", 0, "A line for each client would be most of the log.")
	b.set("log_disconnections", 0, "")
	if len(d.Settings) > 0 {
		b.line("; Of the inventory's pgporter_door_settings.")
	}
	for _, s := range d.Settings {
		if strings.ContainsFunc(s.Name+s.Value, isControl) {
			b.fail("setting %q: control characters", s.Name)
		}
		b.line("%s = %s", s.Name, s.Value)
	}
}

// isMD5 tells whether a password is the hash that PostgreSQL keeps of it with password_encryption md5.
func isMD5(password string) bool {
	return len(password) == len("md5")+32 && strings.HasPrefix(password, "md5") && strings.Trim(password[3:], "0123456789abcdef") == ""
}

// Users renders userlist.txt.
func Users(users []model.DoorUser) (string, error) {
	b := &builder{}
	b.WriteString(stamp.Stamp{Kind: stamp.PgBouncer, File: UserFile}.Line())
	word := func(what, text string) string {
		if strings.ContainsFunc(text, isControl) {
			b.fail("%s: control characters", what)
		}
		return `"` + strings.ReplaceAll(text, `"`, `""`) + `"`
	}
	for _, u := range users {
		b.line("%s %s", word("user", u.Name), word(fmt.Sprintf("the password of %q", u.Name), u.Password.Reveal()))
	}
	if b.err != nil {
		return "", fmt.Errorf("%s: %w", UserFile, b.err)
	}
	return b.String(), nil
}
