package header

import (
	"encoding/binary"
	"net/netip"
)

// Protocols that IP carries, and the extension headers of IPv6 that are walked.
const (
	ProtocolICMP   = 1
	ProtocolTCP    = 6
	ProtocolUDP    = 17
	ProtocolICMPv6 = 58

	hopByHop    = 0
	routing     = 43
	fragment    = 44
	destination = 60
)

// IPv4 is a packet: its header and what follows, up to the length that the header says or
// to the end of what is there.
type IPv4 []byte

// ParseIPv4 makes a view; false when the header is not all there, or says that it is longer
// than the packet. Checksums are not looked at.
func ParseIPv4(b []byte) (IPv4, bool) {
	if len(b) < IPv4Len || b[0]>>4 != 4 {
		return nil, false
	}
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < IPv4Len || header > len(b) || header > total {
		return nil, false
	}
	n := min(total, len(b))
	return b[:n:n], true
}

// HeaderLen is 20 to 60 bytes.
func (p IPv4) HeaderLen() int { return int(p[0]&15) * 4 }

// TrafficClass is the byte of DSCP and ECN.
func (p IPv4) TrafficClass() uint8 { return p[1] }

// TotalLen is the packet's length in bytes, as the header says.
func (p IPv4) TotalLen() int { return int(binary.BigEndian.Uint16(p[2:])) }

// ID is the same in all fragments of a packet.
func (p IPv4) ID() uint16 { return binary.BigEndian.Uint16(p[4:]) }

// Fragmented says whether this is a part of a packet, and offset where it begins in bytes:
// only one at 0 has the header of UDP or TCP.
func (p IPv4) Fragmented() (is bool, offset int) {
	word := binary.BigEndian.Uint16(p[6:])
	return word&0x3fff != 0, int(word&0x1fff) * 8
}

// TTL is how many routers the packet may still pass.
func (p IPv4) TTL() uint8 { return p[8] }

// Protocol is that of the payload.
func (p IPv4) Protocol() uint8 { return p[9] }

// Checksum is the header's.
func (p IPv4) Checksum() uint16 { return binary.BigEndian.Uint16(p[10:]) }

// Source is the sender's address.
func (p IPv4) Source() netip.Addr { return netip.AddrFrom4([4]byte(p[12:16])) }

// Destination is the address that the packet is for.
func (p IPv4) Destination() netip.Addr { return netip.AddrFrom4([4]byte(p[16:20])) }

// Payload is what follows the header and its options.
func (p IPv4) Payload() []byte { return p[p.HeaderLen():] }

// Complete says whether all of the packet lies here, not a part.
func (p IPv4) Complete() bool { return len(p) == p.TotalLen() }

// SetTTL writes the TTL.
func (p IPv4) SetTTL(ttl uint8) { setWord(p[8:10], p[10:12], uint16(ttl)<<8|uint16(p[9])) }

// SetTrafficClass writes the byte of DSCP and ECN.
func (p IPv4) SetTrafficClass(class uint8) { setWord(p[0:2], p[10:12], uint16(p[0])<<8|uint16(class)) }

// SetSource writes the sender's address, of IPv4. The change is for the checksum of UDP or TCP.
func (p IPv4) SetSource(to netip.Addr) Change { return p.setAddress(p[12:16], to) }

// SetDestination writes the address that the packet is for, of IPv4. The change is for the
// checksum of UDP or TCP.
func (p IPv4) SetDestination(to netip.Addr) Change { return p.setAddress(p[16:20], to) }

func (p IPv4) setAddress(field []byte, to netip.Addr) Change {
	c := setAddress(field, to)
	c.apply(p[10:12])
	return c
}

// Swap exchanges source and destination, which changes no checksum.
func (p IPv4) Swap() {
	var source [4]byte
	copy(source[:], p[12:16])
	copy(p[12:16], p[16:20])
	copy(p[16:20], source[:])
}

// SetChecksum writes the header's checksum, of all of it.
func (p IPv4) SetChecksum() {
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], Checksum(p[:p.HeaderLen()]))
}

// ChecksumValid says whether the header's checksum is right.
func (p IPv4) ChecksumValid() bool { return Checksum(p[:p.HeaderLen()]) == 0 }

// Pseudo is the sum of the pseudo header of UDP and TCP of length bytes.
func (p IPv4) Pseudo(protocol uint8, length int) uint16 { return pseudo(p[12:20], protocol, length) }

// IPv6 is a packet: its header and what follows, up to the length that the header says or
// to the end of what is there.
type IPv6 []byte

// ParseIPv6 makes a view; false when the header is not all there.
func ParseIPv6(b []byte) (IPv6, bool) {
	if len(b) < IPv6Len || b[0]>>4 != 6 {
		return nil, false
	}
	n := min(len(b), IPv6Len+int(binary.BigEndian.Uint16(b[4:])))
	return b[:n:n], true
}

// TrafficClass is the byte of DSCP and ECN.
func (p IPv6) TrafficClass() uint8 { return p[0]<<4 | p[1]>>4 }

// FlowLabel is 20 bits.
func (p IPv6) FlowLabel() uint32 { return binary.BigEndian.Uint32(p) & 0xfffff }

// PayloadLen is how many bytes follow the header, as it says.
func (p IPv6) PayloadLen() int { return int(binary.BigEndian.Uint16(p[4:])) }

// HopLimit is how many routers the packet may still pass.
func (p IPv6) HopLimit() uint8 { return p[7] }

// SetHopLimit writes the hop limit. No checksum covers it.
func (p IPv6) SetHopLimit(hops uint8) { p[7] = hops }

// Source is the sender's address.
func (p IPv6) Source() netip.Addr { return netip.AddrFrom16([16]byte(p[8:24])) }

// Destination is the address that the packet is for.
func (p IPv6) Destination() netip.Addr { return netip.AddrFrom16([16]byte(p[24:40])) }

// SetSource writes the sender's address, of IPv6. The change is for the checksum of UDP, TCP or
// ICMPv6.
func (p IPv6) SetSource(to netip.Addr) Change { return setAddress(p[8:24], to) }

// SetDestination writes the address that the packet is for, of IPv6. The change is for the
// checksum of UDP, TCP or ICMPv6.
func (p IPv6) SetDestination(to netip.Addr) Change { return setAddress(p[24:40], to) }

// Swap exchanges source and destination, which changes no checksum.
func (p IPv6) Swap() {
	var source [16]byte
	copy(source[:], p[8:24])
	copy(p[8:24], p[24:40])
	copy(p[24:40], source[:])
}

// maxExtensions is how many extension headers are walked.
const maxExtensions = 8

// Upper is what follows the extension headers, and its protocol. Of a fragment, is says so and
// offset is where it begins in bytes. payload is nil when an extension header is not all there,
// or there are more than 8.
func (p IPv6) Upper() (protocol uint8, payload []byte, is bool, offset int) {
	protocol, payload, is, offset, _ = p.walk()
	return protocol, payload, is, offset
}

// walk is Upper. inside is what the fragment header says comes next, which all fragments of a
// packet say alike.
func (p IPv6) walk() (protocol uint8, payload []byte, is bool, offset int, inside uint8) {
	protocol, payload = p[6], p[IPv6Len:]
	for range maxExtensions {
		length := 0
		switch protocol {
		case hopByHop, routing, destination:
			if len(payload) >= 8 {
				length = int(payload[1])*8 + 8
			}
		case fragment:
			if len(payload) >= 8 {
				length = 8
				word := binary.BigEndian.Uint16(payload[2:])
				is, offset, inside = word&^6 != 0, int(word&^7), payload[0]
			}
		default:
			return protocol, payload, is, offset, inside
		}
		if length == 0 || length > len(payload) {
			return protocol, nil, is, offset, inside
		}
		protocol, payload = payload[0], payload[length:]
		if offset > 0 { // what follows is no header
			return protocol, payload, is, offset, inside
		}
	}
	return protocol, nil, is, offset, inside
}

// Pseudo is the sum of the pseudo header of UDP, TCP and ICMPv6 of length bytes. It is of the
// destination in the header: behind a routing header with segments left the checksum is of
// the last segment (RFC 8200, section 8.1), and does not fit.
func (p IPv6) Pseudo(protocol uint8, length int) uint16 { return pseudo(p[8:40], protocol, length) }
