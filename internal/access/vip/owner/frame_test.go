package owner

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

var (
	four = netip.MustParseAddr("10.10.10.3")
	six  = netip.MustParseAddr("fd00::3")
	here = MAC{2, 0, 0, 0, 0, 1}
)

// The frames byte for byte, laid out by hand from the RFCs named in frame.go.
func TestFrames(t *testing.T) {
	padding := strings.Repeat("00", 18)
	for _, test := range []struct {
		name string
		got  []byte
		want string
	}{
		{"gratuitous ARP request", Announcement(four, here)[0],
			"ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 0a0a0a03 000000000000 0a0a0a03" + padding},
		{"gratuitous ARP reply", Announcement(four, here)[1],
			"ffffffffffff 020000000001 0806 0001 0800 06 04 0002 020000000001 0a0a0a03 ffffffffffff 0a0a0a03" + padding},
		{"ARP probe", Probe(four, here),
			"ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 00000000 000000000000 0a0a0a03" + padding},
		{"unsolicited advertisement", Announcement(six, here)[0],
			"333300000001 020000000001 86dd 60000000 0020 3a ff fd000000000000000000000000000003 ff020000000000000000000000000001" +
				"88 00 5a97 20000000 fd000000000000000000000000000003 02 01 020000000001"},
		{"solicitation of duplicate address detection", Probe(six, here),
			"3333ff000003 020000000001 86dd 60000000 0018 3a ff 00000000000000000000000000000000 ff0200000000000000000001ff000003" +
				"87 00 7da1 00000000 fd000000000000000000000000000003"},
	} {
		if got, want := hex.EncodeToString(test.got), strings.ReplaceAll(test.want, " ", ""); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", test.name, got, want)
		}
	}
}

func TestClaimant(t *testing.T) {
	other := MAC{2, 0, 0, 0, 0, 7}
	solicited := Announcement(six, other)[0]
	solicited[icmpFlags] = 0x60
	bare := append([]byte(nil), Announcement(six, other)[0][:icmpOption]...)
	for _, test := range []struct {
		name    string
		frame   []byte
		address netip.Addr
		claims  bool
	}{
		{"announcement", Announcement(four, other)[0], four, true},
		{"its reply", Announcement(four, other)[1], four, true},
		{"a reply to a probe", arpFrame(arpReply, other, four, here, netip.IPv4Unspecified()), four, true},
		{"whoever asks for something else", arpFrame(arpRequest, other, four, MAC{}, netip.MustParseAddr("10.10.10.1")), four, true},
		{"a probe", Probe(four, other), four, false},
		{"another address", Announcement(netip.MustParseAddr("10.10.10.4"), other)[0], four, false},
		{"cut short", Announcement(four, other)[0][:arpEnd-1], four, false},
		{"advertisement", Announcement(six, other)[0], six, true},
		{"solicited advertisement", solicited, six, true},
		{"advertisement without an option", bare, six, true},
		{"solicitation", Probe(six, other), six, false},
		{"another kind of address", Announcement(six, other)[0], four, false},
		{"nothing", nil, four, false},
	} {
		mac, claims := Claimant(test.frame, test.address)
		if claims != test.claims || claims && mac != other {
			t.Errorf("%s: %v %v, want %v", test.name, mac, claims, test.claims)
		}
	}
	// One that came through a router is none of neighbour discovery.
	routed := Announcement(six, other)[0]
	routed[ip6Hops] = 254
	if _, claims := Claimant(routed, six); claims {
		t.Error("a routed advertisement is taken for one")
	}
}

// FuzzClaimant: whatever comes from the network does no harm, and only what names the address counts.
func FuzzClaimant(f *testing.F) {
	for _, address := range []netip.Addr{four, six} {
		for _, frame := range append(Announcement(address, here), Probe(address, here)) {
			f.Add(frame)
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, address := range []netip.Addr{four, six} {
			if _, claims := Claimant(frame, address); claims && !strings.Contains(string(frame), string(address.AsSlice())) {
				t.Errorf("%x claims %s without naming it", frame, address)
			}
		}
	})
}
