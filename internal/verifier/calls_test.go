package verifier

import (
	"fmt"
	"math"
	"slices"
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

// A program that the kernel would rewrite at too many places for its length is refused; one of 80 000 instructions as compilers make
// them is not. 120 000 jumps over the next instruction, half of which never run, kept the kernel for 53 s, and 65 000 branches with an
// instruction that never runs 68 s.
func TestRewrite(t *testing.T) {
	t.Parallel()
	usual := asm.Instructions{}
	for range 80_000 / 10 { // of ten instructions one is a call, two are branches
		usual = append(usual, asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, ""), asm.JGT.Imm(asm.R0, 7, ""))
		for range 7 {
			usual = append(usual, asm.Mov.Reg(asm.R1, asm.R0))
		}
	}
	over := asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Ja), Offset: 1}
	one := func(ins asm.Instruction, n int) asm.Instructions { return slices.Repeat(asm.Instructions{ins}, n) }
	for name, test := range map[string]struct {
		ins     asm.Instructions
		places  int
		refused bool
	}{
		"usual":              {usual, 8_000 + 16_000, false},
		"divisions":          {one(asm.Div.Reg(asm.R0, asm.R1), 1<<16), 1 << 16, true},
		"remainders":         {one(asm.Mod.Reg32(asm.R0, asm.R1), 1<<16), 1 << 16, true},
		"signed":             {one(asm.SDiv.Reg(asm.R0, asm.R1), 1<<16), 1 << 16, true},
		"by a constant":      {one(asm.Div.Imm(asm.R0, 7), 1<<16), 0, false},
		"jumps to the next":  {one(asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Ja)}, 1<<16), 1 << 16, true},
		"jumps over one":     {one(over, 1<<16), 1 << 16, true},
		"branches":           {one(asm.JEq.Imm(asm.R0, 0, ""), 1<<16), 1 << 16, true},
		"never run":          {slices.Repeat(asm.Instructions{asm.JEq.Imm(asm.R0, 2, ""), asm.Mov.Imm(asm.R3, 7)}, 65_000), 65_000, true},
		"a few":              {one(asm.Div.Reg(asm.R0, asm.R1), 1<<15), 1 << 15, false},
		"returns":            {one(asm.Return(), 1<<17), 0, false},
		"additions":          {one(asm.Add.Reg(asm.R0, asm.R1), 1<<17), 0, false},
		"nothing to rewrite": {nil, 0, false},
	} {
		if got := rewritten(test.ins); got != test.places {
			t.Errorf("%s: %d places, want %d", name, got, test.places)
		}
		err := checkRewrite(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"p": {Instructions: test.ins}}})
		if (err != nil) != test.refused || err != nil && !strings.HasPrefix(err.Error(), "load program p: the kernel would move its") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
