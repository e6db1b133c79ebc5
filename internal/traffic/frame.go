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
	return udpFrame(size), nil
}

// maxJumbo is the largest frame of a device with an MTU of 9000 bytes.
const maxJumbo = 9014

// JumboFrame is a UDPFrame of up to 9014 bytes.
func JumboFrame(size int) ([]byte, error) {
	if size < MinFrame || size > maxJumbo {
		return nil, fmt.Errorf("frame size %d is not within %d … %d bytes", size, MinFrame, maxJumbo)
	}
	return udpFrame(size), nil
}

func udpFrame(size int) []byte {
	f, udp := ipFrame(size, protocolUDP)
	binary.BigEndian.PutUint16(udp[0:], discard)
	binary.BigEndian.PutUint16(udp[2:], discard)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	return f
}

// The numbers of protocols, and the port of the discard protocol (RFC 863).
const (
	protocolTCP, protocolUDP = 6, 17
	discard                  = 9
)

// ipFrame is an Ethernet frame of size bytes with an IPv4 header, and the rest of it.
func ipFrame(size int, protocol byte) (frame, payload []byte) {
	f := make([]byte, size)
	copy(f, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00})
	ip := f[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	copy(ip[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:20]))
	return f, ip[20:]
}

// TCPSegments returns n frames that are segments of one TCP stream, each the next after the one before, with payload
// bytes in each: what generic receive offload merges (RFC 9293, section 3.1).
func TCPSegments(n, payload int) ([][]byte, error) {
	const headers = 14 + 20 + 20
	if n < 1 || payload < 1 || headers+payload > MaxFrame {
		return nil, fmt.Errorf("%d TCP segments of %d bytes: at least 1 of 1 … %d bytes can be sent", n, payload, MaxFrame-headers)
	}
	var frames [][]byte
	for i := range n {
		f, tcp := ipFrame(headers+payload, protocolTCP)
		binary.BigEndian.PutUint16(tcp[0:], discard)
		binary.BigEndian.PutUint16(tcp[2:], discard)
		binary.BigEndian.PutUint32(tcp[4:], uint32(1+i*payload)) // sequence number
		binary.BigEndian.PutUint32(tcp[8:], 1)                   // acknowledgment number
		tcp[12], tcp[13] = 5<<4, 0x10                            // a header of five words; ACK
		binary.BigEndian.PutUint16(tcp[14:], 1<<15)              // receive window
		pseudo := append(append([]byte{}, f[26:34]...), 0, protocolTCP, 0, 0)
		binary.BigEndian.PutUint16(pseudo[10:], uint16(len(tcp)))
		binary.BigEndian.PutUint16(tcp[16:], checksum(append(pseudo, tcp...)))
		frames = append(frames, f)
	}
	return frames, nil
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
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
