package report

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/internal/record"
)

// A jump within the function has the offset of its target alone.
func TestAsm(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := Asm(&b, Options{Width: 80}, &record.Code{Function: "f", Address: 0x1000, Lines: []record.ListingLine{
		{Offset: 0, Text: "je f <+0x115>"}, {Offset: 6, Text: "call \x1b[2J", Note: "a note"},
	}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("f at 1000:\n    +0x0  je +0x115\n    +0x6  call �[2J\n      ; a note\n", b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestBranches(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := Branches(&b, Options{Width: 80}, &record.Code{Function: "f", Branches: []record.CodeBranch{
		{Offset: 1, Verb: "jmp", Class: "conditional", Conditional: true, Within: true},
		{Offset: 8, Verb: "call", Class: "retpoline", To: "__x86_indirect_thunk_rax", Register: "rax", Indirect: true},
		{Offset: 16, Verb: "jmp", Class: "tail-call", To: "g"},
		{Offset: 32, Verb: "call", Class: "direct", To: "f", Within: true},
	}}); err != nil {
		t.Fatal(err)
	}
	want := `  f+0x8  call retpoline __x86_indirect_thunk_rax
  f+0x10 jmp  tail-call g
  f+0x20 call direct    f

f: 4 branches, 1 of them indirect. Jumps within the function: 1, which --json
lists too.
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestTotals(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := Totals(&b, Options{Width: 80}, &record.Code{Totals: &record.CodeTotals{
		Functions: 3, Size: 2_500_000, Classes: map[string]int{"retpoline": 2, "direct": 11},
	}}); err != nil {
		t.Fatal(err)
	}
	want := `3 functions in 2.5 MB of text, as it is in the file, before the kernel patches
it; modules and BPF programs are not in it.

branches
  direct     11
  retpoline   2
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}
