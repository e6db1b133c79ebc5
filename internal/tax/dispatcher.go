package tax

import (
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/arch/x86/x86asm"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/kernel"
)

// maxDispatcher bounds how many programs are attached to fill the dispatcher.
// It holds 48 (BPF_DISPATCHER_MAX in include/linux/bpf.h).
const maxDispatcher = 64

const errNoDispatcher = refusal("this kernel has no BPF dispatcher for XDP: every program is called indirectly")

// dispatcher reads the programs that are in the BPF dispatcher for XDP: the
// targets of its compare tree. fallback is how a program that is not in it is
// called.
func dispatcher(k *kernel.Kernel) (programs []uint64, fallback string, err error) {
	entry, ok := k.Function("bpf_dispatcher_xdp_func")
	if !ok {
		return nil, "", errNoDispatcher
	}
	image, err := jumpsTo(k, entry.Addr)
	if err != nil {
		return nil, "", err
	}
	walked := make(map[uint64]bool)
	for todo := []uint64{image}; len(todo) > 0; {
		at := todo[0]
		todo = todo[1:]
		if walked[at] || len(walked) > 4*maxDispatcher {
			continue
		}
		walked[at] = true
		insts, err := node(k, at)
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

// jumpsTo follows the dispatcher's function to its code: by the direct jump or
// call that is patched into it, and through the trampoline of a static call.
func jumpsTo(k *kernel.Kernel, addr uint64) (uint64, error) {
	for range 3 {
		insts, err := node(k, addr)
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
func node(k *kernel.Kernel, addr uint64) ([]branch.Inst, error) {
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

// room is what the BPF dispatcher holds, beside or with a program.
type room struct {
	// in tells that the program is among those that the dispatcher calls directly.
	in bool
	// programs is how many there are.
	programs int
	// fallback is how a program that is not among them is called.
	fallback string
}

// dispatched tells whether a program is in the dispatcher. It refuses where programs
// have no code of their own to recognize them by, and where there is no dispatcher.
func dispatched(k *kernel.Kernel, p *ebpf.Program) (room, error) {
	functions, err := kernel.Program(p)
	if err != nil {
		return room{}, err
	}
	if functions == nil {
		return room{}, errNoJIT
	}
	programs, fallback, err := dispatcher(k)
	main := functions[0]
	in := slices.ContainsFunc(programs, func(addr uint64) bool { return addr >= main.Addr && addr < main.Addr+main.Size })
	return room{in, len(programs), fallback}, err
}
