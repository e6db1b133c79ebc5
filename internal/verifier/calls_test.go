package verifier

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// levels is a program of functions, each of which calls the next level's from many places, by name or by distance.
func levels(levels, calls int, named bool) asm.Instructions {
	var ins asm.Instructions
	for level := range levels {
		first := len(ins)
		for call := range calls {
			if level == levels-1 {
				break
			}
			next := asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoCall, Constant: -1}
			if named {
				next = next.WithReference(fmt.Sprint("f", level+1))
			} else {
				next.Constant = int64(calls - call) // behind these calls, and return
			}
			ins = append(ins, next)
		}
		ins = append(ins, asm.Return())
		ins[first] = ins[first].WithSymbol(fmt.Sprint("f", level))
	}
	return ins
}

// A program whose functions call each other in more ways than the kernel follows soon is refused, and no other is.
func TestCalls(t *testing.T) {
	t.Parallel()
	recursion := append(levels(2, 3, true), asm.Return())
	recursion[4] = recursion[0].WithReference("f0").WithSymbol("f1")
	callback := asm.Instructions{
		asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R2, Src: asm.PseudoFunc, Constant: -1}.WithReference("back"),
		asm.Return(), asm.Mov.Imm(asm.R0, 0).WithSymbol("back"), asm.Return(),
	}
	for name, test := range map[string]struct {
		ins     asm.Instructions
		want    uint64
		refused bool
	}{
		"one function":      {levels(1, 0, true), 1, false},
		"two calls":         {levels(2, 2, true), 3 + 2, false},
		"three levels":      {levels(3, 4, true), 5 + 4*5 + 16, false},
		"by distance":       {levels(3, 4, false), 5 + 4*5 + 16, false},
		"a callback":        {callback, 2 + 2, false},
		"recursion":         {recursion, 4 + 3*2, false},
		"268 million ways":  {levels(8, 16, true), 17*(1+16+256+4096+65536+1048576+16777216) + 1<<28, true},
		"beyond all counts": {levels(70, 2, false), math.MaxUint64, true},
		"nothing":           {nil, 0, false},
	} {
		if got := newWalk(test.ins).from(0); got != test.want {
			t.Errorf("%s: %d instructions, want %d", name, got, test.want)
		}
		err := checkCalls(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"p": {Instructions: test.ins}}})
		if (err != nil) != test.refused || err != nil && !strings.HasPrefix(err.Error(), "load program p: its functions call") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
