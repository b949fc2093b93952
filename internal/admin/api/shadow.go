package api

import "time"

// Shadow is what a daemon has seen that carries no service and compares what it decides with what a HAProxy does (run --shadow).
type Shadow struct {
	// HAProxy is the socket or the page at which it is asked.
	HAProxy string `json:"haproxy"`
	// Asked counts questions, Unanswered those of them that brought nothing. Answered is when HAProxy answered last, Silent why it
	// doesn't; absent while it does.
	Asked      uint64     `json:"asked"`
	Unanswered uint64     `json:"unanswered"`
	Answered   *time.Time `json:"answered,omitempty"`
	Silent     string     `json:"silent,omitempty"`
	// Absent are services that HAProxy hasn't: they aren't compared.
	Absent []string `json:"absent,omitempty"`
	// Taken are the services that were taken from HAProxy and are served here. Both are those of them that HAProxy listens for, too: each of
	// their clients gets to one of the two.
	Taken []string `json:"taken,omitempty"`
	Both  []string `json:"both,omitempty"`
	// Right counts the disagreements that are over by who was right.
	Right Right `json:"right"`
	// Standing are the disagreements that last.
	Standing []Disagreement `json:"standing"`
	// Events are the latest 50, the newest last, those under way among them; Dropped counts older ones.
	Events  []ShadowEvent `json:"events"`
	Dropped int           `json:"events_dropped,omitempty"`
}

// Right counts by who was right.
type Right struct {
	// PGPorter, HAProxy and Unknown are how often it was each of them.
	PGPorter int `json:"pgporter"`
	HAProxy  int `json:"haproxy"`
	Unknown  int `json:"unknown"`
}

// ShadowEvent is a time in which things changed, from the first change on until all was calm.
type ShadowEvent struct {
	// Number counts them.
	Number int `json:"number"`
	// Cluster is empty for services that belong to none.
	Cluster string `json:"cluster,omitempty"`
	// What says in words what it was.
	What string `json:"what"`
	// Began is when its first change was.
	Began time.Time `json:"began"`
	// Ended is its last change; absent while it goes on.
	Ended *time.Time `json:"ended,omitempty"`
	// From and To are who led before it and after it, as far as is known.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Steps are in order, and so are Disagreements. Dropped is how many steps and disagreements there were beyond those that are kept.
	Steps         []ShadowStep   `json:"steps"`
	Disagreements []Disagreement `json:"disagreements"`
	Dropped       int            `json:"dropped,omitempty"`
}

// ShadowStep is what one side did with a server, or would have done.
type ShadowStep struct {
	// At is when it did.
	At time.Time `json:"at"`
	// After is At in seconds from the event's beginning.
	After float64 `json:"after"`
	// Of is `pgporter`, `haproxy`, or `leader key`: its Server holds it from then on, and there is no Service.
	Of      string `json:"of"`
	Service string `json:"service,omitempty"`
	Server  string `json:"server"`
	// Did says in words what was done, Why what that side says of the server.
	Did string `json:"did"`
	Why string `json:"why,omitempty"`
	// Sessions are those that HAProxy had there, where sessions end.
	Sessions int `json:"sessions,omitempty"`
}

// Disagreement is a time in which a server was treated differently.
type Disagreement struct {
	// Server is the one that was treated differently, behind Service.
	Service string `json:"service"`
	Server  string `json:"server"`
	// Kind is `haproxy_leads` (new clients, and pgporter wouldn't), `pgporter_leads` (it would, HAProxy doesn't), `haproxy_keeps`
	// (sessions that pgporter would have ended) or `haproxy_ended` (sessions that pgporter would have kept); Text says it in words.
	Kind string `json:"kind"`
	Text string `json:"text"`
	// Until and Seconds are absent as long as it lasts.
	Since   time.Time  `json:"since"`
	Until   *time.Time `json:"until,omitempty"`
	Seconds float64    `json:"seconds,omitempty"`
	// Sessions is how many HAProxy had there at its beginning. Clients are those that HAProxy led there meanwhile, Failed the connections
	// that it couldn't make, those that it tried again included.
	Sessions int    `json:"sessions"`
	Clients  uint64 `json:"clients"`
	Failed   uint64 `json:"failed"`
	// PGPorter and HAProxy are what each said of the server when it began.
	PGPorter string `json:"pgporter"`
	HAProxy  string `json:"haproxy"`
	// Right is `pgporter`, `haproxy` or `unknown`, Because says why; both are absent until the event is over.
	Right   string `json:"right,omitempty"`
	Because string `json:"because,omitempty"`
}
