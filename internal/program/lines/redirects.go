package lines

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// redirectMap is the map of the last redirect in an object that notes it.
const redirectMap = "unthunk_redirect"

// What a redirect notes: four numbers of 64 bits.
const (
	noteTo    = 8 * iota // key of a map, or index of a device
	noteFlags            // of the helper
	noteMap              // id of the map, 0 for none
	noteMade             // 1 when there was a redirect
	noteSize
)

// Redirect is what a program asked for last.
type Redirect struct {
	// Map is the id of the map that it went by, 0 where it named a device. To is the key, or the index of the device.
	Map, To uint32
	// All is set where the packet goes to all entries of the map, and To says nothing. ButIngress is set where the device that it came
	// from is none of them.
	All, ButIngress bool
}

// NoteRedirects returns a copy of an object's spec in which each redirect notes where it goes, right before it is asked for. A helper
// keeps none of the registers that are used for it.
func NoteRedirects(spec *ebpf.CollectionSpec) (*ebpf.CollectionSpec, error) {
	if spec.Maps[redirectMap] != nil {
		return nil, fmt.Errorf("the object has a map %s", redirectMap)
	}
	id, err := mapID()
	if err != nil {
		return nil, err
	}
	copied := spec.Copy()
	for name, p := range copied.Programs {
		if p.Instructions, err = noteRedirects(p.Instructions, id); err != nil {
			return nil, fmt.Errorf("note the redirects of %s: %w", name, err)
		}
	}
	copied.Maps[redirectMap] = &ebpf.MapSpec{Name: redirectMap, Type: ebpf.Array, KeySize: 4, ValueSize: noteSize, MaxEntries: 1}
	return copied, nil
}

// mapID is where this kernel's struct bpf_map has its id. The verifier lets programs read it, with CAP_PERFMON.
func mapID() (int16, error) {
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return 0, fmt.Errorf("read the kernel's types: %w", err)
	}
	var of *btf.Struct
	if err := types.TypeByName("bpf_map", &of); err != nil {
		return 0, fmt.Errorf("read the kernel's types: %w", err)
	}
	for _, m := range of.Members {
		if m.Name == "id" {
			return int16(m.Offset.Bytes()), nil
		}
	}
	return 0, errors.New("the kernel's maps have no id")
}

func noteRedirects(ins asm.Instructions, id int16) (asm.Instructions, error) {
	ins = slices.Clone(ins)
	g, err := newGraph(ins)
	if err != nil {
		return nil, err
	}
	var out asm.Instructions
	starts := make([]int, len(ins)+1)
	for i := range ins {
		starts[i] = len(out)
		if note := noteOf(&ins[i], id); note != nil {
			note[0] = note[0].WithSymbol(ins[i].Symbol())
			if source := ins[i].Source(); source != nil {
				note[0] = note[0].WithSource(source)
			}
			ins[i] = ins[i].WithSymbol("")
			if f := btf.FuncMetadata(&ins[i]); f != nil {
				note[0], ins[i] = btf.WithFuncMetadata(note[0], f), btf.WithFuncMetadata(ins[i], nil)
			}
			out = append(out, note...)
		}
		out = append(out, ins[i])
	}
	starts[len(ins)] = len(out)
	return out, g.relocate(out, starts)
}

// noteOf are the instructions that note a redirect; nil for another instruction. R0, R4 and R5 hold nothing that is read behind the call,
// or by it.
func noteOf(ins *asm.Instruction, id int16) asm.Instructions {
	if !ins.IsBuiltinCall() {
		return nil
	}
	note := asm.Instructions{asm.LoadMapValue(asm.R0, 0, 0).WithReference(redirectMap)}
	switch asm.BuiltinFunc(ins.Constant) {
	case asm.FnRedirectMap: // map, key, flags
		note = append(note, asm.StoreMem(asm.R0, noteTo, asm.R2, asm.DWord), asm.StoreMem(asm.R0, noteFlags, asm.R3, asm.DWord),
			asm.LoadMem(asm.R4, asm.R1, id, asm.Word))
	case asm.FnRedirect: // index, flags
		note = append(note, asm.StoreMem(asm.R0, noteTo, asm.R1, asm.DWord), asm.StoreMem(asm.R0, noteFlags, asm.R2, asm.DWord),
			asm.Mov.Imm(asm.R4, 0))
	default:
		return nil
	}
	return append(note, asm.StoreMem(asm.R0, noteMap, asm.R4, asm.DWord), asm.Mov.Imm(asm.R4, 1),
		asm.StoreMem(asm.R0, noteMade, asm.R4, asm.DWord))
}

// Flags of a redirect by a map: BPF_F_BROADCAST, and BPF_F_EXCLUDE_INGRESS, which says something beside it alone.
const broadcast, excludeIngress = 1 << 3, 1 << 4

// LastRedirect is what programs of an object that notes it asked for since the last call; nil for nothing. maps are those of the object.
func LastRedirect(maps map[string]*ebpf.Map) (*Redirect, error) {
	m := maps[redirectMap]
	if m == nil {
		return nil, errors.New("the object does not note redirects")
	}
	b, err := m.LookupBytes(uint32(0))
	if err != nil {
		return nil, fmt.Errorf("read what was redirected: %w", err)
	}
	if len(b) != noteSize {
		return nil, fmt.Errorf("read what was redirected: %d bytes, want %d", len(b), noteSize)
	}
	at := func(offset int) uint64 { return binary.NativeEndian.Uint64(b[offset:]) }
	if at(noteMade) == 0 {
		return nil, nil
	}
	if err := m.Put(uint32(0), make([]byte, noteSize)); err != nil {
		return nil, fmt.Errorf("forget what was redirected: %w", err)
	}
	r := &Redirect{Map: uint32(at(noteMap)), To: uint32(at(noteTo))} // the kernel uses the low 32 bits of either
	if flags := at(noteFlags); r.Map != 0 && flags&broadcast != 0 {
		r.All, r.ButIngress, r.To = true, flags&excludeIngress != 0, 0
	}
	return r, nil
}
