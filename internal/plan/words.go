package plan

import (
	"net/netip"

	"github.com/pgporter/pgporter/internal/spelling"
)

// overlap tells whether two listeners on one port can't be had together: the addresses are the same, or one is every
// address of the node. A name that is no address may be any.
func overlap(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	if errX != nil || errY != nil {
		return true
	}
	if x == y || x.IsUnspecified() && y.IsUnspecified() {
		return true
	}
	// A socket on :: takes IPv4 too; one on 0.0.0.0 doesn't take IPv6.
	return x.IsUnspecified() && (x.Is6() || y.Is4()) || y.IsUnspecified() && (y.Is6() || x.Is4())
}

// suggestion says what may stand where an unknown word does.
func suggestion(word string, known []string) string {
	if near := spelling.Nearest(word, known); near != "" {
		return "did you mean " + near
	}
	text := "one of "
	for i, k := range known {
		if i > 0 {
			text += ", "
		}
		text += k
	}
	return text
}

// near says which of several words a misspelt one probably is, or else what is wanted.
func near(word string, known []string, otherwise string) string {
	if word := spelling.Nearest(word, known); word != "" {
		return "did you mean " + word
	}
	return otherwise
}
