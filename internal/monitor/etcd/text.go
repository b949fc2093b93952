package etcd

import "github.com/pgporter/pgporter/internal/config/safetext"

// longest is how much of a text from etcd is kept. Names of members are far shorter, and so is what Patroni writes into the
// failover key.
const longest = 500

// printable makes a text from the network fit for a log line or a terminal.
func printable(value []byte) string { return safetext.Short(string(value), longest) }
