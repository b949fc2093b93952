package model

import "log/slog"

// Secret is a text that isn't shown: it prints, logs and marshals as a placeholder. Reveal gives it to what must write it.
type Secret string

const hidden = "(secret)"

// String hides the text.
func (Secret) String() string { return hidden }

// GoString hides the text from %#v.
func (Secret) GoString() string { return hidden }

// LogValue hides the text from a log.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the text from JSON and YAML.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Reveal gives the text itself.
func (s Secret) Reveal() string { return string(s) }

// Base is what a node's haproxy.cfg is made of: everything of its HAProxy that is no service. It is no part of a Plan, since
// it holds a password.
type Base struct {
	// Node is what the statistics call the host.
	Node string
	// User and Group are those that HAProxy changes to; empty where it is started without privileges.
	User, Group string
	// PIDFile and Socket are paths; the socket speaks HAProxy's runtime API at level admin. Empty ones are left out.
	PIDFile, Socket string
	// StateFile is where the state of the servers is read from at a start; empty for none.
	StateFile string
	// MaxConn limits all connections of the process; 0 is 65535. Each takes two descriptors: HAProxy doesn't start where it can't
	// have as many.
	MaxConn int
	// HardStopAfter ends what is left of an old process's sessions; empty for never. A time in HAProxy's words, as are the
	// two timeouts.
	HardStopAfter                string
	ClientTimeout, ServerTimeout string
	// StatsPort has the statistics page and, at MetricsPath, metrics; StatsIP is the address it is on, "*" for all.
	StatsIP     string
	StatsPort   int
	MetricsPath string
	// Auth says that the page asks for AdminUser and AdminPassword; without it the page can be read by all and change nothing.
	Auth          bool
	AdminUser     string
	AdminPassword Secret
}

// Etcd is where a cluster's keys are read, and as whom. It is no part of a Plan, since it holds a password.
type Etcd struct {
	// Endpoints are etcd's URLs, CAFile, CertFile and KeyFile what its TLS takes.
	Endpoints                 []string
	CAFile, CertFile, KeyFile string
	User                      string
	Password                  Secret
}

// Record is a name with the address that it stands for.
type Record struct {
	Name    string
	Address string
}

// VIP is what vip-manager on a member is configured with: the address that follows the leader key.
type VIP struct {
	// Address is the virtual one, Bits the length of its network's prefix, Interface the network interface that gets it.
	Address   string
	Bits      int
	Interface string
	// TriggerKey is Patroni's leader key in etcd, TriggerValue the member's name in it.
	TriggerKey   string
	TriggerValue string
	// Endpoints are etcd's URLs, CAFile, CertFile and KeyFile what its TLS takes.
	Endpoints                 []string
	CAFile, CertFile, KeyFile string
	User                      string
	Password                  Secret
}

// Entry is a name by which libpq's clients reach a service without knowing where it is.
type Entry struct {
	Name string
	// Hosts carry the service; libpq tries them in turn. Ports are theirs, as many.
	Hosts []string
	Ports []int
	// User and Database are who comes and for what; empty where each client says it.
	User, Database string
}
