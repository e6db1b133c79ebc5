package codeflow

import (
	"slices"

	"golang.org/x/arch/x86/x86asm"

	"github.com/unthunk/unthunk/branch"
)

// loops numbers the strongly connected parts of the hot blocks: a loop with
// two entries is one as well. It is Tarjan's algorithm without recursion.
func (g *Graph) loops() {
	n := len(g.blocks)
	index, low := make([]int, n), make([]int, n)
	onStack := make([]bool, n)
	var stack []int
	counter, loop := 0, 0
	type frame struct{ b, next int }
	for root := range n {
		if !g.blocks[root].hot || index[root] != 0 {
			continue
		}
		work := []frame{{root, 0}}
		for len(work) > 0 {
			f := &work[len(work)-1]
			if f.next == 0 {
				counter++
				index[f.b], low[f.b] = counter, counter
				stack = append(stack, f.b)
				onStack[f.b] = true
			}
			pushed := false
			for f.next < len(g.blocks[f.b].succs) {
				e := g.blocks[f.b].succs[f.next]
				f.next++
				if e.off || !g.blocks[e.to].hot {
					continue
				}
				if index[e.to] == 0 {
					work = append(work, frame{e.to, 0})
					pushed = true
					break
				}
				if onStack[e.to] {
					low[f.b] = min(low[f.b], index[e.to])
				}
			}
			if pushed {
				continue
			}
			b := f.b
			work = work[:len(work)-1]
			if len(work) > 0 {
				up := work[len(work)-1].b
				low[up] = min(low[up], low[b])
			}
			if low[b] != index[b] {
				continue
			}
			var members []int
			for {
				top := stack[len(stack)-1]
				stack = stack[:len(stack)-1]
				onStack[top] = false
				members = append(members, top)
				if top == b {
					break
				}
			}
			if len(members) == 1 && !slices.Contains(g.blocks[b].succs, edge{b, false}) {
				continue
			}
			loop++
			for _, m := range members {
				g.blocks[m].loop = loop
				for _, inst := range g.insts[g.blocks[m].first:g.blocks[m].end] {
					if inst.Asm.Op == x86asm.PAUSE || inst.Word() == branch.YieldARM64 {
						g.spin[loop] = true
					}
				}
			}
		}
	}
}
