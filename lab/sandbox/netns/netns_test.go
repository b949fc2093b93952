package netns

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestRefused(t *testing.T) {
	address := netip.MustParsePrefix("10.10.10.11/24")
	for _, c := range []struct {
		lan  LAN
		want string
	}{
		{LAN{Name: "a-b"}, `lan "a-b": a name is of lower-case letters and digits`},
		{LAN{}, `lan "": a name`},
		{LAN{Name: "x", Nodes: []Node{{"switch", address}}}, `node "switch": a name of its own`},
		{LAN{Name: "x", Nodes: []Node{{"a", address}, {"a", address}}}, `node "a": a name of its own`},
		{LAN{Name: "x", Nodes: []Node{{"a-name-of-16-byte", address}}}, `node "a-name-of-16-byte"`},
		{LAN{Name: "x", Nodes: []Node{{"../a", address}}}, `node "../a"`},
		{LAN{Name: "x", Nodes: []Node{{"a", netip.Prefix{}}}}, "node a: address invalid Prefix: one with a prefix length"},
		{LAN{Name: "x", Nodes: []Node{{"a", netip.MustParsePrefix("127.0.0.1/8")}}}, "no loopback address"},
	} {
		if err := c.lan.Up(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.lan, err, c.want)
		}
	}
}

func TestCutsBetween(t *testing.T) {
	l := LAN{Name: "x", Nodes: []Node{{Name: "a"}, {Name: "b"}, {Name: "c"}}}
	for _, c := range []struct {
		oneWay bool
		nodes  []string
		want   string
	}{
		{false, []string{"a", "b"}, "[a > b b > a]"},
		{true, []string{"a", "b"}, "[a > b]"},
		{false, []string{"b"}, "[b > a a > b b > c c > b]"},
		{true, []string{"c"}, "[c > a c > b]"},
	} {
		cuts, err := l.cutsBetween(c.nodes[0], c.nodes[1:], c.oneWay)
		var got []string
		for _, cut := range cuts {
			got = append(got, cut.String())
		}
		if text := "[" + strings.Join(got, " ") + "]"; err != nil || text != c.want {
			t.Errorf("%v %v: %s, %v; want %s", c.oneWay, c.nodes, text, err, c.want)
		}
	}
	for _, nodes := range [][]string{{"d"}, {"a", "d"}} {
		if _, err := l.cutsBetween(nodes[0], nodes[1:], false); !errors.Is(err, ErrNoNode) {
			t.Errorf("%v: %v, want %v", nodes, err, ErrNoNode)
		}
	}
	if _, err := l.cutsBetween("a", []string{"a"}, false); err == nil {
		t.Error("a node was cut off from itself")
	}
	faults := Faults{Cuts: []Cut{{"a", "b"}}, Unplugged: []string{"c"}}
	if got := faults.String(); got != "lost: a > b\nunplugged: c\n" {
		t.Errorf("faults: %q", got)
	}
	if got := merged([]Cut{{"a", "b"}}, []Cut{{"a", "b"}, {"b", "a"}}); !slices.Equal(got, []Cut{{"a", "b"}, {"b", "a"}}) {
		t.Errorf("merged: %v", got)
	}
}
