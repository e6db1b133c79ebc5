package header_test

import (
	"fmt"
	"net/netip"

	"github.com/unthunk/unthunk/header"
)

// A datagram gets another destination, and both checksums what changed.
func Example() {
	frame := []byte{
		2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, // Ethernet
		0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2, // IPv4
		0x1f, 0x90, 0, 53, 0, 12, 0, 0, 'p', 'i', 'n', 'g', // UDP
	}
	eth, _ := header.ParseEthernet(frame)
	kind, payload := eth.Payload()
	ip, ok := header.ParseIPv4(payload)
	if !ok || kind != header.TypeIPv4 {
		return
	}
	udp, ok := header.ParseUDP(ip.Payload())
	if !ok {
		return
	}
	ip.SetChecksum()
	udp.SetChecksum(ip.Pseudo(header.ProtocolUDP, udp.Len()))

	udp.Update(ip.SetDestination(netip.MustParseAddr("203.0.113.9")))
	udp.SetDestinationPort(5353)
	fmt.Println(ip.Source(), "to", ip.Destination(), "port", udp.DestinationPort())
	fmt.Println(ip.ChecksumValid(), udp.ChecksumValid(ip.Pseudo(header.ProtocolUDP, udp.Len())))
	// Output:
	// 192.0.2.1 to 203.0.113.9 port 5353
	// true true
}
