package model

// Page is where a node whose services the native engine carries is asked for metrics and shows its page: the address that the
// statistics of its HAProxy would have. In JSON it is without the password.
type Page struct {
	// Node is what the node is called in URLs of the page, as in /haproxy/NODE/.
	Node string `json:"node"`
	// IP is the address, "*" for every one of the node; MetricsPath is where metrics are.
	IP          string `json:"ip"`
	Port        int    `json:"port"`
	MetricsPath string `json:"metrics_path"`
	// Actions says that User may order servers in and out of service on the page; without it the page only shows.
	Actions  bool   `json:"actions,omitempty"`
	User     string `json:"user,omitempty"`
	Password Secret `json:"-"`
	// PasswordFile is where a node has the password that knows it from nowhere else, as in Etcd.
	PasswordFile string `json:"password_file,omitempty"`
}
