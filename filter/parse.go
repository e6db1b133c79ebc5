package filter

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/bpf"
)

// Compile compiles an expression, or classic BPF as tcpdump -ddd writes it (a
// count, then as many lines of four numbers). The program returns 0 for frames
// that do not match. An error has at most 200 characters of the expression, and of a word of it.
func Compile(expression string) ([]bpf.Instruction, error) {
	if program, ok, err := parseRaw(expression); ok {
		return program, err
	}
	p := &parser{tokens: tokenize(expression)}
	if len(p.tokens) == 0 {
		return nil, fmt.Errorf("filter is empty")
	}
	n, err := p.expression()
	if err == nil && p.at < len(p.tokens) {
		err = fmt.Errorf("%.200q is one word too many", p.tokens[p.at])
	}
	if err != nil {
		return nil, fmt.Errorf("filter %.200q: %w", expression, err)
	}
	program, err := generate(n)
	if err != nil {
		return nil, fmt.Errorf("filter %.200q: %w", expression, err)
	}
	return program, nil
}

// maxInstructions is BPF_MAXINSNS, linux/bpf_common.h.
const maxInstructions = 4096

func parseRaw(s string) (program []bpf.Instruction, ok bool, err error) {
	fields := strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t\r\n,", r) })
	if len(fields) < 5 {
		return nil, false, nil
	}
	numbers := make([]uint64, len(fields))
	for i, f := range fields {
		if numbers[i], err = strconv.ParseUint(f, 10, 32); err != nil {
			return nil, false, nil
		}
	}
	n := numbers[0]
	if n > maxInstructions || uint64(len(numbers)-1) != 4*n {
		return nil, true, fmt.Errorf("classic BPF: %d numbers after a count of %d, want 4 for each", len(numbers)-1, n)
	}
	var raw []bpf.RawInstruction
	for i := 1; i < len(numbers); i += 4 {
		code, jt, jf := numbers[i], numbers[i+1], numbers[i+2]
		if code > 0xffff || jt > 0xff || jf > 0xff {
			return nil, true, fmt.Errorf("classic BPF: instruction %d has a field that is too large", i/4)
		}
		raw = append(raw, bpf.RawInstruction{Op: uint16(code), Jt: uint8(jt), Jf: uint8(jf), K: uint32(numbers[i+3])})
	}
	program, all := bpf.Disassemble(raw)
	if !all {
		return nil, true, fmt.Errorf("classic BPF: an instruction is not known")
	}
	return program, true, nil
}

// maxDepth of parentheses and negations, maxTokens of an expression.
const (
	maxDepth  = 100
	maxTokens = 1000
)

// tokenize splits at blanks and around punctuation.
func tokenize(s string) (tokens []string) {
	const single = "()[]!"
	for _, word := range strings.Fields(s) {
		for word != "" {
			if two := word[:min(2, len(word))]; strings.Contains(" && || != >= <= == ", " "+two+" ") && len(two) == 2 {
				tokens, word = append(tokens, two), word[2:]
				continue
			}
			if strings.ContainsRune(single+"&=<>", rune(word[0])) {
				tokens, word = append(tokens, word[:1]), word[1:]
				continue
			}
			end := strings.IndexAny(word, single+"&|=<>")
			if end == 0 { // a single |
				end = 1
			}
			if end < 0 {
				end = len(word)
			}
			tokens, word = append(tokens, word[:end]), word[end:]
		}
	}
	return tokens
}

type parser struct {
	tokens []string
	at     int
	depth  int
	l2     uint32     // bytes of VLAN tags before the type, where the parser is
	last   qualifiers // of the last primitive with an ID
}

// qualifiers of an ID: protocol, direction, kind.
type qualifiers struct{ proto, dir, kind string }

func (p *parser) peek() string {
	if p.at < len(p.tokens) {
		return p.tokens[p.at]
	}
	return ""
}

func (p *parser) next() string {
	t := p.peek()
	p.at++
	return t
}

// take takes the next word if it is one of these.
func (p *parser) take(words ...string) string {
	for _, w := range words {
		if p.peek() == w && w != "" {
			p.at++
			return w
		}
	}
	return ""
}

// expression is terms joined by and and or, from left to right.
func (p *parser) expression() (*node, error) {
	if len(p.tokens) > maxTokens {
		return nil, fmt.Errorf("more than %d words", maxTokens)
	}
	a, err := p.term()
	for err == nil {
		op := p.take("and", "&&", "or", "||")
		if op == "" {
			return a, nil
		}
		var b *node
		b, err = p.term()
		a = &node{or: op == "or" || op == "||", a: a, b: b}
	}
	return nil, err
}

func (p *parser) term() (*node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	switch {
	case p.take("not", "!") != "":
		a, err := p.term()
		return &node{not: true, a: a}, err
	case p.take("(") != "":
		a, err := p.expression()
		if err == nil && p.take(")") == "" {
			err = fmt.Errorf("a ( is not closed")
		}
		return a, err
	}
	return p.primitive()
}

// Ethernet types.
const (
	typeIP   = 0x0800
	typeARP  = 0x0806
	typeRARP = 0x8035
	typeVLAN = 0x8100
	typeQinQ = 0x88a8
	typeOld  = 0x9100
	typeIP6  = 0x86dd
)

var protocols = map[string]uint32{
	"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "sctp": 132,
}

func (p *parser) primitive() (*node, error) {
	l2 := p.l2
	word := p.peek()
	switch word {
	case "":
		return nil, fmt.Errorf("it ends too early")
	case "vlan":
		p.next()
		var id *uint32
		if v, err := number(p.peek()); err == nil {
			if v > 4095 {
				return nil, fmt.Errorf("VLAN %d: 4095 is the highest", v)
			}
			p.next()
			id = &v
		}
		// From here on all is behind the tag, as in libpcap.
		p.l2 += 4
		return vlan(l2, id), nil
	case "less", "greater":
		p.next()
		v, err := number(p.next())
		if err != nil {
			return nil, err
		}
		test := bpf.JumpLessOrEqual
		if word == "greater" {
			test = bpf.JumpGreaterOrEqual
		}
		return leaf(test, v, bpf.LoadExtension{Num: bpf.ExtLen}), nil
	case "len":
		p.next()
		return p.relation([]bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtLen}}, nil)
	}
	if p.at+1 < len(p.tokens) && p.tokens[p.at+1] == "[" {
		return p.accessor(l2)
	}
	var q qualifiers
	q.proto = p.take(
		"ether", "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "gre", "esp", "ah",
	)
	q.dir = p.take("src", "dst")
	q.kind = p.take("host", "net", "port", "portrange", "proto", "broadcast", "multicast")
	if q.dir != "" && q.kind == "" {
		// libpcap: host, except for numbers.
		q.kind = "host"
		if strings.Contains(p.peek(), "/") {
			q.kind = "net"
		}
	}
	switch {
	case q.kind == "broadcast" || q.kind == "multicast":
		if q.proto != "ether" || q.dir != "" {
			return nil, fmt.Errorf("%s: only of ether", q.kind)
		}
		if q.kind == "broadcast" {
			return etherHost(0, [6]byte{255, 255, 255, 255, 255, 255}), nil
		}
		return leaf(bpf.JumpBitsSet, 1, bpf.LoadAbsolute{Off: 0, Size: 1}), nil
	case q.kind == "" && q.proto == "":
		if p.last.kind == "" {
			return nil, fmt.Errorf("%.200q is not known", word)
		}
		q = p.last
	case q.kind == "" && q.proto == "ether":
		return nil, fmt.Errorf("ether needs host, proto, broadcast or multicast")
	case q.kind == "":
		return protocol(l2, q.proto), nil
	}
	p.last = q
	return p.id(l2, q)
}

// id is a primitive with an ID.
func (p *parser) id(l2 uint32, q qualifiers) (*node, error) {
	id := p.next()
	switch q.kind {
	case "proto":
		if q.dir != "" {
			return nil, fmt.Errorf("%s proto makes no sense", q.dir)
		}
		return protoNumber(l2, q.proto, id)
	case "host":
		if q.proto == "ether" {
			mac, err := net.ParseMAC(id)
			if err != nil || len(mac) != 6 {
				return nil, fmt.Errorf("%.200q is no Ethernet address", id)
			}
			return ends(q.dir, func(dst bool) *node {
				if dst {
					return etherHost(0, [6]byte(mac))
				}
				return etherHost(6, [6]byte(mac))
			}), nil
		}
		a, err := netip.ParseAddr(id)
		if err != nil {
			return nil, fmt.Errorf("%.200q is no address (names are not looked up)", id)
		}
		return prefix(l2, q, netip.PrefixFrom(a, a.BitLen()))
	case "net":
		n, err := network(id)
		if err != nil {
			return nil, err
		}
		return prefix(l2, q, n)
	case "port", "portrange":
		low, high, ok := strings.Cut(id, "-")
		if !ok {
			high = low
		}
		if ok != (q.kind == "portrange") {
			return nil, fmt.Errorf("%.200q is no %s", id, q.kind)
		}
		from, err1 := strconv.ParseUint(low, 10, 16)
		to, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil || from > to {
			return nil, fmt.Errorf("%.200q is no %s (names are not looked up)", id, q.kind)
		}
		return ports(l2, q, uint32(from), uint32(to))
	}
	return nil, fmt.Errorf("%.200q is not known", q.kind)
}

// network is a prefix, or an IPv4 network by its first bytes.
func network(id string) (netip.Prefix, error) {
	if n, err := netip.ParsePrefix(id); err == nil {
		if n.Masked() != n {
			return n, fmt.Errorf("%.200q has bits outside of its prefix", id)
		}
		return n, nil
	}
	if a, err := netip.ParseAddr(id); err == nil && a.Is6() {
		return netip.PrefixFrom(a, 128), nil
	}
	parts := strings.Split(id, ".")
	var b [4]byte
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 10, 8)
		if err != nil || i > 3 {
			return netip.Prefix{}, fmt.Errorf("%.200q is no network", id)
		}
		b[i] = byte(v)
	}
	return netip.PrefixFrom(netip.AddrFrom4(b), 8*len(parts)), nil
}

// accessor is PROTO[OFFSET:SIZE] compared with a number.
func (p *parser) accessor(l2 uint32) (*node, error) {
	proto := p.next()
	p.next() // [
	offset, size, ok := strings.Cut(p.next(), ":")
	if !ok {
		size = "1"
	}
	off, err := number(offset)
	if err != nil || off > 1500 {
		return nil, fmt.Errorf("offset %.200q: only numbers up to 1500", offset)
	}
	if size != "1" && size != "2" && size != "4" {
		return nil, fmt.Errorf("size %.200q is not 1, 2 or 4", size)
	}
	n := int(size[0] - '0')
	if p.take("]") == "" {
		return nil, fmt.Errorf("a [ is not closed")
	}
	switch proto {
	case "ether":
		return p.relation([]bpf.Instruction{bpf.LoadAbsolute{Off: off, Size: n}}, nil)
	case "ip", "ip6", "arp", "rarp":
		return p.relation([]bpf.Instruction{bpf.LoadAbsolute{Off: 14 + l2 + off, Size: n}}, protocol(l2, proto))
	case "tcp", "udp", "icmp", "sctp", "igmp":
		// Of IPv4, and not of later fragments, as in libpcap.
		is := and(protocol4(l2, protocols[proto]), notFragment(l2))
		return p.relation([]bpf.Instruction{
			bpf.LoadMemShift{Off: 14 + l2}, bpf.LoadIndirect{Off: 14 + l2 + off, Size: n},
		}, is)
	}
	return nil, fmt.Errorf("%s[…] is not known", proto)
}

// relation is what follows a value: [& MASK] OPERATOR N. It holds for frames that
// are what they must be, nil for any.
func (p *parser) relation(load []bpf.Instruction, must *node) (*node, error) {
	if p.take("&") != "" {
		mask, err := number(p.next())
		if err != nil {
			return nil, err
		}
		load = append(load, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask})
	}
	test, ok := map[string]bpf.JumpTest{
		"=": bpf.JumpEqual, "==": bpf.JumpEqual, "!=": bpf.JumpNotEqual, ">": bpf.JumpGreaterThan,
		"<": bpf.JumpLessThan, ">=": bpf.JumpGreaterOrEqual, "<=": bpf.JumpLessOrEqual,
	}[p.peek()]
	if !ok {
		return nil, fmt.Errorf("%.200q is no comparison", p.peek())
	}
	p.next()
	v, err := number(p.next())
	if err != nil {
		return nil, err
	}
	n := leaf(test, v, load...)
	if must != nil {
		n = and(must, n)
	}
	return n, nil
}

func number(s string) (uint32, error) {
	v, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		return 0, fmt.Errorf("%.200q is no number", s)
	}
	return uint32(v), nil
}

func etherHost(at uint32, mac [6]byte) *node {
	return and(
		leaf(bpf.JumpEqual, binary.BigEndian.Uint32(mac[2:]), bpf.LoadAbsolute{Off: at + 2, Size: 4}),
		leaf(bpf.JumpEqual, uint32(binary.BigEndian.Uint16(mac[:])), bpf.LoadAbsolute{Off: at, Size: 2}),
	)
}
