// Package engine says what a node offers: the one Offer that whatever carries services (packages proxy and haproxy) and whatever
// follows what is carried (names, virtual addresses) are given. It is data; how it is taken is each one's own.
package engine

import (
	"context"

	"github.com/pgporter/pgporter/internal/config/model"
	"github.com/pgporter/pgporter/internal/config/tcpservice"
	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Offer is what an engine is to carry, and what others are to follow.
type Offer struct {
	// Node is the inventory host that this is; empty without an inventory.
	Node     string
	Clusters []Cluster
	// Names and Elsewhere are as in model.Plan.
	Names       []model.Naming
	Elsewhere   []Cluster
	TCPServices []model.TCPService
	// TCP are the TCPServices as the native engine carries them, with what knows their health; unset for HAProxy.
	TCP TCPServices
	// Base is the base file of a HAProxy of our own; nil for the one that it has already.
	Base *model.Base
	// Trial says that it will be aborted: it is only to be found out whether it could be carried.
	Trial bool
	// FirstChecks waits until the members of clusters that are new have been asked once, or that takes too long.
	FirstChecks func(ctx context.Context)
}

// Cluster is a cluster with its services resolved against the roles that are known now, and its Board. That of a New one shows it
// already; another's shows what ran before until the Offer is published.
type Cluster struct {
	model.Cluster
	Set   model.Set
	Board *view.Board
	New   bool
}

// TCPServices are services that aren't PostgreSQL's and their Board.
type TCPServices struct {
	Services []tcpservice.Service
	Board    *view.Board
	// Recheck has a server's health looked at out of turn.
	Recheck func(service, member string)
}
