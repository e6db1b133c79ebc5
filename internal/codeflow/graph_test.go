package codeflow

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/branch"
)

// base is where the code of the tests begins.
const base uint64 = 0xffffffff81000000

// graphOf is the control flow of code at base without other functions.
func graphOf(code []byte) *Graph {
	return NewGraph(slices.Collect(branch.Decode(code, base)), base, Knowledge{
		Leaves: func(addr uint64) bool { return addr-base >= uint64(len(code)) },
		Keys:   map[uint64]uint64{base + 2: base + 8},
	})
}

func TestGraph(t *testing.T) {
	// 0 test; 2 nop of a key to 8; 4 jne 0; 6 ret; 7 int3; 8 pause; a jmp 8
	g := graphOf([]byte("\x85\xff\x66\x90\x75\xfa\xc3\xcc\xf3\x90\xeb\xfc"))
	var got []string
	for _, b := range g.blocks {
		got = append(got, fmt.Sprintf("%x loop=%d hot=%v reached=%v exit=%v %v",
			g.insts[b.first].Addr-base, b.loop, b.hot, b.reached, b.exit, b.succs))
	}
	want := []string{
		"0 loop=1 hot=true reached=true exit=false [{1 false} {4 true}]",
		"4 loop=1 hot=true reached=true exit=false [{2 false} {0 false}]",
		"6 loop=0 hot=true reached=true exit=true []",
		"7 loop=0 hot=false reached=false exit=false []",
		"8 loop=0 hot=false reached=false exit=false [{4 false}]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for b, want := range []bool{true, true, true, false, false} {
		if g.Always(b) != want {
			t.Errorf("block %d: Always %v", b, !want)
		}
	}
}
