package codeflow

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/internal/kernel"
)

// op is how a value came about.
type op uint8

const (
	opArgument  op = iota // disp is its number
	opNumber              // n, often the address of a global
	opPerCPU              // the address of a per-CPU variable whose symbol is at n
	opCPU                 // what turns such a symbol into an address
	opReturn              // of the function called name
	opStack               // the stack pointer at entry plus disp
	opAdd                 // base plus disp
	opLoad                // the 8 bytes at base plus disp
	opContainer           // opAdd of the struct around what base points to
	opJoin                // one of several values of one type
)

// Value is what a register holds. Equal ones of one Values are the same pointer. A
// nil Value is not known.
type Value struct {
	op   op
	base *Value
	disp int64
	n    uint64
	// indexed is set when the address has an index that is not known.
	indexed bool
	// elem is the type that the value points to; nil when not known.
	elem btf.Type
	// name is a link of a chain: "net_device.netdev_ops".
	name string
	// guessed is set when a type on the way was guessed.
	guessed bool
}

// Address is the number that v is, which is often the address of a global.
func (v *Value) Address() (addr uint64, ok bool) {
	if v == nil || v.op != opNumber {
		return 0, false
	}
	return v.n, true
}

// PointsTo is the type that v points to; nil when it is not known.
func (v *Value) PointsTo() btf.Type {
	if v == nil {
		return nil
	}
	return v.elem
}

// Member is the struct member or the variable that v was read from:
// "net_device.netdev_ops"; "" when it is not known.
func (v *Value) Member() string {
	if v == nil {
		return ""
	}
	return v.name
}

// Values follows values through functions of one kernel. It remembers them, and is
// not safe for concurrent use.
type Values struct {
	kernel     *kernel.Kernel
	calling    *calling
	types      *Types
	interned   map[Value]*Value
	operations []operation // nil until they are asked for
	// perCPU and variables are what FindVariables found.
	perCPU    section
	variables []variable
}

// NewValues follows values through k's functions, whose types are types.
func NewValues(k *kernel.Kernel, types *Types) *Values {
	types.modules = k.ModuleTypes
	return &Values{kernel: k, calling: callings[k.Arch], types: types, interned: make(map[Value]*Value)}
}

// maxChain bounds the loads that one value goes through.
const maxChain = 8

func (v *Value) depth() int {
	n := 0
	for ; v != nil && n <= maxChain; v = v.base {
		n++
	}
	return n
}

func (vs *Values) intern(v Value) *Value {
	if p, ok := vs.interned[v]; ok {
		return p
	}
	if v.depth() > maxChain {
		return nil
	}
	p := &v
	vs.interned[v] = p
	return p
}

func (vs *Values) number(n uint64) *Value { return vs.intern(Value{op: opNumber, n: n}) }

// add is base plus disp; indexed tells that an unknown multiple is added too.
func (vs *Values) add(base *Value, disp int64, indexed bool) *Value {
	if base == nil {
		return nil
	}
	switch base.op {
	case opNumber, opPerCPU:
		if !indexed {
			return vs.intern(Value{op: base.op, n: base.n + uint64(disp)})
		}
	case opCPU:
		return vs.intern(Value{op: opPerCPU, n: uint64(disp)})
	case opStack:
		if indexed {
			return nil
		}
		return vs.intern(Value{op: opStack, disp: base.disp + disp})
	}
	if disp == 0 && !indexed {
		return base
	}
	v := Value{op: opAdd, base: base, disp: disp, indexed: indexed, guessed: base.guessed}
	if base.op == opAdd {
		v.base, v.disp, v.indexed = base.base, base.disp+disp, indexed || base.indexed
	}
	if g := v.base; g.op == opNumber || g.op == opPerCPU {
		v.elem = vs.element(&Value{op: g.op, n: g.n + uint64(v.disp)})
		return vs.intern(v)
	}
	if v.disp < 0 && !v.indexed {
		if s := vs.types.container(v.base.elem, -v.disp); s != nil {
			v.op, v.elem, v.guessed = opContainer, s, true
		}
		return vs.intern(v)
	}
	m := vs.types.at(v.base.elem, v.disp, preferObject)
	v.elem = m.typ
	if m.indexed || scalar(v.base.elem) {
		return vs.intern(v)
	}
	// Not within an array: the pointer may step over an array of structs.
	size := vs.types.Size(v.base.elem)
	if (indexed || v.disp >= size) && size > 0 && size <= maxStep && v.disp%size == 0 {
		v.elem = v.base.elem
	}
	if indexed || v.disp >= size {
		v.guessed = true
	}
	return vs.intern(v)
}

// maxStep bounds, in bytes, the structs that a pointer is thought to step over
// one by one: what lies behind a large one is rather private data.
const maxStep = 64

// scalar tells whether typ is no struct: a pointer to it may be one to an array.
func scalar(typ btf.Type) bool {
	return typ != nil && typeName(typ) == ""
}

// load is the 8 bytes at addr, which is never on the stack.
func (vs *Values) load(addr *Value, indexed bool) *Value {
	if addr == nil || addr.op == opCPU || addr.op == opStack {
		return nil
	}
	v := Value{op: opLoad, base: addr, indexed: indexed}
	switch addr.op {
	case opNumber, opPerCPU:
		return vs.loadGlobal(v)
	case opAdd:
		v.base, v.disp, v.indexed = addr.base, addr.disp, indexed || addr.indexed
	}
	v.guessed = v.base.guessed || addr.guessed
	if v.base.op == opNumber || v.base.op == opPerCPU {
		return vs.loadGlobal(v)
	}
	elem := v.base.elem
	if elem == nil {
		return vs.intern(v)
	}
	if s := vs.types.Struct(vs.types.hints.Elements[v.base.name]); s != nil {
		v.elem, v.guessed = s, true
		return vs.intern(v)
	}
	off := v.disp
	if _, ok := elem.(*btf.Pointer); ok && off%8 == 0 {
		off = 0 // an array of pointers
	}
	if outer := vs.types.Struct(vs.types.hints.Outer[typeName(elem)]); outer != nil && off >= vs.types.Size(elem) {
		elem, v.guessed = outer, true
	}
	m := vs.types.at(elem, off, preferPointer)
	if m.typ != nil {
		v.elem = pointee(m.typ)
		if name := typeName(elem); name != "" {
			v.name = name + m.path
		}
	}
	return vs.intern(v)
}

// loadGlobal is a load from a variable.
func (vs *Values) loadGlobal(v Value) *Value {
	addr := v.base.n + uint64(v.disp)
	v.base, v.disp = vs.intern(Value{op: v.base.op, n: addr}), 0
	name, off, ok := vs.variableAt(addr, v.base.op == opPerCPU)
	if !ok {
		return vs.intern(v)
	}
	switch name {
	case "this_cpu_off", "__per_cpu_offset":
		return vs.intern(Value{op: opCPU})
	}
	v.name = name
	typ := vs.types.variable(name)
	if typ == nil {
		v.guessed = true
		if off != 0 {
			v.name += fmt.Sprintf("+%#x", off)
		}
		return vs.intern(v)
	}
	m := vs.types.at(typ, off, preferPointer)
	if m.typ != nil {
		v.elem = pointee(m.typ)
		v.name += m.path
	}
	return vs.intern(v)
}

// join is the value of a register where two ways meet. at is a number that no
// other place of the function has.
func (vs *Values) join(a, b *Value, at uint64) *Value {
	switch {
	case a == b:
		return a
	case a == nil || b == nil:
		return nil
	case null(a) && b.op != opStack:
		return b // nothing is called through a null pointer
	case null(b) && a.op != opStack:
		return a
	case read(a) && read(b) && a.elem == b.elem && either(a, b) != "":
		return vs.intern(Value{op: opJoin, n: at, elem: a.elem, name: either(a, b), guessed: a.guessed || b.guessed})
	case (a.op == opLoad && b.op == opLoad || a.op == opJoin && b.op == opLoad || a.op == opLoad && b.op == opJoin) &&
		a.name != "" && a.name == b.name && a.elem == b.elem:
		// The same member of two or more objects.
		return vs.intern(Value{op: opJoin, n: at, elem: a.elem, name: a.name, guessed: a.guessed || b.guessed})
	case vs.pointsTo(a) != nil && vs.pointsTo(a) == vs.pointsTo(b):
		return vs.intern(Value{op: opJoin, n: at, elem: vs.pointsTo(a), guessed: a.guessed || b.guessed})
	}
	return nil
}

// read tells whether a value was read from memory, on one way or another.
func read(v *Value) bool { return v.op == opLoad || v.op == opJoin }

// either names one of two functions of a struct, "dma_map_ops.unmap_phys or dma_map_ops.unmap_resource": compilers make one call of two
// that take the same. It is empty for values that are no functions, of other structs, or more than two.
func either(a, b *Value) string {
	const or = " or "
	if _, ok := a.elem.(*btf.FuncProto); !ok || a.name == b.name {
		return ""
	}
	names := append(strings.Split(a.name, or), strings.Split(b.name, or)...)
	slices.Sort(names)
	names = slices.Compact(names)
	first, _, ok := strings.Cut(names[0], ".")
	for _, name := range names {
		if of, _, _ := strings.Cut(name, "."); !ok || of != first {
			return ""
		}
	}
	if len(names) != 2 {
		return ""
	}
	return strings.Join(names, or)
}

// pointsTo is the type that a value points to, of a global's address too.
func (vs *Values) pointsTo(v *Value) btf.Type {
	if v.elem == nil && (v.op == opNumber || v.op == opPerCPU) && v.n != 0 {
		return vs.element(v)
	}
	return v.elem
}

func null(v *Value) bool { return v.op == opNumber && v.n == 0 }
