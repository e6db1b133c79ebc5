package traffic

import (
	"encoding/binary"
	"fmt"
)

// Limits of a frame's size in bytes, without the frame check sequence: a UDP
// packet's headers, and what a veth with an MTU of 1500 lets through.
const (
	MinFrame = 42
	MaxFrame = 1514
)

// UDPFrame returns an Ethernet frame of size bytes that holds an IPv4 UDP
// packet between two addresses for documentation (RFC 5737), from and to
// locally administered Ethernet addresses.
func UDPFrame(size int) ([]byte, error) {
	if size < MinFrame || size > MaxFrame {
		return nil, fmt.Errorf("frame size %d is not within %d … %d bytes", size, MinFrame, MaxFrame)
	}
	f := make([]byte, size)
	copy(f, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00})
	ip := f[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:20]))
	udp := ip[20:]
	binary.BigEndian.PutUint16(udp[0:], 9)
	binary.BigEndian.PutUint16(udp[2:], 9)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	return f, nil
}

// UnknownFrame returns an Ethernet frame of size bytes with the type for local
// experiments (IEEE 802, 0x88b5), which a network stack drops at once.
func UnknownFrame(size int) ([]byte, error) {
	f, err := UDPFrame(size)
	if err != nil {
		return nil, err
	}
	f[12], f[13] = 0x88, 0xb5
	return f, nil
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
