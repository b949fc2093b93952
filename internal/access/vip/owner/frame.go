package owner

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// MAC is an Ethernet address.
type MAC [6]byte

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Ethernet's types of frames.
const (
	EtherTypeARP  = 0x0806
	EtherTypeIPv6 = 0x86dd
)

var broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Offsets in frames, in bytes from their beginning.
const (
	etherHeader = 14
	// ARP over Ethernet for IPv4 (RFC 826): hardware and protocol type and their lengths, operation, then who asks and who
	// is asked.
	arpOperation = etherHeader + 6
	arpSenderMAC = etherHeader + 8
	arpSenderIP  = etherHeader + 14
	arpTargetMAC = etherHeader + 18
	arpTargetIP  = etherHeader + 24
	arpEnd       = etherHeader + 28
	// IPv6 (RFC 8200) without extension headers, which neighbour discovery's messages mustn't be taken in pieces with.
	ip6Next    = etherHeader + 6
	ip6Hops    = etherHeader + 7
	ip6Source  = etherHeader + 8
	ip6Dest    = etherHeader + 24
	icmpType   = etherHeader + 40
	icmpSum    = icmpType + 2
	icmpFlags  = icmpType + 4
	icmpTarget = icmpType + 8
	icmpOption = icmpType + 24
)

const (
	arpRequest, arpReply = 1, 2
	icmpSolicitation     = 135
	icmpAdvertisement    = 136
	nextICMP             = 58
	// allHops is the hop limit by which it is known that a message crossed no router (RFC 4861, section 7.1).
	allHops           = 255
	optionTargetMAC   = 2
	flagOverride      = 0x20
	arpHeader         = "\x00\x01\x08\x00\x06\x04"
	ethernetLeastSize = 60
)

// Announcement are the frames that say that an address is at mac now, so that others correct what they remember: gratuitous
// ARP as a request and as a reply, since some heed only one of them (RFC 5227, section 3), or an unsolicited neighbour
// advertisement that overrides (RFC 4861, section 7.2.6).
func Announcement(address netip.Addr, mac MAC) [][]byte {
	if address.Is4() {
		return [][]byte{
			arpFrame(arpRequest, mac, address, MAC{}, address),
			arpFrame(arpReply, mac, address, broadcast, address),
		}
	}
	all := netip.MustParseAddr("ff02::1")
	f := discovery(icmpAdvertisement, mac, address, all, address)
	f[icmpFlags] = flagOverride
	f = append(f, optionTargetMAC, 1)
	f = append(f, mac[:]...)
	return [][]byte{summed(f)}
}

// Probe is the frame that asks whether anybody has an address, without claiming it: an ARP probe (RFC 5227, section 2.1.1), or
// the solicitation of duplicate address detection (RFC 4862, section 5.4.2).
func Probe(address netip.Addr, mac MAC) []byte {
	if address.Is4() {
		return arpFrame(arpRequest, mac, netip.IPv4Unspecified(), MAC{}, address)
	}
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	last := address.As16()
	copy(group[13:], last[13:])
	return summed(discovery(icmpSolicitation, mac, netip.IPv6Unspecified(), netip.AddrFrom16(group), address))
}

// Claimant reads a frame by which somebody says to have an address, and gives the one who does. False for all other frames.
func Claimant(frame []byte, address netip.Addr) (MAC, bool) {
	var mac MAC
	if len(frame) < etherHeader {
		return mac, false
	}
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == EtherTypeARP && address.Is4():
		if len(frame) < arpEnd || string(frame[etherHeader:arpOperation]) != arpHeader {
			return mac, false
		}
		sender, _ := netip.AddrFromSlice(frame[arpSenderIP:arpTargetMAC])
		copy(mac[:], frame[arpSenderMAC:])
		return mac, sender == address
	case kind == EtherTypeIPv6 && address.Is6():
		if len(frame) < icmpOption || frame[ip6Next] != nextICMP || frame[ip6Hops] != allHops || frame[icmpType] != icmpAdvertisement {
			return mac, false
		}
		target, _ := netip.AddrFromSlice(frame[icmpTarget:icmpOption])
		copy(mac[:], frame[6:])
		// The option says it better than the frame, which a bridge may have sent on in its own name.
		for options := frame[icmpOption:]; len(options) >= 8; {
			length := 8 * int(options[1])
			if length == 0 || length > len(options) {
				break
			}
			if options[0] == optionTargetMAC {
				copy(mac[:], options[2:])
				break
			}
			options = options[length:]
		}
		return mac, target == address
	}
	return mac, false
}

func arpFrame(operation byte, from MAC, sender netip.Addr, asked MAC, target netip.Addr) []byte {
	f := make([]byte, ethernetLeastSize)
	copy(f, broadcast[:])
	copy(f[6:], from[:])
	binary.BigEndian.PutUint16(f[12:], EtherTypeARP)
	copy(f[etherHeader:], arpHeader)
	f[arpOperation+1] = operation
	copy(f[arpSenderMAC:], from[:])
	copy(f[arpSenderIP:], sender.AsSlice())
	copy(f[arpTargetMAC:], asked[:])
	copy(f[arpTargetIP:], target.AsSlice())
	return f
}

// discovery is a message of neighbour discovery without options and without its checksum.
func discovery(kind byte, from MAC, source, dest, target netip.Addr) []byte {
	f := make([]byte, icmpOption)
	group := dest.As16()
	copy(f, []byte{0x33, 0x33, group[12], group[13], group[14], group[15]})
	copy(f[6:], from[:])
	binary.BigEndian.PutUint16(f[12:], EtherTypeIPv6)
	f[etherHeader] = 6 << 4
	f[ip6Next], f[ip6Hops] = nextICMP, allHops
	copy(f[ip6Source:], source.AsSlice())
	copy(f[ip6Dest:], group[:])
	f[icmpType] = kind
	copy(f[icmpTarget:], target.AsSlice())
	return f
}

// summed fills in what depends on the whole: the length and the checksum (RFC 4443, section 2.3).
func summed(f []byte) []byte {
	message := f[icmpType:]
	binary.BigEndian.PutUint16(f[etherHeader+4:], uint16(len(message)))
	sum := uint32(len(message)) + nextICMP
	for _, part := range [][]byte{f[ip6Source:icmpType], message} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(f[icmpSum:], ^uint16(sum))
	return f
}
