package kernel

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/ksym"
)

// DispatcherSlots is how many programs the BPF dispatcher holds (BPF_DISPATCHER_MAX in
// include/linux/bpf.h).
const DispatcherSlots = 48

// ErrNoDispatcher says that every XDP program of a kernel is called indirectly.
var ErrNoDispatcher = errors.New("this kernel has no BPF dispatcher for XDP")

// DispatcherSymbol tells whether [Kernel.Dispatcher] needs a symbol of that name.
func DispatcherSymbol(name []byte) bool {
	return bytes.HasPrefix(name, []byte("bpf_dispatcher_xdp")) || bytes.HasPrefix(name, []byte("__SCT__bpf_dispatcher_xdp"))
}

// Dispatcher reads the addresses of the programs that are in the BPF dispatcher for XDP:
// the targets of its compare tree. fallback is how a program that is not in it is called.
// The error wraps [ErrNoDispatcher] where there is none.
func (k *Kernel) Dispatcher() (programs []uint64, fallback string, err error) {
	entry, ok := k.Function("bpf_dispatcher_xdp_func")
	if !ok || k.Arch == "arm64" { // where that function calls the program
		return nil, "", ErrNoDispatcher
	}
	image, err := k.jumpsTo(entry.Addr)
	if err != nil {
		return nil, "", err
	}
	walked := make(map[uint64]bool)
	for todo := []uint64{image}; len(todo) > 0; {
		at := todo[0]
		todo = todo[1:]
		if walked[at] || len(walked) > 4*DispatcherSlots {
			continue
		}
		walked[at] = true
		insts, err := k.node(at)
		if err != nil {
			return nil, "", err
		}
		for _, inst := range insts {
			switch {
			case inst.Kind == branch.JumpCond && inst.Asm.Op == x86asm.JE:
				programs = append(programs, inst.Target)
			case inst.Kind == branch.JumpCond:
				todo = append(todo, inst.Target)
			case inst.Kind == branch.JumpDirect || inst.Kind == branch.JumpIndirect:
				fallback = inst.Text(k.Symbols.Starts)
			}
		}
	}
	return programs, fallback, nil
}

// Dispatched tells whether a program's first function is among the programs that
// [Kernel.Dispatcher] read.
func Dispatched(programs []uint64, main ksym.Symbol) bool {
	return slices.ContainsFunc(programs, func(addr uint64) bool { return addr >= main.Addr && addr < main.Addr+main.Size })
}

// jumpsTo follows the dispatcher's function to its code: by the direct jump or
// call that is patched into it, and through the trampoline of a static call.
func (k *Kernel) jumpsTo(addr uint64) (uint64, error) {
	for range 3 {
		insts, err := k.node(addr)
		if err != nil {
			return 0, err
		}
		i := slices.IndexFunc(insts, func(i branch.Inst) bool {
			return i.Kind == branch.JumpDirect || i.Kind == branch.CallDirect
		})
		if i < 0 {
			return addr, nil
		}
		name, _ := k.Symbols.Starts(insts[i].Target)
		switch {
		case strings.HasPrefix(name, "__x86_indirect_"):
			return addr, nil
		case strings.HasPrefix(name, "__SCT__"), addr == insts[i].Addr:
			addr = insts[i].Target
		default:
			return insts[i].Target, nil
		}
	}
	return addr, nil
}

// node decodes from addr to the first instruction that does not go on: a node of
// the tree, and its children to the left.
func (k *Kernel) node(addr uint64) ([]branch.Inst, error) {
	code, err := k.Read(addr, 256)
	if err != nil {
		return nil, err
	}
	var insts []branch.Inst
	for inst := range branch.Decode(code, addr) {
		insts = append(insts, inst)
		switch inst.Kind {
		case branch.JumpDirect, branch.JumpIndirect, branch.Return, branch.Bad:
			return insts, nil
		}
	}
	return insts, nil
}
