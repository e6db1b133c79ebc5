package codeflow

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// spec has a queue, whose ops are a pointer to a struct of functions, and a function
// that takes one; a ring that begins with a queue; and a worker with a queue in it.
func spec(t testing.TB) *btf.Spec {
	t.Helper()
	s, _ := rawSpec(t)
	return s
}

// rawSpec is spec, with the length of its names in bytes.
func rawSpec(t testing.TB) (s *btf.Spec, names uint32) {
	t.Helper()
	fn := &btf.Pointer{Target: &btf.FuncProto{Return: &btf.Void{}}}
	u64 := &btf.Int{Name: "u64", Size: 8}
	pointer := func(typ btf.Type) btf.Type { return &btf.Pointer{Target: typ} }
	ops := &btf.Struct{Name: "queue_ops", Size: 16, Members: []btf.Member{
		{Name: "put", Type: fn}, {Name: "get", Type: fn, Offset: 64},
	}}
	queue := &btf.Struct{Name: "queue", Size: 16, Members: []btf.Member{
		{Name: "ops", Type: pointer(ops)}, {Name: "len", Type: u64, Offset: 64},
	}}
	ring := &btf.Struct{Name: "ring", Size: 32, Members: []btf.Member{
		{Name: "queue", Type: queue}, {Name: "kick", Type: fn, Offset: 128}, {Name: "id", Type: u64, Offset: 192},
	}}
	worker := &btf.Struct{Name: "worker", Size: 40, Members: []btf.Member{
		{Name: "work", Type: fn}, {Name: "both", Type: &btf.Array{Type: queue, Nelems: 2, Index: u64}, Offset: 64},
	}}
	b, err := btf.NewBuilder([]btf.Type{
		&btf.Func{Name: "f", Linkage: btf.StaticFunc, Type: &btf.FuncProto{Return: &btf.Void{}, Params: []btf.FuncParam{
			{Name: "q", Type: pointer(queue)}, {Name: "p", Type: pointer(&btf.Void{})},
		}}},
		&btf.Func{Name: "assembled", Linkage: btf.StaticFunc, Type: &btf.FuncProto{Return: &btf.Void{}}},
		ring, worker,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err = btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return s, binary.LittleEndian.Uint32(raw[20:])
}

var testHints = Hints{
	Globals:    map[string]Global{"queues": {Struct: "queue", Array: 4}, "first": {Struct: "queue", Pointer: true}},
	Operations: []Operations{{Holder: "queue", Member: "ops", Struct: "queue_ops"}},
	Containers: []string{"worker"},
	Outer:      map[string]string{"queue": "ring"},
}

func TestTypes(t *testing.T) {
	types := NewTypes(spec(t), testHints)
	for path, want := range map[string]int64{"work": 0, "both": 8, "nothing": -1} {
		off, ok := types.Offset("worker", path)
		if ok != (want >= 0) || ok && off != want {
			t.Errorf("worker.%s at %d, %v; want %d", path, off, ok, want)
		}
	}
	if off, ok := types.Offset("ring", "queue.len"); !ok || off != 8 {
		t.Errorf("ring.queue.len at %d, %v; want 8", off, ok)
	}
	if n := types.Size(types.Struct("ring")); n != 32 {
		t.Errorf("a ring has %d bytes, want 32", n)
	}
	if types.Struct("nothing") != nil || NewTypes(nil, Hints{}).Struct("ring") != nil {
		t.Error("a struct that is not there")
	}
	for off, want := range map[int64]string{0: ".work", 8: ".both[].ops", 16: ".both[].len", 24: ".both[].ops", 40: ""} {
		m := types.at(types.Struct("worker"), off, preferPointer)
		if m.path != want || m.indexed != strings.Contains(want, "[]") {
			t.Errorf("at %d of a worker: %+v, want %q", off, m, want)
		}
	}
	if s := types.container(types.Struct("queue"), 8); typeName(s) != "worker" {
		t.Errorf("a queue at 8 is in %v", s)
	}
}

// testKernel has functions f, at base, and g, and the variables of the hints.
func testKernel(t testing.TB, code []byte) *kernel.Kernel {
	t.Helper()
	table, err := ksym.Parse(strings.NewReader(fmt.Sprintf("%x t f\n%x t g\n%x d queues\n%x d first\n%x d end\n",
		base, base+0x100, base+0x200, base+0x300, base+0x308)))
	if err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 0x400)
	copy(text, code)
	return kernel.New(ktext.Bytes{Addr: base, Code: text}, table, nil)
}

// follow is a function f at base, the state before its last instruction, and the
// values in it.
func follow(t testing.TB, code string) (*Values, *State) {
	t.Helper()
	k := testKernel(t, []byte(code))
	vs := NewValues(k, NewTypes(spec(t), testHints))
	insts := slices.Collect(branch.Decode([]byte(code), base))
	g := NewGraph(insts, base, Knowledge{Leaves: func(addr uint64) bool { return addr-base >= uint64(len(code)) }})
	var last State
	if !vs.Flow(g, vs.Entry("f", "", Arguments{}), func(_ int, inst branch.Inst, s *State) {
		if inst.Addr == insts[len(insts)-1].Addr {
			last = s.clone()
		}
	}) {
		t.Fatal("not settled")
	}
	return vs, &last
}

func TestFollow(t *testing.T) {
	for _, test := range []struct {
		name, code string // that ends in a value in rax, and a ret
		want       string
		confidence Confidence
	}{
		// mov (%rdi),%rax; mov 8(%rax),%rax
		{"member", "\x48\x8b\x07\x48\x8b\x40\x08\xc3", "queue.ops → queue_ops.get", Certain},
		// mov 0x10(%rdi),%rax
		{"struct around it", "\x48\x8b\x47\x10\xc3", "ring.kick", Likely},
		// lea -8(%rdi),%rax; mov (%rax),%rax
		{"container", "\x48\x8d\x47\xf8\x48\x8b\x00\xc3", "worker.work", Likely},
		// mov queues+0x10,%rax
		{"array", "\x48\x8b\x04\x25\x10\x02\x00\x81\x48\x8b\x00\xc3", "queues[].ops → queue_ops.put", Certain},
		// mov first,%rax
		{"variable", "\x48\x8b\x04\x25\x00\x03\x00\x81\x48\x8b\x00\x48\x8b\x00\xc3", "first → queue.ops → queue_ops.put", Certain},
		// mov (%rsi),%rax
		{"offsets only", "\x48\x8b\x06\x48\x8b\x40\x08\xc3", "queue.ops → queue_ops.get", Likely},
		// mov $g,%rax
		{"function", "\x48\xc7\xc0\x00\x01\x00\x81\xc3", "g", Certain},
		{"number", "\x48\xc7\xc0\x01\x01\x00\x81\xc3", "", Unknown},
		// push %rdi; pop %rdx
		{"through the stack", "\x57\x31\xff\x5a\x48\x8b\x02\x48\x8b\x00\xc3", "queue.ops → queue_ops.put", Certain},
		// mov %rdi,%rsi; rep stos; mov (%rsi),%rax
		{"stos leaves rsi", "\x48\x89\xfe\xf3\x48\xab\x48\x8b\x06\x48\x8b\x00\xc3", "queue.ops → queue_ops.put", Certain},
		{"movs does not", "\x48\x89\xfe\xf3\x48\xa5\x48\x8b\x06\x48\x8b\x00\xc3", "", Unknown},
		// mov (%rdi),%rdx; mov (%rdx),%rax; je; mov 8(%rdx),%rax: of one prototype
		{"either", "\x48\x8b\x17\x48\x8b\x02\x74\x04\x48\x8b\x42\x08\xc3", "queue_ops.get or queue_ops.put", Certain},
		// mov 0x10(%rdi),%rax on the other way: of another struct
		{"of two structs", "\x48\x8b\x17\x48\x8b\x02\x74\x04\x48\x8b\x47\x10\xc3", "", Unknown},
		// je over xor %eax,%eax
		{"one way only", "\x48\x8b\x07\x74\x02\x31\xc0\x48\x8b\x00\xc3", "queue.ops → queue_ops.put", Certain},
	} {
		vs, s := follow(t, test.code)
		name, confidence := vs.Name(s.Register("rax"))
		if name != test.want || confidence != test.confidence {
			t.Errorf("%s: %q %s, want %q %s", test.name, name, confidence, test.want, test.confidence)
		}
	}
}

// A variable may have a symbol of the kind that code has: where it lies tells, not the letter.
func TestDataByPlace(t *testing.T) {
	for _, test := range []struct {
		name, marks, want string
	}{
		{"in data", "%[1]x t queues\n%[1]x D _sdata\n%[2]x D _edata\n", "queues"},
		{"in text", "%[1]x t queues\n%[2]x D _sdata\n%[2]x D _edata\n", ""},
		{"no marks", "%[1]x t queues\n%[2]x d end\n", ""},
	} {
		table, err := ksym.Parse(strings.NewReader(fmt.Sprintf(test.marks, base+0x200, base+0x300)))
		if err != nil {
			t.Fatal(err)
		}
		vs := NewValues(kernel.New(ktext.Bytes{Addr: base}, table, nil), NewTypes(spec(t), testHints))
		name, off, ok := vs.variableAt(base+0x208, false)
		if name != test.want || ok != (test.want != "") || ok && off != 8 {
			t.Errorf("%s: %s+%d, %v", test.name, name, off, ok)
		}
	}
}

func TestState(t *testing.T) {
	vs, s := follow(t, "\x48\xc7\xc6\x05\x00\x00\x00\xc3") // mov $5,%rsi
	if n, ok := s.Register("rsi").Address(); !ok || n != 5 {
		t.Errorf("rsi is %d, %v; want 5", n, ok)
	}
	if typ := s.Register("rdi").PointsTo(); typeName(typ) != "queue" {
		t.Errorf("rdi points to %v, want a queue", typ)
	}
	if s.Register("rip") != nil || s.Register("rdx").PointsTo() != nil || s.Register("rdx").Member() != "" {
		t.Error("a register that nothing is known of has a value")
	}
	args := vs.Arguments(s)
	if typeName(args[0].PointsTo()) != "queue" || args[1] != nil {
		t.Errorf("arguments %v", args)
	}
	// Entry prefers the prototype; a function without one has what its caller gives.
	entry := vs.Entry("nameless", "", args)
	if got, want := entry.Register("rdi").PointsTo(), args[0].PointsTo(); got != want {
		t.Errorf("nameless gets %v, want %v", got, want)
	}
	if diff := cmp.Diff([]string{"g"}, vs.Targets(vs.number(base+0x100), nil)); diff != "" {
		t.Error(diff)
	}
}

func FuzzFlow(f *testing.F) {
	f.Add([]byte("\x48\x8b\x07\xff\x50\x08\x75\xf9\xc3"))
	f.Add([]byte("\x85\xff\x66\x90\x75\xfa\xc3\xcc\xf3\x90\xeb\xfc"))
	f.Add([]byte("\x48\x83\xec\x18\x48\x89\x7c\x24\x08\xe8\xf2\xff\xff\xff\x0f\x0b\xeb\xf5"))
	table, err := ksym.Parse(strings.NewReader(fmt.Sprintf("%x t f\n%x t end\n", base, base+0x1000)))
	if err != nil {
		f.Fatal(err)
	}
	types := NewTypes(spec(f), testHints)
	f.Fuzz(func(t *testing.T, code []byte) {
		code = code[:min(len(code), 0x200)]
		vs := NewValues(kernel.New(ktext.Bytes{Addr: base, Code: code}, table, nil), types)
		insts := slices.Collect(branch.Decode(code, base))
		g := NewGraph(insts, base, Knowledge{Leaves: func(addr uint64) bool { return addr-base >= uint64(len(code)) }})
		seen := make(map[uint64]int)
		vs.Flow(g, vs.Entry("f", "", Arguments{}), func(block int, inst branch.Inst, s *State) {
			seen[inst.Addr]++
			if g.Loop(block) != 0 && !g.Hot(block) {
				t.Errorf("block %d is in a loop and not hot", block)
			}
			vs.Name(vs.Operand(s, inst.Asm.Args[0], inst))
		})
		for _, inst := range insts {
			if seen[inst.Addr] != 1 {
				t.Errorf("instruction at %#x was yielded %d times", inst.Addr, seen[inst.Addr])
			}
		}
		for b := range g.blocks {
			if g.Always(b) && !g.Hot(b) {
				t.Errorf("every way goes through block %d, which is not hot", b)
			}
		}
	})
}
