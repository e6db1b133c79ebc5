package filter

import "golang.org/x/net/bpf"

// maxLength is the largest value that an Ethernet header has as a length (IEEE
// 802.3), and not as a type.
const maxLength = 1500

// Service access points of LLC and types that libpcap looks for in more than one
// place (llc.h and gen_ether_linktype in gencode.c).
const (
	sapIP         = 0x06
	sapIPX        = 0xe0
	sapNetBEUI    = 0xf0
	sapISO        = 0xfe
	typeIPX       = 0x8137
	typeAppleTalk = 0x809b
	typeAARP      = 0x80f3
	// novell is the checksum, unused, of an IPX packet where others have LLC.
	novell = 0xffff
)

// etherProtocol is frames of a type, or, where the number is too low for one, with
// an LLC header of that destination's service access point.
func etherProtocol(l2, number uint32) *node {
	llc := leaf(bpf.JumpLessOrEqual, maxLength, bpf.LoadAbsolute{Off: 12 + l2, Size: 2})
	saps := bpf.LoadAbsolute{Off: 14 + l2, Size: 2} // destination's, source's
	destination := leaf(bpf.JumpEqual, number, bpf.LoadAbsolute{Off: 14 + l2, Size: 1})
	switch {
	case number == sapIP || number == sapNetBEUI || number == sapISO:
		return and(llc, leaf(bpf.JumpEqual, number<<8|number, saps))
	case number == sapIPX:
		return or(etherType(l2, typeIPX), and(llc, or(snap(l2, 0, typeIPX), destination, leaf(bpf.JumpEqual, novell, saps))))
	case number == typeAppleTalk:
		return or(etherType(l2, number), and(llc, snap(l2, 0x080007, number)))
	case number == typeAARP:
		return or(etherType(l2, number), and(llc, snap(l2, 0, number)))
	case number <= maxLength:
		return and(llc, destination)
	}
	return etherType(l2, number)
}

// snap is LLC frames with a SNAP header of an organization's type.
func snap(l2, organization, number uint32) *node {
	return and(
		leaf(bpf.JumpEqual, organization<<16|number, bpf.LoadAbsolute{Off: 18 + l2, Size: 4}),
		leaf(bpf.JumpEqual, 0xaaaa0300|organization>>16, bpf.LoadAbsolute{Off: 14 + l2, Size: 4}),
	)
}
