package header

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

var (
	near, far   = net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	near4, far4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	near6, far6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:0:1::2")
)

// network is a layer of IP, with the layers of Ethernet before it.
type network interface {
	gopacket.NetworkLayer
	gopacket.SerializableLayer
}

// over4 and over6 are headers for a protocol.
func over4(protocol layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, TOS: 0x48, Id: 7, Protocol: protocol, SrcIP: near4.AsSlice(), DstIP: far4.AsSlice()}
}

func over6(protocol layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{
		Version: 6, HopLimit: 64, TrafficClass: 0x48, FlowLabel: 0xbeef5, NextHeader: protocol, SrcIP: near6.AsSlice(), DstIP: far6.AsSlice(),
	}
}

// serialize is gopacket's frame of some layers, with vlans tags.
func serialize(t testing.TB, vlans int, stack ...gopacket.SerializableLayer) []byte {
	t.Helper()
	kind := layers.EthernetTypeIPv4
	switch stack[0].(type) {
	case *layers.IPv6:
		kind = layers.EthernetTypeIPv6
	case *layers.ARP:
		kind = layers.EthernetTypeARP
	}
	for i := range vlans {
		stack = append([]gopacket.SerializableLayer{&layers.Dot1Q{Priority: 5, VLANIdentifier: uint16(100 + i), Type: kind}}, stack...)
		kind = layers.EthernetTypeDot1Q
	}
	eth := &layers.Ethernet{SrcMAC: near, DstMAC: far, EthernetType: kind}
	b := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(b, options, append([]gopacket.SerializableLayer{eth}, stack...)...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b.Bytes())
}

func udpFrame(t testing.TB, ip network, vlans, size int) []byte {
	t.Helper()
	u := &layers.UDP{SrcPort: 1000, DstPort: 53}
	if err := u.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	return serialize(t, vlans, ip, u, gopacket.Payload(random(size)))
}

func tcpFrame(t testing.TB, ip network, vlans, size int) []byte {
	t.Helper()
	s := &layers.TCP{
		SrcPort: 1000, DstPort: 80, Seq: 1 << 31, Ack: 77, SYN: true, ACK: true, Window: 4000,
		Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 0xb4}}},
	}
	if err := s.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	return serialize(t, vlans, ip, s, gopacket.Payload(random(size)))
}

func random(size int) []byte {
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// parse4 and parse6 are the packet of a frame.
func parse4(t testing.TB, frame []byte) IPv4 {
	t.Helper()
	return packet(t, frame, TypeIPv4, ParseIPv4)
}

func parse6(t testing.TB, frame []byte) IPv6 {
	t.Helper()
	return packet(t, frame, TypeIPv6, ParseIPv6)
}

// packet is what a frame of this type carries.
func packet[P any](t testing.TB, frame []byte, want uint16, parse func([]byte) (P, bool)) P {
	t.Helper()
	eth, ok := ParseEthernet(frame)
	if !ok {
		t.Fatal("no Ethernet")
	}
	kind, payload := eth.Payload()
	p, ok := parse(payload)
	if kind != want || !ok {
		t.Fatalf("type %#x, want %#x, and its packet is read: %v", kind, want, ok)
	}
	return p
}

// What gopacket writes is read.
func TestFields(t *testing.T) {
	for vlans := range 3 {
		f := udpFrame(t, over4(layers.IPProtocolUDP), vlans, 33)
		f = append(f, 0xff, 0xff, 0xff) // a padding that is not the packet's
		eth, _ := ParseEthernet(f)
		if !bytes.Equal(eth.Source(), near) || !bytes.Equal(eth.Destination(), far) {
			t.Errorf("from %v to %v", eth.Source(), eth.Destination())
		}
		tag, ok := eth.VLAN()
		if ok != (vlans > 0) {
			t.Errorf("%d tags: %v", vlans, ok)
		}
		if ok && (tag.ID() != uint16(100+vlans-1) || tag.Priority() != 5 || vlans == 1 && tag.Type() != TypeIPv4) {
			t.Errorf("tag %d, priority %d, type %#x", tag.ID(), tag.Priority(), tag.Type())
		}
		p := parse4(t, f)
		is, offset := p.Fragmented()
		if p.TTL() != 64 || p.TrafficClass() != 0x48 || p.ID() != 7 || p.Source() != near4 || p.Destination() != far4 ||
			p.Protocol() != ProtocolUDP || p.HeaderLen() != 20 || p.TotalLen() != 61 || is || offset != 0 ||
			!p.Complete() || !p.ChecksumValid() {
			t.Errorf("%+v", p)
		}
		u, ok := ParseUDP(p.Payload())
		if !ok || u.SourcePort() != 1000 || u.DestinationPort() != 53 || u.Len() != 41 || !bytes.Equal(u.Payload(), random(33)) {
			t.Errorf("%+v", u)
		}
		if !u.ChecksumValid(p.Pseudo(ProtocolUDP, u.Len())) {
			t.Errorf("checksum %#x is not right", u.Checksum())
		}
		p6 := parse6(t, tcpFrame(t, over6(layers.IPProtocolTCP), vlans, 21))
		protocol, upper, is, _ := p6.Upper()
		s, ok := ParseTCP(upper)
		if p6.HopLimit() != 64 || p6.TrafficClass() != 0x48 || p6.FlowLabel() != 0xbeef5 || p6.PayloadLen() != 45 ||
			p6.Source() != near6 || p6.Destination() != far6 || protocol != ProtocolTCP || is || !ok {
			t.Fatalf("%+v", p6)
		}
		if s.SourcePort() != 1000 || s.DestinationPort() != 80 || s.Sequence() != 1<<31 || s.Acknowledgment() != 77 ||
			s.Flags() != SYN|ACK || s.Window() != 4000 || s.HeaderLen() != 24 || !bytes.Equal(s.Payload(), random(21)) {
			t.Errorf("%+v", s)
		}
		if !s.ChecksumValid(p6.Pseudo(ProtocolTCP, len(s))) {
			t.Errorf("checksum %#x is not right", s.Checksum())
		}
	}
}

// After each change gopacket, which makes the frame with the new values, has the same bytes.
func TestRewrite(t *testing.T) {
	to4, to6 := netip.MustParseAddr("203.0.113.255"), netip.MustParseAddr("fe80::1:2:3")
	for size := range 70 {
		got := udpFrame(t, over4(layers.IPProtocolUDP), 1, size)
		p := parse4(t, got)
		u, _ := ParseUDP(p.Payload())
		p.SetTTL(63)
		p.SetTrafficClass(0xb8)
		u.Update(p.SetSource(to4).Plus(p.SetDestination(near4)))
		u.SetSourcePort(65535)
		u.SetDestinationPort(1)
		tag, _ := Ethernet(got).VLAN()
		tag.SetID(100)
		l := over4(layers.IPProtocolUDP)
		l.TTL, l.TOS, l.SrcIP, l.DstIP = 63, 0xb8, to4.AsSlice(), near4.AsSlice()
		d := &layers.UDP{SrcPort: 65535, DstPort: 1}
		d.SetNetworkLayerForChecksum(l)
		if want := serialize(t, 1, l, d, gopacket.Payload(random(size))); !bytes.Equal(got, want) {
			t.Fatalf("UDP of %d bytes:\n%x, want\n%x", size, got, want)
		}
		// The same, summed anew.
		p.SetChecksum()
		u.SetChecksum(p.Pseudo(ProtocolUDP, u.Len()))
		if want := serialize(t, 1, l, d, gopacket.Payload(random(size))); !bytes.Equal(got, want) {
			t.Fatalf("UDP of %d bytes, summed:\n%x, want\n%x", size, got, want)
		}

		got = tcpFrame(t, over6(layers.IPProtocolTCP), 0, size)
		p6 := parse6(t, got)
		_, upper, _, _ := p6.Upper()
		s, _ := ParseTCP(upper)
		s.Update(p6.SetSource(to6))
		s.Update(p6.SetDestination(near6))
		p6.SetHopLimit(1)
		s.SetDestinationPort(443)
		s.SetSourcePort(1)
		if !s.ChecksumValid(p6.Pseudo(ProtocolTCP, len(s))) {
			t.Errorf("TCP of %d bytes: checksum %#x is not right after changes", size, s.Checksum())
		}
		sum := s.Checksum()
		s.SetChecksum(p6.Pseudo(ProtocolTCP, len(s)))
		if s.Checksum() != sum || p6.HopLimit() != 1 || s.DestinationPort() != 443 || s.SourcePort() != 1 {
			t.Errorf("TCP of %d bytes: checksum %#x by changes, %#x summed", size, sum, s.Checksum())
		}
	}
}

// A datagram without a checksum stays without one; 0 is written as 0xffff.
func TestUDPWithoutChecksum(t *testing.T) {
	f := udpFrame(t, over4(layers.IPProtocolUDP), 0, 10)
	p := parse4(t, f)
	u, _ := ParseUDP(p.Payload())
	u[6], u[7] = 0, 0
	u.Update(p.SetSource(far4))
	u.SetSourcePort(9)
	if u.Checksum() != 0 || !u.ChecksumValid(0) {
		t.Errorf("checksum %#x, want none", u.Checksum())
	}
	// A payload that makes the sum 0xffff.
	u.SetChecksum(p.Pseudo(ProtocolUDP, u.Len()))
	word := ReplaceBytes(u.Payload()[:2], []byte{0, 0})
	u.Payload()[0], u.Payload()[1] = 0, 0
	u.Update(word)
	u.Payload()[0], u.Payload()[1] = byte(u.Checksum()>>8), byte(u.Checksum())
	u.Update(Replace(0, u.Checksum()))
	if u.Checksum() != 0xffff || !u.ChecksumValid(p.Pseudo(ProtocolUDP, u.Len())) {
		t.Errorf("checksum %#x, want 0xffff", u.Checksum())
	}
}

// An answer to an ARP request and to an echo is what a host would send.
func TestAnswers(t *testing.T) {
	request := &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: 1,
		SourceHwAddress: near, SourceProtAddress: near4.AsSlice(), DstHwAddress: make([]byte, 6), DstProtAddress: far4.AsSlice(),
	}
	f := serialize(t, 0, request)
	a, ok := ParseARP(f[EthernetLen:])
	if !ok || a.Operation() != ARPRequest || a.Sender() != near4 || a.Target() != far4 || !bytes.Equal(a.SenderHardware(), near) {
		t.Fatalf("%+v", a)
	}
	a.Reply(far)
	reply := *request
	reply.Operation, reply.SourceHwAddress, reply.SourceProtAddress = 2, far, far4.AsSlice()
	reply.DstHwAddress, reply.DstProtAddress = near, near4.AsSlice()
	if want := serialize(t, 0, &reply); !bytes.Equal(f, want) {
		t.Errorf("%x, want %x", f, want)
	}
	if !bytes.Equal(a.TargetHardware(), near) {
		t.Errorf("reply for %v", a.TargetHardware())
	}
	for i := range 8 { // of other protocols
		b := bytes.Clone(a)
		if b[i] ^= 0x40; i == 6 || i == 7 {
			continue
		}
		if _, ok := ParseARP(b); ok {
			t.Errorf("ARP with byte %d changed", i)
		}
	}

	echo := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 3, Seq: 4}
	f = serialize(t, 0, over4(layers.IPProtocolICMPv4), echo, gopacket.Payload(random(57)))
	p := parse4(t, f)
	m, ok := ParseICMP(p.Payload())
	if !ok || m.Type() != ICMPEcho || m.Code() != 0 || m.ID() != 3 || m.Sequence() != 4 || len(m.Payload()) != 57 || !m.ChecksumValid(0) {
		t.Fatalf("%+v", m)
	}
	m.SetType(ICMPEchoReply)
	p.Swap()
	Ethernet(f).Swap()
	if eth := Ethernet(f); !bytes.Equal(eth.Source(), far) || p.Source() != far4 || p.Destination() != near4 || !p.ChecksumValid() {
		t.Errorf("from %v, %v", eth.Source(), p.Source())
	}
	sum := m.Checksum()
	if m.SetChecksum(0); sum != m.Checksum() {
		t.Errorf("checksum %#x by what changed, %#x summed", sum, m.Checksum())
	}
}

// Extension headers are walked; of a fragment only the first has the header above.
func TestExtensionHeaders(t *testing.T) {
	u := []byte{0, 1, 0, 2, 0, 8, 0, 0}
	extension := func(next, words byte) []byte { return append([]byte{next, words}, make([]byte, 6+8*int(words))...) }
	part := func(next byte, offset uint16) []byte {
		return []byte{next, 0, byte(offset >> 8), byte(offset), 0, 0, 0, 1}
	}
	for _, tt := range []struct {
		name     string
		next     byte
		payload  []byte
		protocol uint8
		length   int // -1 for nil
		is       bool
		offset   int
	}{
		{"none", 17, u, 17, 8, false, 0},
		{"two", 0, bytes.Join([][]byte{extension(60, 1), extension(17, 0), u}, nil), 17, 8, false, 0},
		{"routing", 43, bytes.Join([][]byte{extension(17, 2), u}, nil), 17, 8, false, 0},
		{"first fragment", 44, append(part(17, 1), u...), 17, 8, true, 0},
		{"whole in a fragment header", 44, append(part(17, 0), u...), 17, 8, false, 0},
		{"later fragment", 44, append(part(60, 0x10), u...), 60, 8, true, 16},
		{"cut", 0, []byte{17, 1, 0, 0, 0, 0, 0, 0}, 0, -1, false, 0},
		{"cut fragment", 44, []byte{17, 0, 0}, 44, -1, false, 0},
		{"nothing", 0, nil, 0, -1, false, 0},
		{"nine", 0, append(bytes.Repeat(extension(0, 0), 9), u...), 0, -1, false, 0},
	} {
		b := make([]byte, IPv6Len)
		b[0], b[5], b[6] = 0x60, byte(len(tt.payload)), tt.next
		p, ok := ParseIPv6(append(b, tt.payload...))
		if !ok {
			t.Fatal(tt.name)
		}
		protocol, payload, is, offset := p.Upper()
		length := len(payload)
		if payload == nil {
			length = -1
		}
		if protocol != tt.protocol || length != tt.length || is != tt.is || offset != tt.offset {
			t.Errorf("%s: protocol %d, %d bytes, fragment %v at %d", tt.name, protocol, length, is, offset)
		}
	}
}

// What is cut or says that it is longer than itself is no header.
func TestCut(t *testing.T) {
	frame := tcpFrame(t, over4(layers.IPProtocolTCP), 2, 0)
	for n := range frame {
		eth, ok := ParseEthernet(frame[:n])
		if ok != (n >= 14) {
			t.Fatalf("%d bytes: Ethernet %v", n, ok)
		}
		if !ok {
			continue
		}
		kind, payload := eth.Payload()
		if (kind == TypeIPv4) != (n >= 22) || n < 22 && payload != nil {
			t.Errorf("%d bytes: type %#x", n, kind)
		}
		if _, ok := eth.VLAN(); ok != (n >= 18) {
			t.Errorf("%d bytes: VLAN tag %v", n, ok)
		}
		p, ok := ParseIPv4(payload)
		if ok != (n >= 42) {
			t.Errorf("%d bytes: IPv4 %v", n, ok)
		}
		if !ok {
			continue
		}
		if p.Complete() {
			t.Errorf("%d bytes: complete", n)
		}
		if _, ok := ParseTCP(p.Payload()); ok {
			t.Errorf("%d bytes: TCP", n)
		}
	}
	ip := bytes.Clone(frame[22:])
	for _, change := range []func([]byte){
		func(b []byte) { b[0] = 0x65 },           // another version
		func(b []byte) { b[0] = 0x44 },           // shorter than its header
		func(b []byte) { b[2], b[3] = 0, 19 },    // a total of less than the header
		func(b []byte) { b[0], b[3] = 0x4f, 21 }, // options beyond the total
	} {
		b := bytes.Clone(ip)
		if change(b); len(b) > 0 {
			if p, ok := ParseIPv4(b); ok {
				t.Errorf("IPv4 %x", p)
			}
		}
	}
	if _, ok := ParseUDP([]byte{0, 1, 0, 2, 0, 7, 0, 0}); ok {
		t.Error("a datagram of less than its header")
	}
	if _, ok := ParseTCP(append(make([]byte, 12), 0x40, 0, 0, 0, 0, 0, 0, 0)); ok {
		t.Error("a segment of less than its header")
	}
	if _, ok := ParseICMP(make([]byte, 7)); ok {
		t.Error("a message of 7 bytes")
	}
}

// Flows go to all ports alike, both directions to the same one, and fragments to one.
func TestHash(t *testing.T) {
	for name, frame := range map[string][]byte{
		"IPv4": udpFrame(t, over4(layers.IPProtocolUDP), 1, 10), "IPv6": tcpFrame(t, over6(layers.IPProtocolTCP), 0, 10),
	} {
		const flows, ways = 1 << 14, 7
		var hits [ways]int
		kind, payload := Ethernet(frame).Payload()
		var upper []byte
		if p4, ok := ParseIPv4(payload); ok && kind == TypeIPv4 {
			upper = p4.Payload()
		} else {
			_, upper, _, _ = IPv6(payload).Upper()
		}
		for i := range flows {
			u := TCP(upper) // the ports are where those of UDP are
			upper[0], upper[1], upper[3] = byte(i>>8), byte(i), byte(i%3)
			h := Hash(frame, 5)
			hits[h%ways]++
			if kind == TypeIPv4 {
				IPv4(payload).Swap()
			} else {
				IPv6(payload).Swap()
			}
			u.Swap()
			if back := Hash(frame, 5); back != h {
				t.Fatalf("%s: %#x one way, %#x the other", name, h, back)
			}
			if Hash(frame, 6) == h { // which happens by chance once in 2^32
				t.Errorf("%s: seeds 5 and 6 give the same, %#x", name, h)
			}
			if kind == TypeIPv4 {
				IPv4(payload).Swap()
			} else {
				IPv6(payload).Swap()
			}
			u.Swap()
		}
		for way, n := range hits {
			if n < flows/ways*9/10 || n > flows/ways*11/10 {
				t.Errorf("%s: %d of %d flows go way %d of %d", name, n, flows, way, ways)
			}
		}
	}
	f := udpFrame(t, over4(layers.IPProtocolUDP), 0, 10)
	p := parse4(t, f)
	p[6] = 0x20 // the first fragment
	first := Hash(f, 1)
	p[6], p[7] = 0, 4
	copy(p.Payload(), "notports")
	if Hash(f, 1) != first {
		t.Error("fragments of a packet go different ways")
	}
	// Over IPv6 only the first has the extension headers that are behind the fragment header.
	fragment6 := func(offset uint16, payload ...byte) []byte {
		ip := over6(44)
		head := []byte{60, 0, byte(offset >> 8), byte(offset), 0, 0, 0, 1}
		return serialize(t, 0, ip, gopacket.Payload(append(head, payload...)))
	}
	if Hash(fragment6(1, 17, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 8, 0, 0), 1) != Hash(fragment6(0x10, []byte("the rest")...), 1) {
		t.Error("fragments of an IPv6 packet with destination options go different ways")
	}
	if Hash(nil, 1) != Hash([]byte{1}, 1) || Hash(f[:14], 1) == Hash(nil, 1) {
		t.Error("short frames")
	}
}

func TestNoAllocations(t *testing.T) {
	f4, f6 := udpFrame(t, over4(layers.IPProtocolUDP), 1, 100), tcpFrame(t, over6(layers.IPProtocolTCP), 1, 100)
	n := testing.AllocsPerRun(100, func() {
		rewrite(f4, far4)
		eth, _ := ParseEthernet(f6)
		_, payload := eth.Payload()
		p, _ := ParseIPv6(payload)
		_, upper, _, _ := p.Upper()
		s, _ := ParseTCP(upper)
		s.Update(p.SetDestination(far6))
		s.SetChecksum(p.Pseudo(ProtocolTCP, len(s)))
		if p.Source() == far6 || Hash(f6, 1) == Hash(f4, 1) {
			panic("not the frames of the test")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// rewrite is what a translator of addresses does with a frame.
func rewrite(frame []byte, to netip.Addr) bool {
	eth, ok := ParseEthernet(frame)
	if !ok {
		return false
	}
	kind, payload := eth.Payload()
	p, ok := ParseIPv4(payload)
	if !ok || kind != TypeIPv4 || p.Protocol() != ProtocolUDP {
		return false
	}
	u, ok := ParseUDP(p.Payload())
	if !ok {
		return false
	}
	u.Update(p.SetDestination(to))
	u.SetDestinationPort(5353)
	p.SetTTL(64)
	return true
}

func BenchmarkRewrite(b *testing.B) {
	f := udpFrame(b, over4(layers.IPProtocolUDP), 0, 18)
	b.ReportAllocs()
	for b.Loop() {
		if !rewrite(f, far4) {
			b.Fatal("not rewritten")
		}
	}
}

// BenchmarkDecode reads addresses and ports: by views, and by gopacket's decoder that keeps its
// layers.
func BenchmarkDecode(b *testing.B) {
	f := udpFrame(b, over4(layers.IPProtocolUDP), 0, 18)
	b.Run("views", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			eth, _ := ParseEthernet(f)
			_, payload := eth.Payload()
			p, _ := ParseIPv4(payload)
			u, ok := ParseUDP(p.Payload())
			if !ok || p.Destination() != far4 || u.DestinationPort() != 53 {
				b.Fatal("not the frame")
			}
		}
	})
	b.Run("gopacket", func(b *testing.B) {
		var eth layers.Ethernet
		var ip layers.IPv4
		var u layers.UDP
		parser := gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet, &eth, &ip, &u)
		parser.IgnoreUnsupported = true
		decoded := make([]gopacket.LayerType, 0, 4)
		b.ReportAllocs()
		for b.Loop() {
			if err := parser.DecodeLayers(f, &decoded); err != nil || u.DstPort != 53 || ip.DstIP[0] != 198 {
				b.Fatal("not the frame", err)
			}
		}
	})
}

func BenchmarkHash(b *testing.B) {
	for name, f := range map[string][]byte{
		"IPv4": udpFrame(b, over4(layers.IPProtocolUDP), 0, 18), "IPv6": tcpFrame(b, over6(layers.IPProtocolTCP), 0, 18),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Hash(f, 1)
			}
		})
	}
}

func BenchmarkSum(b *testing.B) {
	f := random(1480)
	b.SetBytes(int64(len(f)))
	for b.Loop() {
		Sum(f)
	}
}
