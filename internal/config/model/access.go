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

// Base is what a node's haproxy.cfg is made of: everything of its HAProxy that is no service. In JSON it is without the password.
type Base struct {
	// Node is what the statistics call the host.
	Node string `json:"node"`
	// User and Group are those that HAProxy changes to; empty where it is started without privileges.
	User  string `json:"user,omitempty"`
	Group string `json:"group,omitempty"`
	// PIDFile and Socket are paths; the socket speaks HAProxy's runtime API at level admin. Empty ones are left out.
	PIDFile string `json:"pid_file,omitempty"`
	Socket  string `json:"socket,omitempty"`
	// StateFile is where the state of the servers is read from at a start; empty for none.
	StateFile string `json:"state_file,omitempty"`
	// MaxConn limits all connections of the process; 0 is 65535. Each takes two descriptors: HAProxy doesn't start where it can't
	// have as many.
	MaxConn int `json:"maxconn,omitempty"`
	// HardStopAfter ends what is left of an old process's sessions; empty for never. A time in HAProxy's words, as are the
	// two timeouts.
	HardStopAfter string `json:"hard_stop_after,omitempty"`
	ClientTimeout string `json:"client_timeout"`
	ServerTimeout string `json:"server_timeout"`
	// StatsPort has the statistics page and, at MetricsPath, metrics; StatsIP is the address it is on, "*" for all.
	StatsIP     string `json:"stats_ip"`
	StatsPort   int    `json:"stats_port"`
	MetricsPath string `json:"metrics_path"`
	// Auth says that the page asks for AdminUser and AdminPassword; without it the page can be read by all and change nothing.
	Auth          bool   `json:"auth"`
	AdminUser     string `json:"admin_user,omitempty"`
	AdminPassword Secret `json:"-"`
	// PasswordFile is where a node has the password that knows it from nowhere else, as in Etcd.
	PasswordFile string `json:"password_file,omitempty"`
}

// Etcd is where a cluster's keys are read, and as whom. In JSON it is without the password.
type Etcd struct {
	// Endpoints are etcd's URLs, CAFile, CertFile and KeyFile what its TLS takes.
	Endpoints []string `json:"endpoints"`
	CAFile    string   `json:"ca_file,omitempty"`
	CertFile  string   `json:"cert_file,omitempty"`
	KeyFile   string   `json:"key_file,omitempty"`
	User      string   `json:"user,omitempty"`
	Password  Secret   `json:"-"`
	// PasswordFile has the password in its first line, on a node that knows it from nowhere else; empty for the Password.
	PasswordFile string `json:"password_file,omitempty"`
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
