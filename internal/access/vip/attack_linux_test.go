package vip

import (
	"log/slog"
	"net/netip"
	"syscall"
	"testing"

	"github.com/pgporter/pgporter/internal/access/vip/owner"
	"github.com/pgporter/pgporter/internal/config/model"
)

// An interface that has been found can be looked at, and an address on it renewed, when there is no descriptor left: an address is lost
// for want of one otherwise. Who may not keep addresses is told the same as before.
func TestAttackNoDescriptors(t *testing.T) {
	d := openLink(owner.Want{Cluster: "pg-test", VirtualIP: model.VirtualIP{Address: netip.MustParsePrefix("127.0.0.1/8"), Interface: "lo"}}, slog.New(slog.DiscardHandler))
	defer d.close()
	before := d.look()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// Files beyond it that are open already stay so.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 0, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	without := d.look()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if without != before {
		t.Errorf("without descriptors it is %+v, before %+v", without, before)
	}
}
