package model

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Hold is how long new clients of a service wait while no server takes them.
type Hold struct {
	// Failover has them wait for as long as a failover can take, and less where none can come. For is the time otherwise; 0 refuses them at
	// once.
	Failover bool
	For      time.Duration
}

// HoldFailover is a Hold's word for Failover, DefaultHold what holds where nobody says anything, MostHold the longest that may be said.
const (
	HoldFailover = "failover"
	DefaultHold  = 5 * time.Second
	MostHold     = time.Hour
)

// WantHold says what a Hold may be.
const WantHold = "a time as in 5s, 500ms or 2m, an hour at most; 0 to refuse clients at once; failover to wait as long as one can take"

// ParseHold reads a Hold: failover, 0, or a time with its unit. The error says what is wrong with the text.
func ParseHold(text string) (Hold, error) {
	if text == HoldFailover {
		return Hold{Failover: true}, nil
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return Hold{}, errors.New("is no time")
	case d < 0 || d > MostHold:
		return Hold{}, fmt.Errorf("isn't from 0 to %s", Hold{For: MostHold})
	}
	return Hold{For: d}, nil
}

// String is the Hold as ParseHold reads it.
func (h Hold) String() string {
	switch {
	case h.Failover:
		return HoldFailover
	case h.For == 0:
		return "0"
	}
	text := h.For.String()
	for _, none := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, none) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// MarshalText is String.
func (h Hold) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText is ParseHold.
func (h *Hold) UnmarshalText(text []byte) (err error) {
	if *h, err = ParseHold(string(text)); err != nil {
		return fmt.Errorf("hold: %q %w", text, err)
	}
	return nil
}

// Waits says that clients wait at all.
func (h Hold) Waits() bool { return h.Failover || h.For > 0 }

// Words say how long clients wait.
func (h Hold) Words() string {
	if h.Failover {
		return "as long as a failover can take"
	}
	return "up to " + h.String()
}
