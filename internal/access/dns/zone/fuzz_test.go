package zone

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"github.com/pgporter/pgporter/internal/config/model"
)

// answersOf are those of two clusters, one with IPv6 and one whose service is carried by so many that no datagram holds them.
func answersOf(t testing.TB) Answers {
	t.Helper()
	many := model.Cluster{Name: "pg-test", Definitions: []model.Definition{{Name: "primary", Port: 5433, IP: "*"}, {Name: "replica", Port: 5434, IP: "*"}}}
	view := "1=primary+"
	for i := range 120 {
		many.Members = append(many.Members, model.Member{Name: "pg-test-" + itoa(i+1), Host: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}).String()})
		if i > 0 {
			view += " " + itoa(i+1) + "=replica+"
		}
	}
	c, _, err := NewCatalog([]model.Cluster{many, of("pg-six", "fd00::1")}, []model.Naming{{Cluster: "pg-test", Suffix: ".db.example", Target: "primary"}, {Cluster: "pg-six", Target: "fd00::99"}},
		[]netip.Addr{netip.MustParseAddr("10.0.0.53")})
	if err != nil {
		t.Fatal(err)
	}
	live := []*Live{Follow(nil, look(view), time.Unix(1000, 0)), Follow(nil, look("1=primary+"), time.Unix(1000, 0))}
	live[1].Carriers["primary"][0].Member = "pg-six-1"
	return Answers{Catalog: c, Live: func(i int) *Live { return live[i] }, TTL: 5}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + itoa(n%10)
}

// FuzzRespond looks for messages that make the answering panic, or whose answer isn't one: unreadable, to another question, too
// long, claiming recursion or names that aren't ours.
func FuzzRespond(f *testing.F) {
	add := func(name string, kind uint16, edit ...func(*wire.Msg)) {
		m := new(wire.Msg)
		m.SetQuestion(name, kind)
		m.Id = 7
		for _, e := range edit {
			e(m)
		}
		text, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, true)
		f.Add(text, false)
	}
	edns := func(m *wire.Msg) { m.SetEdns0(4096, true) }
	add("pg-test.", wire.TypeA)
	add("PG-test.DB.example.", wire.TypeAAAA, edns)
	add("replica.pg-test.", wire.TypeA, edns)
	add("_postgresql._tcp.replica.pg-test.db.example.", wire.TypeSRV, edns)
	add("_postgresql._tcp.primary.pg-six.", wire.TypeSRV)
	add("1.0.0.10.in-addr.arpa.", wire.TypePTR)
	add("pg-test.", wire.TypeANY)
	add("pg-test.", wire.TypeAXFR)
	add("nobody.pg-test.", wire.TypeNS)
	add("pg-test-1.", wire.TypeSOA)
	add(".", wire.TypeNS)
	add(`a\.b\000.pg-test.`, wire.TypeA)
	add("pg-test.", wire.TypeA, func(m *wire.Msg) { m.Opcode = wire.OpcodeUpdate })
	add("pg-test.", wire.TypeA, func(m *wire.Msg) { m.Question[0].Qclass = wire.ClassCHAOS })
	add("pg-test.", wire.TypeA, edns, func(m *wire.Msg) { m.IsEdns0().SetVersion(9) })
	add("pg-test.", wire.TypeA, edns, edns)
	add("pg-test.", wire.TypeA, func(m *wire.Msg) { m.Question = append(m.Question, m.Question[0]) })
	f.Add([]byte("GET / HTTP/1.1\r\n"), false)
	f.Add(bytes.Repeat([]byte{0}, 12), true)
	a := answersOf(f)
	f.Fuzz(func(t *testing.T, message []byte, udp bool) {
		answer, code := a.Respond(message, udp)
		isQuestion := len(message) >= 12 && message[2]&0x80 == 0
		if (answer != nil) != isQuestion {
			t.Fatalf("answered: %v, though it is a question: %v", answer != nil, isQuestion)
		}
		if answer == nil {
			return
		}
		if again, _ := a.Respond(message, udp); !bytes.Equal(again, answer) {
			t.Fatal("the same question has another answer")
		}
		var m wire.Msg
		if err := m.Unpack(answer); err != nil {
			t.Fatalf("the answer can't be read: %v", err)
		}
		var q wire.Msg
		readable := q.Unpack(message) == nil && len(q.Question) == 1 && message[2]&0x78 == 0
		limit := wire.MaxMsgSize
		if opt := q.IsEdns0(); udp {
			limit = wire.MinMsgSize
			if readable && opt != nil {
				limit = max(wire.MinMsgSize, min(int(opt.UDPSize()), maxUDP))
			}
		}
		rcode := m.Rcode
		switch {
		case len(answer) > limit:
			t.Fatalf("%d bytes, %d at most", len(answer), limit)
		case !m.Response || m.RecursionAvailable || !bytes.Equal(answer[:2], message[:2]) || answer[2]&0x78 != message[2]&0x78 || rcode != code:
			t.Fatalf("the header isn't the question's answer: %v (code %d)", m.MsgHdr, code)
		case m.Truncated && !udp:
			t.Fatal("truncated without a need")
		case m.Authoritative && rcode != wire.RcodeSuccess && rcode != wire.RcodeNameError, !m.Authoritative && len(m.Answer)+len(m.Ns) > 0:
			t.Fatalf("authority and answer disagree: %v", m)
		case rcode != wire.RcodeSuccess && len(m.Answer) > 0:
			t.Fatalf("an error with an answer: %v", m)
		case m.Authoritative && !m.Truncated && (len(m.Answer) == 0) != (len(m.Ns) == 1):
			t.Fatalf("neither an answer nor a word that there is none: %v", m)
		case readable && (len(m.Question) != 1 || m.Question[0].String() != q.Question[0].String()):
			t.Fatalf("another question: %v", m.Question)
		}
		if !readable {
			return
		}
		asked := strings.ToLower(q.Question[0].Name)
		for _, rr := range m.Answer {
			if strings.ToLower(rr.Header().Name) != asked || rr.Header().Ttl != 5 {
				t.Fatalf("a record of something else: %v", rr)
			}
		}
		for _, rr := range m.Ns {
			if soa, is := rr.(*wire.SOA); !is || !wire.IsSubDomain(soa.Hdr.Name, asked) {
				t.Fatalf("a zone that the name isn't in: %v", rr)
			}
		}
	})
}

func BenchmarkRespond(b *testing.B) {
	a := answersOf(b)
	for _, bench := range []struct {
		name string
		kind uint16
	}{{"primary.pg-test.", wire.TypeA}, {"_postgresql._tcp.primary.pg-test.", wire.TypeSRV}, {"nobody.pg-test.", wire.TypeA}, {"www.example.com.", wire.TypeA}} {
		m := new(wire.Msg)
		m.SetQuestion(bench.name, bench.kind)
		text, err := m.Pack()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				a.Respond(text, true)
			}
		})
	}
}
