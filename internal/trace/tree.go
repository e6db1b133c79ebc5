package trace

import "github.com/unthunk/unthunk/ktext"

// Namer names the function that an address lies in, and says where that begins.
type Namer func(addr uint64) (function string, start uint64, ok bool)

// Unnamed is the name of code that has none.
const Unnamed = "(unnamed code)"

// Options are what a trace is cut by. Code and Name are required.
type Options struct {
	// Code is what the guest has in memory.
	Code ktext.Source
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
	// Own are the instructions of the function itself.
	Own uint64
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

// Limits on a tree: that of a packet has a hundred nodes, 20 deep.
const (
	maxNodes = 1 << 13
	maxDepth = 512
	// maxFrames is how many functions all chains of calls have, each counted with its callers.
	maxFrames = 1 << 18
)

// Cut makes the tree of a window. Calls and returns are taken from the code of each
// instruction and the address of the next one, so that it also holds for what an interrupt
// or a retpoline does with the stack.
func Cut(w *Window, opts Options) (*Tree, error) {
	c := decode(w, opts)
	// What was called before the window began is known once it has returned.
	first, err := walk(w, c, nil)
	if err != nil {
		return nil, err
	}
	second, err := walk(w, c, first)
	if err != nil {
		return nil, err
	}
	t := &Tree{Instructions: uint64(len(w.Order)), Branches: c.branches(w)}
	for _, n := range second.nodes {
		t.Nodes = append(t.Nodes, Node{n.parent, c.functions[n.function].name, n.sink, second.own[len(t.Nodes)]})
	}
	return t, nil
}
