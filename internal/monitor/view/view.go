// Package view is what is known of a cluster now: who its members are, what each does, and which server of which service
// may take clients, with the reason.
//
// A View is immutable once published, and holds membership and health together, so no reader sees a set of servers and a
// health that disagree. A Board is where a cluster's loop publishes Views for everyone else.
//
// What operators order (drain, maintenance, a weight) lies over what the loop publishes (orders.go): readers see both in one View, and
// Usable goes by both. The loop itself doesn't know of orders, so that a server is checked and judged as if there were none.
package view

import (
	"time"

	"github.com/pgporter/pgporter/internal/config/model"
)

// View is a cluster at one moment, or all that a node offers beside its clusters: that one has no name, no key and no members.
// Nobody changes it after it was published.
type View struct {
	Cluster string
	// Version rises by one with each View of a cluster, those among them that only an order has made another.
	Version uint64
	// At is when the View was made, or the order given.
	At  time.Time
	Key Key
	// Contested says in words which members claim to lead at once, or against the leader key; empty while none does.
	Contested string
	// Outages are the times without a leader that serves, of those that are over (OutageBounds); Outage is when the one under way began, zero
	// if there is none. Only where a service for the leader is watched.
	Outages Durations
	Outage  time.Time
	// Hold is the one in force; its ID is empty while there is none.
	Hold Hold
	// Hopeless says in words why no failover can bring the cluster a leader now that it has none; empty while one may come.
	Hopeless string
	Members  []Member
	Services []Service
}

// Key is what is known of the cluster's leader key in the DCS.
type Key struct {
	// Watched says that the DCS is asked for it; the other fields are empty otherwise.
	Watched bool
	// Holder is the name of the member that holds it; empty if nobody does, or nothing is known.
	Holder string
	// Lost says in words why nothing is known; empty while the DCS answers.
	Lost string
	// Confirmed is when the DCS was last asked, through its quorum, with an answer that Holder is true of; zero while it is
	// lost. It is 3 s old at most as a rule, 5 s where the DCS is slow.
	Confirmed time.Time
	// Doubted says that the DCS isn't believed: it is another cluster's.
	Doubted bool
}

// Service finds a service by its full name; nil if the cluster has none of that name.
func (v *View) Service(fullName string) *Service {
	for i := range v.Services {
		if v.Services[i].FullName == fullName {
			return &v.Services[i]
		}
	}
	return nil
}

// NotChecked is what is said of a member or a server before its first check has ended.
const NotChecked = "not checked yet"

// Member is an instance as its Patroni describes it.
type Member struct {
	model.Member
	// Live is the role that selectors see: the last known one, the declared one before any answer.
	Live model.Role
	// State is Patroni's word for PostgreSQL's state (running, stopping, starting, …); empty before any answer.
	State string
	// Timeline is PostgreSQL's; 0 while unknown.
	Timeline int
	// Answer says in words what the last check brought: `200 primary running`, `silent: connection refused`; NotChecked
	// before the first has ended.
	Answer string
	// Answered is when Patroni answered last; zero if never.
	Answered time.Time
	// Led is when its Patroni last said that it runs as the leader; zero if its last answer says otherwise, or there never was
	// one. Silence leaves it.
	Led time.Time
	// Unlocked, Failsafe and Pause are of that answer: that it sees no leader key or no DCS, that it leads without a DCS
	// because all other members agreed, and that Patroni is asked to keep its hands off.
	Unlocked, Failsafe, Pause bool
	// Remark is what an operator should know of the member beside its answer: what makes it dear to ask, or what it waits for. Empty if
	// there is nothing.
	Remark string
	// Questions count what its API was asked, Answering how long it took to answer (AnswerBounds).
	Questions Questions
	Answering Durations
	// Lag is how far its replay is behind the leader, in bytes, by their last answers; LagKnown says that this is known. It may be too high
	// by what was written between the two.
	Lag      int64
	LagKnown bool
}

// Questions are totals since the start, as of the View.
type Questions struct {
	// Asked were put to the member's API, OutOfTurn those of them that didn't wait for their turn. Late answers came after the API was
	// taken for silent. HeldBack weren't put when they were wanted: the budget was used up, or this node had no means to.
	Asked, OutOfTurn, Late, HeldBack uint64
}

// Service is a resolved service with the health of its servers, in the same order. The Weight of each of its Servers is the one that
// counts: the declared one, unless another was ordered.
type Service struct {
	model.Service
	// Health has one entry for each of Service.Servers, at the same index.
	Health []Health
	// Leads says that its check passes the leader alone.
	Leads bool
	// Held says that nobody is let to a server for now, HeldWords that to clients: see Hold. The loop leaves them empty, and Spared.
	Held      bool
	HeldWords string
	// Spared is the member that takes no new clients here because it is about to lead; empty if there is none.
	Spared string
}

// Health says whether a server may carry clients of one service.
type Health struct {
	// Up says that its checks would have the server take new clients. Up and Reason are the checks' word: no order changes them.
	Up bool
	// Reason says why, in words for an operator.
	Reason string
	// Order is what operators want of it, which goes before what its checks say: see Service.Takes. The loop leaves it empty.
	Order Order
	// DeclaredWeight is what the plan says, set where Order says another weight: see Service.DeclaredWeight.
	DeclaredWeight int
	// Since is when Up last changed (or the server joined).
	Since time.Time
	// Recovered is when it last came up after it had been down, or left maintenance; zero if it never did. Slowstart counts from it.
	Recovered time.Time
	// Epoch rises each time the sessions that the server has in this service must end. A session that was registered under
	// a lower epoch is over, even if the server is up again by the time anybody looks. A server that leaves the service and
	// comes back comes with a higher one. It is the loop's and one for each time that an order ended them: neither ever falls.
	Epoch uint64
	// Ended says in words why Epoch rose last: what sessions under a lower one are said to have ended for.
	Ended string
	// Checks counts what its checks have brought.
	Checks Checks
}

// Takes says that a server takes new clients by its checks, its order, its weight, and that nobody is to wait for who leads next. A backup
// that does still waits until it is its turn: see Usable.
func (s *Service) Takes(i int) bool {
	return s.Health[i].Up && s.Health[i].Order.State == Ready && s.Servers[i].Weight > 0 && !s.Held && (s.Spared == "" || s.Spared != s.Servers[i].Member)
}

// Unheld is the service as it would be without a Hold. A hold is a wait of seconds: the service is as well as it was.
func (s *Service) Unheld() *Service {
	if !s.Held && s.Spared == "" {
		return s
	}
	free := *s
	free.Held, free.HeldWords, free.Spared = false, "", ""
	return &free
}

// Usable gives the indices of the servers that take new clients now: the regular ones that Take some; if there is none, the first
// backup that is such a one, or all of those where the service says so (option allbackups).
func (s *Service) Usable() []int {
	var regular, backups []int
	for i, server := range s.Servers {
		switch {
		case !s.Takes(i):
		case !server.Backup:
			regular = append(regular, i)
		case s.AllBackups || len(backups) == 0:
			backups = append(backups, i)
		}
	}
	if len(regular) == 0 {
		return backups
	}
	return regular
}

// OrderedOut gives the servers that an order alone keeps from new clients: their checks have them up, with a declared weight.
func (s *Service) OrderedOut() []int {
	if s.Held {
		return nil
	}
	var out []int
	for i := range s.Servers {
		if s.Health[i].Up && !s.Takes(i) && s.DeclaredWeight(i) > 0 && s.Spared != s.Servers[i].Member {
			out = append(out, i)
		}
	}
	return out
}

// DeclaredWeight is a server's weight as the plan says it.
func (s *Service) DeclaredWeight(i int) int {
	if s.Health[i].Order.Weighed {
		return s.Health[i].DeclaredWeight
	}
	return s.Servers[i].Weight
}

// Words say of a server what its order, its checks and a hold say, for operators and for clients that are refused.
func (s *Service) Words(i int) string {
	words := s.Health[i].Reason
	if order := s.Health[i].Order.Words(); order != "" {
		words = order + "; " + words
	}
	if s.Held {
		words += "; " + s.HeldWords
	}
	return words
}
