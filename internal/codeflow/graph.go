package codeflow

import (
	"slices"
	"sort"

	"golang.org/x/arch/x86/x86asm"

	"github.com/unthunk/unthunk/branch"
)

// block are instructions that are entered at the first only.
type block struct {
	first, end int // instructions [first, end)
	succs      []edge
	preds      []int
	// cold is set for code that its own contents tell to be rare.
	cold bool
	// exit is set when the function is left here: a return or a tail jump.
	exit bool
	// reached, hot and loop are filled by shape. Loops have numbers from 1.
	reached bool
	hot     bool
	loop    int
}

// edge goes to a block. An off one belongs to a static key that is off now.
type edge struct {
	to  int
	off bool
}

// Graph is the control flow of one function, its cold part included. Its blocks have
// numbers from 0, its loops from 1.
type Graph struct {
	// Bad is the address of the first reached byte that does not decode, 0 when
	// there is none.
	Bad uint64
	// RunsOff is set when the end of the code is reached.
	RunsOff bool

	insts  []branch.Inst
	blocks []block
	entry  int // the block that begins at the function's address
	// starts are the numbers of blocks by their first address.
	starts map[uint64]int
	// spin are the loops that wait for another CPU.
	spin map[int]bool
}

// Knowledge tells a Graph what it cannot see in the instructions. Each function but
// Leaves may be nil, which says that there is no such thing.
type Knowledge struct {
	// Leaves tells whether a direct branch to addr leaves the function.
	Leaves func(addr uint64) bool
	// Cold tells whether a call of addr is only made on rare ways.
	Cold func(addr uint64) bool
	// Dead tells whether addr is a function that does not return.
	Dead func(addr uint64) bool
	// OutOfLine tells whether the code at addr is in a cold section.
	OutOfLine func(addr uint64) bool
	// Keys are where the static keys that are off would jump to, by the
	// address of their nop.
	Keys map[uint64]uint64
}

func (k Knowledge) cold(addr uint64) bool      { return k.Cold != nil && k.Cold(addr) }
func (k Knowledge) dead(addr uint64) bool      { return k.Dead != nil && k.Dead(addr) }
func (k Knowledge) outOfLine(addr uint64) bool { return k.OutOfLine != nil && k.OutOfLine(addr) }

// NewGraph cuts the instructions of the function at entry into blocks. They
// are sorted by address; the parts of a function need not touch, and its cold
// part may lie below it.
func NewGraph(insts []branch.Inst, entry uint64, known Knowledge) *Graph {
	g := &Graph{insts: insts, starts: make(map[uint64]int), spin: make(map[int]bool)}
	if len(insts) == 0 {
		return g
	}
	leader := make([]bool, len(insts)+1)
	leader[0] = true
	mark := func(addr uint64) {
		if i, ok := g.find(addr); ok {
			leader[i] = true
		}
	}
	mark(entry)
	for i, inst := range insts {
		if i > 0 && insts[i-1].Addr+uint64(insts[i-1].Len) != inst.Addr {
			leader[i] = true
		}
		switch inst.Kind {
		case branch.JumpDirect, branch.JumpCond:
			if !known.Leaves(inst.Target) {
				mark(inst.Target)
			}
			leader[i+1] = true
		case branch.JumpIndirect, branch.Return, branch.Trap:
			leader[i+1] = true
		case branch.CallDirect:
			if known.dead(inst.Target) {
				leader[i+1] = true
			}
		default:
			if to, ok := known.Keys[inst.Addr]; ok && !known.Leaves(to) {
				mark(to)
				leader[i+1] = true
			}
		}
	}
	for i := range insts {
		if leader[i] {
			g.starts[insts[i].Addr] = len(g.blocks)
			g.blocks = append(g.blocks, block{first: i, end: i + 1})
		} else {
			g.blocks[len(g.blocks)-1].end = i + 1
		}
	}
	g.entry = g.starts[entry]
	for b := range g.blocks {
		g.link(b, known)
	}
	for b := range g.blocks {
		for _, e := range g.blocks[b].succs {
			g.blocks[e.to].preds = append(g.blocks[e.to].preds, b)
		}
	}
	g.shape()
	return g
}

// find is the index of the instruction at addr.
func (g *Graph) find(addr uint64) (int, bool) {
	i := sort.Search(len(g.insts), func(i int) bool { return g.insts[i].Addr >= addr })
	return i, i < len(g.insts) && g.insts[i].Addr == addr
}

// link finds the successors of a block and whether it is cold.
func (g *Graph) link(b int, known Knowledge) {
	blk := &g.blocks[b]
	insts := g.insts[blk.first:blk.end]
	last := insts[len(insts)-1]
	to := func(addr uint64, off bool) {
		if n, ok := g.starts[addr]; ok && !slices.Contains(blk.succs, edge{n, off}) {
			blk.succs = append(blk.succs, edge{n, off})
		}
	}
	next := last.Addr + uint64(last.Len)
	blk.cold = known.outOfLine(insts[0].Addr)
	calls, fails := false, false
	for _, inst := range insts {
		switch inst.Kind {
		case branch.CallDirect:
			blk.cold = blk.cold || known.cold(inst.Target)
			calls = true
		case branch.CallIndirect:
			calls = true
		case branch.Trap:
			blk.cold = true
		default:
			fails = fails || errorNumber(inst)
		}
	}
	always := false // the block ends in an unconditional branch
	switch last.Kind {
	case branch.JumpDirect:
		always = true
		if known.Leaves(last.Target) {
			blk.exit = true
			blk.cold = blk.cold || known.cold(last.Target)
		} else {
			to(last.Target, false)
		}
	case branch.JumpCond:
		to(next, false)
		if known.Leaves(last.Target) {
			// A conditional tail call or return: the block goes on too.
			blk.exit = !known.cold(last.Target)
		} else {
			to(last.Target, false)
		}
	case branch.Return, branch.JumpIndirect:
		always = true
		blk.exit = true
	case branch.Trap:
		// A WARN goes on after its ud2.
		if last.Asm.Op != x86asm.INT || last.Word() != 0 {
			to(next, false)
		}
	case branch.CallDirect:
		if !known.dead(last.Target) {
			to(next, false)
		}
	default:
		to(next, false)
		if target, ok := known.Keys[last.Addr]; ok && last.Kind == branch.Other && !known.Leaves(target) {
			to(target, true)
		}
	}
	// A block that only sets an error number and goes is a failure's.
	if fails && always && !calls {
		blk.cold = true
	}
}

// errorNumber tells whether an instruction is "mov $-EINVAL,%reg", "mov w0, #-22" and the
// like. -1 is left out: it means too many things.
func errorNumber(i branch.Inst) bool {
	if w := i.Word(); w&0x7fe00000 == 0x12800000 { // movn
		n := -int64(w>>5&0xffff) - 1
		return n >= -133 && n <= -2 || n >= -531 && n <= -512
	}
	if i.Asm.Op != x86asm.MOV {
		return false
	}
	if _, ok := i.Asm.Args[0].(x86asm.Reg); !ok {
		return false
	}
	imm, ok := i.Asm.Args[1].(x86asm.Imm)
	n := int32(imm)
	return ok && (n >= -133 && n <= -2 || n >= -531 && n <= -512)
}

// shape fills reached, hot and loop.
func (g *Graph) shape() {
	if len(g.blocks) == 0 {
		return
	}
	all := func(int) bool { return true }
	for _, b := range g.flood([]int{g.entry}, all, false) {
		blk := &g.blocks[b]
		blk.reached = true
		last := g.insts[blk.end-1]
		for _, inst := range g.insts[blk.first:blk.end] {
			if inst.Kind == branch.Bad && g.Bad == 0 {
				g.Bad = inst.Addr
			}
		}
		if len(blk.succs) == 0 && !blk.exit && last.Kind != branch.CallDirect &&
			last.Kind != branch.CallIndirect && last.Kind != branch.Trap && !blk.afterTrap(g) && !g.padding(blk) {
			g.RunsOff = true
		}
	}
	warm := func(b int) bool { return !g.blocks[b].cold }
	in := g.flood([]int{g.entry}, warm, false)
	var exits []int
	for b := range g.blocks {
		if g.blocks[b].exit {
			exits = append(exits, b)
		}
	}
	hot := make(map[int]bool)
	back := g.flood(exits, warm, true)
	leaves := make(map[int]bool, len(back))
	for _, b := range back {
		leaves[b] = true
	}
	for _, b := range in {
		if leaves[b] {
			hot[b] = true
		}
	}
	if !hot[g.entry] {
		// It never returns, or only on ways that look rare: then they are
		// what it does.
		clear(hot)
		from := in
		if g.blocks[g.entry].cold {
			from = g.flood([]int{g.entry}, all, false)
		}
		for _, b := range from {
			hot[b] = true
		}
	}
	for b := range hot {
		g.blocks[b].hot = true
	}
	g.loops()
}

// afterTrap tells whether only a ud2 leads to a block: what follows a BUG is
// padding.
func (b *block) afterTrap(g *Graph) bool {
	return len(b.preds) > 0 && !slices.ContainsFunc(b.preds, func(p int) bool {
		return g.insts[g.blocks[p].end-1].Kind != branch.Trap
	})
}

// padding tells whether a block does nothing: it follows a call that does not
// return.
func (g *Graph) padding(b *block) bool {
	for _, inst := range g.insts[b.first:b.end] {
		if inst.Word() == branch.NopARM64 {
			continue
		}
		a := inst.Asm
		if a.Op != x86asm.NOP && (a.Op != x86asm.XCHG || a.Args[0] != a.Args[1]) {
			return false
		}
	}
	return true
}

// flood returns the blocks that are reached from some, forward or back, over
// blocks that pass. It goes by no edge of a key that is off.
func (g *Graph) flood(from []int, pass func(int) bool, back bool) []int {
	seen := make([]bool, len(g.blocks))
	var out []int
	push := func(b int) {
		if !seen[b] && pass(b) {
			seen[b] = true
			out = append(out, b)
		}
	}
	for _, b := range from {
		push(b)
	}
	for i := 0; i < len(out); i++ {
		b := out[i]
		if !back {
			for _, e := range g.blocks[b].succs {
				if !e.off {
					push(e.to)
				}
			}
			continue
		}
		for _, p := range g.blocks[b].preds {
			if slices.Contains(g.blocks[p].succs, edge{b, false}) {
				push(p)
			}
		}
	}
	return out
}

// Hot tells whether a block lies on a way from the entry to an exit that takes no
// rare branch.
func (g *Graph) Hot(b int) bool { return g.blocks[b].hot }

// Entered tells whether something in the function leads to a block.
func (g *Graph) Entered(b int) bool { return g.blocks[b].reached || len(g.blocks[b].preds) > 0 }

// Loop is the hot loop that a block is in, 0 when it is in no loop. Nested loops are one.
func (g *Graph) Loop(b int) int { return g.blocks[b].loop }

// Waits tells whether a loop waits for another CPU.
func (g *Graph) Waits(loop int) bool { return g.spin[loop] }

// DropInstructions frees what only Flow needs. The shape stays.
func (g *Graph) DropInstructions() { g.insts, g.starts = nil, nil }

// Always tells whether every hot way from the entry to an exit goes through b.
func (g *Graph) Always(b int) bool {
	if !g.blocks[b].hot {
		return false
	}
	if b == g.entry {
		return true
	}
	for _, r := range g.flood([]int{g.entry}, func(x int) bool { return x != b && g.blocks[x].hot }, false) {
		if g.blocks[r].exit {
			return false
		}
	}
	return true
}

// order is the reverse postorder of all blocks, those that nothing leads to
// last.
func (g *Graph) order() []int {
	seen := make([]bool, len(g.blocks))
	var post []int
	type frame struct{ b, next int }
	visit := func(root int) {
		if seen[root] {
			return
		}
		seen[root] = true
		work := []frame{{root, 0}}
		for len(work) > 0 {
			f := &work[len(work)-1]
			if f.next < len(g.blocks[f.b].succs) {
				to := g.blocks[f.b].succs[f.next].to
				f.next++
				if !seen[to] {
					seen[to] = true
					work = append(work, frame{to, 0})
				}
				continue
			}
			post = append(post, f.b)
			work = work[:len(work)-1]
		}
	}
	if len(g.blocks) == 0 {
		return nil
	}
	visit(g.entry)
	slices.Reverse(post)
	out := post
	for b := range g.blocks {
		if !seen[b] {
			post = nil
			visit(b)
			slices.Reverse(post)
			out = append(out, post...)
		}
	}
	return out
}
