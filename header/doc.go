// Package header reads and writes the headers of frames where they lie, without
// allocation: Ethernet, VLAN tags, ARP, IPv4, IPv6, ICMP, UDP and TCP.
//
// A view is a slice of the frame, from the header's first byte to the end of what
// the header says is its own. Parse functions make views and check bounds once, so
// that methods need not fail: [ParseIPv4] says no when the header is not all there.
// A method that returns a slice returns a part of the frame: what is written to it is
// written to the frame. The zero value of a view has no methods that may be called.
//
//	eth, _ := header.ParseEthernet(frame)
//	kind, rest := eth.Payload() // behind VLAN tags
//	if ip, ok := header.ParseIPv4(rest); ok && kind == header.TypeIPv4 {
//		ip.SetTTL(ip.TTL() - 1) // and the checksum, by what changed
//	}
//
// Setters keep the header's own checksum right by adding what changed (RFC 1624); one
// that changes an address returns the [Change], which the checksum of UDP, TCP or
// ICMPv6 takes too. Functions that sum whole headers are there for frames that are
// made new.
//
// Of a frame in several chunks views see what lies in the first, as an XDP program
// does. Payloads are cut there, and a sum over one that is cut is wrong.
//
// Nothing here asks the kernel. Views have no state: goroutines may share them as they
// may share the frame's bytes.
package header
