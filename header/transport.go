package header

import "encoding/binary"

// UDP is a datagram.
type UDP []byte

// ParseUDP makes a view of a payload of IP, to the end of what it says or of what is there; false
// when the header is not all there, or says that it is longer than the datagram.
func ParseUDP(b []byte) (UDP, bool) {
	if len(b) < UDPLen {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n < UDPLen {
		return nil, false
	}
	n = min(n, len(b))
	return b[:n:n], true
}

// SourcePort is the sender's port.
func (u UDP) SourcePort() uint16 { return binary.BigEndian.Uint16(u) }

// DestinationPort is the port that the datagram is for.
func (u UDP) DestinationPort() uint16 { return binary.BigEndian.Uint16(u[2:]) }

// Len is the datagram's length in bytes with its header, as that says.
func (u UDP) Len() int { return int(binary.BigEndian.Uint16(u[4:])) }

// Checksum is the datagram's; 0 is none.
func (u UDP) Checksum() uint16 { return binary.BigEndian.Uint16(u[6:]) }

// Payload is what follows the header.
func (u UDP) Payload() []byte { return u[UDPLen:] }

// SetSourcePort writes the sender's port.
func (u UDP) SetSourcePort(port uint16) { u.set(u[0:2], port) }

// SetDestinationPort writes the port that the datagram is for.
func (u UDP) SetDestinationPort(port uint16) { u.set(u[2:4], port) }

func (u UDP) set(field []byte, to uint16) {
	c := Replace(binary.BigEndian.Uint16(field), to)
	binary.BigEndian.PutUint16(field, to)
	u.Update(c)
}

// Swap exchanges the ports, which does not change the checksum.
func (u UDP) Swap() { u[0], u[1], u[2], u[3] = u[2], u[3], u[0], u[1] }

// Update adds a change of an address, or of bytes of the payload, to the checksum, unless there is
// none.
func (u UDP) Update(c Change) {
	if sum := u.Checksum(); sum != 0 {
		binary.BigEndian.PutUint16(u[6:], notZero(c.Apply(sum)))
	}
}

// SetChecksum writes the checksum over all of the datagram and its pseudo header.
func (u UDP) SetChecksum(pseudo uint16) {
	u[6], u[7] = 0, 0
	binary.BigEndian.PutUint16(u[6:], notZero(^Add(pseudo, Sum(u))))
}

// notZero is a checksum as UDP writes it: 0 means that there is none.
func notZero(sum uint16) uint16 {
	if sum == 0 {
		return 0xffff
	}
	return sum
}

// ChecksumValid says whether the checksum is right, or there is none, which IPv6 does not allow.
func (u UDP) ChecksumValid(pseudo uint16) bool {
	return u.Checksum() == 0 || Add(pseudo, Sum(u)) == 0xffff
}

// Flags of TCP.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// TCP is a segment.
type TCP []byte

// ParseTCP makes a view of a payload of IP; false when the header is not all there.
func ParseTCP(b []byte) (TCP, bool) {
	if len(b) < TCPLen {
		return nil, false
	}
	if n := int(b[12]>>4) * 4; n < TCPLen || n > len(b) {
		return nil, false
	}
	return b, true
}

// SourcePort is the sender's port.
func (t TCP) SourcePort() uint16 { return binary.BigEndian.Uint16(t) }

// DestinationPort is the port that the segment is for.
func (t TCP) DestinationPort() uint16 { return binary.BigEndian.Uint16(t[2:]) }

// Sequence is the number of the payload's first byte.
func (t TCP) Sequence() uint32 { return binary.BigEndian.Uint32(t[4:]) }

// Acknowledgment is the number of the next byte that the sender waits for.
func (t TCP) Acknowledgment() uint32 { return binary.BigEndian.Uint32(t[8:]) }

// HeaderLen is 20 to 60 bytes.
func (t TCP) HeaderLen() int { return int(t[12]>>4) * 4 }

// Flags are FIN, SYN, RST, PSH, ACK, URG and those of ECN above.
func (t TCP) Flags() uint8 { return t[13] }

// Window is how much the sender has room for, not scaled.
func (t TCP) Window() uint16 { return binary.BigEndian.Uint16(t[14:]) }

// Checksum is the segment's.
func (t TCP) Checksum() uint16 { return binary.BigEndian.Uint16(t[16:]) }

// Payload is what follows the header and its options.
func (t TCP) Payload() []byte { return t[t.HeaderLen():] }

// SetSourcePort writes the sender's port.
func (t TCP) SetSourcePort(port uint16) { setWord(t[0:2], t[16:18], port) }

// SetDestinationPort writes the port that the segment is for.
func (t TCP) SetDestinationPort(port uint16) { setWord(t[2:4], t[16:18], port) }

// Swap exchanges the ports, which does not change the checksum.
func (t TCP) Swap() { t[0], t[1], t[2], t[3] = t[2], t[3], t[0], t[1] }

// Update adds a change of an address, or of other bytes, to the checksum.
func (t TCP) Update(c Change) { c.apply(t[16:18]) }

// SetChecksum writes the checksum over all of the segment and its pseudo header.
func (t TCP) SetChecksum(pseudo uint16) {
	t[16], t[17] = 0, 0
	binary.BigEndian.PutUint16(t[16:], ^Add(pseudo, Sum(t)))
}

// ChecksumValid says whether the checksum is right.
func (t TCP) ChecksumValid(pseudo uint16) bool { return Add(pseudo, Sum(t)) == 0xffff }

// Types of ICMP and of ICMPv6.
const (
	ICMPEchoReply   = 0
	ICMPEcho        = 8
	ICMPv6Echo      = 128
	ICMPv6EchoReply = 129
)

// ICMP is a message of ICMP or ICMPv6, whose checksum has a pseudo header.
type ICMP []byte

// ParseICMP makes a view of a payload of IP; false when it is shorter than 8 bytes.
func ParseICMP(b []byte) (ICMP, bool) {
	if len(b) < ICMPLen {
		return nil, false
	}
	return b, true
}

// Type is the message's.
func (m ICMP) Type() uint8 { return m[0] }

// Code says more about the type.
func (m ICMP) Code() uint8 { return m[1] }

// Checksum is the message's.
func (m ICMP) Checksum() uint16 { return binary.BigEndian.Uint16(m[2:]) }

// ID is that of an echo.
func (m ICMP) ID() uint16 { return binary.BigEndian.Uint16(m[4:]) }

// Sequence is the number of an echo.
func (m ICMP) Sequence() uint16 { return binary.BigEndian.Uint16(m[6:]) }

// Payload is what follows the first 8 bytes.
func (m ICMP) Payload() []byte { return m[ICMPLen:] }

// SetType writes the type.
func (m ICMP) SetType(t uint8) { setWord(m[0:2], m[2:4], uint16(t)<<8|uint16(m[1])) }

// Update adds a change of an address (ICMPv6), or of other bytes, to the checksum.
func (m ICMP) Update(c Change) { c.apply(m[2:4]) }

// SetChecksum writes the checksum over all of the message; pseudo is 0 for ICMP.
func (m ICMP) SetChecksum(pseudo uint16) {
	m[2], m[3] = 0, 0
	binary.BigEndian.PutUint16(m[2:], ^Add(pseudo, Sum(m)))
}

// ChecksumValid says whether the checksum is right; pseudo is 0 for ICMP.
func (m ICMP) ChecksumValid(pseudo uint16) bool { return Add(pseudo, Sum(m)) == 0xffff }
