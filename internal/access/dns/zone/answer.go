package zone

import (
	"net/netip"
	"slices"
	"strings"

	wire "github.com/miekg/dns"

	"github.com/pgporter/pgporter/internal/config/model"
)

// maxUDP is the size of an answer over UDP that passes every network in one piece.
const maxUDP = 1232

// Answers answers questions from a Catalog and what its clusters' names resolve to.
type Answers struct {
	Catalog *Catalog
	// Live gives what the names of the cluster with this index resolve to now.
	Live func(cluster int) *Live
	// TTL is how long answers may be kept, in seconds.
	TTL uint32
}

// Respond gives the answer to one message as it came from the network; nil if there is to be none: it is no question, or no
// message at all. udp says that the answer must fit into one datagram. code is the answer's.
func (a Answers) Respond(message []byte, udp bool) (answer []byte, code int) {
	if len(message) < 12 || message[2]&0x80 != 0 {
		return nil, -1
	}
	q := new(wire.Msg)
	if opcode := int(message[2]>>3) & 0xf; opcode != wire.OpcodeQuery {
		return bare(message, wire.RcodeNotImplemented), wire.RcodeNotImplemented
	}
	if err := q.Unpack(message); err != nil || len(q.Question) != 1 {
		return bare(message, wire.RcodeFormatError), wire.RcodeFormatError
	}
	r := new(wire.Msg)
	r.SetReply(q)
	size := wire.MaxMsgSize
	if udp {
		size = wire.MinMsgSize
	}
	opt, ok := edns(q)
	switch {
	case !ok:
		r.Rcode = wire.RcodeFormatError
	case opt != nil && opt.Version() != 0:
		r.Rcode = wire.RcodeBadVers
	default:
		a.fill(r, q.Question[0])
	}
	var reply *wire.OPT
	if opt != nil {
		reply = &wire.OPT{Hdr: wire.RR_Header{Name: ".", Rrtype: wire.TypeOPT}}
		reply.SetUDPSize(maxUDP)
		if opt.Do() {
			reply.SetDo() // RFC 3225, section 3
		}
		if udp {
			size = int(max(wire.MinMsgSize, min(opt.UDPSize(), maxUDP)))
		}
	}
	code = r.Rcode
	packed, err := pack(r, reply, size)
	if err != nil {
		return bare(message, wire.RcodeServerFailure), wire.RcodeServerFailure
	}
	return packed, code
}

// edns gives the OPT record of a question, nil if there is none. False if there are several (RFC 6891, section 6.1.1).
func edns(q *wire.Msg) (*wire.OPT, bool) {
	var found *wire.OPT
	for _, rr := range q.Extra {
		if opt, is := rr.(*wire.OPT); is {
			if found != nil {
				return nil, false
			}
			found = opt
		}
	}
	return found, true
}

// pack makes a message of an answer. Addresses that nobody asked for go first if it is too long; what then doesn't fit is left
// out and said to be.
func pack(r *wire.Msg, opt *wire.OPT, size int) ([]byte, error) {
	additional := r.Extra
	if opt != nil {
		r.Extra = append(slices.Clone(additional), opt)
	}
	r.Compress = true
	if len(additional) > 0 && r.Len() > size {
		r.Extra = nil
		if opt != nil {
			r.Extra = []wire.RR{opt}
		}
	}
	r.Truncate(size)
	r.Compress = true
	return r.Pack()
}

// bare is an answer without a question, from a message that has at least a header.
func bare(message []byte, code int) []byte {
	answer := make([]byte, 12)
	copy(answer, message[:2])
	answer[2] = 0x80 | message[2]&0x79 // a response, with the opcode and RD of the question
	answer[3] = byte(code)
	return answer
}

// fill answers a question.
func (a Answers) fill(r *wire.Msg, q wire.Question) {
	if q.Qclass != wire.ClassINET || q.Qtype >= 128 && q.Qtype < wire.TypeANY || q.Qtype == wire.TypeOPT {
		// Transfers and what else is no question for records.
		r.Rcode = wire.RcodeRefused
		return
	}
	name := strings.ToLower(q.Name)
	apex, cluster, ours := a.zone(name)
	if !ours {
		r.Rcode = wire.RcodeRefused
		return
	}
	r.Authoritative = true
	live := a.Live(cluster)
	o, exists := a.Catalog.names[name]
	pointers := a.Catalog.pointers[name]
	if !exists && pointers == nil {
		r.Rcode = wire.RcodeNameError
		r.Ns = []wire.RR{a.soa(apex, cluster, live)}
		return
	}
	if pointers != nil {
		o = owner{kind: pointer, cluster: cluster}
	}
	isApex := name == apex
	switch {
	case q.Qtype == wire.TypeANY:
		// RFC 8482, section 4.2.
		r.Answer = []wire.RR{&wire.HINFO{Hdr: a.header(q.Name, wire.TypeHINFO, live), Cpu: "RFC8482"}}
	case isApex && q.Qtype == wire.TypeSOA:
		soa := a.soa(apex, cluster, live)
		soa.Hdr.Name = q.Name
		r.Answer = []wire.RR{soa}
	case isApex && q.Qtype == wire.TypeNS:
		server := a.server(cluster)
		r.Answer = []wire.RR{&wire.NS{Hdr: a.header(q.Name, wire.TypeNS, live), Ns: server}}
		if a.Catalog.names[server].kind == serverName {
			r.Extra = a.both(server, a.Catalog.servers, live)
		}
	default:
		a.records(r, q, o, pointers)
	}
	if len(r.Answer) == 0 {
		r.Ns = []wire.RR{a.soa(apex, cluster, live)}
	}
}

// zone finds where the zone begins that a name is in. Zones begin at the clusters', the instances' and the reverse names, so
// that nothing is claimed besides.
func (a Answers) zone(name string) (apex string, cluster int, ours bool) {
	for at := name; at != ""; {
		if cluster, is := a.Catalog.apexes[at]; is {
			return at, cluster, true
		}
		var more bool
		if _, at, more = strings.Cut(at, "."); !more {
			break
		}
	}
	return "", 0, false
}

// records answers with what a name has of the type that was asked for, if it has any.
func (a Answers) records(r *wire.Msg, q wire.Question, o owner, pointers []string) {
	c := a.Catalog.clusters[o.cluster]
	live := a.Live(o.cluster)
	switch {
	case o.kind == pointer && q.Qtype == wire.TypePTR:
		for _, name := range pointers {
			r.Answer = append(r.Answer, &wire.PTR{Hdr: a.header(q.Name, wire.TypePTR, live), Ptr: name})
		}
	case o.kind == locator && q.Qtype == wire.TypeSRV:
		a.located(r, q, c, o, live)
	case q.Qtype == wire.TypeA || q.Qtype == wire.TypeAAAA:
		r.Answer = turned(a.addresses(q.Name, a.standsFor(c, o, live), q.Qtype, live), int(r.Id))
	}
}

// turned begins with another record for each question, since most clients take the first: the question's number, which clients
// draw by lot, says with which.
func turned(records []wire.RR, by int) []wire.RR {
	if len(records) < 2 {
		return records
	}
	by %= len(records)
	return slices.Concat(records[by:], records[:by])
}

// standsFor gives the addresses of a name.
func (a Answers) standsFor(c cluster, o owner, live *Live) []netip.Addr {
	switch o.kind {
	case serverName:
		return a.Catalog.servers
	case instanceName:
		return []netip.Addr{c.addresses[c.Members[o.item].Name]}
	case ownName:
		return c.own(live)
	case serviceName:
		d := c.Definitions[o.item]
		if ip := ownAddress(d); ip.IsValid() && !c.naming.Delegated {
			return []netip.Addr{ip}
		}
		var all []netip.Addr
		for _, carrier := range live.Carriers[d.Name] {
			if address, has := c.addresses[carrier.Member]; has && !slices.Contains(all, address) {
				all = append(all, address)
			}
		}
		return all
	}
	return nil
}

// own is what the cluster's name resolves to.
func (c cluster) own(live *Live) []netip.Addr {
	switch {
	case c.fixed.IsValid():
		return []netip.Addr{c.fixed.Unmap()}
	case c.naming.Target == model.TargetPrimary:
		if address, has := c.addresses[live.Primary]; has {
			return []netip.Addr{address}
		}
	}
	return nil
}

// ownAddress is the one address that a service listens on, wherever it is at the moment; invalid if it listens on those of
// its nodes, or on one that means another machine to each client.
func ownAddress(d model.Definition) netip.Addr {
	ip, err := netip.ParseAddr(d.IP)
	if err != nil || ip.IsUnspecified() || ip.IsLoopback() {
		return netip.Addr{}
	}
	return ip.Unmap()
}

// located answers where a service is: at the port of the service on the members that carry it. Where others carry it, the
// members' own ports are what they have.
func (a Answers) located(r *wire.Msg, q wire.Question, c cluster, o owner, live *Live) {
	d := c.Definitions[o.item]
	if !c.naming.Delegated && ownAddress(d).IsValid() {
		target := strings.ToLower(d.Name + "." + c.Name + o.suffix + ".")
		r.Answer = []wire.RR{&wire.SRV{Hdr: a.header(q.Name, wire.TypeSRV, live), Port: uint16(d.Port), Target: target}}
		r.Extra = a.both(target, []netip.Addr{ownAddress(d)}, live)
		return
	}
	for _, carrier := range live.Carriers[d.Name] {
		address, has := c.addresses[carrier.Member]
		if !has {
			continue
		}
		port := d.Port
		if c.naming.Delegated {
			port = carrier.Port
		}
		target := strings.ToLower(carrier.Member + o.suffix + ".")
		r.Answer = append(r.Answer, &wire.SRV{Hdr: a.header(q.Name, wire.TypeSRV, live), Weight: uint16(carrier.Weight), Port: uint16(port), Target: target})
		r.Extra = append(r.Extra, a.both(target, []netip.Addr{address}, live)...)
	}
}

// both are the records of addresses of either kind.
func (a Answers) both(name string, addresses []netip.Addr, live *Live) []wire.RR {
	return append(a.addresses(name, addresses, wire.TypeA, live), a.addresses(name, addresses, wire.TypeAAAA, live)...)
}

// addresses are the records of the addresses of one kind.
func (a Answers) addresses(name string, addresses []netip.Addr, kind uint16, live *Live) []wire.RR {
	var all []wire.RR
	for _, address := range addresses {
		switch {
		case kind == wire.TypeA && address.Is4():
			all = append(all, &wire.A{Hdr: a.header(name, kind, live), A: address.AsSlice()})
		case kind == wire.TypeAAAA && address.Is6():
			all = append(all, &wire.AAAA{Hdr: a.header(name, kind, live), AAAA: address.AsSlice()})
		}
	}
	return all
}

func (a Answers) header(name string, kind uint16, live *Live) wire.RR_Header {
	return wire.RR_Header{Name: name, Rrtype: kind, Class: wire.ClassINET, Ttl: a.ttl(live)}
}

// ttl is 0 as long as answers are only what was declared.
func (a Answers) ttl(live *Live) uint32 {
	if !live.Asked {
		return 0
	}
	return a.TTL
}

// server is the name server's name: the one below the cluster's apex.
func (a Answers) server(cluster int) string {
	return serverLabel + "." + strings.ToLower(a.Catalog.clusters[cluster].Name) + "."
}

// soa is the record of a zone. That something isn't there may be kept as long as any answer (RFC 2308, section 3).
func (a Answers) soa(apex string, cluster int, live *Live) *wire.SOA {
	server := a.server(cluster)
	return &wire.SOA{
		Hdr: a.header(apex, wire.TypeSOA, live), Ns: server, Mbox: "hostmaster." + server,
		Serial: live.Serial, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: a.ttl(live),
	}
}
