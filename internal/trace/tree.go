package trace

import (
	"context"
	"slices"
)

// Namer names the function that an address lies in, and says where that begins.
type Namer func(addr uint64) (function string, start uint64, ok bool)

// Unnamed is the name of code that has none.
const Unnamed = "(unnamed code)"

// Options are what a trace is cut by. Code and Name are required.
type Options struct {
	// Code is what the guest has in memory.
	Code Source
	Name Namer
	// Poll tells functions whose invocations are told apart: those in which Sink is
	// executed, and the others. Nil tells none.
	Poll, Sink func(function string) bool
}

// Tree is a window cut by calls.
type Tree struct {
	// Instructions are those of the window.
	Instructions uint64
	// Nodes are the places in the tree; the callers of a node are before it.
	Nodes []Node
	// Branches are the indirect branches that were executed, with what they entered.
	Branches []Branch
}

// Node is a function as it was reached by one chain of calls and jumps.
type Node struct {
	// Parent is the node that called it or jumped to it, -1 for an outermost one.
	Parent   int
	Function string
	// Sink is set in a poll that ran the sink.
	Sink bool
	// Own are the instructions of the function itself, Entered is how often its first one was executed.
	Own, Entered uint64
}

// Branch is an indirect call or jump, through a thunk or not, and one target of it.
type Branch struct {
	Addr, Target uint64
	// Function it is in, Offset in bytes from its start; Entered is the function of Target.
	Function string
	Offset   uint64
	Entered  string
	Jump     bool
	Executed uint64
}

// Limits on a tree: that of a packet has a hundred nodes, 20 deep, and some ten branches.
const (
	maxNodes    = 1 << 13
	maxDepth    = 512
	maxBranches = 1 << 14
	// maxFrames is how many functions all chains of calls have, each counted with its callers.
	maxFrames = 1 << 18
)

// askEach is after how many addresses or instructions a context is asked: it takes some ms at most.
const askEach = 1 << 12

// Cut makes the tree of a window. Calls and returns are taken from the code of each
// instruction and the address of the next one, so that it also holds for what an interrupt
// or a retpoline does with the stack. It ends with ctx.
func Cut(ctx context.Context, w *Window, opts Options) (*Tree, error) {
	c, err := decode(ctx, w, opts)
	if err != nil {
		return nil, err
	}
	return c.cut(ctx, w.Order)
}

// CutEach is [Cut] of each of the windows of length instructions that w joins. It calls f with the trees, one
// after the other, until that returns an error.
func CutEach(ctx context.Context, w *Window, length int, opts Options, f func(*Tree) error) error {
	c, err := decode(ctx, w, opts)
	if err != nil {
		return err
	}
	for order := range slices.Chunk(w.Order, length) {
		t, err := c.cut(ctx, order)
		if err == nil {
			err = f(t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *code) cut(ctx context.Context, order []uint32) (*Tree, error) {
	// What was called before the window began is known once it has returned.
	first, err := walk(ctx, order, c, nil)
	if err != nil {
		return nil, err
	}
	second, err := walk(ctx, order, c, first)
	if err != nil {
		return nil, err
	}
	t := &Tree{Instructions: uint64(len(order))}
	if t.Branches, err = c.branches(ctx, order); err != nil {
		return nil, err
	}
	for _, n := range second.nodes {
		t.Nodes = append(t.Nodes, Node{n.parent, c.functions[n.function].name, n.sink, second.own[len(t.Nodes)], second.entered[len(t.Nodes)]})
	}
	return t, nil
}
