package engine

import (
	"net/netip"
	"time"

	"github.com/pgporter/pgporter/internal/monitor/view"
)

// Traffic is what an engine carries of a service at one moment. Totals count from when the service was first offered by this process or
// by one that handed it over. What an engine doesn't know is 0.
type Traffic struct {
	Cluster string
	// Service is the full name, Address where it listens: ip:port, with * for every address. Closed says that nobody is accepted there.
	Service, Address string
	Closed           bool
	// Clients are all connections that were accepted and are open: sessions, and those on their way to one or to a refusal. ClientsMax
	// is the most that there were at once, Limit how many there may be.
	Clients, ClientsMax, Limit int
	// Accepted are all clients that there have been, those that were Denied among them, AcceptRate those of the last second, AcceptRateMax the most of any.
	Accepted                  uint64
	AcceptRate, AcceptRateMax int
	// Denied were closed unheard, since their address isn't allowed.
	Denied uint64
	// Refused are clients that no server could take.
	Refused uint64
	// Cancels are cancel requests that came, CancelsSent the requests to servers that they became.
	Cancels, CancelsSent uint64
	// Waiting is since when the client waits that waits longest; zero while nobody does.
	Waiting time.Time
	// Ended counts the sessions that have ended by why.
	Ended map[EndReason]uint64
	Counts
	// Servers are those that the service has now, in order, then those that left and still have sessions, by name.
	Servers []ServerTraffic
}

// ServerTraffic is one server's part.
type ServerTraffic struct {
	Member string
	Counts
	// Asked says that the engine has a mind of its own about who takes clients, and Up what its checks would have it do. State and Weight
	// are what operators have the server be, by pgporter or over the engine's own interface, and the weight in use.
	Asked, Up bool
	State     view.State
	Weight    int
}

// Counts are what is counted alike of a service and of each of its servers.
type Counts struct {
	// Sessions are the clients that are connected with a server now, SessionsMax the most at once, TotalSessions all there have been.
	Sessions, SessionsMax int
	TotalSessions         uint64
	// Queued are the clients that wait now because no server takes them, QueuedMax the most at once. A server has those that can be
	// connected with no other (balance source).
	Queued, QueuedMax int
	// SessionRate are the sessions that began in the last second, SessionRateMax the most of any.
	SessionRate, SessionRateMax int
	// ToServer and ToClient are bytes that were passed on.
	ToServer, ToClient int64
	// Attempts are those to connect. ConnectFailures are those that the server refused or let time out, and clients that it refused with
	// all others, or closed without a word. Retries are attempts of a client that had one in vain, Redispatches those of them at another
	// server than that one was at.
	Attempts, ConnectFailures, Retries, Redispatches uint64
	// ClientAborts and ServerAborts are sessions that ended in a reset by that side.
	ClientAborts, ServerAborts uint64
	// LastSession is when the latest session began; zero before the first.
	LastSession time.Time
	// QueueTime, ConnectTime and SessionTime are averages of about the latest 1,024 sessions.
	QueueTime, ConnectTime, SessionTime time.Duration
	// QueueTimeMax and so on are the longest of all.
	QueueTimeMax, ConnectTimeMax, SessionTimeMax time.Duration
	// Connecting counts the connections that were made by how long that took: at most ConnectBounds[i], the last one longer than all.
	// ConnectSum is how long they took together.
	Connecting [len(ConnectBounds) + 1]uint64
	ConnectSum time.Duration
}

// ConnectBounds are those of Counts.Connecting, rising.
var ConnectBounds = [...]time.Duration{time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second}

// EndReason is why a session ended.
type EndReason string

// The reasons: a side ended its stream first, in order; a side's connection broke (a reset, a timeout); the server may not have sessions
// any more; nothing moved for as long as the service allows; an operator ended it; the service or the process stops.
const (
	EndClient EndReason = "client"
	EndServer EndReason = "server"
	EndError  EndReason = "error"
	EndDown   EndReason = "down"
	EndIdle   EndReason = "idle"
	EndKilled EndReason = "killed"
	EndStop   EndReason = "stop"
)

// EndReasons are all that there are, in the order in which they are shown.
var EndReasons = [...]EndReason{EndClient, EndServer, EndError, EndDown, EndIdle, EndKilled, EndStop}

// Session is a client that is connected with a server.
type Session struct {
	// ID is the session's own in this process.
	ID              uint64
	Cluster         string
	Service, Member string
	// Client is the client's address, Listen the one that it connected to; Local and Server are the two ends of the connection to the
	// server.
	Client, Listen, Local, Server netip.AddrPort
	Began                         time.Time
	ToServer, ToClient            int64
}

// SessionLog is told of sessions that begin and end, by whoever begins and ends them: it must not block. A session's end comes after its
// beginning, in this process or in the next that it was handed over to.
type SessionLog interface {
	// Wants tells whether it is to be told of a session, by its ID: of both or of neither.
	Wants(id uint64) bool
	Began(s Session)
	// Ended is told what the session has moved, when it ended and why, and by what error if not in order.
	Ended(s Session, at time.Time, why EndReason, cause error)
}

// SessionFilter chooses sessions; what is empty chooses all.
type SessionFilter struct {
	// Cluster, Service (its full name) and Member are names.
	Cluster, Service, Member string
	// Client is the network of the clients; invalid is any.
	Client netip.Prefix
	// ID is one session.
	ID uint64
	// Idle is for how long neither side has sent anything.
	Idle time.Duration
	// Limit is how many are chosen at most, the oldest; 0 is all.
	Limit int
}
