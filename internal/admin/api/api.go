// Package api is what pgporter tells over HTTP: the JSON of the admin address and a client for it.
//
// The types are made from the state of a running daemon and hold no secrets. Fields are added, never renamed: scripts
// read them. openapi.json is made of the types and of their fields' comments: go test ./internal/admin/api -update.
package api

import "time"

// Status is a daemon's whole state at one moment: the answer to GET /status.
type Status struct {
	// Version is the program's.
	Version string `json:"version"`
	// Node is the inventory host that the daemon serves as; empty when members were discovered.
	Node string `json:"node,omitempty"`
	// PID is the process's number, Started when it did, Now when this was said, by the clock of its machine.
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Now     time.Time `json:"now"`
	// Goroutines is how many the process has: it grows with open sessions and returns when they have ended.
	Goroutines int `json:"goroutines"`
	// Stalled are the loops that hang; absent while none does. What they decide is as old as that.
	Stalled []Stalled `json:"stalled,omitempty"`
	// Config is the running configuration.
	Config Config `json:"config"`
	// Clusters are in the order of the inventory.
	Clusters []Cluster `json:"clusters"`
	// TCPServices are services that belong to no cluster (haproxy_services). Role and State of their servers say nothing, and
	// Check says in words what servers are asked. Where HAProxy carries them it alone knows of their servers: Check and Since
	// say nothing, either.
	TCPServices []Service `json:"generic_services,omitempty"`
	// Names is what tells the clusters' names; absent if the daemon tells none.
	Names *Names `json:"names,omitempty"`
	// Pools are the PgBouncers that this node watches over; absent if there is none.
	Pools []Pool `json:"pools,omitempty"`
	// Page is where this pgporter answers in the place of HAProxy's statistics; absent where it doesn't.
	Page *Page `json:"page,omitempty"`
	// Upgrade is how this process took over from another, or why its last attempt to hand over failed; absent if there was
	// neither.
	Upgrade *Upgrade `json:"upgrade,omitempty"`
	// Shadow is what a shadow has seen, which carries no service; absent if this daemon is none.
	Shadow *Shadow `json:"shadow,omitempty"`
	// LogDropped is how many lines of the log were dropped since the start because nobody read them in time; absent if none was.
	LogDropped uint64 `json:"log_lines_dropped,omitempty"`
	// SessionLogDropped is the same of the log of sessions.
	SessionLogDropped uint64 `json:"session_log_lines_dropped,omitempty"`
	// Engine is EngineNative or EngineHAProxy.
	Engine string `json:"engine"`
	// Process has what is counted of the process as a whole.
	Process Process `json:"process"`
}

// Page is the address at which HAProxy's statistics would be.
type Page struct {
	// Listen is the address, Metrics the path of the metrics there, Node what the node is called in its URLs: /haproxy/NODE/.
	Listen  string `json:"listen"`
	Metrics string `json:"metrics"`
	Node    string `json:"node"`
	// Problem says why nothing is answered there; empty if it is.
	Problem string `json:"problem,omitempty"`
	// Actions says that servers may be ordered in and out of service there.
	Actions bool `json:"actions"`
	// Warning says what is wrong with who may do that; empty if nothing is.
	Warning string `json:"warning,omitempty"`
}

// Process is what is known of the process as a whole.
type Process struct {
	// Connections are the clients' that are open, ConnectionLimit how many there may be, Accepted all that were accepted, AcceptRate
	// those of the last second and AcceptRateMax the most of any; SessionRate and SessionRateMax are the same of sessions.
	Connections     int    `json:"connections"`
	ConnectionLimit int    `json:"connection_limit"`
	Accepted        uint64 `json:"accepted"`
	AcceptRate      int    `json:"accept_rate"`
	AcceptRateMax   int    `json:"accept_rate_max"`
	SessionRate     int    `json:"session_rate"`
	SessionRateMax  int    `json:"session_rate_max"`
	// ToClients are bytes passed on to clients, ToClientsRate those of the last second. Spliced are those of both directions that the kernel
	// moved without a copy.
	ToClients     int64 `json:"bytes_to_clients"`
	ToClientsRate int64 `json:"bytes_to_clients_rate"`
	Spliced       int64 `json:"bytes_spliced"`
	// Files is the limit of open files, OpenFiles how many are open; PipesUsed are the pipes that bytes are spliced through, PipesFree
	// those that are kept for it.
	Files     uint64 `json:"files_limit"`
	OpenFiles int    `json:"files_open"`
	PipesUsed int    `json:"pipes_used"`
	PipesFree int    `json:"pipes_free"`
	// Idle is the percentage of the last second in which the process used none of its processors.
	Idle float64 `json:"idle_percent"`
	// Threads is how many processors it may use at once, MemoryBytes what the runtime has of the system, HeapBytes what of it is in use.
	Threads     int    `json:"threads"`
	MemoryBytes uint64 `json:"memory_bytes"`
	HeapBytes   uint64 `json:"heap_bytes"`
	// Runnable are goroutines that wait for a processor.
	Runnable int `json:"goroutines_runnable"`
	// Listeners are the addresses at which clients are accepted.
	Listeners int `json:"listeners"`
	// Stopping says that it takes no clients any more, and waits for its sessions to end.
	Stopping bool `json:"stopping,omitempty"`
	// HandOvers counts how often one process took over from another since the first of them started.
	HandOvers int `json:"hand_overs"`
}

// Stalled is a loop that doesn't go round.
type Stalled struct {
	// Loop says in words which it is, Since is when it was last seen to go round.
	Loop  string    `json:"loop"`
	Since time.Time `json:"since"`
}

// Upgrade is a process's taking over from another, or its failed attempt to hand over.
type Upgrade struct {
	// At is when that was.
	At time.Time `json:"at"`
	// PID and Version are of the process before, Sessions and Clients (those that had no session yet) what it handed over.
	PID      int    `json:"pid,omitempty"`
	Version  string `json:"version,omitempty"`
	Sessions int    `json:"sessions"`
	Clients  int    `json:"clients"`
	// Problem says why this process couldn't hand over; empty if it took over.
	Problem string `json:"problem,omitempty"`
}

// Names counts what became of questions for names since the start.
type Names struct {
	// Listen is where questions are answered, over UDP and TCP; empty if names are only written to files.
	Listen string `json:"listen,omitempty"`
	// Names is how many names have an answer.
	Names int `json:"names"`
	// Questions were answered: Refused ones were for names that aren't of clusters, Unknown ones for names below those of
	// clusters that don't exist. Malformed could not be read. Rejected are TCP connections that were too many.
	Questions uint64 `json:"questions"`
	Refused   uint64 `json:"refused"`
	Unknown   uint64 `json:"unknown"`
	Malformed uint64 `json:"malformed"`
	Rejected  uint64 `json:"turned_away"`
}

// Config says where the running configuration came from and how the last attempt to change it ended.
type Config struct {
	// Source is the inventory's path or the addresses of the Patroni that was asked.
	Source string `json:"source"`
	// Sent says who sent the running configuration; Source is then a path on the sender's machine. Absent if the node read
	// the configuration itself.
	Sent *Sent `json:"sent,omitempty"`
	// Plan is how the running plan came to the node; absent where members are discovered.
	Plan *Plan `json:"plan,omitempty"`
	// Control is the address at which configurations are taken from elsewhere; empty for none.
	Control string `json:"control,omitempty"`
	// ControlExpires is when the certificate of that address does; absent where there is none.
	ControlExpires *time.Time `json:"control_certificate_expires,omitempty"`
	// Loaded is when the running configuration was taken.
	Loaded time.Time `json:"loaded"`
	// Generation counts the configurations taken since the start, from 1.
	Generation int `json:"generation"`
	// Refused says why the last reload was not taken; empty if it was.
	Refused string `json:"refused,omitempty"`
	// Refusals counts the configurations that weren't taken since the start; absent while there was none.
	Refusals int `json:"refusals,omitempty"`
	// Assumed are the decisions taken where nothing was said.
	Assumed []string `json:"assumed,omitempty"`
}

// Plan says what a node runs from, who made that, and since when the node has it.
type Plan struct {
	// Hash is the SHA-256 of the plan with what goes with it, the sha256 of a plan's file: the same whichever way it came.
	Hash string `json:"hash"`
	// Origin is FromFile or FromControl; who sent it is in Sent.
	Origin string `json:"origin"`
	// Accepted is when the node took it. Unlike Loaded it isn't the time of a restart.
	Accepted time.Time `json:"accepted"`
	// MadeBy is the version of the pgporter that made it, Made when, MadeFrom the name of the inventory.
	MadeBy   string    `json:"made_by"`
	Made     time.Time `json:"made"`
	MadeFrom string    `json:"made_from"`
	// Kept is the file that has it for the next start; empty where nothing is kept, or where that failed, as Unkept says.
	Kept   string `json:"kept,omitempty"`
	Unkept string `json:"unkept,omitempty"`
	// Instead says why this is what the node runs and not what its own file says; empty if it is both.
	Instead string `json:"instead,omitempty"`
}

// Ways by which a plan comes to a node.
const (
	FromFile    = "file"
	FromControl = "control"
)

// Sent is where a configuration came from that a node was sent.
type Sent struct {
	// Sender is who says to have sent it, From the address that it came from.
	Sender string `json:"sender"`
	From   string `json:"from"`
}

// Cluster is one cluster's members and services.
type Cluster struct {
	// Name is the cluster's (pg_cluster).
	Name string `json:"name"`
	// LeaderKey is what etcd says of the leader key; absent where etcd isn't asked.
	LeaderKey *LeaderKey `json:"leader_key,omitempty"`
	// VIP is the cluster's virtual address; absent where this daemon doesn't keep one.
	VIP *VirtualIP `json:"vip,omitempty"`
	// Contested says in words which members claim to lead at once; empty while at most one does.
	Contested string `json:"contested,omitempty"`
	// Hold is the one in force; absent while there is none.
	Hold *Hold `json:"hold,omitempty"`
	// Outages are the times in which the cluster had no leader that serves: how many have ended, and how long they were.
	Outages Histogram `json:"outage_seconds"`
	// OutageSince is when the one began that lasts; absent while there is none.
	OutageSince *time.Time `json:"outage_since,omitempty"`
	// Members are its instances, Services what is offered of it.
	Members  []Member  `json:"members"`
	Services []Service `json:"services"`
}

// VirtualIP is the address that follows a cluster's leader, as this node sees it.
type VirtualIP struct {
	// Address has the length of its network's prefix behind it. Interface is empty while there is none to be used.
	Address   string `json:"address"`
	Interface string `json:"interface,omitempty"`
	// Here says that this node has the address: since Since, and unless that is renewed until Until.
	Here  bool       `json:"here"`
	Since *time.Time `json:"since,omitempty"`
	Until *time.Time `json:"until,omitempty"`
	// Why says why this node has the address, or hasn't; Problem what should be mended, absent if nothing should.
	Why     string `json:"why"`
	Problem string `json:"problem,omitempty"`
	// Others are the Ethernet addresses of those who have the address too, as far as was heard in the last 30 s.
	Others []string `json:"others,omitempty"`
}

// LeaderKey is the key by which Patroni has one leader.
type LeaderKey struct {
	// Holder is the member that holds it; empty if nobody does, or etcd is lost.
	Holder string `json:"holder"`
	// Lost says why etcd can't be asked; absent while it can.
	Lost string `json:"lost,omitempty"`
	// Unordered says why orders to hold the cluster can't be read from etcd; absent while they can.
	Unordered string `json:"unordered,omitempty"`
}

// Member is an instance as its Patroni describes it.
type Member struct {
	// Name is the instance's, Host where it is reached. Role is what it is now, Declared what the configuration says; State is Patroni's word for
	// its PostgreSQL and Timeline its timeline, as far as they are known.
	Name     string `json:"name"`
	Host     string `json:"host"`
	Role     string `json:"role"`
	Declared string `json:"declared_role"`
	State    string `json:"state,omitempty"`
	Timeline int    `json:"timeline,omitempty"`
	// Answer is the last check's result in words.
	Answer string `json:"answer"`
	// Answered is when Patroni answered last; absent if never.
	Answered *time.Time `json:"answered,omitempty"`
	// Remark is what an operator should know of it besides; absent if there is nothing.
	Remark string `json:"remark,omitempty"`
	// Questions count what its API was asked since the start.
	Questions Questions `json:"questions"`
	// Lag is how far its WAL is behind the leader's, in bytes; absent while that isn't known.
	Lag *int64 `json:"lag_bytes,omitempty"`
	// Answering counts how long its API took to answer.
	Answering Histogram `json:"answer_seconds"`
}

// Questions are totals: Asked are those put to a member's API, OutOfTurn those of them that were out of turn, Late the answers that came
// after the API was taken for silent, and HeldBack those that weren't put when they were wanted (the budget was used up, or the node had
// no means to).
type Questions struct {
	Asked     uint64 `json:"asked"`
	OutOfTurn uint64 `json:"out_of_turn"`
	Late      uint64 `json:"late"`
	HeldBack  uint64 `json:"held_back"`
}

// Service is a service and who carries it now.
type Service struct {
	// Name is the service's in its cluster, FullName with that before it.
	Name     string `json:"name"`
	FullName string `json:"full_name"`
	// Listen is where clients connect; Check is the Patroni path that decides.
	Listen string `json:"listen"`
	Check  string `json:"check"`
	// Balance is how new clients are spread over its servers, in HAProxy's words: `roundrobin`, `leastconn`, …
	Balance string `json:"balance,omitempty"`
	// Shadow says that nobody is accepted for it here: Listen, Up and its servers are what would be.
	Shadow bool `json:"shadow,omitempty"`
	// Up says whether a client that comes now is connected to a server, after the cluster's Hold if there is one.
	Up bool `json:"up"`
	// Since is when Up last changed, Downs how often it had no server left, DownSeconds how long that was in all.
	Since       time.Time `json:"since"`
	Downs       uint64    `json:"downs"`
	DownSeconds float64   `json:"down_seconds"`
	// Sessions are open now, Queued the clients that wait because no server takes them; Total counts those connected to a
	// server since the start, Refused those who found none.
	Sessions int    `json:"sessions"`
	Queued   int    `json:"held"`
	Total    uint64 `json:"total"`
	Refused  uint64 `json:"refused"`
	// Waiting is since when the client waits that waits longest; absent while nobody does.
	Waiting *time.Time `json:"waiting_since,omitempty"`
	// Clients are all connections that were accepted and are open, ClientsMax the most there were at once, Accepted all there have
	// been, AcceptRate those of the last second and AcceptRateMax the most of any. Denied are those of them that were closed unheard: their
	// address isn't allowed. Limit is how many there may be (maxconn); 0 where only the limit of open files says.
	Clients       int    `json:"clients"`
	ClientsMax    int    `json:"clients_max"`
	Accepted      uint64 `json:"accepted"`
	AcceptRate    int    `json:"accept_rate"`
	AcceptRateMax int    `json:"accept_rate_max"`
	Denied        uint64 `json:"denied"`
	Limit         int    `json:"limit"`
	// Cancels are cancel requests that came, CancelsSent the requests to servers that they became.
	Cancels     uint64 `json:"cancels"`
	CancelsSent uint64 `json:"cancels_sent"`
	Counts
	// Ended counts the sessions that have ended, by why: client, server, error, down, idle, killed, stop.
	Ended map[string]uint64 `json:"ended,omitempty"`
	// Servers are its destinations: the members that it selects.
	Servers []Server `json:"servers"`
}

// Counts are what is counted alike of a service and of each of its servers. Totals are since the service was first offered by this
// process or one that handed it over.
type Counts struct {
	// SessionsMax and QueuedMax are the most that there were at once: sessions, and clients that wait.
	SessionsMax int `json:"sessions_max"`
	QueuedMax   int `json:"held_max"`
	// SessionRate are the sessions begun in the last second, SessionRateMax the most of any.
	SessionRate    int `json:"session_rate"`
	SessionRateMax int `json:"session_rate_max"`
	// ToServer and ToClient are bytes passed on.
	ToServer int64 `json:"bytes_to_server"`
	ToClient int64 `json:"bytes_to_client"`
	// Attempts to connect, ConnectFailures those in vain (refused, timed out, or a server that refuses everybody), Retries attempts of
	// a client that had one in vain, Redispatches those of them at another server.
	Attempts        uint64 `json:"connect_attempts"`
	ConnectFailures uint64 `json:"connect_failures"`
	Retries         uint64 `json:"retries"`
	Redispatches    uint64 `json:"redispatches"`
	// ClientAborts and ServerAborts are sessions that ended in a reset by that side.
	ClientAborts uint64 `json:"client_aborts"`
	ServerAborts uint64 `json:"server_aborts"`
	// LastSession is when the latest session began; absent before the first.
	LastSession *time.Time `json:"last_session,omitempty"`
	// QueueTime, ConnectTime and SessionTime are averages of the latest 1,024 sessions, in milliseconds: waiting, connecting, whole.
	QueueTime   float64 `json:"queue_ms"`
	ConnectTime float64 `json:"connect_ms"`
	SessionTime float64 `json:"session_ms"`
	// QueueTimeMax, ConnectTimeMax and SessionTimeMax are the longest of all sessions, in milliseconds.
	QueueTimeMax   float64 `json:"queue_ms_max"`
	ConnectTimeMax float64 `json:"connect_ms_max"`
	SessionTimeMax float64 `json:"session_ms_max"`
	// Connecting counts connects by how long they took.
	Connecting Histogram `json:"connect_seconds,omitzero"`
}

// Histogram counts how often something took how long: Counts[i] at most Bounds[i] seconds (and more than the one before), the last
// of Counts longer than all. Sum is of all, in seconds.
type Histogram struct {
	Bounds []float64 `json:"bounds,omitempty"`
	Counts []uint64  `json:"counts,omitempty"`
	Sum    float64   `json:"sum"`
}

// ServerCheck is what a check of a server brought, and how far it counts.
type ServerCheck struct {
	// Status is HAProxy's code for it (management guide, "check_status"): `INI` before the first has ended, `L4OK` where connecting was
	// all, `L7OK` for an answer that passes, `L7STS` for one that doesn't, `L7RSP` for nonsense, `L7TOUT` for none in time, `L4CON` and
	// `L4TOUT` where nobody could be connected to, `L6RSP` where TLS failed, `SOCKERR` where this node had no means to ask.
	Status string `json:"status"`
	// Code is an HTTP answer's status; 0 without one. Text says in words what came.
	Code int    `json:"code,omitempty"`
	Text string `json:"text"`
	// Seconds is how long it took; 0 if that isn't known.
	Seconds float64 `json:"seconds"`
	// Rise and Fall are how many in a row bring it up and down. Health counts as HAProxy does: 0 for down, Rise+Fall-1 for up, between them
	// while results in a row are counted.
	Rise   int `json:"rise"`
	Fall   int `json:"fall"`
	Health int `json:"health"`
}

// Server is a member as a service's destination.
type Server struct {
	// Member is the instance, Address where its connections go.
	Member  string `json:"member"`
	Address string `json:"address"`
	// Role is what the member is now, State Patroni's word for its PostgreSQL.
	Role  string `json:"role"`
	State string `json:"state,omitempty"`
	// Weight is its share of new clients beside the others', Backup says that it takes them only while no other does.
	Weight int  `json:"weight"`
	Backup bool `json:"backup"`
	// Up servers may take clients; Serving ones do (a backup that is up doesn't while a regular server is usable).
	Up      bool `json:"up"`
	Serving bool `json:"serving"`
	// Reason says in words why it is up or down, Since since when it is. Sessions are open now, Total all since the start.
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
	Sessions int       `json:"sessions"`
	Total    uint64    `json:"total"`
	// Order is what an operator has ordered of it; absent if nothing: Weight is what counts then, DeclaredWeight what the
	// configuration says.
	Order          *Ordered `json:"order,omitempty"`
	DeclaredWeight int      `json:"declared_weight"`
	// Limit is how many sessions it may have (maxconn), QueueLimit how many may wait for it (maxqueue); 0 is any number. Queued
	// are those who do.
	Limit      int `json:"limit"`
	QueueLimit int `json:"queue_limit"`
	Queued     int `json:"held"`
	Counts
	// LastCheck is the newest result of its checks; absent where it isn't checked, or HAProxy does it.
	LastCheck *ServerCheck `json:"last_check,omitempty"`
	// CheckFailures are checks in vain while it was up, Downs how often it went down, DownSeconds how long it has been down in all.
	CheckFailures uint64  `json:"check_failures"`
	Downs         uint64  `json:"downs"`
	DownSeconds   float64 `json:"down_seconds"`
	// Throttle is the share of its weight that it has in its slow start, in percent; absent while it has all.
	Throttle *int `json:"throttle,omitempty"`
}
