package xdppath

import (
	"cmp"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// loopPer is what the loops of a function that runs per go over.
func (n *node) loopPer(per Per) Per {
	switch {
	case n.core.Flat:
		return per
	case n.core.Loop != "":
		return n.core.Loop
	case per == PerPoll || per == PerBulk:
		return PerPacket
	}
	return per
}

// blockPer is how often a block runs in a function that runs n.per.
func (n *node) blockPer(b int) Per {
	blk := n.g.blocks[b]
	switch {
	case n.per == PerRare || !blk.hot && (blk.reached || len(blk.preds) > 0):
		return PerRare
	case !blk.hot:
		// Nothing seen leads here: a switch, or a key that has no table.
		if slices.ContainsFunc(n.partial, func(s string) bool { return strings.HasPrefix(s, "the switch") }) {
			return PerUnknown
		}
		return PerRare
	case blk.loop != 0 && n.raises(blk.loop):
		return n.loopPer(n.per)
	}
	return n.per
}

// raises tells whether a loop goes over packets. One that calls a function
// that itself loops over packets goes over queues; one that waits goes over
// nothing.
func (n *node) raises(loop int) bool {
	if n.g.spin[loop] {
		return false
	}
	over := true
	for _, c := range n.calls {
		if n.g.blocks[c.block].loop != loop || c.to.g == nil && !c.to.leads {
			continue
		}
		if c.to.leads && c.to.programs == 0 {
			return true
		}
		if c.to.frames {
			over = false
		}
	}
	return over
}

// rates finds how often each function and so each site runs.
func (w *walker) rates(order []*node, roots []Root) {
	w.findLoops(order)
	for _, n := range order {
		n.per = n.pinned
	}
	// A function runs as often as the most frequent of its calls. That only
	// grows, so this ends.
	for changed := true; changed; {
		changed = false
		for _, n := range order {
			if n.per == "" || n.g == nil || !n.wanted {
				continue
			}
			for _, c := range n.calls {
				if c.to.pinned != "" {
					continue
				}
				per := n.blockPer(c.block)
				if rareCall(c.to.name) {
					per = PerRare // the target of a conditional jump
				}
				if per.Rank() > c.to.per.Rank() {
					c.to.per = per
					changed = true
				}
			}
		}
	}
	for _, n := range order {
		if n.per == "" {
			n.per = PerUnknown
		}
	}
	w.sure(order, roots)
}

// sure finds the functions that run as often as is said on every way that is not rare:
// roots, and what such a function always calls as often.
func (w *walker) sure(order []*node, roots []Root) {
	for _, r := range roots {
		w.nodes[r.Addr].sure = true
	}
	for changed := true; changed; {
		changed = false
		for _, n := range order {
			if !n.sure || n.g == nil || !n.wanted {
				continue
			}
			for _, c := range n.calls {
				if !c.to.sure && !rareCall(c.to.name) && n.g.always(c.block) && n.blockPer(c.block) == c.to.per {
					c.to.sure, changed = true, true
				}
			}
		}
	}
}

// findLoops tells which functions lead to a program run, and which loop over
// frames.
func (w *walker) findLoops(order []*node) {
	for _, n := range order {
		if functions.Has(n.name, functions.RunsProgram) {
			n.leads = true
		}
		for _, s := range n.sites {
			if s.val != nil && s.val.name == "bpf_prog.bpf_func" && n.g.blocks[s.block].hot {
				n.leads = true
			}
		}
	}
	for changed := true; changed; {
		changed = false
		for _, n := range order {
			for _, c := range n.calls {
				if c.to.leads && !n.leads && n.g.blocks[c.block].hot && !n.core.Flat {
					n.leads = true
					changed = true
				}
			}
		}
	}
	// Innermost first: a loop that runs programs by a function with such a
	// loop is one over queues.
	for changed := true; changed; {
		changed = false
		for _, n := range order {
			if n.g == nil {
				continue
			}
			for _, c := range n.calls {
				loop := n.g.blocks[c.block].loop
				if loop == 0 || n.core.Name != "" {
					continue
				}
				if n.programs == 0 && c.to.leads && c.to.programs == 0 && c.to != n {
					n.programs, changed = loop, true
				}
				if !n.frames && (n.programs != 0 || functions.Has(c.to.name, functions.OfFrame)) {
					n.frames, changed = true, true
				}
			}
		}
	}
}

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
			if n.g == nil || !n.wanted {
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
			n.stage = cmp.Or(StageOf(n.name), StageReceive)
		}
	}
}

// inventory writes down what was found.
func (w *walker) inventory(order []*node, roots []Root) *Inventory {
	inv := &Inventory{Roots: slices.Clone(roots), Returns: w.returns}
	for _, n := range order {
		f := Function{Name: n.name, Addr: n.addr, Size: n.size, Stage: n.stage, Per: n.per}
		slices.Sort(n.partial)
		f.Partial = strings.Join(slices.Compact(n.partial), "; ")
		for _, c := range n.calls {
			f.Calls = append(f.Calls, c.to.name)
		}
		slices.Sort(f.Calls)
		f.Calls = slices.Compact(f.Calls)
		inv.Functions = append(inv.Functions, f)
		always := make(map[int]bool)
		for _, s := range n.sites {
			if _, ok := always[s.block]; !ok {
				always[s.block] = n.g.always(s.block)
			}
			out := Site{
				Function: n.name, Addr: s.addr, Offset: s.addr - n.addr,
				Kind: s.Kind, Jump: s.Jump, Thunk: s.Thunk, Stage: n.stage,
				Per: n.blockPer(s.block), Always: always[s.block] && n.sure, Via: n.via,
			}
			if s.symbol.Name != "" && s.symbol.Addr != n.addr {
				out.Function, out.Offset = s.symbol.Name, s.addr-s.symbol.Addr
			}
			out.Calls, out.Sure = w.name(s.val)
			if out.Sure == Unknown && tracepoint(n.name) {
				out.Calls, out.Sure = "tracepoint.funcs → tracepoint_func.func", Likely
			}
			if w.kernel.Live {
				out.Targets = w.targets(s.val)
			}
			inv.Sites = append(inv.Sites, out)
		}
	}
	slices.SortFunc(inv.Functions, func(a, b Function) int {
		return cmp.Or(cmp.Compare(a.Stage.Order(), b.Stage.Order()), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Addr, b.Addr))
	})
	slices.SortFunc(inv.Sites, func(a, b Site) int {
		return cmp.Or(cmp.Compare(a.Stage.Order(), b.Stage.Order()), cmp.Compare(a.Function, b.Function), cmp.Compare(a.Addr, b.Addr))
	})
	// The dispatcher has a way out at each of its leaves; a program takes one.
	inv.Sites = slices.CompactFunc(inv.Sites, func(a, b Site) bool {
		return a.Function == b.Function && strings.HasPrefix(a.Function, "bpf_dispatcher_")
	})
	// Two functions may jump into one cold part.
	inv.Sites = slices.CompactFunc(inv.Sites, func(a, b Site) bool { return a.Addr == b.Addr && a.Function == b.Function })
	return inv
}
