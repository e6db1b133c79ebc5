package codeflow

import (
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/branch"
)

// maxVisits bounds how often each block of a function is gone through. A
// value changes at most four times (known, joined, unsure, not known), and
// they change together.
const maxVisits = 24

// Flow follows values through a function until nothing changes. It calls at for
// each instruction, in order of addresses within a block, with the number of its
// block and what is known before it; blocks that nothing leads to begin with
// nothing. It returns false when it gave up: then nothing is known anywhere.
func (vs *Values) Flow(g *Graph, entry State, at func(block int, inst branch.Inst, s *State)) bool {
	if len(g.blocks) == 0 {
		return true
	}
	start := g.insts[g.blocks[g.entry].first].Addr
	step := func(s *State, inst branch.Inst) {
		if !vs.hook(inst, start) {
			vs.step(s, inst)
		}
	}
	order := g.order()
	rank := make([]int, len(g.blocks)) // in order
	for i, b := range order {
		rank[b] = i
	}
	f := &flow{values: vs, graph: g, order: order, rank: rank, step: step,
		in: make([]State, len(g.blocks)), dirty: make([]bool, len(g.blocks)), known: make([]bool, len(g.blocks))}
	in := f.in
	entry.seen = true
	in[order[0]], f.dirty[0] = entry, true
	// What nothing leads to is led to by a table of a switch, which is not followed. Without one it is code that another CPU takes
	// (alternatives of arm64): nothing that it does is so where it leads to, if that is reached on another way.
	settled, empty := true, State{seen: true}
	if vs.kernel.Arch == "arm64" && !g.tables() {
		settled = f.follow()
		for b := range in {
			f.known[b] = in[b].seen
		}
	}
	for i, b := range order {
		if i > 0 && len(g.blocks[b].preds) == 0 {
			in[b], f.dirty[i] = empty.clone(), true
		}
	}
	if settled = settled && f.follow(); !settled {
		// What is known is not what always holds: forget it.
		for b := range in {
			in[b] = empty.clone()
		}
	}
	for b := range g.blocks {
		s := in[b].clone()
		for i := g.blocks[b].first; i < g.blocks[b].end; i++ {
			at(b, g.insts[i], &s)
			step(&s, g.insts[i])
		}
	}
	return settled
}

// flow is the work of [Values.Flow].
type flow struct {
	values      *Values
	graph       *Graph
	order, rank []int // blocks, and where each is in that order
	step        func(s *State, inst branch.Inst)
	in          []State // by block
	dirty       []bool  // by rank: what is known before the block has changed
	known       []bool  // by block: no more is to be changed
	trapped     bool    // traps are followed
	visits      int
}

// follow settles without what traps lead to, and then with it.
func (f *flow) follow() bool {
	f.trapped = false
	settled := f.settle()
	f.trapped = true
	for i, b := range f.order {
		f.dirty[i] = f.dirty[i] || f.graph.ends(b)
	}
	return settled && f.settle()
}

// bug tells whether a block ends in a trap that leads nowhere, as a BUG does: on the other ways to what lies behind it the stack
// pointer is elsewhere. Until those are followed no trap is.
func (f *flow) bug(b, to int, s *State) bool {
	others := slices.ContainsFunc(f.graph.blocks[to].preds, func(p int) bool { return !f.graph.ends(p) })
	if !f.graph.ends(b) || !others {
		return false
	}
	sp := f.values.calling.stack
	return !f.trapped || f.in[to].seen && f.in[to].regs[sp] != s.regs[sp]
}

// ends tells whether a block ends in a trap.
func (g *Graph) ends(b int) bool { return g.insts[g.blocks[b].end-1].Kind == branch.Trap }

// settle follows values until nothing changes. It returns false when it gave up.
func (f *flow) settle() bool {
	vs, g, order, in, dirty := f.values, f.graph, f.order, f.in, f.dirty
	for i := 0; i < len(order); {
		b := order[i]
		if !dirty[i] {
			i++
			continue
		}
		dirty[i] = false
		if !in[b].seen {
			i++
			continue
		}
		if f.visits++; f.visits > maxVisits*len(order) {
			return false
		}
		s := in[b].clone()
		for _, inst := range g.insts[g.blocks[b].first:g.blocks[b].end] {
			f.step(&s, inst)
		}
		back := i + 1
		for _, e := range g.blocks[b].succs {
			if !f.known[e.to] && !f.bug(b, e.to, &s) && vs.meet(&in[e.to], &s, e.to) {
				dirty[f.rank[e.to]] = true
				back = min(back, f.rank[e.to])
			}
		}
		i = back
	}
	return true
}

// tables tells whether a jump of a function may be by a table.
func (g *Graph) tables() bool {
	return slices.ContainsFunc(g.insts, func(i branch.Inst) bool { return i.Kind == branch.JumpIndirect })
}

// element is the type of what lies at a global address.
func (vs *Values) element(addr *Value) btf.Type {
	name, off, ok := vs.variableAt(addr.n, addr.op == opPerCPU)
	if !ok {
		return nil
	}
	return vs.types.at(vs.types.variable(name), off, preferObject).typ
}

// hook tells whether an instruction is the call of the function tracer or of a BPF
// trampoline at the start of a function, which keeps all registers. It stands
// first, or after an endbr64; on arm64 after a bti and one more.
func (vs *Values) hook(inst branch.Inst, start uint64) bool {
	last := uint64(4)
	if inst.Word() != 0 {
		last = 8
	}
	if inst.Kind != branch.CallDirect || inst.Addr-start > last {
		return false
	}
	s, off, ok := vs.kernel.Symbols.Find(inst.Target)
	return !ok || off != 0 || s.Name == "__fentry__" || s.Module == "bpf" || s.Module == "ftrace" ||
		strings.HasPrefix(s.Name, "ftrace_") || strings.HasPrefix(s.Name, "bpf_trampoline_")
}

// call forgets what a call may change and types what it returns.
func (vs *Values) call(s *State, inst branch.Inst) {
	// The callee may write to a local whose address it gets.
	var (
		p    proto
		name string
	)
	if inst.Kind == branch.CallDirect {
		if f, off, ok := vs.kernel.Symbols.Find(inst.Target); ok && off == 0 {
			name, p = f.Name, vs.types.proto(function{f.Name, f.Module})
		}
	}
	for i, r := range vs.calling.arguments {
		v := s.regs[r]
		if v == nil || v.op != opStack {
			continue
		}
		end := int64(1) << 62
		if p.typ != nil {
			if i >= len(p.typ.Params) {
				continue
			}
			elem := pointee(p.typ.Params[i].Type)
			if n := vs.types.Size(elem); n > 0 && !scalar(elem) {
				end = v.disp + n
			}
		}
		s.forget(v.disp, end)
	}
	var returned *Value
	if p.typ != nil {
		if elem := pointee(p.typ.Return); elem != nil {
			returned = vs.intern(Value{op: opReturn, name: name, elem: elem, guessed: !p.only})
		}
	}
	for _, r := range vs.calling.clobbered {
		s.regs[r] = nil
	}
	s.regs[vs.calling.returned] = returned
}

// Entry is the state at the start of the function called name, of a module or, with "", of the kernel: its arguments by
// its prototype, or as one of its callers gives them.
func (vs *Values) Entry(name, module string, given Arguments) State {
	var s State
	s.regs[vs.calling.stack] = vs.intern(Value{op: opStack})
	p := vs.types.proto(function{name, module})
	arguments := vs.calling.arguments
	r := 0
	if p.typ != nil && len(p.typ.Params) > 0 { // functions in assembly have none in BTF, whatever they take
		for i, param := range p.typ.Params {
			if r >= len(arguments) {
				break
			}
			words := 1
			if size := vs.types.Size(strip(param.Type)); size > 8 {
				if words = 2; size > 16 {
					continue // in memory
				}
			}
			elem := pointee(param.Type)
			v := Value{op: opArgument, disp: int64(i), elem: elem, guessed: !p.only}
			if outer := vs.types.Struct(vs.types.hints.First[name]); outer != nil && i == 0 {
				v.elem = outer
			}
			if _, ok := elem.(*btf.FuncProto); ok {
				v.name = "argument " + param.Name + " of " + name
			}
			s.regs[arguments[r]] = vs.intern(v)
			// A caller may know more: the member that a function pointer
			// comes from, or the type behind void *.
			untyped := elem == nil && words == 1 && isPointer(param.Type)
			if g := given[r]; g != nil && g.elem != nil && (v.name != "" && g.name != "" || untyped) {
				s.regs[arguments[r]] = vs.guess(g)
			}
			r += words
		}
		return s
	}
	for i, g := range given {
		if g != nil {
			s.regs[arguments[i]] = vs.guess(g)
		}
	}
	return s
}

func isPointer(t btf.Type) bool {
	_, ok := strip(t).(*btf.Pointer)
	return ok
}

// guess is v as one caller gives it; others may give something else.
func (vs *Values) guess(v *Value) *Value {
	c := *v
	c.guessed = true
	return vs.intern(c)
}
