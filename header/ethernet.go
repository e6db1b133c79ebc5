package header

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Types of Ethernet's payload.
const (
	TypeIPv4 = 0x0800
	TypeARP  = 0x0806
	TypeVLAN = 0x8100 // 802.1Q
	TypeQinQ = 0x88a8 // 802.1ad
	TypeIPv6 = 0x86dd
)

// Lengths of headers in bytes, without options.
const (
	EthernetLen = 14
	VLANLen     = 4
	ARPLen      = 28
	IPv4Len     = 20
	IPv6Len     = 40
	ICMPLen     = 8
	UDPLen      = 8
	TCPLen      = 20
)

// Ethernet is a frame.
type Ethernet []byte

// ParseEthernet makes a view of a frame; false when it is shorter than 14 bytes.
func ParseEthernet(frame []byte) (Ethernet, bool) {
	if len(frame) < EthernetLen {
		return nil, false
	}
	return frame, true
}

// Destination is the address that the frame is for.
func (e Ethernet) Destination() net.HardwareAddr { return net.HardwareAddr(e[0:6:6]) }

// Source is the address of the sender.
func (e Ethernet) Source() net.HardwareAddr { return net.HardwareAddr(e[6:12:12]) }

// Swap exchanges destination and source.
func (e Ethernet) Swap() {
	var source [6]byte
	copy(source[:], e[6:12])
	copy(e[6:12], e[0:6])
	copy(e[0:6], source[:])
}

// Type is the type of what follows, or that of a VLAN tag.
func (e Ethernet) Type() uint16 { return binary.BigEndian.Uint16(e[12:]) }

// VLAN is the outer VLAN tag; false when there is none.
func (e Ethernet) VLAN() (VLAN, bool) {
	if t := e.Type(); t != TypeVLAN && t != TypeQinQ || len(e) < EthernetLen+VLANLen {
		return nil, false
	}
	return VLAN(e[EthernetLen:]), true
}

// Payload is what follows behind up to two VLAN tags, and its type. It is nil, of type 0, when a
// tag is not all there.
func (e Ethernet) Payload() (kind uint16, payload []byte) {
	kind, payload = e.Type(), e[EthernetLen:]
	for range 2 {
		if kind != TypeVLAN && kind != TypeQinQ {
			break
		}
		if len(payload) < VLANLen {
			return 0, nil
		}
		kind, payload = binary.BigEndian.Uint16(payload[2:]), payload[VLANLen:]
	}
	return kind, payload
}

// VLAN is a VLAN tag, behind the type that announces it.
type VLAN []byte

// ID is the network's number, 12 bits.
func (v VLAN) ID() uint16 { return binary.BigEndian.Uint16(v) & 0xfff }

// Priority is 0 to 7 (PCP).
func (v VLAN) Priority() uint8 { return v[0] >> 5 }

// SetID writes the network's number.
func (v VLAN) SetID(id uint16) {
	binary.BigEndian.PutUint16(v, binary.BigEndian.Uint16(v)&^0xfff|id&0xfff)
}

// Type is the type of what follows the tag.
func (v VLAN) Type() uint16 { return binary.BigEndian.Uint16(v[2:]) }

// Operations of ARP.
const (
	ARPRequest = 1
	ARPReply   = 2
)

// ARP is a message of ARP for IPv4 on Ethernet (RFC 826).
type ARP []byte

// ParseARP makes a view; false when the message is of other protocols, or not all there.
func ParseARP(b []byte) (ARP, bool) {
	const ethernet, lengths = 1, 6<<8 | 4
	if len(b) < ARPLen || binary.BigEndian.Uint16(b) != ethernet || binary.BigEndian.Uint16(b[2:]) != TypeIPv4 ||
		binary.BigEndian.Uint16(b[4:]) != lengths {
		return nil, false
	}
	return b[:ARPLen:ARPLen], true
}

// Operation is ARPRequest, ARPReply or another.
func (a ARP) Operation() uint16 { return binary.BigEndian.Uint16(a[6:]) }

// SenderHardware is the sender's Ethernet address.
func (a ARP) SenderHardware() net.HardwareAddr { return net.HardwareAddr(a[8:14:14]) }

// Sender is the sender's IPv4 address.
func (a ARP) Sender() netip.Addr { return netip.AddrFrom4([4]byte(a[14:18])) }

// TargetHardware is the Ethernet address that is asked for, or that a reply is for.
func (a ARP) TargetHardware() net.HardwareAddr { return net.HardwareAddr(a[18:24:24]) }

// Target is the IPv4 address that is asked for, or that a reply is for.
func (a ARP) Target() netip.Addr { return netip.AddrFrom4([4]byte(a[24:28])) }

// Reply makes the reply of a request, which says that the target is at hardware: 6 bytes.
func (a ARP) Reply(hardware net.HardwareAddr) {
	var target [4]byte
	copy(target[:], a[24:28])
	binary.BigEndian.PutUint16(a[6:], ARPReply)
	copy(a[18:28], a[8:18])
	copy(a[8:14], hardware)
	copy(a[14:18], target[:])
}
