package filter

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
)

// node is a test: of two others, of one denied, or a leaf.
type node struct {
	a, b    *node
	or, not bool

	load []bpf.Instruction
	test bpf.JumpTest
	val  uint32
}

func leaf(test bpf.JumpTest, val uint32, load ...bpf.Instruction) *node {
	return &node{load: load, test: test, val: val}
}

func and(nodes ...*node) *node {
	n := nodes[0]
	for _, b := range nodes[1:] {
		n = &node{a: n, b: b}
	}
	return n
}

func or(nodes ...*node) *node {
	n := nodes[0]
	for _, b := range nodes[1:] {
		n = &node{a: n, b: b, or: true}
	}
	return n
}

func etherType(l2, t uint32) *node {
	return leaf(bpf.JumpEqual, t, bpf.LoadAbsolute{Off: 12 + l2, Size: 2})
}

func vlan(l2 uint32, id *uint32) *node {
	n := or(etherType(l2, typeVLAN), etherType(l2, typeQinQ), etherType(l2, typeOld))
	if id != nil {
		tci := bpf.LoadAbsolute{Off: 14 + l2, Size: 2}
		n = and(n, leaf(bpf.JumpEqual, *id, tci, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xfff}))
	}
	return n
}

// protocol4 and protocol6 are frames of an IP protocol; of IPv6 also in a
// fragment's header, as in libpcap, and behind no other.
func protocol4(l2, number uint32) *node {
	return and(etherType(l2, typeIP), leaf(bpf.JumpEqual, number, bpf.LoadAbsolute{Off: 23 + l2, Size: 1}))
}

const fragmentHeader = 44

func protocol6(l2, number uint32) *node {
	next := bpf.LoadAbsolute{Off: 20 + l2, Size: 1}
	return and(etherType(l2, typeIP6), or(
		leaf(bpf.JumpEqual, number, next),
		and(leaf(bpf.JumpEqual, fragmentHeader, next), leaf(bpf.JumpEqual, number, bpf.LoadAbsolute{Off: 54 + l2, Size: 1})),
	))
}

// notFragment is IPv4 packets that are no later fragment.
func notFragment(l2 uint32) *node {
	return &node{not: true, a: leaf(bpf.JumpBitsSet, 0x1fff, bpf.LoadAbsolute{Off: 20 + l2, Size: 2})}
}

// protocol is frames of a protocol by name.
func protocol(l2 uint32, name string) *node {
	switch name {
	case "ip":
		return etherType(l2, typeIP)
	case "ip6":
		return etherType(l2, typeIP6)
	case "arp":
		return etherType(l2, typeARP)
	case "rarp":
		return etherType(l2, typeRARP)
	case "icmp", "igmp":
		return protocol4(l2, protocols[name])
	case "icmp6":
		return protocol6(l2, protocols[name])
	}
	return or(protocol4(l2, protocols[name]), protocol6(l2, protocols[name]))
}

// protoNumber is ether proto, ip proto or ip6 proto.
func protoNumber(l2 uint32, proto, id string) (*node, error) {
	v, err := number(id)
	if err != nil {
		known, ok := protocols[id]
		if !ok || proto == "ether" {
			return nil, fmt.Errorf("%.200q is no protocol", id)
		}
		v = known
	}
	switch {
	case proto == "ether" && v > 0xffff, proto != "ether" && v > 0xff:
		return nil, fmt.Errorf("protocol %d is too high", v)
	case proto == "ether":
		return etherProtocol(l2, v), nil
	case proto == "ip":
		return protocol4(l2, v), nil
	case proto == "ip6":
		return protocol6(l2, v), nil
	case proto == "":
		return or(protocol4(l2, v), protocol6(l2, v)), nil
	}
	return nil, fmt.Errorf("%s proto makes no sense", proto)
}

// ends is a test of the source, the destination, or either.
func ends(dir string, test func(dst bool) *node) *node {
	switch dir {
	case "src":
		return test(false)
	case "dst":
		return test(true)
	}
	return or(test(false), test(true))
}

// prefix is frames from or to addresses: of IP, ARP and RARP.
func prefix(l2 uint32, q qualifiers, n netip.Prefix) (*node, error) {
	if n.Addr().Is4() {
		type place struct {
			name     string
			src, dst uint32
		}
		var tests []*node
		for _, at := range []place{{"ip", 26, 30}, {"arp", 28, 38}, {"rarp", 28, 38}} {
			if q.proto == at.name || q.proto == "" {
				tests = append(tests, and(protocol(l2, at.name), ends(q.dir, func(dst bool) *node {
					off := at.src
					if dst {
						off = at.dst
					}
					return masked(off+l2, n)
				})))
			}
		}
		if tests == nil {
			return nil, fmt.Errorf("%s: %v is not an address of it", q.proto, n)
		}
		return or(tests...), nil
	}
	if q.proto != "" && q.proto != "ip6" {
		return nil, fmt.Errorf("%s: %v is not an address of it", q.proto, n)
	}
	return and(protocol(l2, "ip6"), ends(q.dir, func(dst bool) *node {
		if dst {
			return masked(38+l2, n)
		}
		return masked(22+l2, n)
	})), nil
}

// masked is an address in a prefix, word by word. Words of which the prefix says
// nothing are loaded as well, as in libpcap: the frame must have the whole address.
func masked(at uint32, n netip.Prefix) *node {
	var tests []*node
	b := n.Addr().AsSlice()
	for i := 0; i < len(b); i += 4 {
		bits := n.Bits() - 8*i
		load := []bpf.Instruction{bpf.LoadAbsolute{Off: at + uint32(i), Size: 4}}
		if bits < 32 {
			load = append(load, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(0) << (32 - max(0, bits))})
		}
		tests = append(tests, leaf(bpf.JumpEqual, binary.BigEndian.Uint32(b[i:]), load...))
	}
	return and(tests...)
}

// ports is TCP, UDP and SCTP from or to ports.
func ports(l2 uint32, q qualifiers, from, to uint32) (*node, error) {
	var list []string
	is4, is6 := true, true
	switch q.proto {
	case "":
		list = []string{"tcp", "udp", "sctp"}
	case "ip", "ip6":
		list = []string{"tcp", "udp", "sctp"}
		is4, is6 = q.proto == "ip", q.proto == "ip6"
	case "tcp", "udp", "sctp":
		list = []string{q.proto}
	default:
		return nil, fmt.Errorf("%s has no ports", q.proto)
	}
	within := func(load ...bpf.Instruction) *node {
		if from == to {
			return leaf(bpf.JumpEqual, from, load...)
		}
		return and(leaf(bpf.JumpGreaterOrEqual, from, load...), leaf(bpf.JumpLessOrEqual, to, load...))
	}
	var proto4, proto6 []*node
	for _, name := range list {
		proto4 = append(proto4, leaf(bpf.JumpEqual, protocols[name], bpf.LoadAbsolute{Off: 23 + l2, Size: 1}))
		proto6 = append(proto6, leaf(bpf.JumpEqual, protocols[name], bpf.LoadAbsolute{Off: 20 + l2, Size: 1}))
	}
	offset := func(dst bool) uint32 {
		if dst {
			return 2
		}
		return 0
	}
	v4 := and(etherType(l2, typeIP), or(proto4...), notFragment(l2), ends(q.dir, func(dst bool) *node {
		return within(bpf.LoadMemShift{Off: 14 + l2}, bpf.LoadIndirect{Off: 14 + l2 + offset(dst), Size: 2})
	}))
	v6 := and(etherType(l2, typeIP6), or(proto6...), ends(q.dir, func(dst bool) *node {
		return within(bpf.LoadAbsolute{Off: 54 + l2 + offset(dst), Size: 2})
	}))
	switch {
	case !is6:
		return v4, nil
	case !is4:
		return v6, nil
	}
	return or(v4, v6), nil
}

// code is a program being made: instructions, and jumps to labels that are
// resolved at the end.
type code struct {
	ins    []bpf.Instruction
	target []int // label of a Jump, by instruction; 0 for no label
	labels []int // where each is
}

func (c *code) label() int {
	c.labels = append(c.labels, -1)
	return len(c.labels) - 1
}

func (c *code) emit(ins bpf.Instruction, label int) {
	c.ins, c.target = append(c.ins, ins), append(c.target, label)
}

// node makes code that goes to one label when the test holds, and to the other
// when it does not.
func (c *code) node(n *node, yes, no int) {
	switch {
	case n.not:
		c.node(n.a, no, yes)
	case n.a != nil && n.or:
		second := c.label()
		c.node(n.a, yes, second)
		c.labels[second] = len(c.ins)
		c.node(n.b, yes, no)
	case n.a != nil:
		second := c.label()
		c.node(n.a, second, no)
		c.labels[second] = len(c.ins)
		c.node(n.b, yes, no)
	default:
		for _, ins := range n.load {
			c.emit(ins, 0)
		}
		// Conditional jumps reach 255 instructions: the far ones are left to
		// those that have no condition.
		c.emit(bpf.JumpIf{Cond: n.test, Val: n.val, SkipTrue: 0, SkipFalse: 1}, 0)
		c.emit(bpf.Jump{}, yes)
		c.emit(bpf.Jump{}, no)
	}
}

// wholeFrame is what a matching program returns: as much as there is.
const wholeFrame = 0x40000

func generate(n *node) ([]bpf.Instruction, error) {
	c := &code{labels: []int{0}}
	yes, no := c.label(), c.label()
	c.node(n, yes, no)
	c.labels[yes] = len(c.ins)
	c.emit(bpf.RetConstant{Val: wholeFrame}, 0)
	c.labels[no] = len(c.ins)
	c.emit(bpf.RetConstant{Val: 0}, 0)
	for i, l := range c.target {
		if l != 0 {
			c.ins[i] = bpf.Jump{Skip: uint32(c.labels[l] - i - 1)}
		}
	}
	if len(c.ins) > maxInstructions {
		return nil, fmt.Errorf("it takes %d instructions, more than the %d of classic BPF", len(c.ins), maxInstructions)
	}
	return c.ins, nil
}
