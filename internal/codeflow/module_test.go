package codeflow

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/branch"
)

// boxTypes are the types of a module on those of a kernel, whose names have so many bytes: a box, which has a pointer to a queue
// and an array of pointers to what only the code knows, and a function that takes a box.
func boxTypes(t *testing.T, types *btf.Spec, names uint32) *btf.Spec {
	t.Helper()
	var queue, first btf.TypeID
	for typ, err := range types.All() {
		if err != nil {
			t.Fatal(err)
		}
		id, err := types.TypeID(typ)
		if err != nil {
			t.Fatal(err)
		}
		first = max(first, id+1)
		if typeName(pointee(typ)) == "queue" {
			queue = id
		}
	}
	own := []byte{0}
	name := func(s string) uint32 {
		off := names + uint32(len(own))
		own = append(append(own, s...), 0)
		return off
	}
	const pointer, structure, fn, proto = 2 << 24, 4 << 24, 12 << 24, 13 << 24
	var raw []byte
	for _, word := range []uint32{
		name("box"), structure | 2, 16, name("q"), uint32(queue), 0, name("slots"), uint32(first + 2), 64,
		0, pointer, 0,
		0, pointer, uint32(first + 1),
		0, pointer, uint32(first),
		0, proto | 1, 0, name("b"), uint32(first + 3),
		name("open"), fn, uint32(first + 4),
	} {
		raw = binary.LittleEndian.AppendUint32(raw, word)
	}
	head := []byte{0x9f, 0xeb, 1, 0}
	for _, n := range []int{24, 0, len(raw), len(raw), len(own)} {
		head = binary.LittleEndian.AppendUint32(head, uint32(n))
	}
	spec, err := btf.LoadSplitSpecFromReader(bytes.NewReader(slices.Concat(head, raw, own)), types)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// A module's function has its arguments from the module's types, which lead to the kernel's. What an array of untyped pointers
// leads to is a hint.
func TestModuleTypes(t *testing.T) {
	hints := testHints
	hints.Elements = map[string]string{"box.slots": "queue"}
	for _, test := range []struct {
		module, code string // that ends in a value in rax, and a ret
		want         string
		confidence   Confidence
	}{
		// mov (%rdi),%rax; mov (%rax),%rax; mov 8(%rax),%rax
		{"box", "\x48\x8b\x07\x48\x8b\x00\x48\x8b\x40\x08\xc3", "box.q → queue.ops → queue_ops.get", Certain},
		{"", "\x48\x8b\x07\x48\x8b\x00\x48\x8b\x40\x08\xc3", "", Unknown},
		{"lid", "\x48\x8b\x07\x48\x8b\x00\x48\x8b\x40\x08\xc3", "", Unknown},
		// mov 8(%rdi),%rax; mov (%rax,%rcx,8),%rax; mov (%rax),%rax; mov (%rax),%rax
		{"box", "\x48\x8b\x47\x08\x48\x8b\x04\xc8\x48\x8b\x00\x48\x8b\x00\xc3", "box.slots → queue.ops → queue_ops.put", Likely},
	} {
		code := []byte(test.code)
		kernels, names := rawSpec(t)
		types, asked := NewTypes(kernels, hints), 0
		vs := NewValues(testKernel(t, code), types)
		if types.Struct("box") != nil {
			t.Error("a module's struct is there before the module")
		}
		types.modules = func(name string) *btf.Spec {
			if asked++; name == "box" {
				return boxTypes(t, kernels, names)
			}
			return nil
		}
		insts := slices.Collect(branch.Decode(code, base))
		g := NewGraph(insts, base, Knowledge{Leaves: func(addr uint64) bool { return addr-base >= uint64(len(code)) }})
		var last State
		vs.Entry("open", test.module, Arguments{})
		vs.Flow(g, vs.Entry("open", test.module, Arguments{}), func(_ int, _ branch.Inst, s *State) { last = s.clone() })
		name, confidence := vs.Name(last.Register("rax"))
		if name != test.want || confidence != test.confidence {
			t.Errorf("module %q: %q %s, want %q %s", test.module, name, confidence, test.want, test.confidence)
		}
		if want := min(len(test.module), 1); asked != want {
			t.Errorf("module %q was asked for %d times, want %d", test.module, asked, want)
		}
		if (types.Struct("box") != nil) != (test.module == "box") {
			t.Errorf("module %q: a box is %v", test.module, types.Struct("box"))
		}
	}
}

// A function that a caller gives to one without types is what that calls, as one caller does: likely.
func TestGivenFunction(t *testing.T) {
	vs := NewValues(testKernel(t, nil), NewTypes(spec(t), testHints))
	var s State
	s.regs[regSI], s.regs[regDX] = vs.number(base+0x100), vs.number(5)
	given := vs.Arguments(&s)
	if given[2] != nil {
		t.Errorf("a number is given: %+v", given[2])
	}
	for _, callee := range []string{"nameless", "assembled"} { // the one not in BTF, the other without parameters there
		entry := vs.Entry(callee, "", given)
		if name, sure := vs.Name(entry.Register("rsi")); name != "g" || sure != Likely {
			t.Errorf("%s: %q %s, want g, likely", callee, name, sure)
		}
	}
}

// The first argument of a function may be known to point to the struct around what its prototype says.
func TestFirstMember(t *testing.T) {
	hints := testHints
	hints.First = map[string]string{"f": "ring", "g": "queue"}
	vs := NewValues(testKernel(t, nil), NewTypes(spec(t), hints))
	entry := vs.Entry("f", "", Arguments{})
	if got := typeName(entry.Register("rdi").PointsTo()); got != "ring" {
		t.Errorf("the first argument points to %q, want a ring", got)
	}
	if got := typeName(entry.Register("rsi").PointsTo()); got != "" {
		t.Errorf("the second argument points to %q", got)
	}
}
