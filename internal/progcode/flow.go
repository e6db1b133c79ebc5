package progcode

import (
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// slots is how many words of a frame are followed: the 512 bytes that a program may use
// (MAX_BPF_STACK), and what the verifier adds for a loop that it inlines.
const slots = 72

// state is what registers and the frame hold at a place. The last register is the frame
// pointer.
type state struct {
	regs  [11]value
	stack [slots]value
}

// flow follows values through the instructions of a program.
type flow struct {
	*xlated
	*values
	// maps are those of the program; byID their numbers.
	maps []Map
	byID map[ebpf.MapID]int
	// name names the function at an address that a helper call has; see [xlated].
	name func(ins *asm.Instruction) string

	blocks []int
	// in is the state at the beginning of each block, nil where nothing has come yet.
	in []*state
	// due are the blocks to follow, none before the one numbered low.
	due []bool
	low int
	// calls are the arguments at each call, found the arguments' map of an inlined lookup,
	// by the number of the instruction.
	calls map[int][6]value
	found map[int]value
}

// run follows the program until nothing changes. Each join can only lose knowledge, so it
// ends.
func (f *flow) run() error {
	var err error
	if f.blocks, err = f.xlated.blocks(); err != nil {
		return err
	}
	f.in, f.due = make([]*state, len(f.blocks)), make([]bool, len(f.blocks))
	f.calls, f.found = make(map[int][6]value), make(map[int]value)
	f.enter(0, &state{})
	f.work()
	// What nothing led to is entered in a way that is not followed: by a jump table, or as
	// the callback of a helper.
	for b := range f.blocks {
		if f.in[b] == nil {
			s := newState(f.values)
			f.arrive(b, &s)
			f.work()
		}
	}
	return nil
}

// newState knows nothing but the frame pointer.
func newState(v *values) (s state) {
	for i := range s.regs {
		s.regs[i] = unknown
	}
	for i := range s.stack {
		s.stack[i] = unknown
	}
	s.regs[asm.RFP] = v.frame(0)
	return s
}

// enter joins the arguments of a call, registers 1 to 5, to what a function begins with.
func (f *flow) enter(function int, args *state) {
	s := newState(f.values)
	copy(s.regs[1:6], args.regs[1:6])
	for i := 1; i < 6; i++ {
		if c := f.contents[s.regs[i]]; s.regs[i] == none || c.kind == kindFrame {
			s.regs[i] = unknown // the frame of another function
		}
	}
	if b, ok := slices.BinarySearch(f.blocks, f.index[f.starts[function]]); ok {
		f.arrive(b, &s)
	}
}

// arrive joins a state to that of a block's beginning.
func (f *flow) arrive(b int, s *state) {
	in, changed := f.in[b], false
	if in == nil {
		in, changed = new(state), true
		f.in[b] = in
	}
	for i := range in.regs {
		if joined := f.join(in.regs[i], s.regs[i]); joined != in.regs[i] {
			in.regs[i], changed = joined, true
		}
	}
	for i := range in.stack {
		if joined := f.join(in.stack[i], s.stack[i]); joined != in.stack[i] {
			in.stack[i], changed = joined, true
		}
	}
	if changed {
		f.due[b] = true
		f.low = min(f.low, b)
	}
}

// work follows blocks, the first one of those due before others: a block is best followed
// when those before it are.
func (f *flow) work() {
	for f.low < len(f.blocks) {
		b := f.low
		f.low++
		if f.due[b] {
			f.due[b] = false
			f.block(b)
		}
	}
}

// block follows the instructions of one block and arrives at those behind it.
func (f *flow) block(b int) {
	s := *f.in[b]
	end := len(f.insns)
	if b+1 < len(f.blocks) {
		end = f.blocks[b+1]
	}
	for i := f.blocks[b]; i < end; i++ {
		f.step(&s, i)
	}
	jump, next := f.targets(end - 1)
	taken, not := s, s
	last := &f.insns[end-1]
	if op := last.OpCode; op.Class() == asm.JumpClass && op.Source() == asm.ImmSource && last.Constant == 0 && last.Dst < asm.RFP {
		switch op.JumpOp() { // a pointer that may be NULL is NULL on one way
		case asm.JEq:
			taken.regs[last.Dst] = f.zero
		case asm.JNE:
			not.regs[last.Dst] = f.zero
		}
	}
	if jump >= 0 {
		if to, ok := slices.BinarySearch(f.blocks, f.index[jump]); ok {
			f.arrive(to, &taken)
		}
	}
	if next && b+1 < len(f.blocks) {
		f.arrive(b+1, &not)
	}
}

// step is what one instruction does to a state.
func (f *flow) step(s *state, i int) {
	ins := &f.insns[i]
	if ins.Dst > asm.RFP || ins.Src > asm.RFP {
		return
	}
	switch class := ins.OpCode.Class(); {
	case class.IsALU():
		s.regs[ins.Dst] = f.computed(s, i)
	case ins.OpCode.IsDWordLoad():
		s.regs[ins.Dst] = f.immediate(i)
	case class == asm.LdXClass:
		s.regs[ins.Dst] = f.load(s, ins)
	case class == asm.LdClass: // of the packet, for filters of old
		s.regs[asm.R0] = unknown
	case class == asm.StClass, class == asm.StXClass:
		f.store(s, ins)
	case isCall(ins):
		f.call(s, i)
	}
}

// computed is what arithmetic leaves in its destination.
func (f *flow) computed(s *state, i int) value {
	ins := &f.insns[i]
	wide, byRegister := ins.OpCode.Class() == asm.ALU64Class, ins.OpCode.Source() == asm.RegSource
	other := f.constant(ins.Constant)
	if byRegister {
		other = s.regs[ins.Src]
	}
	a, b := f.contents[s.regs[ins.Dst]], f.contents[other]
	switch op := ins.OpCode.ALUOp(); {
	case op == asm.Mov && ins.Offset == 0 && wide:
		return other
	case op == asm.Mov && ins.Offset == 0 && b.kind == kindConstant:
		return f.constant(int64(uint32(b.n)))
	case op == asm.Add && wide && b.kind == kindConstant:
		switch a.kind {
		case kindConstant:
			return f.constant(a.n + b.n)
		case kindFrame:
			return f.frame(a.n + b.n)
		case kindMap: // programs may not: it is an inlined lookup that does
			f.found[i] = f.join(f.found[i], s.regs[ins.Dst])
			return f.as(kindArea, a)
		case kindElement:
			return s.regs[ins.Dst]
		}
	case op == asm.Add && wide && b.kind == kindArea:
		return f.as(kindElement, b)
	case op == asm.Add && wide && a.kind == kindArea:
		return f.as(kindElement, a)
	}
	return unknown
}

// immediate is what a load of 64 bits leaves.
func (f *flow) immediate(i int) value {
	ins := &f.insns[i]
	switch ins.Src {
	case callHelper:
		return f.constant(ins.Constant)
	case loadMap:
		if n, ok := f.byID[ebpf.MapID(uint32(ins.Constant))]; ok {
			return f.values.maps(kindMap, mapRef{index: n})
		}
	case loadFunction:
		if n, ok := slices.BinarySearch(f.starts, f.raw[i]+int(int32(ins.Constant))+1); ok {
			return f.entry(n)
		}
	}
	return unknown
}

// slot is the word of the frame that an address and an offset name.
func (f *flow) slot(base value, offset int16) (n int, ok bool) {
	c := f.contents[base]
	at := c.n + int64(offset)
	return int(-at/8) - 1, c.kind == kindFrame && at < 0 && at%8 == 0 && -at <= 8*slots
}

func (f *flow) load(s *state, ins *asm.Instruction) value {
	if ins.OpCode.Size() != asm.DWord || ins.OpCode.Mode() != asm.MemMode {
		return unknown
	}
	if n, ok := f.slot(s.regs[ins.Src], ins.Offset); ok {
		return s.stack[n]
	}
	if c := f.contents[s.regs[ins.Src]]; c.kind == kindElement {
		return f.inner(c)
	}
	return unknown
}

// inner are the maps that elements of maps hold; unknown when one of these holds none.
func (f *flow) inner(c content) value {
	var refs []mapRef
	for _, r := range c.refs() {
		if r.inner || !f.maps[r.index].holdsMaps() {
			return unknown
		}
		refs = append(refs, mapRef{r.index, true})
	}
	return f.values.maps(kindMap, refs...)
}

func (f *flow) store(s *state, ins *asm.Instruction) {
	base := f.contents[s.regs[ins.Dst]]
	atomic := ins.OpCode.Class() == asm.StXClass && ins.OpCode.Mode() != asm.MemMode
	if atomic { // it may fetch the old value into its source, or into register 0
		s.regs[ins.Src], s.regs[asm.R0] = unknown, unknown
		s.regs[asm.RFP] = f.frame(0)
	}
	if base.kind != kindFrame {
		return
	}
	at := base.n + int64(ins.Offset)
	if n, ok := f.slot(s.regs[ins.Dst], ins.Offset); ok && ins.OpCode.Size() == asm.DWord && !atomic {
		s.stack[n] = f.constant(ins.Constant)
		if ins.OpCode.Class() == asm.StXClass {
			s.stack[n] = s.regs[ins.Src]
		}
		return
	}
	for n := range s.stack { // part of a word, or of two
		if low := int64(-8 * (n + 1)); at < low+8 && at+8 > low {
			s.stack[n] = unknown
		}
	}
}

// call notes the arguments, and forgets what a call does not keep.
func (f *flow) call(s *state, i int) {
	ins := &f.insns[i]
	args := f.calls[i]
	writes := false // into the frame, through what it is given
	for r := range args {
		args[r] = f.join(args[r], s.regs[r])
		if r > 0 && ins.Src == callFunction {
			writes = writes || f.contents[s.regs[r]].kind == kindFrame
		}
	}
	f.calls[i] = args
	result := unknown
	switch {
	case ins.Src == callFunction && ins.Constant >= 0 && int(ins.Constant) < len(f.starts):
		f.enter(int(ins.Constant), s)
	case ins.Src == callHelper && ins.Constant == tailCall:
	default:
		name := f.name(ins)
		for r := 1; r < 6; r++ {
			if c := f.contents[s.regs[r]]; c.kind == kindFunction {
				writes = true
				f.enter(int(c.n), f.callback(s, name))
			}
		}
		result = f.result(f.contents[s.regs[asm.R1]], name)
	}
	s.regs[asm.R0] = result
	for r := asm.R1; r <= asm.R5; r++ {
		s.regs[r] = unknown
	}
	if writes {
		for n := range s.stack {
			s.stack[n] = unknown
		}
	}
}

// callback is what a callback begins with: that of bpf_for_each_map_elem gets the map.
func (f *flow) callback(s *state, name string) *state {
	args := new(state)
	if strings.Contains(name, "for_each") {
		args.regs[asm.R1] = s.regs[asm.R1]
	}
	return args
}

// result is what a lookup in a map of maps returns: __htab_map_lookup_elem, which the
// verifier calls when it inlines the rest, an element's hash node, all others the map.
func (f *flow) result(maps content, name string) value {
	switch {
	case maps.kind != kindMap || !strings.Contains(name, "lookup"):
		return unknown
	case name == "__htab_map_lookup_elem":
		return f.as(kindElement, maps)
	}
	return f.inner(maps)
}

// known tells whether the table and the index of a tail call are known.
func (f *flow) known(insn int) bool {
	args := f.calls[insn]
	return f.contents[args[asm.R3]].kind == kindConstant && len(f.contents[args[asm.R2]].refs()) == 1
}
