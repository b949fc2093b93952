package failover

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

// The options that HAProxy's services are rendered with.
const (
	specified = "inter 3s fastinter 1s downinter 5s rise 3 fall 3 on-marked-down shutdown-sessions slowstart 30s maxconn 3000 maxqueue 128 weight 100"
	norm      = "inter 2s fastinter 1s downinter 2s rise 3 fall 3 on-marked-down shutdown-sessions slowstart 30s maxconn 3000 maxqueue 128 weight 100"
)

// Ports of the two services that write.
const (
	pooled = 5433
	direct = 5436
)

// target is one address of the primary.
type target struct {
	// name is what the tables call it.
	name string
	url  string
	// port is the service's that it is compared with: pooled or direct.
	port int
	// ours is pgporter, tries the client that knows all members.
	ours, tries bool
}

// How long the parts of a probe may take. A service may hold a client; a host of several is given up sooner.
const (
	connectTimeout = 10 * time.Second
	hostTimeout    = 2 * time.Second
	writeTimeout   = 5 * time.Second
)

// account is whom a prober is, and where.
type account struct{ user, password, database string }

func (a account) url(hosts []string, port int, attributes ...string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(a.user, a.password), Path: "/" + a.database, Host: "HOSTS"}
	u.RawQuery = strings.Join(append([]string{"sslmode=disable"}, attributes...), "&")
	at := make([]string, len(hosts))
	for i, h := range hosts {
		at[i] = fmt.Sprintf("%s:%d", h, port)
	}
	return strings.Replace(u.String(), "HOSTS", strings.Join(at, ","), 1)
}

// targets are all addresses of the primary: the direct ones first. Members are the addresses of all members in order, porter is a
// node with a pgporter, specified and norm are where the HAProxies listen.
func targets(members []string, porter, specified, norm string, app, admin account) []target {
	one := func(who account, host string, port int) string {
		return who.url([]string{host}, port, fmt.Sprintf("connect_timeout=%.0f", connectTimeout.Seconds()))
	}
	every := admin.url(members, 5432, "target_session_attrs=read-write", fmt.Sprintf("connect_timeout=%.0f", hostTimeout.Seconds()))
	return []target{
		{name: "pgporter, 5436", url: one(admin, porter, direct), port: direct, ours: true},
		{name: "a client that tries all members", url: every, port: direct, tries: true},
		{name: "HAProxy `inter 2s`, 5436", url: one(admin, norm, direct), port: direct},
		{name: "HAProxy `inter 3s`, 5436", url: one(admin, specified, direct), port: direct},
		{name: "pgporter, 5433", url: one(app, porter, pooled), port: pooled, ours: true},
		{name: "HAProxy `inter 2s`, 5433", url: one(app, norm, pooled), port: pooled},
		{name: "HAProxy `inter 3s`, 5433", url: one(app, specified, pooled), port: pooled},
	}
}
