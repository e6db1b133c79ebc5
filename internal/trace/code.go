package trace

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/branch"
)

// instruction is one address of a window.
type instruction struct {
	addr, end, target uint64
	kind              branch.Kind
	function          int
}

// function is one that an address lies in.
type function struct {
	name  string
	start uint64
	// thunk is set for one that only leads an indirect branch to its target, returns for a return thunk and what it calls.
	thunk, returns, poll, sink bool
}

// code is what the addresses of a window are.
type code struct {
	instructions []instruction
	functions    []function
	places       map[uint64]uint32 // of instructions by their addresses
}

// IndirectThunk tells the functions that only lead an indirect branch to its target
// (arch/x86/lib/retpoline.S of Linux).
func IndirectThunk(name string) bool {
	for _, prefix := range []string{"__x86_indirect_thunk", "__x86_indirect_call_thunk", "__x86_indirect_jump_thunk",
		"__x86_indirect_its_thunk", "its_static_thunk"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// returning tells return thunks, and the function that returns in place of a return thunk against SRSO.
func returning(name string) bool {
	return branch.ReturnThunk(name) || name == "srso_safe_ret" || name == "srso_alias_safe_ret"
}

func decode(ctx context.Context, w *Window, opts Options) (c code, err error) {
	type place struct {
		name  string
		start uint64
	}
	known := make(map[place]int)
	c.places = make(map[uint64]uint32)
	for i, addr := range w.Addrs {
		if i%askEach == 0 && ctx.Err() != nil {
			return c, context.Cause(ctx)
		}
		name, start, ok := opts.Name(addr)
		if !ok || name == "" {
			name, start = Unnamed, 0
		}
		f, ok := known[place{name, start}]
		if !ok {
			f = len(c.functions)
			known[place{name, start}] = f
			c.functions = append(c.functions, function{
				name: name, start: start, thunk: IndirectThunk(name), returns: returning(name),
				poll: opts.Poll != nil && opts.Poll(name), sink: opts.Sink != nil && opts.Sink(name),
			})
		}
		inst := instruction{addr: addr, function: f, kind: branch.Bad}
		for step := range branch.Scan(opts.Code.CodeAt(addr), addr) {
			inst.kind, inst.end, inst.target = step.Kind, addr+uint64(step.Len), step.Target
			break
		}
		c.places[addr] = uint32(len(c.instructions))
		c.instructions = append(c.instructions, inst)
	}
	return c, nil
}

// Longest is the length of an instruction at most, in bytes.
const Longest = 15

// Source gives the code at an address: as much as an instruction may have, [Longest], less where
// the code ends before, and none where it is not known.
type Source interface {
	CodeAt(addr uint64) []byte
}

// branches are the indirect branches of a window with their targets. Of one through a thunk
// that is what is executed behind the thunk, and behind the return thunk that a retpoline may end in.
func (c *code) branches(ctx context.Context, order []uint32) ([]Branch, error) {
	type way struct{ from, to uint32 }
	counts := make(map[way]uint64)
	for i, at := range order {
		if i%askEach == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		inst := &c.instructions[at]
		if !c.indirect(inst) {
			continue
		}
		next := i + 1
		for next < len(order) && c.functionOf(order[next]).thunk {
			next++
		}
		for next > i+1 && next < len(order) && c.functionOf(order[next]).returns {
			next++
		}
		if next < len(order) {
			counts[way{at, order[next]}]++
		}
		if len(counts) > maxBranches {
			return nil, fmt.Errorf("cut trace: more than %d indirect branches with their targets", maxBranches)
		}
	}
	var out []Branch
	for way, n := range counts {
		from, to := &c.instructions[way.from], &c.instructions[way.to]
		f := c.functions[from.function]
		b := Branch{Addr: from.addr, Target: to.addr, Function: f.name, Entered: c.functions[to.function].name,
			Jump: from.kind == branch.JumpIndirect || from.kind == branch.JumpDirect || from.kind == branch.JumpCond, Executed: n}
		if f.start != 0 {
			b.Offset = from.addr - f.start
		}
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b Branch) int {
		return cmp.Or(cmp.Compare(b.Executed, a.Executed), cmp.Compare(a.Addr, b.Addr), cmp.Compare(a.Target, b.Target))
	})
	return out, nil
}

// indirect tells whether an instruction is an indirect branch, or a call or jump of a thunk
// that is one.
func (c *code) indirect(inst *instruction) bool {
	if c.functions[inst.function].thunk {
		return false // it belongs to the branch that came here
	}
	switch inst.kind {
	case branch.CallIndirect, branch.JumpIndirect:
		return true
	case branch.CallDirect, branch.JumpDirect, branch.JumpCond:
		at, ok := c.places[inst.target]
		return ok && c.functionOf(at).thunk
	}
	return false
}

func (c *code) functionOf(at uint32) *function { return &c.functions[c.instructions[at].function] }
