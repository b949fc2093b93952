package model

import (
	"net/netip"
	"testing"
)

func TestParseNetwork(t *testing.T) {
	for text, want := range map[string]struct{ network, right, err string }{
		"10.0.0.0/8":          {network: "10.0.0.0/8"},
		"0.0.0.0/0":           {network: "0.0.0.0/0"},
		"10.0.0.7":            {network: "10.0.0.7/32"},
		"2001:db8::/32":       {network: "2001:db8::/32"},
		"::1":                 {network: "::1/128"},
		"::ffff:10.0.0.7":     {network: "10.0.0.7/32"},
		"10.0.0.7/8":          {right: "10.0.0.0/8", err: "has bits behind its mask"},
		"::ffff:10.0.0.0/104": {err: "is a network of IPv4 in the words of IPv6"},
		"fe80::1%eth0":        {err: "has a zone, which no client's address has"},
		"10.0.0.0/33":         {err: "is neither an address nor a network"},
		"10.0.0/24":           {err: "is neither an address nor a network"},
		"010.0.0.1":           {err: "is neither an address nor a network"},
		"office":              {err: "is neither an address nor a network"},
		"":                    {err: "is neither an address nor a network"},
	} {
		network, right, err := ParseNetwork(text)
		switch {
		case err == nil && (want.err != "" || network.String() != want.network):
			t.Errorf("%q is read as %s", text, network)
		case err != nil && (err.Error() != want.err || right != want.right):
			t.Errorf("%q: %v, right is %q", text, err, right)
		}
	}
}

func TestNetworksAllow(t *testing.T) {
	some := Networks{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("192.168.1.7/32")}
	for from, want := range map[string]bool{
		"10.255.255.255": true, "11.0.0.0": false, "192.168.1.7": true, "192.168.1.8": false, "::ffff:10.0.0.1": true, "::ffff:11.0.0.1": false,
		"fe80::1%eth0": true, "fd00::1": false, "::": false, "0.0.0.0": false,
	} {
		if some.Allow(netip.MustParseAddr(from)) != want {
			t.Errorf("%s: %t", from, !want)
		}
	}
	if !(Networks{}).Allow(netip.MustParseAddr("203.0.113.9")) {
		t.Error("without a list not everybody may come")
	}
}

func FuzzParseNetwork(f *testing.F) {
	f.Add("10.0.0.0/8")
	f.Add("::ffff:10.0.0.7")
	f.Add("fe80::1%eth0/64")
	f.Fuzz(func(t *testing.T, text string) {
		network, right, err := ParseNetwork(text)
		if err != nil {
			if again, _, err := ParseNetwork(right); right != "" && (err != nil || again.String() != right) {
				t.Errorf("%q would be right as %q, which is %v, %v", text, right, again, err)
			}
			return
		}
		if network != network.Masked() || network.Addr().Is4In6() || network.Addr().Zone() != "" || !(Networks{network}).Allow(network.Addr()) {
			t.Errorf("%q is read as %s", text, network)
		}
	})
}
