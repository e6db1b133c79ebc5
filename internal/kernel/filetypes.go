package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/internal/unpack"
)

// Limits on the types of a kernel in a file, which others may have made. Debian's 6.12 has
// 6 MB of 130 000 types.
const (
	maxBTF   = 32 << 20 // bytes
	maxTypes = 1 << 19
	maxNames = 64 << 20 // bytes
	// maxTypeDepth is how deep types may lead to others when they are decoded in their
	// order: package btf takes 2 KB of stack a step, and the runtime ends the process at
	// 1 GB. Debian's kernels lead 200 to 220 deep.
	maxTypeDepth = 1 << 13
)

// loadTypes reads a section of types of which nothing is trusted, beside used bytes of memory. It takes 0.1 s and 40 MB
// of a distribution's kernel.
func loadTypes(raw []byte, used int) (*btf.Spec, error) {
	graph, err := readTypes(raw, typeLimits{maxBTF, maxTypes, maxNames})
	if err != nil {
		return nil, err
	}
	if graph.memory > unpack.MaxHeld-used {
		return nil, fmt.Errorf("types that take %d MiB of memory, beside %d MiB of code and symbols: at most %d are possible together",
			(graph.memory+1<<20-1)>>20, (used+1<<20-1)>>20, unpack.MaxHeld>>20)
	}
	if err := checkDepth(graph.depth()); err != nil {
		return nil, err
	}
	types, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	// All are decoded in the order in which the depth was found: what is looked up later is
	// there, and leads nowhere.
	for _, err := range types.All() {
		if err != nil {
			return nil, err
		}
	}
	return types, nil
}

// typeGraph says which types lead to which others (Documentation/bpf/btf.rst).
type typeGraph struct {
	raw     []byte   // the types alone
	offsets []uint32 // of type 1 and those after it
	memory  int      // about how many bytes package btf makes of them
}

// Memory that package btf takes, in bytes: for a type, in three tables and itself; for a member, a parameter or a value, by its
// kind, and for a name, its last bytes, which may stand alone in what is allocated.
const (
	typeMemory   = 24 + 114 + 96 // with maps that have just become larger
	memberMemory = 64
	valueMemory  = 24
	nameMemory   = 8
)

// typesMemory is about how many bytes of memory types take; 0 where [loadTypes] refuses them.
func typesMemory(raw []byte) int {
	graph, err := readTypes(raw, typeLimits{maxBTF, maxTypes, maxNames})
	if err != nil {
		return 0
	}
	return graph.memory
}

const (
	btfMagic     = 0xeb9f
	btfTypeSize  = 12
	btfHeaderLen = 24
)

// Kinds of types, and what follows the head of each: bytes, or bytes for each of its members.
const (
	kindInt = iota + 1
	kindPointer
	kindArray
	kindStruct
	kindUnion
	kindEnum
	kindForward
	kindTypedef
	kindVolatile
	kindConst
	kindRestrict
	kindFunc
	kindFuncProto
	kindVar
	kindDatasec
	kindFloat
	kindDeclTag
	kindTypeTag
	kindEnum64
)

var errTypes = errors.New("types that end within one, or are of a kind that is not known")

// typeLimits are the most that types may have: bytes, types, and bytes of the names of types and of their members, each counted.
// One name may be that of many, and package btf reads the name of each, and copies it.
type typeLimits struct{ bytes, types, names int }

func tooLarge(size, most int) error {
	return fmt.Errorf("%d MiB of types: at most %d are possible", size>>20, most>>20)
}

func checkDepth(depth int) error {
	if depth > maxTypeDepth {
		return fmt.Errorf("types that lead to others %d deep: at most %d are possible", depth, maxTypeDepth)
	}
	return nil
}

// readTypes finds where each type begins, within limits.
func readTypes(raw []byte, most typeLimits) (*typeGraph, error) {
	if len(raw) > most.bytes {
		return nil, tooLarge(len(raw), most.bytes)
	}
	if len(raw) < btfHeaderLen || binary.LittleEndian.Uint16(raw) != btfMagic {
		return nil, errors.New("no types, or not in little endian")
	}
	field := func(n int) uint64 { return uint64(binary.LittleEndian.Uint32(raw[n:])) }
	from, to := field(4)+field(8), field(4)+field(8)+field(12)
	if to > uint64(len(raw)) {
		return nil, errTypes
	}
	// Package btf copies all, into memory that it makes larger step by step.
	g := &typeGraph{raw: raw[from:to], memory: 5 * len(raw) / 4}
	strings := raw[min(field(4)+field(16), uint64(len(raw))):]
	room := most.names
	take := func(at int) { // the name whose number stands at an offset
		length := unpack.NameLength(strings, uint64(binary.LittleEndian.Uint32(g.raw[at:])))
		room -= length
		if length > 0 {
			g.memory += length + nameMemory
		}
	}
	for at := 0; at < len(g.raw); {
		if len(g.raw)-at < btfTypeSize {
			return nil, errTypes
		}
		if len(g.offsets) == most.types {
			return nil, fmt.Errorf("more than %d types", most.types)
		}
		g.offsets = append(g.offsets, uint32(at))
		kind, vlen := g.kind(at)
		more, ok := behind(kind)
		if !ok {
			return nil, errTypes
		}
		size := more
		g.memory += typeMemory
		switch kind {
		case kindDeclTag: // in a list of those of its type, which has room for more
			g.memory += 2 * valueMemory
		case kindStruct, kindUnion, kindFuncProto:
			more *= vlen
			g.memory += vlen * memberMemory
		case kindEnum, kindDatasec, kindEnum64:
			more *= vlen
			g.memory += vlen * valueMemory
		}
		end := at + btfTypeSize + more
		if end > len(g.raw) {
			return nil, errTypes
		}
		take(at)
		switch kind {
		case kindStruct, kindUnion, kindEnum, kindFuncProto, kindEnum64:
			for member := at + btfTypeSize; member < end && room >= 0; member += size {
				take(member)
			}
		}
		if room < 0 {
			return nil, fmt.Errorf("names of types of more than %d MiB", most.names>>20)
		}
		at = end
	}
	return g, nil
}

// behind is how many bytes follow the head of a type, or each member of it.
func behind(kind int) (n int, ok bool) {
	switch kind {
	case kindPointer, kindForward, kindTypedef, kindVolatile, kindConst, kindRestrict, kindFunc, kindFloat, kindTypeTag:
		return 0, true
	case kindInt, kindVar, kindDeclTag:
		return 4, true
	case kindEnum, kindFuncProto:
		return 8, true
	case kindArray, kindStruct, kindUnion, kindDatasec, kindEnum64:
		return 12, true
	}
	return 0, false
}

// kind is that of the type at an offset, with the number of its members.
func (g *typeGraph) kind(at int) (kind, vlen int) {
	info := binary.LittleEndian.Uint32(g.raw[at+4:])
	return int(info >> 24 & 0x1f), int(info & 0xffff)
}

// next is the n-th type that one leads to, in the order of package btf; ok is false behind
// the last.
func (g *typeGraph) next(id uint32, n int) (to uint32, ok bool) {
	at := int(g.offsets[id-1])
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(g.raw[at+off:]) }
	switch kind, vlen := g.kind(at); kind {
	case kindPointer, kindTypedef, kindVolatile, kindConst, kindRestrict, kindFunc, kindVar, kindDeclTag, kindTypeTag:
		return word(8), n == 0
	case kindArray: // its index, its elements
		switch n {
		case 0:
			return word(btfTypeSize + 4), true
		case 1:
			return word(btfTypeSize), true
		}
	case kindStruct, kindUnion:
		if n < vlen {
			return word(btfTypeSize + 12*n + 4), true
		}
	case kindFuncProto: // its parameters, what it returns
		if n < vlen {
			return word(btfTypeSize + 8*n + 4), true
		}
		return word(8), n == vlen
	case kindDatasec:
		if n < vlen {
			return word(btfTypeSize + 12*n), true
		}
	}
	return 0, false
}

// depth is how deep decoding all types in their order goes: each is decoded once, and what it
// leads to within it.
func (g *typeGraph) depth() (deepest int) {
	type frame struct {
		id   uint32
		next int
	}
	seen := make([]bool, len(g.offsets)+1)
	seen[0] = true // void
	var stack []frame
	for id := range g.offsets {
		if seen[id+1] {
			continue
		}
		seen[id+1] = true
		stack = append(stack[:0], frame{uint32(id + 1), 0})
		for len(stack) > 0 {
			deepest = max(deepest, len(stack))
			top := &stack[len(stack)-1]
			to, ok := g.next(top.id, top.next)
			top.next++
			switch {
			case !ok:
				stack = stack[:len(stack)-1]
			case int(to) < len(seen) && !seen[to]:
				seen[to] = true
				stack = append(stack, frame{to, 0})
			}
		}
	}
	return deepest
}

// reach is how deep decoding may go in whatever order it is done: the longest way from type to type, on which of those that lead
// to each other all are counted.
func (g *typeGraph) reach() (longest int) {
	type frame struct {
		id   uint32
		next int
	}
	var (
		number  = len(g.offsets) + 1
		seen    uint32
		index   = make([]uint32, number) // in the order in which types were seen, 0 before
		low     = make([]uint32, number) // the least index of an open type that one leads to
		ways    = make([]int, number)    // the longest from each, 0 while it is open
		open    []uint32
		pending []frame
	)
	begin := func(id uint32) {
		seen++
		index[id], low[id] = seen, seen
		open, pending = append(open, id), append(pending, frame{id, 0})
	}
	// end closes those that lead to each other, which are the last ones that are open, from one on.
	end := func(id uint32) {
		first := len(open) - 1
		for open[first] != id {
			first--
		}
		behind := 0
		for _, member := range open[first:] {
			for n := 0; ; n++ {
				to, ok := g.next(member, n)
				if !ok {
					break
				}
				if int(to) < number {
					behind = max(behind, ways[to])
				}
			}
		}
		way := len(open) - first + behind
		for _, member := range open[first:] {
			ways[member] = way
		}
		longest, open = max(longest, way), open[:first]
	}
	for id := range g.offsets {
		if index[id+1] > 0 {
			continue
		}
		begin(uint32(id + 1))
		for len(pending) > 0 {
			top := &pending[len(pending)-1]
			to, ok := g.next(top.id, top.next)
			top.next++
			switch {
			case !ok:
				id := top.id
				if pending = pending[:len(pending)-1]; len(pending) > 0 {
					parent := pending[len(pending)-1].id
					low[parent] = min(low[parent], low[id])
				}
				if low[id] == index[id] {
					end(id)
				}
			case to == 0 || int(to) >= number:
			case index[to] == 0:
				begin(to)
			case ways[to] == 0:
				low[top.id] = min(low[top.id], index[to])
			}
		}
	}
	return longest
}
