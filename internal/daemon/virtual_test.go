package daemon

import (
	"strings"
	"syscall"
	"testing"

	"github.com/pgporter/pgporter/internal/access/vip"
	"github.com/pgporter/pgporter/internal/admin/api"
)

// withVIP is an inventory with a virtual address for an interface that no machine has.
func withVIP(inventory string) string {
	return strings.Replace(inventory, "    pg_rto: fast\n", "    pg_rto: fast\n    pg_vip_enabled: true\n    pg_vip_address: 192.0.2.3/24\n    pg_vip_interface: pgporter-none\n", 1)
}

// TestVirtualAddressWithoutInterface: what keeps a virtual address away is reported, and the services go on; a reload follows
// what is declared.
func TestVirtualAddressWithoutInterface(t *testing.T) {
	f := newFixture(t, address(101))
	r := start(t, f, address(102), withVIP(f.inventory("primary:5433")), false, func(c *Config) { c.VIP = &vip.Config{} })
	problem := func(s *api.Status) string {
		if v := s.Clusters[0].VIP; v != nil && v.Address == "192.0.2.3/24" && !v.Here && v.Why == v.Problem {
			return v.Problem
		}
		return ""
	}
	r.until("reported", func(s *api.Status) bool { return problem(s) != "" })
	// As root the interface is missing, as anybody else the capabilities are.
	if why := problem(r.status()); !strings.Contains(why, "there is no network interface pgporter-none") && !strings.Contains(why, "CAP_NET_ADMIN") {
		t.Errorf("the problem is %q", why)
	}
	r.until("an error in the log", func(*api.Status) bool {
		return strings.Contains(r.log.String(), "level=ERROR") && strings.Contains(r.log.String(), "the virtual address 192.0.2.3/24 can't be kept here")
	})
	r.until("serving", func(s *api.Status) bool { return s.Clusters[0].Services[0].Up })
	r.write(f.inventory("primary:5433"))
	r.reload <- syscall.SIGHUP
	r.until("without an address", func(s *api.Status) bool { return s.Config.Generation == 2 && s.Clusters[0].VIP == nil })
	if !strings.Contains(r.log.String(), "this node has no virtual address to keep") {
		t.Errorf("no word on there being nothing to keep:\n%s", r.log.String())
	}
	r.stop()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
}

// TestVirtualAddressOfOthers: without --vip the address is another program's, which is said.
func TestVirtualAddressOfOthers(t *testing.T) {
	f := newFixture(t, address(103))
	r := start(t, f, address(104), withVIP(f.inventory("primary:5433")), false)
	if s := r.status(); s.Clusters[0].VIP != nil {
		t.Errorf("status %+v", s.Clusters[0].VIP)
	}
	if !strings.Contains(r.log.String(), "the virtual address is left to another program") {
		t.Errorf("nothing is said of the address:\n%s", r.log.String())
	}
	r.stop()
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
}
