// Package owner is about a cluster's virtual address, which is on the node whose member leads: it decides when a node may have
// it, makes and reads the frames that tell others, and renders the configuration of vip-manager for those who leave it to
// that. All of it is pure; package vip does what is decided here.
//
// # Who has it, and for how long
//
// Step is given what is to be seen at a moment (the cluster's View, the network interface, who else says to have the address)
// and says what to do. An address is never given, but lent: until a moment before which nobody else can have become the
// leader for longer than the TTL allows. That is reckoned from the last proof that the member leads. The proof is that the
// DCS was asked, through its quorum, and named the member; while the DCS is lost, or where there is none, it is the answer of
// the member's own Patroni, which counts for less, as it may speak of what was true up to a TTL ago.
//
// The kernel ends the loan; nothing that happens to this program prolongs it. What this guarantees: two nodes never both
// have the address for longer than the TTL, unless model.KeepOnLoss was chosen.
//
// # vip-manager
//
// Manager renders its configuration. The keys are those that vip-manager documents since its version 2.
package owner
