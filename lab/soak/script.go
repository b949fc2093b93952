package soak

import (
	"math/rand/v2"
	"time"
)

// script is what both ends of a session do, which each of them draws by itself from the seed and the session's number.
type script struct {
	ending ending
	// up are the bytes for the server, down those for the client, if the ending lets them all go.
	up, down int64
	// piece is the size of writes.
	piece int
	// upContent and downContent are what they are of.
	upContent, downContent stream
	// clientStalls and serverStalls are for how long a side reads nothing at first.
	clientStalls, serverStalls time.Duration
	// asksTLS says that the client asks for encryption first, and is declined.
	asksTLS bool
}

// ending is how a session goes and ends.
type ending int

// The endings. Whoever resets or leaves has read everything that it was sent before, unless it is said.
const (
	// bothAtOnce: both send, end their streams and read to the end.
	bothAtOnce ending = iota
	// clientFirst: the client sends and ends its stream; then the server does.
	clientFirst
	// serverFirst is the reverse.
	serverFirst
	// clientResets: the server sends, then the client sends and resets.
	clientResets
	// serverResets is the reverse.
	serverResets
	// clientLeaves: the client closes with whatever it was sent unread.
	clientLeaves
	// serverLeaves is the reverse.
	serverLeaves
)

// endings are drawn by their shares.
var endings = []struct {
	ending
	share int
}{{bothAtOnce, 30}, {clientFirst, 20}, {serverFirst, 15}, {clientResets, 12}, {serverResets, 11}, {clientLeaves, 6}, {serverLeaves, 6}}

// scriptOf draws the script of a session.
func scriptOf(seed, number uint64) script {
	r := rand.New(rand.NewPCG(seed, number))
	s := script{upContent: stream(r.Uint64()), downContent: stream(r.Uint64())}
	draw := r.IntN(100)
	for _, w := range endings {
		if draw -= w.share; draw < 0 {
			s.ending = w.ending
			break
		}
	}
	s.up, s.down = size(r), size(r)
	s.piece = []int{1, 7, 300, 4096, 64 << 10}[r.IntN(5)]
	if s.up > 4096 || s.down > 4096 {
		s.piece = max(s.piece, 300)
	}
	stall := func() time.Duration {
		if r.IntN(40) > 0 {
			return 0
		}
		return time.Duration(1+r.IntN(20)) * time.Millisecond
	}
	s.clientStalls, s.serverStalls = stall(), stall()
	s.asksTLS = r.IntN(8) == 0
	return s
}

// size is small as a rule, and once in a while more than all buffers between the two ends hold at first.
func size(r *rand.Rand) int64 {
	switch draw := r.IntN(1000); {
	case draw < 100:
		return 0
	case draw < 700:
		return 1 + r.Int64N(200)
	case draw < 990:
		return 1 + r.Int64N(16<<10)
	}
	return 1 + r.Int64N(1<<20)
}

// rudeness is how somebody comes who doesn't want a session, or not for long.
type rudeness int

// What somebody rude does.
const (
	// connectsOnly: connects and closes.
	connectsOnly rudeness = iota
	// breaksOff: sends a part of its startup packet and closes.
	breaksOff
	// breaksOffHard does it with a reset.
	breaksOffHard
	// asksAndGoes: asks for encryption and closes.
	asksAndGoes
	// resetsAtOnce: sends its startup packet and resets without an answer. It may get to the server or not.
	resetsAtOnce
	// leavesAtOnce does it with an end in order.
	leavesAtOnce
	// cancels: sends a CancelRequest and waits for the end.
	cancels
	rudenesses
)
