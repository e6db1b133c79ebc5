package progcode

import "slices"

// value is what a register or a stack slot holds, as far as it matters here, by its number
// in [values].
type value uint32

const (
	// none is that of code which nothing reaches yet; unknown may be anything.
	none value = iota
	unknown
)

// kind is what a value is, 0 when that does not matter.
type kind uint8

const (
	// kindConstant is a number.
	kindConstant kind = iota + 1
	// kindFrame is an address in the stack frame: the frame pointer and a number.
	kindFrame
	// kindFunction is a function of the program, given to a helper as its callback.
	kindFunction
	// kindMap is a map, one of some; kindArea its elements' memory, to which an inlined
	// lookup adds an index, and kindElement one of them.
	kindMap
	kindArea
	kindElement
)

// mapRef names a map: by its number in the list of a program's maps, or as one that an
// element of that map holds.
type mapRef struct {
	index int
	inner bool
}

// content is what a value stands for.
type content struct {
	kind kind
	// n is the number of a constant and of a frame, and the number of a function.
	n int64
	// maps are those that it may be, in order.
	maps string
}

// maxMaps bounds how many maps a pointer may be one of. What may be one of more is unknown.
const maxMaps = 32

// values holds each content once. Which one two join to is remembered: joins repeat at
// every block.
type values struct {
	contents []content
	numbers  map[content]value
	joins    map[[2]value]value
	zero     value
}

func newValues() *values {
	v := &values{
		contents: make([]content, unknown+1), numbers: make(map[content]value), joins: make(map[[2]value]value),
	}
	v.zero = v.constant(0)
	return v
}

func (v *values) of(c content) value {
	n, ok := v.numbers[c]
	if !ok {
		n = value(len(v.contents))
		v.contents = append(v.contents, c)
		v.numbers[c] = n
	}
	return n
}

func (v *values) constant(n int64) value { return v.of(content{kind: kindConstant, n: n}) }
func (v *values) frame(n int64) value    { return v.of(content{kind: kindFrame, n: n}) }
func (v *values) entry(n int) value      { return v.of(content{kind: kindFunction, n: int64(n)}) }

// of a set of maps. Two bytes stand for one of them: a string can be the key of a map in Go.
func (v *values) maps(k kind, refs ...mapRef) value {
	if len(refs) > maxMaps || len(refs) == 0 {
		return unknown
	}
	b := make([]byte, 0, 2*len(refs))
	for _, r := range refs {
		n := r.index << 1
		if r.inner {
			n |= 1
		}
		b = append(b, byte(n>>8), byte(n))
	}
	return v.of(content{kind: k, maps: string(b)})
}

// refs are the maps that a value may be.
func (c content) refs() (out []mapRef) {
	for i := 0; i+1 < len(c.maps); i += 2 {
		n := int(c.maps[i])<<8 | int(c.maps[i+1])
		out = append(out, mapRef{n >> 1, n&1 != 0})
	}
	return out
}

// as is the value of the same maps in another kind.
func (v *values) as(k kind, c content) value { return v.of(content{kind: k, maps: c.maps}) }

// join is what a place holds to which two ways lead. A pointer that may be NULL is that
// pointer: 0 goes with all of them.
func (v *values) join(a, b value) value {
	switch {
	case a == b, b == none:
		return a
	case a == none:
		return b
	case a == unknown || b == unknown:
		return unknown
	}
	if a > b {
		a, b = b, a
	}
	joined, ok := v.joins[[2]value{a, b}]
	if !ok {
		joined = v.joinNew(a, b)
		v.joins[[2]value{a, b}] = joined
	}
	return joined
}

func (v *values) joinNew(a, b value) value {
	x, y := v.contents[a], v.contents[b]
	switch {
	case a == v.zero && y.kind >= kindMap:
		return b
	case b == v.zero && x.kind >= kindMap:
		return a
	case x.kind != y.kind || x.kind < kindMap:
		return unknown
	}
	refs := append(x.refs(), y.refs()...)
	slices.SortFunc(refs, func(p, q mapRef) int {
		if p.index != q.index {
			return p.index - q.index
		}
		return b2i(p.inner) - b2i(q.inner)
	})
	return v.maps(x.kind, slices.Compact(refs)...)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
