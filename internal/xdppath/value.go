package xdppath

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
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

// value is what a register holds. Values are interned: equal ones are the
// same pointer. A nil value is not known.
type value struct {
	op   op
	base *value
	disp int64
	n    uint64
	// many is set when the address has an index that is not known.
	many bool
	// elem is the type that the value points to; nil when not known.
	elem btf.Type
	// name is a link of a chain: "net_device.netdev_ops".
	name string
	// likely is set when a type on the way was guessed.
	likely bool
}

// maxChain bounds the loads that one value goes through.
const maxChain = 8

func (v *value) depth() int {
	n := 0
	for ; v != nil && n <= maxChain; v = v.base {
		n++
	}
	return n
}

func (w *walker) intern(v value) *value {
	if p, ok := w.values[v]; ok {
		return p
	}
	if v.depth() > maxChain {
		return nil
	}
	p := &v
	w.values[v] = p
	return p
}

func (w *walker) number(n uint64) *value { return w.intern(value{op: opNumber, n: n}) }

// add is base plus disp; many tells that an unknown multiple is added too.
func (w *walker) add(base *value, disp int64, many bool) *value {
	if base == nil {
		return nil
	}
	switch base.op {
	case opNumber, opPerCPU:
		if !many {
			return w.intern(value{op: base.op, n: base.n + uint64(disp)})
		}
	case opCPU:
		return w.intern(value{op: opPerCPU, n: uint64(disp)})
	case opStack:
		if many {
			return nil
		}
		return w.intern(value{op: opStack, disp: base.disp + disp})
	}
	if disp == 0 && !many {
		return base
	}
	v := value{op: opAdd, base: base, disp: disp, many: many, likely: base.likely}
	if base.op == opAdd {
		v.base, v.disp, v.many = base.base, base.disp+disp, many || base.many
	}
	if g := v.base; g.op == opNumber || g.op == opPerCPU {
		v.elem = w.element(&value{op: g.op, n: g.n + uint64(v.disp)})
		return w.intern(v)
	}
	if v.disp < 0 && !v.many {
		if s := w.types.container(v.base.elem, -v.disp); s != nil {
			v.op, v.elem, v.likely = opContainer, s, true
		}
		return w.intern(v)
	}
	m := w.types.at(v.base.elem, v.disp, wantObject)
	v.elem = m.typ
	if m.many || scalar(v.base.elem) {
		return w.intern(v)
	}
	// Not within an array: the pointer may step over an array of structs.
	size := w.types.size(v.base.elem)
	if (many || v.disp >= size) && size > 0 && size <= maxStep && v.disp%size == 0 {
		v.elem = v.base.elem
	}
	if many || v.disp >= size {
		v.likely = true
	}
	return w.intern(v)
}

// maxStep bounds, in bytes, the structs that a pointer is thought to step over
// one by one: what lies behind a large one is rather private data.
const maxStep = 64

// scalar tells whether typ is no struct: a pointer to it may be one to many.
func scalar(typ btf.Type) bool {
	return typ != nil && typeName(typ) == ""
}

// load is the 8 bytes at addr, which is never on the stack.
func (w *walker) load(addr *value, many bool) *value {
	if addr == nil || addr.op == opCPU || addr.op == opStack {
		return nil
	}
	v := value{op: opLoad, base: addr, many: many}
	switch addr.op {
	case opNumber, opPerCPU:
		return w.loadGlobal(v)
	case opAdd:
		v.base, v.disp, v.many = addr.base, addr.disp, many || addr.many
	}
	v.likely = v.base.likely || addr.likely
	if v.base.op == opNumber || v.base.op == opPerCPU {
		return w.loadGlobal(v)
	}
	elem := v.base.elem
	if elem == nil {
		return w.intern(v)
	}
	off := v.disp
	if _, ok := elem.(*btf.Pointer); ok && off%8 == 0 {
		off = 0 // an array of pointers
	}
	if outer := w.types.structure(around[typeName(elem)]); outer != nil && off >= w.types.size(elem) {
		elem, v.likely = outer, true
	}
	m := w.types.at(elem, off, wantPointer)
	if m.typ != nil {
		v.elem = pointee(m.typ)
		if name := typeName(elem); name != "" {
			v.name = name + m.path
		}
	}
	return w.intern(v)
}

// loadGlobal is a load from a variable.
func (w *walker) loadGlobal(v value) *value {
	addr := v.base.n + uint64(v.disp)
	v.base, v.disp = w.intern(value{op: v.base.op, n: addr}), 0
	name, off, ok := w.variableAt(addr, v.base.op == opPerCPU)
	if !ok {
		return w.intern(v)
	}
	switch name {
	case "this_cpu_off", "__per_cpu_offset":
		return w.intern(value{op: opCPU})
	}
	v.name = name
	typ := w.types.variable(name)
	if typ == nil {
		v.likely = true
		if off != 0 {
			v.name += fmt.Sprintf("+%#x", off)
		}
		return w.intern(v)
	}
	m := w.types.at(typ, off, wantPointer)
	if m.typ != nil {
		v.elem = pointee(m.typ)
		v.name += m.path
	}
	return w.intern(v)
}

// variableAt is the variable that an address lies in and the offset there.
// BTF lists those of per-CPU data, which kernels without CONFIG_KALLSYMS_ALL
// have no symbols of.
func (w *walker) variableAt(addr uint64, perCPU bool) (name string, off int64, ok bool) {
	if off, ok := w.types.perCPU.at(addr); ok && perCPU {
		return off.name, off.off, true
	}
	for _, k := range w.known {
		if addr >= k.addr && addr < k.addr+k.size {
			return k.name, int64(addr - k.addr), true
		}
	}
	s, o, ok := w.kernel.Symbols.Find(addr)
	if !ok || s.Text() || strings.HasPrefix(s.Name, "__start_") || strings.HasPrefix(s.Name, "__stop_") || s.Name == "__init_begin" {
		return "", 0, false
	}
	return s.Name, int64(o), true
}

// join is the value of a register where two ways meet. at tells joins of
// different places from each other.
func (w *walker) join(a, b *value, at uint64) *value {
	switch {
	case a == b:
		return a
	case a == nil || b == nil:
		return nil
	case null(a) && b.op != opStack:
		return b // nothing is called through a null pointer
	case null(b) && a.op != opStack:
		return a
	case a.op == opLoad && b.op == opLoad && a.name != "" && a.name == b.name && a.elem == b.elem:
		// The same member of two objects.
		return w.intern(value{op: opJoin, n: at, elem: a.elem, name: a.name, likely: a.likely || b.likely})
	case a.op == opJoin && b.op == opLoad && a.name != "" && a.name == b.name && a.elem == b.elem,
		b.op == opJoin && a.op == opLoad && a.name != "" && a.name == b.name && a.elem == b.elem:
		return w.intern(value{op: opJoin, n: at, elem: a.elem, name: a.name, likely: a.likely || b.likely})
	case w.pointsTo(a) != nil && w.pointsTo(a) == w.pointsTo(b):
		return w.intern(value{op: opJoin, n: at, elem: w.pointsTo(a), likely: a.likely || b.likely})
	}
	return nil
}

// pointsTo is the type that a value points to, of a global's address too.
func (w *walker) pointsTo(v *value) btf.Type {
	if v.elem == nil && (v.op == opNumber || v.op == opPerCPU) && v.n != 0 {
		return w.element(v)
	}
	return v.elem
}

func null(v *value) bool { return v.op == opNumber && v.n == 0 }

// chain are the links from where the types begin to v.
func (v *value) chain() []string {
	var out []string
	for ; v != nil; v = v.base {
		if v.name != "" && v.op != opReturn {
			out = append(out, v.name)
		}
	}
	slices.Reverse(out)
	return out
}

// name tells what a branch to v calls, and how sure that is.
func (w *walker) name(v *value) (string, Sure) {
	if v == nil {
		return "", Unknown
	}
	sure := Certain
	if v.likely {
		sure = Likely
	}
	switch v.op {
	case opNumber:
		if s, off, ok := w.kernel.Symbols.Find(v.n); ok && off == 0 && s.Text() {
			return s.Name, Certain
		}
		return "", Unknown
	case opArgument:
		if _, ok := v.elem.(*btf.FuncProto); ok && v.name != "" {
			return v.name, sure
		}
		return "", Unknown
	case opReturn:
		if _, ok := v.elem.(*btf.FuncProto); ok {
			return "what " + v.name + " returns", sure
		}
		return "", Unknown
	case opLoad, opJoin:
	default:
		return "", Unknown
	}
	links := v.chain()
	if _, ok := v.elem.(*btf.FuncProto); ok && v.name != "" {
		return strings.Join(links, " → "), sure
	}
	if v.op == opLoad && v.base.elem != nil {
		// A union may hold a function pointer beside another one.
		m := w.types.at(v.base.elem, v.disp, wantFunction)
		if _, ok := pointee(m.typ).(*btf.FuncProto); ok {
			if name := typeName(v.base.elem); name != "" {
				links = append(v.base.chain(), name+m.path)
			}
			return strings.Join(links, " → "), sure
		}
	}
	if v.op == opLoad && v.name != "" && (v.base.op == opNumber || v.base.op == opPerCPU) {
		return strings.Join(links, " → "), Likely
	}
	return w.byOffsets(v)
}

// tracepoint tells whether a symbol is the code that calls what is attached to
// a tracepoint: its indirect calls are of the funcs of that tracepoint
// (include/linux/tracepoint.h, since Linux 5.10).
func tracepoint(symbol string) bool { return strings.HasPrefix(symbol, "__traceiter_") }

// byOffsets names a pointer whose object has no type by the offsets it is
// read at. It is unsure by nature, and answers only when one pair of the
// structs of the path fits.
func (w *walker) byOffsets(v *value) (string, Sure) {
	if v.op != opLoad || v.base == nil || v.base.op != opLoad || v.base.elem != nil || v.base.name != "" {
		return "", Unknown
	}
	found := ""
	for _, p := range w.opsPairs() {
		if p.inner != v.disp || p.outer != v.base.disp {
			continue
		}
		if found != "" {
			return "", Unknown
		}
		found = p.name
	}
	if found == "" {
		return "", Unknown
	}
	return found, Likely
}

// opsPair is a member that points to a struct of functions, and one of those.
type opsPair struct {
	outer, inner int64
	name         string
}

// opsPairs are those of the structs in rules.go.
func (w *walker) opsPairs() []opsPair {
	if w.pairs != nil {
		return w.pairs
	}
	w.pairs = []opsPair{}
	for _, h := range opsHolders {
		outer, ok := w.types.offset(h.holder, h.member)
		ops, isStruct := w.types.structure(h.ops).(*btf.Struct)
		if !ok || !isStruct {
			continue
		}
		for _, m := range ops.Members {
			if _, fn := pointee(m.Type).(*btf.FuncProto); fn {
				w.pairs = append(w.pairs, opsPair{outer, int64(m.Offset.Bytes()),
					h.holder + "." + h.member + " → " + h.ops + "." + m.Name})
			}
		}
	}
	return w.pairs
}

// maxTargets bounds how many objects one expression is read from.
const maxTargets = 64

// targets are the functions that v holds now.
func (w *walker) targets(v *value) []string {
	if v == nil {
		return nil
	}
	var out []string
	for _, addr := range w.eval(v, 0) {
		if s, off, ok := w.kernel.Symbols.Find(addr); ok && off == 0 && s.Text() {
			out = append(out, s.Name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// eval reads what v is in the live kernel, for each of the roots' objects
// that it may go through. Addresses of 0 are left out.
func (w *walker) eval(v *value, depth int) []uint64 {
	if v == nil || depth > maxChain {
		return nil
	}
	var out []uint64
	switch v.op {
	case opNumber:
		out = []uint64{v.n}
	case opAdd, opContainer:
		if !v.many {
			for _, b := range w.eval(v.base, depth+1) {
				out = append(out, b+uint64(v.disp))
			}
		}
	case opLoad:
		switch {
		case !w.kernel.Live:
		case v.many && v.base.op == opNumber:
			out = w.evalArray(v)
		case !v.many:
			for _, b := range w.eval(v.base, depth+1) {
				if p, err := w.pointer(b + uint64(v.disp)); err == nil {
					out = append(out, p)
				}
			}
		}
	}
	if name := typeName(v.elem); len(out) == 0 && name != "" {
		for _, o := range w.objects {
			if o.typ == name {
				out = append(out, o.addr)
			}
		}
	}
	out = slices.DeleteFunc(out, func(a uint64) bool { return a == 0 })
	return out[:min(len(out), maxTargets)]
}

// evalArray reads one member of every element of a global array.
func (w *walker) evalArray(v *value) []uint64 {
	name, off, ok := w.variableAt(v.base.n, false)
	if !ok {
		return nil
	}
	a, ok := w.types.variable(name).(*btf.Array)
	if !ok {
		return nil
	}
	start := v.base.n - uint64(off)
	size := uint64(w.types.size(strip(a.Type)))
	if size == 0 {
		return nil
	}
	var out []uint64
	for i := range min(uint64(a.Nelems), maxTargets) {
		if p, err := w.pointer(start + i*size + uint64(off)%size); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// pointer reads 8 bytes of the live kernel.
func (w *walker) pointer(addr uint64) (uint64, error) {
	return readWord(w.kernel.Text, addr, 8)
}
