package header

import (
	"encoding/binary"
	"math/bits"
)

// Hash is a hash of the flow that a frame is of: addresses, protocol and ports of IPv4 and IPv6,
// behind VLAN tags. Both directions of a flow have the same. Fragments count by addresses and
// protocol, as only the first has ports; what is not IP by Ethernet's addresses and type; a
// frame of less than 14 bytes as one flow.
//
// It spreads flows evenly. Who must not be able to choose where a flow goes should not know the
// seed; against one who can try it is no protection.
func Hash(frame []byte, seed uint64) uint32 {
	eth, ok := ParseEthernet(frame)
	if !ok {
		return mix(seed, 0, 0)
	}
	switch kind, payload := eth.Payload(); kind {
	case TypeIPv4:
		if p, ok := ParseIPv4(payload); ok {
			var from, to uint64
			if is, _ := p.Fragmented(); !is {
				from, to = ports(p.Protocol(), p.Payload())
			}
			from |= uint64(binary.BigEndian.Uint32(p[12:])) << 16
			to |= uint64(binary.BigEndian.Uint32(p[16:])) << 16
			return mix(seed+uint64(p.Protocol()), from, to)
		}
	case TypeIPv6:
		if p, ok := ParseIPv6(payload); ok {
			protocol, upper, is, _, inside := p.walk()
			var from, to uint64
			if is {
				protocol = inside // only the first fragment has further extension headers
			} else {
				from, to = ports(protocol, upper)
			}
			from ^= multiply(binary.BigEndian.Uint64(p[8:])^seed, binary.BigEndian.Uint64(p[16:])^hash0)
			to ^= multiply(binary.BigEndian.Uint64(p[24:])^seed, binary.BigEndian.Uint64(p[32:])^hash0)
			return mix(seed+uint64(protocol), from, to)
		}
	}
	return mix(seed+uint64(eth.Type()), ethernetAddress(eth.Source()), ethernetAddress(eth.Destination()))
}

func ethernetAddress(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint32(b))<<16 | uint64(binary.BigEndian.Uint16(b[4:]))
}

// ports are those of UDP, TCP and SCTP, which all have them in front.
func ports(protocol uint8, b []byte) (from, to uint64) {
	const sctp = 132
	if protocol != ProtocolTCP && protocol != ProtocolUDP && protocol != sctp || len(b) < 4 {
		return 0, 0
	}
	return uint64(binary.BigEndian.Uint16(b)), uint64(binary.BigEndian.Uint16(b[2:]))
}

// Odd constants with as many ones as zeros in each byte, those of wyhash.
const (
	hash0 = 0xa0761d6478bd642f
	hash1 = 0xe7037ed1a0b428db
)

// mix hashes two ends of a flow, in either order.
func mix(seed, a, b uint64) uint32 {
	if a > b {
		a, b = b, a
	}
	h := multiply(multiply(a^hash0, seed^hash1)^b, hash0)
	return uint32(h>>32) ^ uint32(h)
}

// multiply is both halves of the product, one over the other.
func multiply(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
