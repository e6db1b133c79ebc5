package verifier

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// mostWalked bounds the instructions that the kernel goes through along all ways through a program's calls, to find how deep its
// stack may be (check_max_stack_depth in kernel/bpf/verifier.c): each function is gone through anew for each call of it, and no signal
// is heard. Some 10^9 took minutes.
const mostWalked = 1 << 26

// checkCalls refuses programs whose calls have too many ways.
func checkCalls(spec *ebpf.CollectionSpec) error {
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		if walked := newWalk(spec.Programs[name].Instructions).from(0); walked > mostWalked {
			return fmt.Errorf("load program %s: its functions call each other in too many ways: the kernel would go through %d "+
				"instructions to find how deep its stack may be; the limit is %d", name, walked, mostWalked)
		}
	}
	return nil
}

// walk is how far the kernel goes through the functions of a program, each of which has the number of its first instruction.
type walk struct {
	size   map[int]uint64 // instructions
	called map[int][]int
	far    map[int]uint64 // instructions gone through from a function on; 0 while that is found out: the kernel refuses recursion
}

func newWalk(ins asm.Instructions) *walk {
	symbols, at, offsets := map[string]int{}, map[int64]int{}, make([]int64, len(ins))
	for it := ins.Iterate(); it.Next(); {
		offsets[it.Index] = int64(it.Offset)
		at[int64(it.Offset)] = it.Index
		if name := it.Ins.Symbol(); name != "" {
			symbols[name] = it.Index
		}
	}
	callee, starts := map[int]int{}, map[int]bool{0: true}
	for i := range ins {
		if !ins[i].IsFunctionReference() { // a call, or the address of a callback
			continue
		}
		to, known := symbols[ins[i].Reference()]
		if ins[i].Reference() == "" {
			to, known = at[offsets[i]+1+ins[i].Constant]
		}
		if known {
			callee[i], starts[to] = to, true
		}
	}
	w := &walk{map[int]uint64{}, map[int][]int{}, map[int]uint64{}}
	function := 0
	for i := range ins {
		if starts[i] {
			function = i
		}
		w.size[function]++
		if to, ok := callee[i]; ok {
			w.called[function] = append(w.called[function], to)
		}
	}
	return w
}

// from is how many instructions are gone through from a function on, math.MaxUint64 where there are more.
func (w *walk) from(function int) uint64 {
	if far, seen := w.far[function]; seen {
		return far
	}
	w.far[function] = 0
	far := w.size[function]
	for _, to := range w.called[function] {
		sum, carry := bits.Add64(far, w.from(to), 0)
		if far = sum; carry > 0 {
			far = math.MaxUint64
		}
	}
	w.far[function] = far
	return far
}
