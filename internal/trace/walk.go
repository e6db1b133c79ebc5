package trace

import (
	"context"
	"fmt"
	"slices"

	"github.com/unthunk/unthunk/branch"
)

// frame is a function that is under way.
type frame struct {
	node, function int
	// ret is where it returns to. A frame with called unset was jumped to, and returns where
	// the one below it does.
	ret    uint64
	called bool
	// inner is set for a call to a place within the same function, as in a retpoline.
	inner bool
}

// node is a place in the tree.
type node struct {
	parent, function int
	sink             bool
}

// outer is a function that a window began in, and where in it was returned to.
type outer struct {
	function int
	ret      uint64
}

// walker follows the instructions of a window.
type walker struct {
	*code
	nodes []node
	own   []uint64 // instructions of nodes
	// entered is how often the first instruction of a node's function was executed.
	entered []uint64
	ids     map[node]int
	stack   []frame
	// frames are those of the chains of all nodes.
	frames int
	// outer are the functions around the one that the window began in, the innermost first.
	outer []outer
	// polls under way, as places in sinks; sinks tell for each poll whether the sink ran in
	// it. before is the walk that found that out, nil for the first one.
	polls  []poll
	sinks  []bool
	before *walker
	// begun is unset while what the window began in is pushed: polls among that are not told
	// apart.
	begun bool
}

// poll is one under way, at a depth of the stack.
type poll struct{ depth, number int }

// walk follows a window. before is a walk that went the same way, or nil.
func walk(ctx context.Context, order []uint32, c *code, before *walker) (*walker, error) {
	k := &walker{code: c, ids: make(map[node]int), before: before}
	first := c.instructions[order[0]]
	ret := uint64(0)
	if before != nil {
		for _, o := range slices.Backward(before.outer) {
			k.enter(o.function, ret)
			ret = o.ret
		}
	}
	k.enter(first.function, ret)
	k.begun = true
	for i, at := range order {
		if i%askEach == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		node := k.top().node
		k.own[node]++
		if in := &k.instructions[at]; in.addr == k.functions[in.function].start {
			k.entered[node]++
		}
		if i+1 == len(order) {
			break
		}
		k.step(&k.instructions[at], &k.instructions[order[i+1]])
		switch {
		case len(k.stack)+len(k.outer) > maxDepth:
			return nil, fmt.Errorf("cut trace: calls nest more than %d deep", maxDepth)
		case len(k.nodes) > maxNodes, k.frames > maxFrames:
			return nil, fmt.Errorf("cut trace: more than %d chains of calls", maxNodes)
		}
	}
	return k, nil
}

func (k *walker) top() *frame { return &k.stack[len(k.stack)-1] }

// step goes from an instruction to the next one.
func (k *walker) step(from, to *instruction) {
	switch from.kind {
	case branch.CallDirect, branch.CallIndirect:
		if to.function == from.function && to.addr != k.functions[to.function].start {
			k.stack = append(k.stack, frame{node: k.top().node, function: to.function, ret: from.end, called: true, inner: true})
			return
		}
		k.enter(to.function, from.end)
	case branch.Return:
		k.leave(from, to)
	default:
		switch {
		case to.addr == from.end || to.function == from.function:
			k.jump(to.function)
		case from.kind == branch.JumpDirect, from.kind == branch.JumpCond, from.kind == branch.JumpIndirect:
			k.jump(to.function)
		case !k.unwind(to.addr): // an interrupt, or its end
			k.enter(to.function, from.end)
		default:
			k.jump(to.function)
		}
	}
}

// enter pushes a function that returns to ret.
func (k *walker) enter(function int, ret uint64) {
	k.push(frame{function: function, ret: ret, called: true})
}

func (k *walker) push(f frame) {
	n := node{parent: -1, function: f.function}
	if len(k.stack) > 0 {
		n.parent = k.top().node
		n.sink = k.nodes[n.parent].sink
	}
	if k.functions[f.function].poll && k.begun {
		number := len(k.sinks)
		k.sinks = append(k.sinks, false)
		k.polls = append(k.polls, poll{len(k.stack), number})
		n.sink = k.before != nil && number < len(k.before.sinks) && k.before.sinks[number]
	}
	if k.functions[f.function].sink && len(k.polls) > 0 {
		k.sinks[k.polls[len(k.polls)-1].number] = true
	}
	id, ok := k.ids[n]
	if !ok {
		id = len(k.nodes)
		k.ids[n], k.nodes, k.own, k.entered = id, append(k.nodes, n), append(k.own, 0), append(k.entered, 0)
		k.frames += len(k.stack) + 1
	}
	f.node = id
	k.stack = append(k.stack, f)
}

// pop leaves depth frames.
func (k *walker) pop(depth int) {
	k.stack = k.stack[:depth]
	for len(k.polls) > 0 && k.polls[len(k.polls)-1].depth >= depth {
		k.polls = k.polls[:len(k.polls)-1]
	}
}

// unwind leaves all frames down to the nearest that returns to an address. It tells whether
// there is one.
func (k *walker) unwind(ret uint64) bool {
	for i := len(k.stack) - 1; i > 0; i-- {
		if f := &k.stack[i]; f.called && f.ret == ret {
			k.pop(i)
			return true
		}
	}
	return false
}

// leave is a return: to where a frame was called from; or to the target of a retpoline,
// which wrote it over the return address of a call within itself, and may return by a return thunk; or out of all that the
// window began in.
func (k *walker) leave(from, to *instruction) {
	if k.unwind(to.addr) {
		k.jump(to.function)
		return
	}
	for i := len(k.stack) - 1; i > 0; i-- {
		if k.stack[i].inner {
			k.pop(i)
			k.jump(to.function)
			return
		}
		if k.stack[i].called && !k.functions[k.stack[i].function].returns {
			break
		}
	}
	if k.functions[from.function].thunk {
		k.jump(to.function)
		return
	}
	k.pop(0)
	k.outer = append(k.outer, outer{to.function, to.addr})
	k.begun = false
	k.enter(to.function, 0)
	k.begun = true
}

// jump goes on in a function: one of those that were jumped to since the last call, or a new
// one on top of them. What a thunk jumps to takes the place of the thunk, but for the return thunk that it ends in.
func (k *walker) jump(function int) {
	if k.top().function == function {
		return
	}
	for i := len(k.stack) - 1; ; i-- {
		if k.stack[i].function == function {
			k.pop(i + 1)
			return
		}
		if k.stack[i].called {
			break
		}
	}
	last := *k.top()
	if k.functions[last.function].thunk && !last.inner && len(k.stack) > 1 {
		k.pop(len(k.stack) - 1)
		if !last.called {
			k.jump(function)
			return
		}
		k.push(frame{function: function, ret: last.ret, called: true})
		return
	}
	k.push(frame{function: function})
}
