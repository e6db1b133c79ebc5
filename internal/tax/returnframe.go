package tax

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/internal/record"
)

// returnFrame has no price: where frames are returned in bulk, nothing virtual runs.
// The row says what this kernel's code shows of it.
type returnFrame struct{}

func (returnFrame) complete(*Raw, *rawPair, *record.TaxRow) []string { return nil }

// inspect always refuses.
func (returnFrame) inspect(k *kernel.Kernel) (string, error) {
	known, err := readFrameReturns(k)
	if err != nil {
		return "", err
	}
	return "", refusal("cannot be isolated: " + known.String())
}

// frameReturns is what kernel code shows of returning frames.
type frameReturns struct {
	// direct are functions that return frames without an indirect branch;
	// indirect are the branches of the others.
	direct, indirect []string
	// single are functions that a virtual device runs and that return frames
	// one by one.
	single []string
	// bulk are functions built into the kernel that return frames in bulk.
	bulk []string
}

func readFrameReturns(k *kernel.Kernel) (known frameReturns, err error) {
	for _, name := range functions.Names(functions.Returns) {
		f, ok := k.Function(name)
		if !ok {
			continue
		}
		found, err := branches(k, f)
		if err != nil {
			return known, err
		}
		known.indirect = append(known.indirect, found...)
		if len(found) == 0 {
			known.direct = append(known.direct, name)
		}
	}
	one, bulk := functions.Names(functions.ReturnsOne), functions.Names(functions.ReturnsBulk)
	callers, err := callersOf(k, slices.Concat(one, bulk)...)
	if err != nil {
		return known, err
	}
	for _, name := range bulk {
		known.bulk = append(known.bulk, callers[name]...)
	}
	for _, name := range one {
		for _, caller := range callers[name] {
			if functions.Has(caller, functions.Drops) {
				known.single = append(known.single, caller)
			}
		}
	}
	slices.Sort(known.single)
	return known, nil
}

// callersOf are the kernel's functions that call or jump to each of the named ones,
// modules left out, by their names in the source.
func callersOf(k *kernel.Kernel, names ...string) (map[string][]string, error) {
	targets := make(map[uint64]string)
	for _, name := range names {
		if f, ok := k.Function(name); ok {
			targets[f.Addr] = name
		}
	}
	code, addr, err := k.AllText()
	if err != nil {
		return nil, fmt.Errorf("find callers of %s: %w", strings.Join(names, ", "), err)
	}
	callers := make(map[string][]string)
	found := func(at, target uint64) {
		name, ok := targets[target]
		if !ok {
			return
		}
		if s, _, ok := k.Symbols.Find(at); ok {
			callers[name] = append(callers[name], functions.Source(s.Name))
		}
	}
	if k.Arch == "arm64" {
		for step := range branch.ScanARM64(code, addr) {
			if step.Kind == branch.CallDirect || step.Kind == branch.JumpDirect {
				found(step.Addr, step.Target)
			}
		}
	}
	for i := 0; k.Arch != "arm64" && i+5 <= len(code); i++ {
		if code[i] == 0xe8 || code[i] == 0xe9 { // call, jmp
			at := addr + uint64(i)
			found(at, at+5+uint64(int64(int32(binary.LittleEndian.Uint32(code[i+1:])))))
		}
	}
	for name, found := range callers {
		slices.Sort(found)
		callers[name] = slices.Compact(found)
	}
	return callers, nil
}

func (r frameReturns) String() string {
	var clauses []string
	say := func(format string, names []string) {
		clauses = append(clauses, fmt.Sprintf(format, strings.Join(names, ", ")))
	}
	switch {
	case len(r.indirect) > 0:
		say("indirect: %s", r.indirect)
	case len(r.direct) > 0:
		say("already direct here: %s make no indirect branch", r.direct)
	}
	if len(r.single) > 0 {
		say("%s (refused by the target, dropped at the sink, cpumap) all return frames one by one", r.single)
	}
	if len(r.bulk) == 0 {
		clauses = append(clauses, "no function built into this kernel calls xdp_return_frame_bulk")
	} else {
		say("only these call xdp_return_frame_bulk, and no virtual device runs them: %s", r.bulk)
	}
	return strings.Join(clauses, "; ")
}
