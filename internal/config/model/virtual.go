package model

import "net/netip"

// VirtualIP is the address that follows a cluster's leader, as one member's node is to keep it: it has the address while the
// leader key names its member.
type VirtualIP struct {
	// Address is the virtual one, with the length of its network's prefix.
	Address netip.Prefix `json:"address"`
	// Interface is the network interface that gets it; empty for the one that carries Host.
	Interface string `json:"interface,omitempty"`
	// Member is the one on this node, Host the address of its own.
	Member string `json:"member"`
	Host   string `json:"host"`
	// OnLoss says what becomes of it when the DCS can't be asked.
	OnLoss OnLoss `json:"on_dcs_loss"`
}

// OnLoss is what becomes of a virtual address whose holder can't ask the DCS any more.
type OnLoss string

const (
	// GraceOnLoss keeps it for as long as nobody else can have been elected, and longer while Patroni's failsafe mode does.
	GraceOnLoss OnLoss = "grace"
	// KeepOnLoss keeps it while the member's own Patroni says that it leads.
	KeepOnLoss OnLoss = "keep"
	// DropOnLoss gives it up at once.
	DropOnLoss OnLoss = "drop"
)

// LossPolicies are all that OnLoss may be, in the order in which messages list them.
var LossPolicies = []OnLoss{GraceOnLoss, KeepOnLoss, DropOnLoss}

// LeastVIPTTL is the shortest time that a leader key may live, in seconds, for a virtual address to follow it: etcd is read
// every 5 s, which may take 2 s.
const LeastVIPTTL = 10
