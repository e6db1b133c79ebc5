package codeflow

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/kernel"
)

// arm64Kernel is testKernel of arm64.
func arm64Kernel(t testing.TB, code []byte) *kernel.Kernel {
	t.Helper()
	k := testKernel(t, code)
	k.Arch = "arm64"
	return k
}

func TestFollowARM64(t *testing.T) {
	for _, test := range []struct {
		name  string
		words []uint32 // that end in a value in x0, and a ret
		want  string
		sure  Confidence
	}{
		{"ldr x0,[x0]; ldr x0,[x0,#8]", []uint32{0xf9400000, 0xf9400400}, "queue.ops → queue_ops.get", Certain},
		{"ldr x0,[x0,#16] in the struct around it", []uint32{0xf9400800}, "ring.kick", Likely},
		{"sub x0,x0,#8", []uint32{0xd1002000, 0xf9400000}, "worker.work", Likely},
		{"adrp, add and a distance", []uint32{0x90000001, 0x91080021, 0xf9400820, 0xf9400000}, "queues[].ops → queue_ops.put", Certain},
		{"an element by a half, as of softirq_vec", []uint32{0x90000001, 0x91080021, 0x8b25cc21, 0xf9400020, 0xf9400000},
			"queues[].ops → queue_ops.put", Certain}, // add x1,x1,w5,sxtw #3
		{"an element by its number", []uint32{0x90000001, 0x91080021, 0x8b051021, 0xf9400020, 0xf9400000},
			"queues[].ops → queue_ops.put", Certain}, // add x1,x1,x5,lsl #4
		{"a number of bytes less", []uint32{0x90000001, 0x91080021, 0xcb050021, 0xf9400020, 0xf9400000}, "", Unknown},
		{"a small number and another", []uint32{0xd2800201, 0x8b050c21, 0xf9400020, 0xf9400000}, "", Unknown},
		{"adrp and a distance", []uint32{0x90000001, 0xf9418020, 0xf9400000, 0xf9400000}, "first → queue.ops → queue_ops.put", Certain},
		{"movz and three movk", []uint32{0xd2802000, 0xf2b02000, 0xf2dfffe0, 0xf2ffffe0}, "g", Certain},
		{"movn and movk", []uint32{0x929fdfe0, 0xf2b02000}, "g", Certain},
		{"through the stack", []uint32{0xd503233f, 0xa9be7bfd, 0x910003fd, 0xf9000be0, 0xd2800000, 0xf9400ba1, 0xa8c27bfd, 0xd50323bf,
			0xf9400020, 0xf9400000}, "queue.ops → queue_ops.put", Certain},
		{"stp and ldp", []uint32{0xa9bf07e0, 0xaa1f03e0, 0xa8c10fe2, 0xf9400040, 0xf9400000}, "queue.ops → queue_ops.put", Certain},
		{"half of the slot is written", []uint32{0xa9bf07e0, 0xb90003e3, 0xf94003e0, 0xf9400000, 0xf9400000}, "", Unknown},
		// sub sp,#48; str x0 at 0, 16 or 32; then a vector of 16 or 4 bytes; ldr x0 of it; add sp,#48.
		{"a vector is stored at 32", []uint32{0xd100c3ff, 0xf90013e0, 0x3d800be0, 0xf94013e0, 0x9100c3ff, 0xf9400000, 0xf9400000}, "", Unknown},
		{"a vector beside the slot", []uint32{0xd100c3ff, 0xf90003e0, 0x3d800be0, 0xf94003e0, 0x9100c3ff, 0xf9400000, 0xf9400000},
			"queue.ops → queue_ops.put", Certain},
		{"a vector behind the slot", []uint32{0xd100c3ff, 0xf9000be0, 0x3d800be0, 0xf9400be0, 0x9100c3ff, 0xf9400000, 0xf9400000},
			"queue.ops → queue_ops.put", Certain},
		{"4 bytes of a vector before the slot", []uint32{0xd100c3ff, 0xf9000be0, 0xbd000fe0, 0xf9400be0, 0x9100c3ff, 0xf9400000, 0xf9400000},
			"queue.ops → queue_ops.put", Certain},
		{"ccmp keeps registers", []uint32{0xf9400001, 0xfa401800, 0xfa430040, 0x3a401800, 0xf9400020}, "queue.ops → queue_ops.put", Certain},
		{"one way sets zero", []uint32{0xf9400001, 0xb4000041, 0xd2800001, 0xf9400020}, "queue.ops → queue_ops.put", Certain},
		{"csel of zero", []uint32{0xf9400001, 0xf100005f, 0x9a9f1021, 0xf9400020}, "queue.ops → queue_ops.put", Certain},
		{"ldr x1,[x0],#8", []uint32{0xf8408401, 0xf9400020}, "queue.ops → queue_ops.put", Certain},
		{"a call keeps x19", []uint32{0xaa0003f3, 0x9400003f, 0xf9400260, 0xf9400000}, "queue.ops → queue_ops.put", Certain},
		{"a call does not keep x0", []uint32{0x94000040, 0xf9400000, 0xf9400000}, "", Unknown},
		{"ldadd writes x1", []uint32{0xf9400001, 0xf8220061, 0xf9400020}, "", Unknown},
		{"cas writes x1", []uint32{0xf9400001, 0xc8a17c62, 0xf9400020}, "", Unknown},
		{"ldar", []uint32{0xc8dffc00, 0xf9400400}, "queue.ops → queue_ops.get", Certain},
		{"hvc does not keep x1", []uint32{0xf9400001, 0xd4000002, 0xf9400020}, "", Unknown},
		{"xpaci keeps x1", []uint32{0xf9400001, 0xdac143e1, 0xf9400420}, "queue.ops → queue_ops.get", Certain},
		{"fmov writes x1", []uint32{0xf9400001, 0x9e660001, 0xf9400020}, "", Unknown},
		{"rdvl writes x1", []uint32{0xf9400001, 0x04bf5021, 0xf9400020}, "", Unknown},
		{"ld1 moves x0", []uint32{0x4cdf7002, 0xf9400000, 0xf9400000}, "", Unknown},
		{"ld1 keeps x0", []uint32{0x4c407002, 0xf9400000, 0xf9400000}, "queue.ops → queue_ops.put", Certain},
		{"ldrsw is no pointer", []uint32{0xf9400001, 0xb9800021, 0xf9400020}, "", Unknown},
	} {
		var code []byte
		for _, w := range append(test.words, 0xd65f03c0) {
			code = binary.LittleEndian.AppendUint32(code, w)
		}
		vs := NewValues(arm64Kernel(t, code), NewTypes(spec(t), testHints))
		insts := slices.Collect(branch.DecodeARM64(code, base))
		g := NewGraph(insts, base, Knowledge{Leaves: func(addr uint64) bool { return addr-base >= uint64(len(code)) }})
		var last State
		if !vs.Flow(g, vs.Entry("f", "", Arguments{}), func(_ int, inst branch.Inst, s *State) {
			if inst.Kind == branch.Return {
				last = s.clone()
			}
		}) {
			t.Fatal("not settled")
		}
		if name, sure := vs.Name(last.Register("x0")); name != test.want || sure != test.sure {
			t.Errorf("%s: %q %s, want %q %s", test.name, name, sure, test.want, test.sure)
		}
		if sp := last.regs[arm64SP]; test.want != "" && (sp == nil || sp.op != opStack || sp.disp != 0) {
			t.Errorf("%s: the stack pointer is %+v", test.name, sp)
		}
	}
}

// A CPU's own data is at an address and what tpidr_el1 holds.
func TestPerCPUARM64(t *testing.T) {
	vs := NewValues(arm64Kernel(t, nil), NewTypes(spec(t), testHints))
	s := vs.Entry("f", "", Arguments{})
	for i, w := range []uint32{0xd538d081, 0x90000002, 0x910c0042, 0xf8626820} { // mrs x1; adrp x2; add x2; ldr x0,[x1,x2]
		for inst := range branch.DecodeARM64(binary.LittleEndian.AppendUint32(nil, w), base+uint64(4*i)) {
			vs.step(&s, inst)
		}
	}
	if v := s.Register("x0"); v == nil || v.base == nil || v.base.op != opPerCPU || v.base.n != base+0x300 {
		t.Errorf("x0 is %+v", v)
	}
	if s.Register("xzr") != nil || s.Register("x31") != nil {
		t.Error("a register that is none has a value")
	}
}

// Blocks that set an error number and go are rare, a brk is a trap that a warning goes on behind, and a
// loop with a yield in it waits.
func TestGraphARM64(t *testing.T) {
	var code []byte
	for _, w := range []uint32{
		0xb4000080, // 0: cbz x0, 16
		0xd503203f, // 4: yield
		0xb5ffffe1, // 8: cbnz x1, 4
		0xd65f03c0, // 12: ret
		0x128002a0, // 16: mov w0, #-22
		0xd65f03c0, // 20: ret
		0xd4210000, // 24: brk #0x800
		0xd65f03c0, // 28: ret
	} {
		code = binary.LittleEndian.AppendUint32(code, w)
	}
	g := NewGraph(slices.Collect(branch.DecodeARM64(code, base)), base,
		Knowledge{Leaves: func(addr uint64) bool { return addr-base >= uint64(len(code)) }})
	at := func(off uint64) int { return g.starts[base+off] }
	if g.Hot(at(16)) || !g.Hot(at(12)) || g.Loop(at(4)) == 0 || !g.Waits(g.Loop(at(4))) || g.RunsOff || g.Bad != 0 {
		t.Errorf("%+v", g)
	}
	if succs := g.blocks[at(24)].succs; len(succs) != 1 || succs[0].to != at(28) {
		t.Errorf("behind a brk: %v", succs)
	}
}

// An alternative that this CPU does not take leads back to what all take, and nothing leads to it: it takes no value away. It may when a
// switch may lead to it.
func TestAlternativeARM64(t *testing.T) {
	words := []uint32{
		0xf9400001, // 0: ldr x1, [x0]
		0x14000003, // 4: b 16
		0xd2800021, // 8: mov x1, #1, where nothing leads to
		0x14000001, // 12: b 16
		0xf9400020, // 16: ldr x0, [x1]
		0xd65f03c0, // 20: ret
	}
	for _, test := range []struct {
		last uint32
		want string
	}{{0xd65f03c0, "queue.ops → queue_ops.put"}, {0xd61f0060, ""}} { // ret, br x3
		var code []byte
		for _, w := range append(words, test.last) {
			code = binary.LittleEndian.AppendUint32(code, w)
		}
		vs := NewValues(arm64Kernel(t, code), NewTypes(spec(t), testHints))
		g := NewGraph(slices.Collect(branch.DecodeARM64(code, base)), base,
			Knowledge{Leaves: func(addr uint64) bool { return addr-base >= uint64(len(code)) }})
		seen := 0
		vs.Flow(g, vs.Entry("f", "", Arguments{}), func(_ int, inst branch.Inst, s *State) {
			seen++
			if name, _ := vs.Name(s.Register("x0")); inst.Addr == base+20 && name != test.want {
				t.Errorf("%q, want %q", name, test.want)
			}
			if n, ok := s.Register("x1").Address(); inst.Addr == base+12 && (!ok || n != 1) {
				t.Errorf("in the alternative x1 is %d, %v", n, ok)
			}
		})
		if seen != len(words)+1 {
			t.Errorf("%d instructions of %d", seen, len(words)+1)
		}
	}
}

// A BUG leads nowhere, though something lies behind it: where it is reached without a frame, it takes no place on the stack away
// from that. What a warning leads to is joined with the other way there.
func TestTrapARM64(t *testing.T) {
	for _, test := range []struct {
		name  string
		words []uint32
		want  string
	}{
		{"bug", []uint32{
			0xb40000c1,             // 0: cbz x1, 24
			0xd10083ff,             // 4: sub sp, sp, #32
			0xf90003e0,             // 8: str x0, [sp]
			0xb4000082,             // 12: cbz x2, 28
			0xd503201f,             // 16: nop
			0x14000002,             // 20: b 28
			0xd4210000,             // 24: brk #0x800
			0xf94003e0,             // 28: ldr x0, [sp]
			0x910083ff,             // 32: add sp, sp, #32
			0xf9400000, 0xf9400000, // ldr x0, [x0] twice
		}, "queue.ops → queue_ops.put"},
		{"warning", []uint32{
			0xb4000041,             // 0: cbz x1, 8
			0x14000003,             // 4: b 16
			0xd2800020,             // 8: mov x0, #1
			0xd4210000,             // 12: brk #0x800
			0xf9400000, 0xf9400000, // 16: ldr x0, [x0] twice
		}, ""},
	} {
		var code []byte
		for _, w := range append(test.words, 0xd65f03c0) {
			code = binary.LittleEndian.AppendUint32(code, w)
		}
		vs := NewValues(arm64Kernel(t, code), NewTypes(spec(t), testHints))
		g := NewGraph(slices.Collect(branch.DecodeARM64(code, base)), base,
			Knowledge{Leaves: func(addr uint64) bool { return addr-base >= uint64(len(code)) }})
		var name string
		if !vs.Flow(g, vs.Entry("f", "", Arguments{}), func(_ int, inst branch.Inst, s *State) {
			if inst.Kind == branch.Return {
				name, _ = vs.Name(s.Register("x0"))
			}
		}) {
			t.Errorf("%s: not settled", test.name)
		}
		if name != test.want {
			t.Errorf("%s: %q, want %q", test.name, name, test.want)
		}
	}
}

func FuzzFlowARM64(f *testing.F) {
	seed := func(words ...uint32) {
		var code []byte
		for _, w := range words {
			code = binary.LittleEndian.AppendUint32(code, w)
		}
		f.Add(code)
	}
	seed(0xa9be7bfd, 0x910003fd, 0xf9000be0, 0xd63f0100, 0xf9400ba1, 0xa8c27bfd, 0xd65f03c0)
	seed(0xf9400001, 0xb4000041, 0x17fffffe, 0xd538d081, 0x90000002, 0xf8626820, 0xd61f0000)
	seed(0x6d0227e8, 0x3c8107e0, 0xc8a17c62, 0x483e7c20, 0xd4000002, 0x58000020, 0x38401c41)
	types := NewTypes(spec(f), testHints)
	k := arm64Kernel(f, nil)
	f.Fuzz(func(t *testing.T, code []byte) {
		code = code[:min(len(code), 0x200)]
		vs := NewValues(k, types)
		insts := slices.Collect(branch.DecodeARM64(code, base))
		g := NewGraph(insts, base, Knowledge{Leaves: func(addr uint64) bool { return addr-base >= uint64(len(code)) }})
		seen := 0
		vs.Flow(g, vs.Entry("f", "", Arguments{}), func(_ int, _ branch.Inst, s *State) {
			seen++
			vs.Name(s.Register("x0"))
		})
		if seen != len(insts) {
			t.Errorf("%d instructions of %d were yielded", seen, len(insts))
		}
	})
}
