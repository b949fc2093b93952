package model

import (
	"slices"
	"testing"
)

func TestOverlaps(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"*", "10.0.0.1", true}, {"*", "*", true}, {"10.0.0.1", "10.0.0.1", true}, {"10.0.0.1", "10.0.0.2", false}, {"0.0.0.0", "10.0.0.1", true},
		{"0.0.0.0", "::1", false}, {"::", "10.0.0.1", true}, {"::", "0.0.0.0", true}, {"::1", "0:0::1", true}, {"::ffff:10.0.0.1", "10.0.0.1", true},
		{"*", "::", true}, {"::", "::1", true},
	} {
		a, errA := ListenAddrOf(tc.a, 5433)
		b, errB := ListenAddrOf(tc.b, 5433)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.Overlaps(b) != tc.want || b.Overlaps(a) != tc.want {
			t.Errorf("%s and %s: overlapping isn't %v both ways", tc.a, tc.b, tc.want)
		}
		b.Port++
		if a.Overlaps(b) || b.Overlaps(a) {
			t.Errorf("%s and %s overlap", a, b)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"*", "10.0.0.1", true}, {"*", "::", true}, {"*", "*", false}, {"10.0.0.1", "*", false}, {"0.0.0.0", "10.0.0.1", true},
		{"0.0.0.0", "::1", false}, {"::", "10.0.0.1", false}, {"::", "::1", true}, {"::", "*", false}, {"::1", "::1", false},
	} {
		a, _ := ListenAddrOf(tc.a, 5433)
		b, _ := ListenAddrOf(tc.b, 5433)
		if a.Covers(b) != tc.want {
			t.Errorf("that %s covers %s isn't %v", tc.a, tc.b, tc.want)
		}
	}
}

func TestListenAddrIsReadAndWritten(t *testing.T) {
	for _, text := range []string{"*:5433", "10.0.0.1:1", "[::1]:65535", "[fe80::1%eth0]:5433"} {
		at, err := ParseListenAddr(text)
		if err != nil || at.String() != text {
			t.Errorf("%s is read as %s (%v)", text, at, err)
		}
	}
	for _, tc := range []struct {
		ip   string
		port int
		want string
	}{
		{"*", 0, "port 0 is out of range, 1 to 65535"}, {"10.0.0.1", 65536, "port 65536 is out of range, 1 to 65535"},
		{"db", 5433, `"db" is not an IP address to listen on`}, {"", 5433, `"" is not an IP address to listen on`},
	} {
		if _, err := ListenAddrOf(tc.ip, tc.port); err == nil || err.Error() != tc.want {
			t.Errorf("%s and port %d: %v, want %s", tc.ip, tc.port, err, tc.want)
		}
	}
}

func TestListeners(t *testing.T) {
	var all Listeners[string]
	overlapping := func(ip string, port, most int) []string {
		at, err := ListenAddrOf(ip, port)
		if err != nil {
			t.Fatal(err)
		}
		return all.Overlapping(at, most)
	}
	for _, one := range []struct{ who, ip string }{{"a", "10.0.0.1"}, {"b", "10.0.0.2"}, {"c", "*"}, {"d", "10.0.0.1"}} {
		at, _ := ListenAddrOf(one.ip, 5433)
		all.Add(at, one.who)
	}
	for _, tc := range []struct {
		ip         string
		port, most int
		want       []string
	}{
		{"10.0.0.1", 5433, 9, []string{"a", "c", "d"}}, {"10.0.0.1", 5433, 2, []string{"a", "c"}}, {"10.0.0.3", 5433, 1, []string{"c"}},
		{"*", 5433, 9, []string{"a", "b", "c", "d"}}, {"*", 5434, 9, nil},
	} {
		if got := overlapping(tc.ip, tc.port, tc.most); !slices.Equal(got, tc.want) {
			t.Errorf("%s, port %d, %d at most: %v, want %v", tc.ip, tc.port, tc.most, got, tc.want)
		}
	}
}
