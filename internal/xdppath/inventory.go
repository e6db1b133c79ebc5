package xdppath

import (
	"cmp"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/codeflow"
	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// ways finds the shortest way from a root to each function, among those that
// make it run as often as it does, and its stage on that way.
func (w *walker) ways(order []*node, roots []Root) {
	var queue []*node
	enter := func(n *node, from *node) {
		if n.via != nil {
			return
		}
		if from != nil {
			n.via = append(slices.Clone(from.via), n.name)
		} else {
			n.via = []string{n.name}
		}
		if s := StageOf(n.name); s != "" && n.stage == "" {
			n.stage = s
		}
		if n.stage == "" && from != nil {
			n.stage = from.stage
		}
		queue = append(queue, n)
	}
	for _, r := range roots {
		enter(w.nodes[r.Addr], nil)
	}
	for pass := range 2 {
		for i := 0; i < len(queue); i++ {
			n := queue[i]
			if n.graph == nil || !n.wanted {
				continue
			}
			next := make([]*node, 0, len(n.calls))
			for _, c := range n.calls {
				if pass == 1 || n.blockPer(c.block) == c.to.per || c.to.pinned != "" {
					next = append(next, c.to)
				}
			}
			slices.SortStableFunc(next, func(a, b *node) int { return cmp.Compare(a.addr, b.addr) })
			for _, to := range next {
				enter(to, n)
			}
		}
	}
	for _, n := range order {
		if n.stage == "" {
			n.stage = cmp.Or(StageOf(n.name), functions.StageReceive)
		}
	}
}

// inventory writes down what was found.
func (w *walker) inventory(order []*node, roots []Root) *Inventory {
	inv := &Inventory{Roots: slices.Clone(roots), Returns: w.returns}
	var objects []codeflow.Object
	for _, r := range roots {
		for _, o := range r.objects {
			if !slices.Contains(objects, o) {
				objects = append(objects, o)
			}
		}
	}
	for _, n := range order {
		f := Function{Name: n.name, Addr: n.addr, Size: n.size, Stage: n.stage, Per: n.per}
		slices.Sort(n.partial)
		f.Partial = strings.Join(slices.Compact(n.partial), "; ")
		for _, c := range n.calls {
			f.Callees = append(f.Callees, c.to.addr)
		}
		slices.Sort(f.Callees)
		f.Callees = slices.Compact(f.Callees)
		inv.Functions = append(inv.Functions, f)
		always := make(map[int]bool)
		for _, s := range n.sites {
			if _, ok := always[s.block]; !ok {
				always[s.block] = n.graph.Always(s.block)
			}
			out := Site{
				Function: n.name, Addr: s.addr, Offset: s.addr - n.addr, Entry: n.addr,
				Kind: s.Kind, Jump: s.Jump, Thunk: s.Thunk, Register: s.Register, Stage: n.stage,
				Check: s.Check, CheckLen: s.CheckLen, Instructions: w.executed(s),
				Per: n.blockPer(s.block), Always: always[s.block] && n.always, Via: n.via,
			}
			if s.symbol.Name != "" && s.symbol.Addr != n.addr {
				out.Function, out.Offset = s.symbol.Name, s.addr-s.symbol.Addr
			}
			out.Pointer, out.Confidence = w.values.Name(s.target)
			if out.Confidence == codeflow.Unknown && tracepoint(n.name) {
				out.Pointer, out.Confidence = "tracepoint.funcs → tracepoint_func.func", codeflow.Likely
			}
			if w.kernel.Live {
				out.Targets = w.values.Targets(s.target, objects)
			}
			if s.Check.Preamble() {
				out.Preamble = w.preamble(out.Targets)
			}
			inv.Sites = append(inv.Sites, out)
		}
	}
	slices.SortFunc(inv.Functions, func(a, b Function) int {
		return cmp.Or(cmp.Compare(a.Stage.Order(), b.Stage.Order()), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Addr, b.Addr))
	})
	slices.SortFunc(inv.Sites, func(a, b Site) int {
		return cmp.Or(cmp.Compare(a.Stage.Order(), b.Stage.Order()), cmp.Compare(a.Function, b.Function),
			cmp.Compare(a.Addr, b.Addr))
	})
	// The dispatcher has a way out at each of its leaves; a program takes one.
	inv.Sites = slices.CompactFunc(inv.Sites, func(a, b Site) bool {
		return a.Function == b.Function && strings.HasPrefix(a.Function, "bpf_dispatcher_")
	})
	// Two functions may jump into one cold part.
	inv.Sites = slices.CompactFunc(inv.Sites, func(a, b Site) bool { return a.Addr == b.Addr && a.Function == b.Function })
	return inv
}

// executed is how many instructions an indirect branch takes, see [branch.Site.Instructions].
func (w *walker) executed(s site) int {
	if w.kernel.Arch == "arm64" {
		return s.Check.Instructions() + 1
	}
	return s.Site.Instructions(s.addr, w.kernel.Follow)
}

// preamble is how many instructions stand in front of functions for FineIBT: of the first that has
// some, as all that one branch calls have one prototype.
func (w *walker) preamble(targets []string) int {
	for _, name := range targets {
		if f, ok := w.kernel.Function(name); ok {
			if p, ok := w.kernel.Preamble(f.Addr); ok {
				return p.Instructions
			}
		}
	}
	return 0
}

// tracepoint tells whether a symbol is the code that calls what is attached to
// a tracepoint: its indirect calls are of the funcs of that tracepoint
// (include/linux/tracepoint.h, since Linux 5.10).
func tracepoint(symbol string) bool { return strings.HasPrefix(symbol, "__traceiter_") }
