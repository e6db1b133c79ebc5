package codeflow

import (
	"cmp"
	"slices"
	"sort"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/arch/x86/x86asm"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/ksym"
)

// variable is one without a symbol that was found from code that uses it.
type variable struct {
	name string
	addr uint64
	size uint64
}

// FindVariables finds data that a kernel without CONFIG_KALLSYMS_ALL has no
// symbols of: where per-CPU data begins, from bpf_get_current_task, which
// does nothing but load current_task; and softirq_vec, from open_softirq,
// which does nothing but store into it.
func (vs *Values) FindVariables() {
	if vs.types.spec == nil {
		return
	}
	vs.perCPU = vs.types.perCPU()
	current := int64(-1)
	for _, v := range vs.perCPU.vars {
		switch v.name {
		case "current_task", "const_current_task":
			current = v.off
		case "pcpu_hot": // Linux 6.2 to 6.14; current_task is its first member
			current = v.off
		}
	}
	if s, ok := vs.kernel.Symbols.Lookup("__per_cpu_start"); ok {
		vs.perCPU.base = s.Addr
	} else if inst, m, ok := vs.memoryOperand("bpf_get_current_task"); ok && m.Segment == x86asm.GS && current >= 0 {
		addr := uint64(m.Disp)
		if m.Base == x86asm.RIP {
			addr += inst.Addr + uint64(inst.Len)
		}
		vs.perCPU.base = addr - uint64(current)
	}
	if _, ok := vs.kernel.Symbols.Lookup("softirq_vec"); !ok {
		if _, m, ok := vs.memoryOperand("open_softirq"); ok && m.Base == 0 && m.Index != 0 && m.Scale == 8 {
			if size := vs.types.Size(vs.types.variable("softirq_vec")); size > 0 {
				vs.variables = append(vs.variables, variable{"softirq_vec", uint64(m.Disp), uint64(size)})
			}
		}
	}
}

// memoryOperand is the first memory operand of a short function.
func (vs *Values) memoryOperand(name string) (branch.Inst, x86asm.Mem, bool) {
	s, ok := vs.kernel.Symbols.Lookup(name)
	if !ok || !s.Text() || vs.kernel.Arch != "amd64" {
		return branch.Inst{}, x86asm.Mem{}, false
	}
	b, err := vs.kernel.Code(ksym.Symbol{Addr: s.Addr, Size: min(s.Size, 64)})
	if err != nil {
		return branch.Inst{}, x86asm.Mem{}, false
	}
	for inst := range branch.Decode(b, s.Addr) {
		for _, a := range inst.Asm.Args {
			if m, ok := a.(x86asm.Mem); ok && inst.Asm.Op == x86asm.MOV {
				return inst, m, true
			}
		}
	}
	return branch.Inst{}, x86asm.Mem{}, false
}

// variableAt is the variable that an address lies in and the offset there.
// BTF lists those of per-CPU data, which kernels without CONFIG_KALLSYMS_ALL
// have no symbols of.
func (vs *Values) variableAt(addr uint64, perCPU bool) (name string, off int64, ok bool) {
	if perCPU {
		if name, off, ok := vs.perCPU.at(addr); ok {
			return name, off, true
		}
	}
	for _, v := range vs.variables {
		if addr >= v.addr && addr < v.addr+v.size {
			return v.name, int64(addr - v.addr), true
		}
	}
	s, o, ok := vs.kernel.Symbols.Find(addr)
	if !ok || s.Text() && !vs.inData(addr) || strings.HasPrefix(s.Name, "__start_") || strings.HasPrefix(s.Name, "__stop_") ||
		s.Name == "__init_begin" {
		return "", 0, false
	}
	return s.Name, int64(o), true
}

// inData tells whether an address lies in the kernel's own data: the table of Linux 6.16 and later calls variables there that C or assembly
// put beside code by the letters of code, "t softirq_vec".
func (vs *Values) inData(addr uint64) bool {
	start, hasStart := vs.kernel.Symbols.Lookup("_sdata")
	end, hasEnd := vs.kernel.Symbols.Lookup("_edata")
	return hasStart && hasEnd && addr >= start.Addr && addr < end.Addr
}

// section are the variables of a section of data that begins at base, which is 0
// when that is not known.
type section struct {
	base uint64
	vars []sectionVar // by offset
}

type sectionVar struct {
	off, size int64
	name      string
}

// at is the variable that addr lies in and the offset there.
func (s *section) at(addr uint64) (name string, offset int64, ok bool) {
	if s.base == 0 || addr < s.base {
		return "", 0, false
	}
	off := int64(addr - s.base)
	i := sort.Search(len(s.vars), func(i int) bool { return s.vars[i].off > off })
	if i == 0 || off >= s.vars[i-1].off+s.vars[i-1].size {
		return "", 0, false
	}
	v := s.vars[i-1]
	return v.name, off - v.off, true
}

// perCPU lists the per-CPU variables of BTF.
func (t *Types) perCPU() (s section) {
	var d *btf.Datasec
	if t.spec.TypeByName(".data..percpu", &d) != nil {
		return s
	}
	for _, v := range d.Vars {
		s.vars = append(s.vars, sectionVar{int64(v.Offset), int64(v.Size), v.Type.TypeName()})
	}
	slices.SortFunc(s.vars, func(a, b sectionVar) int { return cmp.Compare(a.off, b.off) })
	return s
}
