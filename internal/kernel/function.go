package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/ksym"
)

// Limits on what is read of one function, in bytes, whatever the distance to the next
// symbol is: 2 MB behind _etext, 1 MB behind srso_alias_return_thunk.
const (
	// MaxFunction is of the kernel and its modules. The longest of Debian's 6.1 and
	// its modules has 65307, aesni_gcm_dec_update_avx_gen2; the longest one written in
	// C has 20672.
	MaxFunction = 64 << 10
	// maxProgram is of BPF programs: the verifier lets one have a million instructions.
	maxProgram = 1 << 20
	// maxText is of all functions of the kernel together. Distributions' have 20 MB.
	maxText = 256 << 20
)

// program is the module that kallsyms gives JITed BPF programs.
const program = "bpf"

// suffixes are what GCC appends to the name of a function that it made another version
// of: without some arguments, for one caller's constants, or split off. The first one
// that a kernel has is the most of what the source calls by the name. The functions
// that were split off as cold ("name.cold") are not the function.
var suffixes = [...]string{
	"", ".isra.0", ".constprop.0", ".constprop.0.isra.0", ".part.0", ".part.0.isra.0", ".part.0.constprop.0",
}

// Function finds a function by its name, or by the name that the source gives it:
// "bq_enqueue" also finds bq_enqueue.isra.0.
func (k *Kernel) Function(name string) (ksym.Symbol, bool) {
	for _, suffix := range suffixes {
		if s, ok := k.Symbols.Lookup(name + suffix); ok && s.Text() {
			return s, true
		}
	}
	return ksym.Symbol{}, false
}

// Functions finds all functions that the source gives a name: static functions of
// different files often share one.
func (k *Kernel) Functions(name string) (out []ksym.Symbol) {
	for _, suffix := range suffixes {
		for _, s := range k.Symbols.All(name + suffix) {
			if s.Text() {
				out = append(out, s)
			}
		}
	}
	return out
}

// Read returns size bytes at addr.
func (k *Kernel) Read(addr, size uint64) ([]byte, error) {
	b := make([]byte, size)
	return b, k.Text.ReadAddr(b, addr)
}

// Code returns the bytes of a function, at most [MaxFunction] of the kernel's own. Of a
// symbol without a size it is the rest of the page, as no page holds two modules. A
// BPF program's end where the JIT's traps begin, a module's last function with the memory that is mapped, functions of arm64 before
// veneers (see [branch.VeneerARM64]) and before what belongs to the next function.
func (k *Kernel) Code(f ksym.Symbol) ([]byte, error) {
	size, most := cmp.Or(f.Size, 4096-f.Addr%4096), uint64(MaxFunction)
	if f.Module == program {
		most = maxProgram
	}
	read := k.Read
	if f.Module != "" && f.Module != program {
		read = k.readMapped
	}
	code, err := read(f.Addr, min(size, most))
	if err != nil {
		return nil, err
	}
	switch {
	case f.Module == program:
		code = k.untilTraps(code)
	case k.Arch == "arm64":
		code = untilVeneers(withoutOps(code), f.Addr)
	}
	return code, nil
}

// readMapped reads size bytes at addr, or fewer that end with a page: the last function of a module has no next symbol near, so that its
// own reaches over memory that nobody mapped.
func (k *Kernel) readMapped(addr, size uint64) ([]byte, error) {
	const page = 4096
	code, err := k.Read(addr, size)
	if err == nil {
		return code, nil
	}
	for code = code[:0]; uint64(len(code)) < size; {
		at := addr + uint64(len(code))
		more, failed := k.Read(at, min(size-uint64(len(code)), page-at%page))
		if failed != nil {
			break
		}
		code = append(code, more...)
	}
	if len(code) == 0 {
		return nil, err
	}
	return code, nil
}

// withoutOps is the code of a function of arm64 without the pointer behind it, to what traces the next function: the kernel puts it in
// place of two nops (CONFIG_DYNAMIC_FTRACE_WITH_CALL_OPS, Linux 6.3). No instruction ends in 16 bits that are set.
func withoutOps(code []byte) []byte {
	if n := len(code); n >= 8 && n%4 == 0 && code[n-1] == 0xff && code[n-2] == 0xff {
		return code[:n-8]
	}
	return code
}

// ReadFunction finds a function as [Kernel.Function] does and reads its code.
func (k *Kernel) ReadFunction(name string) (ksym.Symbol, []byte, error) {
	f, ok := k.Function(name)
	if !ok {
		return f, nil, fmt.Errorf("this kernel has no function %s", name)
	}
	code, err := k.Code(f)
	return f, code, err
}

// untilTraps is code up to four int3 in a row, or on arm64 four brk. The JIT fills memory around
// programs with them (jit_fill_hole in arch/x86/net/bpf_jit_comp.c and arch/arm64/net/bpf_jit_comp.c), and a
// program's symbol reaches up to the next program.
func (k *Kernel) untilTraps(code []byte) []byte {
	traps, size := 0, 1
	if k.Arch == "arm64" {
		size = 4
	}
	for step := range k.Scan(code, 0) {
		if step.Kind != branch.Trap || step.Len != size {
			traps = 0
		} else if traps++; traps == 4 {
			return code[:step.Addr-uint64(3*size)]
		}
	}
	return code
}

// untilVeneers is the code of the function at addr without the veneers behind it: they have no symbols, so that the symbol of the
// last function of a module, or of an object in the kernel, reaches over them. One that is a veneer itself is left as it is.
func untilVeneers(code []byte, addr uint64) []byte {
	for off := 4; off < len(code); off += 4 {
		if _, ok := branch.VeneerARM64(code[off:], addr+uint64(off)); ok {
			return code[:off]
		}
	}
	return code
}

// goal is where a direct branch to addr leads: through a veneer on arm64, else there. Only what is not the beginning
// of a function can be a veneer, or what a linker calls one: kallsyms leaves these out.
func (k *Kernel) goal(addr uint64) uint64 {
	s, off, ok := k.Symbols.Find(addr)
	if ok && (off == 0 && !veneer(s.Name) || s.Module == program) {
		return addr
	}
	if target, ok := branch.VeneerARM64(k.Follow(addr), addr); ok {
		return target
	}
	return addr
}

// veneer tells the names that linkers of GNU and of LLVM give to their veneers.
func veneer(name string) bool {
	return strings.HasSuffix(name, "_veneer") || strings.HasPrefix(name, "__AArch64ADRPThunk_") ||
		strings.HasPrefix(name, "__AArch64AbsLongThunk_")
}

// detour is the instruction that the jump at addr to target goes out of line for (see [branch.DetourARM64]); ok is false
// for other jumps. Where it goes has no symbol.
func (k *Kernel) detour(target, addr uint64) (inst branch.Inst, ok bool) {
	if s, off, found := k.Symbols.Find(target); found && off == 0 && !strings.HasPrefix(s.Name, "e843419@") {
		return inst, false
	}
	return branch.DetourARM64(k.Follow(target), target, addr)
}

// beyond is [Kernel.goal] of a target that is not in the function at addr, of size bytes.
func (k *Kernel) beyond(target, addr uint64, size int) uint64 {
	if target == 0 || target-addr < uint64(size) {
		return target
	}
	return k.goal(target)
}

// thunkBytes is how much is read of code that has no symbol. Such are the thunks against
// ITS that the kernel makes at boot: 32 bytes each, half a cache line.
const thunkBytes = 32

// Follow returns the first bytes of code that has no symbol; nil when they cannot be
// read. It has the shape of what package branch follows calls by.
func (k *Kernel) Follow(addr uint64) []byte {
	b, err := k.Read(addr, thunkBytes)
	if err != nil {
		return nil
	}
	return b
}

// Entered is the function that an indirect branch to addr enters: with FineIBT it is the one behind
// a preamble there. It returns false when no function begins there.
func (k *Kernel) Entered(addr uint64) (ksym.Symbol, bool) {
	s, off, ok := k.Symbols.Find(addr)
	if _, preamble := k.Symbols.Behind(s); preamble {
		s, off, ok = k.Symbols.Find(branch.Landing(k.Follow(addr), addr))
	}
	return s, ok && off == 0 && s.Text()
}

// Preamble is what FineIBT has in front of the function at addr. It returns false when there is none.
func (k *Kernel) Preamble(addr uint64) (branch.Preamble, bool) {
	if addr < branch.PreambleLen {
		return branch.Preamble{}, false
	}
	at := addr - branch.PreambleLen
	return branch.NamePreamble(k.Follow(at), at, k.Follow)
}

// Sites finds the indirect branches of a function and counts its returns.
func (k *Kernel) Sites(f ksym.Symbol) ([]branch.Site, branch.Returns, error) {
	code, err := k.Code(f)
	if err != nil {
		return nil, nil, err
	}
	sites, returns := k.SitesIn(code, f.Addr)
	return sites, returns, nil
}

// SitesIn are the indirect branches and returns of the function at addr, whose code the caller has.
func (k *Kernel) SitesIn(code []byte, addr uint64) ([]branch.Site, branch.Returns) {
	if k.Arch == "arm64" {
		return branch.SitesARM64(code, addr)
	}
	return branch.Sites(code, addr, k.Symbols.Starts, k.Follow)
}

// Decode yields the instructions of code at addr that can be executed, see [branch.Live]. The target of one that goes to a
// veneer on arm64 is where that leads, and one that stands out of line, see [branch.DetourARM64], is in place of the jump there.
func (k *Kernel) Decode(code []byte, addr uint64) iter.Seq[branch.Inst] {
	if k.Arch != "arm64" {
		return branch.Live(branch.Decode(code, addr))
	}
	return func(yield func(branch.Inst) bool) {
		for inst := range branch.DecodeARM64(code, addr) {
			if inst.Kind == branch.JumpDirect && inst.Target-addr >= uint64(len(code)) {
				if moved, ok := k.detour(inst.Target, inst.Addr); ok {
					inst = moved
				}
			}
			inst.Target = k.beyond(inst.Target, addr, len(code))
			if !yield(inst) {
				return
			}
		}
	}
}

// Scan yields the instructions of code at addr with their branches only, see [branch.Scan]; targets are those of [Kernel.Decode].
func (k *Kernel) Scan(code []byte, addr uint64) iter.Seq[branch.Step] {
	if k.Arch != "arm64" {
		return branch.Scan(code, addr)
	}
	return func(yield func(branch.Step) bool) {
		for step := range branch.ScanARM64(code, addr) {
			step.Target = k.beyond(step.Target, addr, len(code))
			if !yield(step) {
				return
			}
		}
	}
}

// Branches yields the calls, jumps and returns of the function at addr, see [branch.EachBranch]; targets are those of [Kernel.Decode].
func (k *Kernel) Branches(code []byte, addr uint64) iter.Seq[*branch.Branch] {
	if k.Arch != "arm64" {
		return branch.EachBranch(code, addr, k.Symbols.Starts, nil, k.Follow)
	}
	return func(yield func(*branch.Branch) bool) {
		for b := range branch.EachBranchARM64(code, addr, k.startsAtGoal, nil) {
			b.Target = k.beyond(b.Target, addr, len(code))
			if !yield(b) {
				return
			}
		}
	}
}

// Annotated yields the lines of the function at addr, see [branch.Annotated].
func (k *Kernel) Annotated(code []byte, addr uint64) iter.Seq[branch.Line] {
	if k.Arch == "arm64" {
		return branch.AnnotatedARM64(code, addr, k.startsAtGoal, nil)
	}
	return branch.Annotated(code, addr, k.Symbols.Starts, nil)
}

// startsAtGoal is the function that begins where a branch to addr leads.
func (k *Kernel) startsAtGoal(addr uint64) (string, bool) { return k.Symbols.Starts(k.goal(addr)) }

// textBounds are the addresses of _stext and _etext.
func (k *Kernel) textBounds() (start, end uint64, err error) {
	first, ok1 := k.Symbols.Lookup("_stext")
	last, ok2 := k.Symbols.Lookup("_etext")
	if !ok1 || !ok2 || last.Addr <= first.Addr || last.Addr-first.Addr > maxText {
		return 0, 0, errors.New("read all code: no bounds of the kernel's text")
	}
	return first.Addr, last.Addr, nil
}

// AllText returns the code of the kernel from _stext to _etext and the address that it
// begins at. Modules and BPF programs are not in it.
func (k *Kernel) AllText() (code []byte, addr uint64, err error) {
	start, end, err := k.textBounds()
	if err != nil {
		return nil, 0, err
	}
	if code, err = k.Read(start, end-start); err != nil {
		return nil, 0, fmt.Errorf("read all code: %w", err)
	}
	return code, start, nil
}

// Program returns the functions of a JITed BPF program, which need no symbols: "program"
// and "program's function 1". It returns nil without an error for a program that is
// interpreted, and where the kernel does not show the addresses.
func Program(p *ebpf.Program) ([]ksym.Symbol, error) {
	about, err := aboutWithoutCode(p)
	if err != nil {
		return nil, err
	}
	return about.Functions, nil
}

// ProgramFunctions is [Program] of what the kernel said of a program.
func ProgramFunctions(info *ebpf.ProgramInfo) []ksym.Symbol {
	addrs, _ := info.JitedKsymAddrs()
	lens, _ := info.JitedFuncLens()
	return jited(addrs, lens)
}

// jited are the functions of a program whose JITed code begins at addrs. Of an
// interpreted program the kernel gives the interpreter's address and the length 0
// (bpf_prog_get_info_by_fd in kernel/bpf/syscall.c), and the address 0 to those who
// may not see it.
func jited(addrs []uintptr, lens []uint32) (out []ksym.Symbol) {
	if len(addrs) != len(lens) || slices.Contains(addrs, 0) || slices.Contains(lens, 0) {
		return nil
	}
	for i := range addrs {
		f := ksym.Symbol{Addr: uint64(addrs[i]), Size: uint64(lens[i]), Type: 't', Name: "program", Module: program}
		if i > 0 {
			f.Name = fmt.Sprintf("program's function %d", i)
		}
		out = append(out, f)
	}
	return out
}
