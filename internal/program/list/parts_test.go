package list

import (
	"errors"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/unthunk/unthunk/internal/record"
	"github.com/unthunk/unthunk/internal/testutil"
)

// function is the type of a function that takes a packet, as clang writes it.
func function(name string) *btf.Func {
	context := &btf.Pointer{Target: &btf.Struct{Name: "xdp_md", Size: 4, Members: []btf.Member{
		{Name: "data", Type: &btf.Int{Name: "unsigned int", Size: 4}},
	}}}
	return &btf.Func{Name: name, Linkage: btf.GlobalFunc, Type: &btf.FuncProto{
		Return: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}, Params: []btf.FuncParam{{Name: "ctx", Type: context}},
	}}
}

// body is a function with its type.
func body(name string, ins ...asm.Instruction) asm.Instructions {
	ins[0] = btf.WithFuncMetadata(ins[0].WithSymbol(name), function(name))
	return ins
}

// The parts of a libxdp dispatcher are listed in the order in which they run: by the
// function that each is put in the place of. Requires freplace (Linux 5.6).
func TestParts(t *testing.T) {
	testutil.Root(t)
	pass := func(name string) asm.Instructions { return body(name, asm.Mov.Imm(asm.R0, 2), asm.Return()) }
	dispatcher, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "xdp_dispatcher", Type: ebpf.XDP, License: "GPL", Instructions: slices.Concat(
			body("xdp_dispatcher", asm.Mov.Reg(asm.R6, asm.R1), asm.Call.Label("prog0"), asm.Mov.Reg(asm.R1, asm.R6),
				asm.Call.Label("prog1"), asm.Return()),
			pass("prog0"), pass("prog1")),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer dispatcher.Close()
	part := func(name, slot string) *ebpf.Program {
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: name, Type: ebpf.Extension, License: "GPL", AttachTo: slot, AttachTarget: dispatcher, Instructions: pass(name),
		})
		if err == nil {
			t.Cleanup(func() { p.Close() })
			var l link.Link
			if l, err = link.AttachFreplace(dispatcher, slot, p); err == nil {
				t.Cleanup(func() { l.Close() })
			}
		}
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) ||
			errors.Is(err, ebpf.ErrNotSupported) {
			t.Log(err)
			testutil.Missing(t, "freplace")
		}
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	second, first := part("second", "prog1"), part("first", "prog0")
	got, err := Read(t.Context(), Options{Processes: true})
	if err != nil {
		t.Fatal(err)
	}
	row := find(t, got, idOf(t, dispatcher))
	if !slices.Equal(row.Parts, []uint32{idOf(t, first), idOf(t, second)}) {
		t.Errorf("parts %v of %+v", row.Parts, row)
	}
	for slot, p := range map[string]*ebpf.Program{"prog0": first, "prog1": second} {
		r := find(t, got, idOf(t, p))
		if r.PartOf != row.ID || r.Slot != slot || r.Type != "extension" || !r.InUse() || r.Dispatcher != "" {
			t.Errorf("%s: %+v", slot, r)
		}
	}
	if slices.ContainsFunc(got.Rows, func(r record.ProgramRow) bool { return r.Type == "extension" && r.PartOf == 0 }) {
		t.Error("an extension of nothing is listed")
	}
}
