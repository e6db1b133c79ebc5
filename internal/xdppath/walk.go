package xdppath

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/codeflow"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/ksym"
)

// Limits of one walk. The path of a driver has a few hundred functions of a
// few hundred bytes.
const (
	maxFunctions = 4000
	maxDepth     = 32       // calls from a root
	maxText      = 16 << 20 // bytes of all functions together
	// A driver's path has some hundred indirect branches and some thousand calls, one a
	// function of which rates look at with each of its others.
	maxSites = 1 << 13
	maxCalls = 1 << 16
)

// walker is the work of one Walk.
type walker struct {
	kernel *kernel.Kernel
	values *codeflow.Values
	keys   map[uint64]uint64 // see [codeflow.Knowledge]
	nodes  map[uint64]*node  // by address
	known  map[uint64]bool   // see [WalkOn]
	queue  []*node           // to be visited
	// What was read: bytes, direct calls, indirect branches.
	text, calls, sites int
	returns            branch.Returns
}

// node is a function of the call graph. Each pass of Walk fills its own fields.
type node struct {
	// By walker.node, which makes it.
	name       string
	module     string // "" for the kernel itself
	addr, size uint64
	core       functions.Function // what is known of it by name
	boundary   bool               // it is not followed
	// By every pass: why it is not known whole.
	partial []string

	// By Walk and walker.visit, in the order of the queue.
	depth   int                // calls from a root; -1 until it is reached
	wanted  bool               // reached by more than rare code
	decoded bool               // walker.read was called
	given   codeflow.Arguments // by its first caller

	// By walker.read. The graph is nil when the code was not read, and has no
	// instructions any more.
	graph *codeflow.Graph
	calls []call
	sites []site

	// By walker.rates. pinned is set before, for functions whose rate is known:
	// by walker.node, by Walk for roots, by walker.helpers.
	pinned functions.Per
	per    functions.Per
	// always is set when it runs as often as per says on every way that is not rare.
	always   bool
	leads    bool // to a program run
	programs int  // the loop that runs programs, 0 when there is none
	frames   bool // it has a loop over frames

	// By walker.ways; the stage of roots and of the core is set before.
	stage functions.Stage
	via   []string
}

// call is a direct call or jump to another function.
type call struct {
	to    *node
	block int
	args  codeflow.Arguments
}

// site is an indirect branch.
type site struct {
	branch.Site
	addr   uint64
	symbol ksym.Symbol // that it is in: a cold piece has its own
	block  int
	target *codeflow.Value
}

// Walk follows the code from the roots and returns every function and
// indirect branch that it reaches. Code that cannot be read makes its function
// partial; only an ended context and types that cannot be read are errors, and a
// [feature.Missing] on a live kernel that is not of x86-64 or arm64 or has no types.
//
// How often a site runs is that of its function, raised by the loops around
// it: what a poll or a bulk loops over are packets. Functions of the XDP core
// have a known rate and keep it. Rare is what lies in cold sections, behind
// warnings, on the way of an error number, or behind a static key that is
// off; functions that only rare code calls are listed, and their calls are
// not followed.
//
// Targets are read for the device that the roots were read from, also where
// the path may run on another device: bq_xmit_all calls the ndo_xdp_xmit of
// whatever the map holds.
func Walk(ctx context.Context, k *kernel.Kernel, roots []Root) (*Inventory, error) {
	return WalkOn(ctx, k, roots, nil)
}

// WalkOn is [Walk] that does not follow functions of known, by address, unless they are roots: what they reach has been
// walked before.
func WalkOn(ctx context.Context, k *kernel.Kernel, roots []Root, known map[uint64]bool) (*Inventory, error) {
	if k.Live {
		if err := k.CheckArch("following code"); err != nil {
			return nil, err
		}
	}
	types, err := k.Types()
	if err != nil {
		return nil, err
	}
	w := &walker{
		kernel: k, values: codeflow.NewValues(k, codeflow.NewTypes(types, hints)), keys: codeflow.StaticKeys(k),
		nodes: make(map[uint64]*node), returns: make(branch.Returns), known: known,
	}
	w.values.FindVariables()
	for _, r := range roots {
		n := w.node(r.Addr, r.Function)
		if n.pinned == "" || r.Per.Rank() > n.pinned.Rank() {
			n.pinned = r.Per
		}
		if n.stage == "" {
			n.stage = r.Stage
		}
		n.wanted = n.wanted || r.Per != functions.PerRare
		n.boundary = false
		w.queue = append(w.queue, n)
	}
	for len(w.queue) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("walk code: %w", err)
		}
		n := w.queue[0]
		w.queue = w.queue[1:]
		w.visit(n)
	}
	order := w.sorted()
	for _, n := range order {
		if !n.wanted && n.decoded && len(n.calls) > 0 {
			n.partial = append(n.partial, "calls not followed: only rare code calls it")
		}
	}
	w.helpers(order)
	w.rates(order, roots)
	w.ways(order, roots)
	return w.inventory(order, roots), nil
}

// node is the function at addr. name is for one without a symbol.
func (w *walker) node(addr uint64, name string) *node {
	if n, ok := w.nodes[addr]; ok {
		return n
	}
	n := &node{name: name, addr: addr, depth: -1}
	if s, off, ok := w.kernel.Symbols.Find(addr); ok && !younger(s, off) {
		n.name, n.module, n.size = s.Name, s.Module, s.Size-off
		if s.Size == 0 {
			n.size = 4096 - addr&4095
		}
		if off != 0 {
			n.name = fmt.Sprintf("%s+%#x", s.Name, off)
		}
	} else {
		n.partial = append(n.partial, "no symbol tells where it ends")
		if n.name == "" {
			n.name = fmt.Sprintf("%#x", addr)
		}
		// The dispatcher's page keeps code of earlier updates, which jumps to
		// programs that are gone; what it jumps to now may be younger than the symbols.
		if w.kernel.Live {
			n.boundary = true
			n.partial = []string{"not followed: a program without a symbol"}
		}
	}
	why := functions.Limit(n.name)
	if program(n.name) {
		// The dispatcher leads to the programs of all devices.
		why = "a program of another device"
	}
	if why == "" && w.known[addr] {
		why = "it was walked before"
	}
	if why != "" {
		n.boundary = true
		n.partial = append(n.partial, "not followed: "+why)
	}
	if f, ok := rootOf(n.name); ok {
		n.core, n.pinned, n.stage = f, f.Per, rootStage(f)
	}
	w.nodes[addr] = n
	return n
}

// limits is why a function was not followed that a walk would reach.
const limits = "not followed: the walk has come to its limits"

// full tells whether a walk has come to its limits.
func (w *walker) full() bool {
	return len(w.nodes) > maxFunctions || w.text > maxText || w.calls > maxCalls || w.sites > maxSites
}

// younger tells whether what is off bytes behind the start of a symbol is another BPF
// program, which was loaded when the symbols had been read. Programs share pages, and kallsyms
// has no sizes.
func younger(s ksym.Symbol, off uint64) bool { return off > 0 && s.Module == "bpf" && program(s.Name) }

// visit decodes a function once, and queues what it calls.
func (w *walker) visit(n *node) {
	if n.boundary {
		n.partial = n.partial[:1]
		return
	}
	if n.depth < 0 {
		n.depth = 0
	}
	if !n.decoded {
		n.decoded = true
		n.partial = slices.DeleteFunc(n.partial, func(s string) bool { return strings.HasPrefix(s, "not followed") })
		if w.full() {
			n.partial = append(n.partial, limits)
			return
		}
		w.read(n)
		w.calls, w.sites = w.calls+len(n.calls), w.sites+len(n.sites)
	}
	if !n.wanted {
		return
	}
	for _, c := range n.calls {
		hot := n.graph.Hot(c.block)
		first := c.to.depth < 0
		if first {
			c.to.depth, c.to.given = n.depth+1, c.args
			if c.to.depth > maxDepth || w.full() {
				c.to.partial = append(c.to.partial, limits)
				c.to.boundary = true
			}
		}
		if first || hot && !c.to.wanted {
			c.to.wanted = c.to.wanted || hot
			w.queue = append(w.queue, c.to)
		}
	}
}

// program tells whether a symbol is that of a BPF program.
func program(name string) bool { return strings.HasPrefix(name, "bpf_prog_") }

// helpers raises helpers that are called by a program of the path: the verifier mostly
// puts a map's own function in their place.
func (w *walker) helpers(order []*node) {
	for _, n := range order {
		if !program(n.name) {
			continue
		}
		for _, c := range n.calls {
			if c.to.core.Inlined {
				c.to.pinned, c.to.wanted = functions.PerPacket, true
			}
		}
	}
}

// sorted are all nodes that were reached, by address.
func (w *walker) sorted() []*node {
	var out []*node
	for _, n := range w.nodes {
		if n.depth >= 0 {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b *node) int { return cmp.Compare(a.addr, b.addr) })
	return out
}
