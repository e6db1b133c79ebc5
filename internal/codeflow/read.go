package codeflow

import (
	"encoding/binary"
	"slices"

	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/ktext"
)

// maxTargets bounds how indexed objects one expression is read from.
const maxTargets = 64

// Object is a struct in the memory of a live kernel.
type Object struct {
	Struct string // name of the type
	Addr   uint64
}

// Targets are the names of the functions that v holds now. Where v is read from a
// struct that only its type tells, it is read from those of objects that have
// that type. A kernel in files has only functions whose address is in the code.
func (vs *Values) Targets(v *Value, objects []Object) []string {
	if v == nil {
		return nil
	}
	var out []string
	for _, addr := range vs.eval(v, objects, 0) {
		if s, off, ok := vs.kernel.Symbols.Find(addr); ok && off == 0 && s.Text() {
			out = append(out, s.Name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// eval reads what v is in the live kernel, for each of the objects that it may
// go through. Addresses of 0 are left out.
func (vs *Values) eval(v *Value, objects []Object, depth int) []uint64 {
	if v == nil || depth > maxChain {
		return nil
	}
	var out []uint64
	switch v.op {
	case opNumber:
		out = []uint64{v.n}
	case opAdd, opContainer:
		if !v.indexed {
			for _, b := range vs.eval(v.base, objects, depth+1) {
				out = append(out, b+uint64(v.disp))
			}
		}
	case opLoad:
		switch {
		case !vs.kernel.Live:
		case v.indexed && v.base.op == opNumber:
			out = vs.evalArray(v)
		case !v.indexed:
			for _, b := range vs.eval(v.base, objects, depth+1) {
				if p, err := ReadWord(vs.kernel.Text, b+uint64(v.disp), 8); err == nil {
					out = append(out, p)
				}
			}
		}
	}
	if name := typeName(v.elem); len(out) == 0 && name != "" {
		for _, o := range objects {
			if o.Struct == name {
				out = append(out, o.Addr)
			}
		}
	}
	out = slices.DeleteFunc(out, func(a uint64) bool { return a == 0 })
	return out[:min(len(out), maxTargets)]
}

// evalArray reads one member of every element of a global array.
func (vs *Values) evalArray(v *Value) []uint64 {
	name, off, ok := vs.variableAt(v.base.n, false)
	if !ok {
		return nil
	}
	a, ok := vs.types.variable(name).(*btf.Array)
	if !ok {
		return nil
	}
	start := v.base.n - uint64(off)
	size := uint64(vs.types.Size(strip(a.Type)))
	if size == 0 {
		return nil
	}
	var out []uint64
	for i := range min(uint64(a.Nelems), maxTargets) {
		if p, err := ReadWord(vs.kernel.Text, start+i*size+uint64(off)%size, 8); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// ReadWord reads a little-endian number of at most 8 bytes.
func ReadWord(src ktext.Source, addr uint64, size int) (uint64, error) {
	var b [8]byte
	if err := src.ReadAddr(b[:size], addr); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}
