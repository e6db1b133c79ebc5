package profile

import (
	"slices"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/bpf/chain"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
)

// Annotated is the code of a function with what its instructions take.
type Annotated struct {
	Name  string
	Lines []branch.Line
	// Ns are ns per packet by address, Total their sum. An instruction without a
	// sample has none.
	Ns    map[uint64]float64
	Total float64
}

// Annotate reads the code of a function of the kernel, or of a sampled BPF program by
// its symbol or its own name.
func (raw *Raw) Annotate(k *kernel.Kernel, name string) (*Annotated, error) {
	if symbol := raw.programNamed(name); symbol != "" {
		name = symbol
	}
	code, sampled := raw.Code[name]
	if !sampled { // no program, whose code went with it
		f, bytes, err := k.ReadFunction(name)
		if err != nil {
			return nil, err
		}
		name, code = f.Name, Code{f.Addr, bytes}
	}
	a := &Annotated{
		Name: name, Ns: make(map[uint64]float64),
		Lines: slices.Collect(k.Annotated(code.Bytes, code.Addr)),
	}
	for offset, ns := range raw.instructions(name) {
		a.Ns[code.Addr+offset] = ns
		a.Total += ns
	}
	return a, nil
}

// CheckFunction returns an error in one line when there can be no code to show by a name:
// it is neither a function of the kernel nor a BPF program that is loaded or that a run
// loads.
func CheckFunction(k *kernel.Kernel, name string) error {
	_, _, err := k.ReadFunction(name)
	if err == nil {
		return nil
	}
	own, errOwn := chain.Names()
	if errOwn != nil {
		return errOwn
	}
	if slices.Contains(own, name) {
		return nil
	}
	for _, s := range k.Symbols.Module("bpf") {
		if programName(s.Name) == name {
			return nil
		}
	}
	return err
}

// programNamed is the symbol of a sampled BPF program by its own name, "" when there
// is none.
func (raw *Raw) programNamed(name string) string {
	for symbol := range raw.Code {
		if own := programName(symbol); own == name || len(name) > maxProgramName && own == name[:maxProgramName] {
			return symbol
		}
	}
	return ""
}

// maxProgramName is how much of a BPF program's name the kernel keeps (BPF_OBJ_NAME_LEN
// less the end of the string).
const maxProgramName = 15

// programName is a BPF program's own name by its symbol: bpf_prog_, the tag, _, the name.
// It is empty for other symbols.
func programName(symbol string) string {
	if !isProgram(symbol) {
		return ""
	}
	return functions.Program(symbol)
}
