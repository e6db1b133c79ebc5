package xdppath

import (
	"slices"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// loopPer is what the loops of a function that runs per go over.
func (n *node) loopPer(per functions.Per) functions.Per {
	switch {
	case n.core.Flat:
		return per
	case n.core.Loop != "":
		return n.core.Loop
	case per == functions.PerPoll || per == functions.PerBulk:
		return functions.PerPacket
	}
	return per
}

// blockPer is how often a block runs in a function that runs n.per.
func (n *node) blockPer(b int) functions.Per {
	hot, loop := n.graph.Hot(b), n.graph.Loop(b)
	switch {
	case n.per == functions.PerRare || !hot && n.graph.Entered(b):
		return functions.PerRare
	case !hot:
		// Nothing seen leads here: a switch, or a key that has no table.
		if slices.ContainsFunc(n.partial, func(s string) bool { return strings.HasPrefix(s, "the switch") }) {
			return functions.PerUnknown
		}
		return functions.PerRare
	case loop != 0 && n.raises(loop):
		return n.loopPer(n.per)
	}
	return n.per
}

// raises tells whether a loop goes over packets. One that calls a function
// that itself loops over packets goes over queues; one that waits goes over
// nothing.
func (n *node) raises(loop int) bool {
	if n.graph.Waits(loop) {
		return false
	}
	over := true
	for _, c := range n.calls {
		if n.graph.Loop(c.block) != loop || c.to.graph == nil && !c.to.leads {
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
			if n.per == "" || n.graph == nil || !n.wanted {
				continue
			}
			for _, c := range n.calls {
				if c.to.pinned != "" {
					continue
				}
				per := n.blockPer(c.block)
				if rareCall(c.to.name) {
					per = functions.PerRare // the target of a conditional jump
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
			n.per = functions.PerUnknown
		}
	}
	w.findAlways(order, roots)
}

// findAlways finds the functions that run as often as is said on every way that is not
// rare: roots, and what such a function always calls as often.
func (w *walker) findAlways(order []*node, roots []Root) {
	for _, r := range roots {
		w.nodes[r.Addr].always = true
	}
	for changed := true; changed; {
		changed = false
		for _, n := range order {
			if !n.always || n.graph == nil || !n.wanted {
				continue
			}
			for _, c := range n.calls {
				if !c.to.always && !rareCall(c.to.name) && n.graph.Always(c.block) && n.blockPer(c.block) == c.to.per {
					c.to.always, changed = true, true
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
			if s.target.Member() == "bpf_prog.bpf_func" && n.graph.Hot(s.block) {
				n.leads = true
			}
		}
	}
	for changed := true; changed; {
		changed = false
		for _, n := range order {
			for _, c := range n.calls {
				if c.to.leads && !n.leads && n.graph.Hot(c.block) && !n.core.Flat {
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
			if n.graph == nil {
				continue
			}
			for _, c := range n.calls {
				loop := n.graph.Loop(c.block)
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
