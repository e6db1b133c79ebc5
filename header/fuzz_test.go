package header

import (
	"bytes"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/unthunk/unthunk/internal/testutil"
)

// Whatever a frame holds, views stay within it, answers and changes write only to it, and what
// gopacket takes for IPv4 and UDP has the same fields.
func FuzzViews(f *testing.F) {
	f.Add(udpFrame(f, over4(layers.IPProtocolUDP), 2, 8))
	f.Add(tcpFrame(f, over6(layers.IPProtocolTCP), 0, 8))
	f.Add(serialize(f, 0, over4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: 8 << 8}))
	f.Add(append(make([]byte, 12), 8, 6, 0, 1, 8, 0, 6, 4, 0, 1))
	f.Fuzz(func(t *testing.T, frame []byte) {
		original := bytes.Clone(frame)
		testutil.Allocates(t, 1<<14, func() { walk(frame) })
		for i := range min(len(frame), 12) { // walk swaps the addresses twice
			if frame[i] != original[i] {
				t.Fatalf("byte %d was changed", i)
			}
		}
		sameFields(t, original)
	})
}

// sameFields compares the first IPv4 and UDP headers of a frame with gopacket's, where both find
// them at the same byte.
func sameFields(t *testing.T, frame []byte) {
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	ip, _ := packet.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
	eth, ok := ParseEthernet(frame)
	if ip == nil || !ok || ip.Version != 4 { // 0 where gopacket refuses the options, and fills no field
		return
	}
	kind, payload := eth.Payload()
	p, ok := ParseIPv4(payload)
	if kind != TypeIPv4 || !ok || &p[0] != &ip.Contents[0] { // behind more tags, in a tunnel, or refused
		return
	}
	if p.TTL() != ip.TTL || p.Protocol() != uint8(ip.Protocol) || p.TrafficClass() != ip.TOS || p.HeaderLen() != int(ip.IHL)*4 ||
		p.Source().String() != ip.SrcIP.String() || p.Destination().String() != ip.DstIP.String() {
		t.Errorf("%v from %v to %v, TTL %d, gopacket says %+v", p.Protocol(), p.Source(), p.Destination(), p.TTL(), ip)
	}
	udp, _ := packet.Layer(layers.LayerTypeUDP).(*layers.UDP)
	u, ok := ParseUDP(p.Payload())
	if udp == nil || !ok || &u[0] != &udp.Contents[0] {
		return
	}
	if u.SourcePort() != uint16(udp.SrcPort) || u.DestinationPort() != uint16(udp.DstPort) {
		t.Errorf("ports %d and %d, gopacket says %+v", u.SourcePort(), u.DestinationPort(), udp)
	}
}

// walk calls all that there is for a frame.
func walk(frame []byte) {
	Hash(frame, 1)
	eth, ok := ParseEthernet(frame)
	if !ok {
		return
	}
	eth.Swap()
	eth.Swap()
	if tag, ok := eth.VLAN(); ok {
		tag.SetID(tag.ID() + uint16(tag.Priority()) + tag.Type())
	}
	_, payload := eth.Payload()
	if a, ok := ParseARP(payload); ok {
		a.Sender()
		a.Target()
		a.Reply(a.TargetHardware())
	}
	if p, ok := ParseIPv4(payload); ok {
		p.Fragmented()
		p.Swap()
		p.SetTTL(p.TTL() - 1)
		p.SetTrafficClass(p.TrafficClass() + 1)
		p.SetChecksum()
		if !p.ChecksumValid() {
			panic("the checksum that was written is not right")
		}
		above(p.Payload(), p.SetSource(far4), p.Pseudo(p.Protocol(), 8))
		if !p.ChecksumValid() {
			panic("the checksum is not right after a change")
		}
	}
	if p, ok := ParseIPv6(payload); ok {
		p.Swap()
		protocol, upper, _, _ := p.Upper()
		above(upper, p.SetDestination(far6), p.Pseudo(protocol, len(upper)))
	}
}

func above(b []byte, c Change, pseudo uint16) {
	if u, ok := ParseUDP(b); ok {
		u.Swap()
		u.Update(c)
		u.SetDestinationPort(u.SourcePort() + uint16(len(u.Payload())))
		u.SetChecksum(pseudo)
		u.SetSourcePort(1)
		if !u.ChecksumValid(pseudo) {
			panic("UDP's checksum is not right after a change")
		}
	}
	if s, ok := ParseTCP(b); ok {
		s.Swap()
		s.SetChecksum(pseudo)
		s.SetDestinationPort(s.SourcePort() + uint16(len(s.Payload())))
		if !s.ChecksumValid(pseudo) {
			panic("TCP's checksum is not right after a change")
		}
		s.Update(c)
	}
	if m, ok := ParseICMP(b); ok {
		m.SetChecksum(pseudo)
		m.SetType(m.Code() + uint8(len(m.Payload())))
		if !m.ChecksumValid(pseudo) {
			panic("ICMP's checksum is not right after a change")
		}
	}
}

// A checksum that takes in what changed is that of the bytes as they are now.
func FuzzChange(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5}, uint16(2), []byte{0xff, 0xff})
	f.Add([]byte{0xff, 0xff, 0, 1}, uint16(0), []byte{0, 0})
	f.Fuzz(func(t *testing.T, b []byte, at uint16, to []byte) {
		if simple := simpleSum(b); Sum(b) != simple {
			t.Fatalf("sum %#x, word by word %#x", Sum(b), simple)
		}
		offset := int(at) &^ 1
		if len(to)%2 != 0 || offset+len(to) > len(b) {
			return
		}
		before := Checksum(b)
		c := ReplaceBytes(b[offset:offset+len(to)], to)
		copy(b[offset:], to)
		// Of zeros alone there are two sums; no header is that.
		if got, want := c.Apply(before), Checksum(b); got != want && got^want != 0xffff {
			t.Errorf("checksum %#x by what changed, %#x summed", got, want)
		} else if got != want && len(bytes.Trim(b, "\x00")) > 0 && len(to) > 0 && before != 0xffff {
			t.Errorf("checksum %#x by what changed, %#x summed", got, want)
		}
	})
}

// simpleSum is the sum as RFC 1071 says it.
func simpleSum(b []byte) uint16 {
	var sum uint64
	for i, v := range b {
		sum += uint64(v) << (8 * (1 - i%2))
	}
	return fold(sum)
}
