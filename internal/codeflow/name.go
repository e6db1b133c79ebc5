package codeflow

import (
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// chain are the links from where the types begin to v.
func (v *Value) chain() []string {
	var out []string
	for ; v != nil; v = v.base {
		if v.name != "" && v.op != opReturn {
			out = append(out, v.name)
		}
	}
	slices.Reverse(out)
	return out
}

// Confidence is how well something is known.
type Confidence string

const (
	// Certain: every step of the way to the pointer has a type that comes
	// from a prototype or from a variable of BTF.
	Certain Confidence = "certain"
	// Likely: a step was matched by its offset only, or an argument has its
	// type from one caller.
	Likely Confidence = "likely"
	// Unknown: nothing is known of the pointer.
	Unknown Confidence = "unknown"
)

// Name tells where the target of a branch to v is read from, as a chain of struct
// members, "net_device.netdev_ops → net_device_ops.ndo_xdp_xmit", or what v is
// otherwise. The name is empty when the confidence is Unknown.
func (vs *Values) Name(v *Value) (string, Confidence) {
	if v == nil {
		return "", Unknown
	}
	confidence := Certain
	if v.guessed {
		confidence = Likely
	}
	switch v.op {
	case opNumber:
		if name := vs.function(v); name != "" {
			return name, confidence
		}
		return "", Unknown
	case opArgument:
		if _, ok := v.elem.(*btf.FuncProto); ok && v.name != "" {
			return v.name, confidence
		}
		return "", Unknown
	case opReturn:
		if _, ok := v.elem.(*btf.FuncProto); ok {
			return "what " + v.name + " returns", confidence
		}
		return "", Unknown
	case opLoad, opJoin:
	default:
		return "", Unknown
	}
	links := v.chain()
	if _, ok := v.elem.(*btf.FuncProto); ok && v.name != "" {
		return strings.Join(links, " → "), confidence
	}
	if v.name == "tracepoint_func.func" { // a void *, of include/linux/tracepoint-defs.h
		return strings.Join(links, " → "), confidence
	}
	if v.op == opLoad && v.base.elem != nil {
		// A union may hold a function pointer beside another one.
		m := vs.types.at(v.base.elem, v.disp, preferFunction)
		if _, ok := pointee(m.typ).(*btf.FuncProto); ok {
			if name := typeName(v.base.elem); name != "" {
				links = append(v.base.chain(), name+m.path)
			}
			return strings.Join(links, " → "), confidence
		}
	}
	if v.op == opLoad && v.name != "" && (v.base.op == opNumber || v.base.op == opPerCPU) {
		return strings.Join(links, " → "), Likely
	}
	return vs.nameByOffsets(v)
}

// function is the name of the function that a number is the address of, "" for another value.
func (vs *Values) function(v *Value) string {
	if v.op != opNumber {
		return ""
	}
	if s, off, ok := vs.kernel.Symbols.Find(v.n); ok && off == 0 && s.Text() {
		return s.Name
	}
	return ""
}

// nameByOffsets names a pointer whose object has no type by the offsets it is
// read at. It answers only when one operation of the hints fits.
func (vs *Values) nameByOffsets(v *Value) (string, Confidence) {
	if v.op != opLoad || v.base == nil || v.base.op != opLoad || v.base.elem != nil || v.base.name != "" {
		return "", Unknown
	}
	found := ""
	for _, o := range vs.listOperations() {
		if o.function != v.disp || o.holder != v.base.disp {
			continue
		}
		if found != "" {
			return "", Unknown
		}
		found = o.name
	}
	if found == "" {
		return "", Unknown
	}
	return found, Likely
}

// operation is one function of a struct of functions: the offset of the pointer to
// that struct in its holder, that of the function in it, and the chain of both.
type operation struct {
	holder, function int64
	name             string
}

// listOperations are the operations of the hints.
func (vs *Values) listOperations() []operation {
	if vs.operations != nil {
		return vs.operations
	}
	vs.operations = []operation{}
	for _, h := range vs.types.hints.Operations {
		holder, ok := vs.types.Offset(h.Holder, h.Member)
		ops, isStruct := vs.types.Struct(h.Struct).(*btf.Struct)
		if !ok || !isStruct {
			continue
		}
		for _, m := range ops.Members {
			if _, fn := pointee(m.Type).(*btf.FuncProto); fn {
				vs.operations = append(vs.operations, operation{holder, int64(m.Offset.Bytes()),
					h.Holder + "." + h.Member + " → " + h.Struct + "." + m.Name})
			}
		}
	}
	return vs.operations
}
