package vip

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/pgporter/pgporter/internal/access/vip/owner"
)

// device is the network interface of an address on Linux.
type device struct {
	want owner.Want
	log  *slog.Logger
	// kernel is asked for addresses and interfaces through a socket that is always open: an address must not be lost since there is no
	// descriptor to renew it by. nil as long as there has been none.
	kernel *netlink.Handle
	// found is the interface; nil while there is none.
	found netlink.Link
	mac   owner.MAC
	// frames is a socket on the interface; nil where that isn't Ethernet's, or is gone.
	frames *packet.Conn
	heard  chan owner.MAC
	// reading joins the goroutine that reads frames.
	reading sync.WaitGroup
}

func openLink(w owner.Want, log *slog.Logger) link {
	return &device{want: w, log: log, heard: make(chan owner.MAC, 8)}
}

func (d *device) close() {
	d.leave()
	if d.kernel != nil {
		d.kernel.Close()
		d.kernel = nil
	}
}

// ask opens the socket by which the kernel is asked, if it isn't open yet.
func (d *device) ask() error {
	if d.kernel != nil {
		return nil
	}
	kernel, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("a socket to ask the kernel: %w", err)
	}
	d.kernel = kernel
	return nil
}

// leave closes the socket and forgets the interface.
func (d *device) leave() {
	d.found = nil
	if d.frames != nil {
		d.frames.Close()
		d.reading.Wait()
		d.frames = nil
	}
}

func (d *device) claims() <-chan owner.MAC { return d.heard }

func (d *device) look() owner.Link {
	seen, err := d.see()
	if err != nil {
		d.leave()
		return owner.Link{Problem: err.Error()}
	}
	return seen
}

func (d *device) see() (owner.Link, error) {
	if err := privileged(); err != nil {
		return owner.Link{}, err
	}
	if err := d.ask(); err != nil {
		return owner.Link{}, err
	}
	addresses, err := d.kernel.AddrList(nil, d.family())
	if err != nil {
		d.kernel.Close()
		d.kernel = nil
		return owner.Link{}, fmt.Errorf("this machine's addresses: %w", err)
	}
	found, err := d.find(addresses)
	if err != nil {
		return owner.Link{}, err
	}
	attributes := found.Attrs()
	seen := owner.Link{Name: attributes.Name, Up: attributes.Flags&net.FlagUp != 0 && attributes.Flags&net.FlagRunning != 0}
	for _, a := range addresses {
		prefix := prefixOf(a)
		if prefix.Addr() != d.want.Address.Addr() {
			continue
		}
		if prefix != d.want.Address || a.LinkIndex != attributes.Index {
			return owner.Link{}, fmt.Errorf("%s is on %s already: another program put it there", prefix, d.nameOf(a.LinkIndex))
		}
		if seen.Bound = owner.Leased; a.Flags&unix.IFA_F_PERMANENT != 0 {
			seen.Bound = owner.Lasting
		}
	}
	return seen, d.enter(found)
}

func (d *device) family() int {
	if d.want.Address.Addr().Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// find gives the interface of that name, or the one that carries the member's own address.
func (d *device) find(addresses []netlink.Addr) (netlink.Link, error) {
	if d.want.Interface != "" {
		found, err := d.kernel.LinkByName(d.want.Interface)
		if err != nil {
			return nil, fmt.Errorf("pg_vip_interface: there is no network interface %s: %w", d.want.Interface, err)
		}
		return found, nil
	}
	const mend = "name it in pg_vip_interface"
	own, err := netip.ParseAddr(d.want.Host)
	if err != nil {
		return nil, fmt.Errorf("pg_vip_interface is auto, and %s is no address: %s", d.want.Host, mend)
	}
	if own.Is4() != d.want.Address.Addr().Is4() {
		// The member's own address is of the other kind.
		all, err := d.kernel.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("this machine's addresses: %w", err)
		}
		addresses = all
	}
	i := slices.IndexFunc(addresses, func(a netlink.Addr) bool { return prefixOf(a).Addr() == own })
	if i < 0 && own.IsLoopback() {
		i = slices.IndexFunc(addresses, func(a netlink.Addr) bool { return prefixOf(a).Contains(own) })
	}
	if i < 0 {
		return nil, fmt.Errorf("pg_vip_interface is auto, and no network interface carries %s: %s", own, mend)
	}
	found, err := d.kernel.LinkByIndex(addresses[i].LinkIndex)
	if err != nil {
		return nil, fmt.Errorf("the network interface that carries %s: %w", own, err)
	}
	return found, nil
}

func prefixOf(a netlink.Addr) netip.Prefix {
	address, _ := netip.AddrFromSlice(a.IP)
	bits, _ := a.Mask.Size()
	return netip.PrefixFrom(address.Unmap(), bits)
}

func (d *device) nameOf(index int) string {
	found, err := d.kernel.LinkByIndex(index)
	if err != nil {
		return fmt.Sprintf("network interface %d", index)
	}
	return found.Attrs().Name
}

// enter makes an interface the one that is used, with a socket for frames if it is Ethernet's.
func (d *device) enter(found netlink.Link) error {
	now := found.Attrs()
	if d.found != nil && d.found.Attrs().Index == now.Index && slices.Equal(d.found.Attrs().HardwareAddr, now.HardwareAddr) {
		return nil
	}
	d.leave()
	if now.EncapType != "ether" || len(now.HardwareAddr) != len(d.mac) {
		d.found = found
		return nil
	}
	kind, program := owner.EtherTypeIPv6, advertisements
	if own := d.want.Address.Addr(); own.Is4() {
		kind, program = owner.EtherTypeARP, arpFrom(own)
	}
	filter, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("a filter for frames: %w", err)
	}
	conn, err := packet.Listen(&net.Interface{Index: now.Index, Name: now.Name, HardwareAddr: now.HardwareAddr}, packet.Raw, kind, &packet.Config{Filter: filter})
	if err != nil {
		return fmt.Errorf("a socket for frames on %s: %w", now.Name, err)
	}
	copy(d.mac[:], now.HardwareAddr)
	d.found, d.frames = found, conn
	own := d.mac
	d.reading.Go(func() { d.listen(conn, own) })
	return nil
}

// Filters that let pass what owner.Claimant may find something in. Offsets are in bytes from the frame's beginning.
func arpFrom(sender netip.Addr) []bpf.Instruction {
	octets := sender.As4()
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 28, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(octets[0])<<24 | uint32(octets[1])<<16 | uint32(octets[2])<<8 | uint32(octets[3]), SkipFalse: 1},
		bpf.RetConstant{Val: 2048},
		bpf.RetConstant{Val: 0},
	}
}

var advertisements = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 20, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 58, SkipFalse: 3},
	bpf.LoadAbsolute{Off: 54, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 136, SkipFalse: 1},
	bpf.RetConstant{Val: 2048},
	bpf.RetConstant{Val: 0},
}

// listen passes on who else says to have the address, until the socket is closed. Of many at once some are enough.
func (d *device) listen(conn *packet.Conn, own owner.MAC) {
	frame := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(frame)
		if errors.Is(err, unix.ENETDOWN) {
			// The interface is down; the socket stays good.
			continue
		}
		if err != nil {
			return
		}
		if mac, claims := owner.Claimant(frame[:n], d.want.Address.Addr()); claims && mac != own {
			select {
			case d.heard <- mac:
			default:
			}
		}
	}
}

func (d *device) address() *netlink.Addr {
	bits := d.want.Address.Addr().BitLen()
	return &netlink.Addr{IPNet: &net.IPNet{IP: d.want.Address.Addr().AsSlice(), Mask: net.CIDRMask(d.want.Address.Bits(), bits)}}
}

func (d *device) bind(seconds int) error {
	if d.found == nil {
		return errNoLink
	}
	a := d.address()
	a.ValidLft, a.PreferedLft = seconds, seconds
	if d.want.Address.Addr().Is6() {
		// It is to be used at once, though whoever had it may not have given it up yet; and connections that this node makes
		// itself aren't to come from it.
		a.Flags, a.PreferedLft = unix.IFA_F_NODAD, 0
	}
	if err := d.kernel.AddrReplace(d.found, a); err != nil {
		return fmt.Errorf("putting %s on %s: %w", d.want.Address, d.found.Attrs().Name, err)
	}
	return nil
}

var errNoLink = errors.New("the network interface is gone")

func (d *device) unbind() error {
	if d.found == nil {
		return errNoLink
	}
	if err := d.kernel.AddrDel(d.found, d.address()); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("taking %s from %s: %w", d.want.Address, d.found.Attrs().Name, err)
	}
	return nil
}

func (d *device) announce() error {
	return d.send(owner.Announcement(d.want.Address.Addr(), d.mac)...)
}

func (d *device) probe() error { return d.send(owner.Probe(d.want.Address.Addr(), d.mac)) }

func (d *device) send(frames ...[]byte) error {
	if d.frames == nil {
		return nil
	}
	for _, f := range frames {
		if _, err := d.frames.WriteTo(f, &packet.Addr{HardwareAddr: net.HardwareAddr(f[:6])}); err != nil {
			return fmt.Errorf("a frame on %s: %w", d.found.Attrs().Name, err)
		}
	}
	return nil
}

// privileged says what the process lacks.
func privileged() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("capabilities of this process: %w", err)
	}
	var missing []string
	for name, number := range map[string]uint{"CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_NET_RAW": unix.CAP_NET_RAW} {
		if data[number/32].Effective&(1<<(number%32)) == 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("pgporter lacks %s: run it as root, or with AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW in its systemd unit", strings.Join(missing, " and "))
}
