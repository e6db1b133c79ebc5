package tax

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/bpf/price"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/ksym"
)

// Why a pair has no price.
const (
	errNoJIT         = refusal("the JIT is off (net.core.bpf_jit_enable): what is called cannot be told")
	errAlreadyDirect = refusal("already direct here: the code of both sides makes the same indirect branches")
)

// needJIT refuses pairs whose premise is read from the code of programs, or from that
// of the dispatcher, which tells programs apart by their addresses: without the JIT all
// programs of a stack size have one address, and the verifier refuses callbacks. It
// asks a program: only the first network namespace has net.core.bpf_jit_enable, so a
// container may not.
func needJIT() error {
	p, err := price.Load("nothing")
	if err != nil {
		return err
	}
	defer p.Close()
	functions, err := kernel.Program(p)
	if err == nil && functions == nil {
		err = errNoJIT
	}
	return err
}

// branches are the indirect branches of a function, as "name+0x1f: call thunk", or "name+0x1f: call thunk behind kcfi".
func branches(k *kernel.Kernel, f ksym.Symbol) ([]string, error) {
	code, err := k.Code(f)
	if err != nil {
		return nil, err
	}
	sites, _ := k.SitesIn(code, f.Addr)
	var out []string
	for _, s := range sites {
		if k.Arch == "arm64" && (branch.ConstantARM64(code, s.Offset) != 0 || branch.TrampolineARM64(code, s.Offset)) {
			continue // it goes to one place, as a direct call does
		}
		verb := "call"
		if s.Jump {
			verb = "jmp"
		}
		way := s.Thunk
		if way == "" {
			way = string(s.Kind)
		}
		if s.Check != branch.CheckNone { // then the price holds the test too
			way += " behind " + string(s.Check)
		}
		out = append(out, fmt.Sprintf("%s+%#x: %s %s", f.Name, s.Offset, verb, way))
	}
	return out, nil
}

// reached are the indirect branches of a program and of the functions that it calls
// directly, without those of the timer. What these functions call in turn is left out:
// it is the slow path of a helper, or the same on both sides.
func reached(k *kernel.Kernel, p *ebpf.Program) (map[string]bool, error) {
	own, err := kernel.Program(p)
	if err != nil {
		return nil, err
	}
	if own == nil {
		return nil, errNoJIT
	}
	all := slices.Clone(own)
	for _, f := range own {
		called, err := called(k, f)
		if err != nil {
			return nil, err
		}
		all = append(all, called...)
	}
	out := make(map[string]bool)
	for _, f := range all {
		found, err := branches(k, f)
		if err != nil {
			return nil, err
		}
		for _, s := range found {
			out[s] = true
		}
	}
	return out, nil
}

// timer is called before and after the timed work, not in it.
const timer = "bpf_ktime_get_ns"

// called are the kernel's functions that a function calls or jumps to.
func called(k *kernel.Kernel, f ksym.Symbol) ([]ksym.Symbol, error) {
	code, err := k.Code(f)
	if err != nil {
		return nil, err
	}
	var out []ksym.Symbol
	for inst := range k.Scan(code, f.Addr) {
		target := inst.Target
		switch {
		case inst.Kind == branch.CallDirect, inst.Kind == branch.JumpDirect:
		case inst.Kind == branch.CallIndirect && k.Arch == "arm64":
			target = branch.ConstantARM64(code, inst.Addr-f.Addr)
		default:
			continue
		}
		s, off, ok := k.Symbols.Find(target)
		if !ok || off != 0 || !s.Text() || s.Size == 0 || s.Name == timer ||
			strings.HasPrefix(s.Name, "__x86_") || branch.ReturnThunk(s.Name) {
			continue
		}
		out = append(out, s)
	}
	return out, nil
}

// apart are the indirect branches that only one of two programs makes.
func apart(k *kernel.Kernel, with, without *ebpf.Program) (onlyWith, onlyWithout []string, err error) {
	a, err := reached(k, with)
	if err != nil {
		return nil, nil, err
	}
	b, err := reached(k, without)
	if err != nil {
		return nil, nil, err
	}
	return lacking(a, b), lacking(b, a), nil
}

// lacking are the members of one set that the other lacks, in order.
func lacking(set, other map[string]bool) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(set)), func(s string) bool { return other[s] })
}

// differ checks the premise of two programs: the first makes an indirect branch that
// the second does not make, and the second none that the first does not make.
func differ(k *kernel.Kernel, with, without *ebpf.Program) (premise string, err error) {
	onlyWith, onlyWithout, err := apart(k, with, without)
	switch {
	case err != nil:
		return "", err
	case len(onlyWithout) > 0:
		return "", refusal("not one branch apart here: the side without it makes " + strings.Join(onlyWithout, ", "))
	case len(onlyWith) == 0:
		return "", errAlreadyDirect
	}
	return strings.Join(onlyWith, ", "), nil
}

// alike checks the premise of a control or a reference: neither program makes an
// indirect branch that the other does not make.
func alike(k *kernel.Kernel, with, without *ebpf.Program) (premise string, err error) {
	onlyWith, onlyWithout, err := apart(k, with, without)
	if err != nil {
		return "", err
	}
	if differing := append(onlyWith, onlyWithout...); len(differing) > 0 {
		return "", refusal("the two sides differ in an indirect branch: " + strings.Join(differing, ", "))
	}
	return "no indirect branch on either side that the other does not have", nil
}

// holds checks that the first of the named functions that this kernel has makes an
// indirect branch.
func holds(k *kernel.Kernel, names []string) (premise string, err error) {
	for _, name := range names {
		f, ok := k.Function(name)
		if !ok {
			continue
		}
		found, err := branches(k, f)
		if err != nil {
			return "", err
		}
		if len(found) == 0 {
			return "", refusal(fmt.Sprintf("already direct here: %s makes no indirect branch", f.Name))
		}
		return strings.Join(found, ", "), nil
	}
	return "", refusal(fmt.Sprintf("this kernel has no %s to look at", strings.Join(names, " or ")))
}
