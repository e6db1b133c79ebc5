// Package gobin reads the machine code of Go programs: which branches a function
// has, and which functions it reaches by direct calls.
package gobin

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/branch"
)

// Retpolines are the go command's options that build everything with retpolines
// (cmd/compile and cmd/asm -spectre=ret, since Go 1.15; amd64 only). One assembler
// file of the garbage collector cannot be built that way and is left out
// (golang/go#77420, Go 1.26).
func Retpolines() []string {
	return []string{"-gcflags=all=-spectre=ret", "-asmflags=all=-spectre=ret", "-asmflags=internal/runtime/gc/scan="}
}

// BuildTest builds the test binary of a package, with further options of the go
// command, -C first, to the file named.
func BuildTest(file, pkg string, options ...string) error {
	cmd := exec.Command("go", slices.Concat([]string{"test"}, options, []string{"-c", "-o", file, pkg})...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build tests of %s: %w: %s", pkg, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Text is the code of an x86-64 program with its symbols.
type Text struct {
	code    []byte
	addr    uint64
	symbols []elf.Symbol // of functions, by address
}

// Open reads an ELF file that has symbols.
func Open(file string) (*Text, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	defer f.Close()
	section := f.Section(".text")
	if section == nil || f.Machine != elf.EM_X86_64 {
		return nil, fmt.Errorf("read program: %s has no x86-64 code", file)
	}
	t := &Text{addr: section.Addr}
	if t.code, err = section.Data(); err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	symbols, err := f.Symbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, fmt.Errorf("read program: %w", err)
	}
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Value >= t.addr && s.Value-t.addr < uint64(len(t.code)) {
			t.symbols = append(t.symbols, s)
		}
	}
	slices.SortStableFunc(t.symbols, func(a, b elf.Symbol) int { return cmp.Compare(a.Value, b.Value) })
	return t, nil
}

// Names lists the functions whose name begins with prefix, by address.
func (t *Text) Names(prefix string) []string {
	var names []string
	for _, s := range t.symbols {
		if strings.HasPrefix(s.Name, prefix) {
			names = append(names, s.Name)
		}
	}
	return names
}

// Code is a function's code and address.
func (t *Text) Code(name string) ([]byte, uint64, error) {
	for _, s := range t.symbols {
		if s.Name == name {
			from := s.Value - t.addr
			return t.code[from:min(from+s.Size, uint64(len(t.code)))], s.Value, nil
		}
	}
	return nil, 0, fmt.Errorf("program has no function %s", name)
}

// Name names the function that begins at an address.
func (t *Text) Name(addr uint64) (string, bool) {
	i, ok := slices.BinarySearchFunc(t.symbols, addr, func(s elf.Symbol, a uint64) int { return cmp.Compare(s.Value, a) })
	if !ok {
		return "", false
	}
	return t.symbols[i].Name, true
}

// ThunkPrefix is what the names of Go's retpoline thunks begin with
// (runtime/asm_amd64.s).
const ThunkPrefix = "runtime.retpoline"

// Calls are the indirect branches of functions.
type Calls struct {
	// Thunks go through a retpoline, Bare do not; each is "function: instruction".
	Thunks, Bare []string
	// Direct are the functions called directly, each once.
	Direct []string
}

// Calls finds the indirect calls and jumps of one function.
func (t *Text) Calls(name string) (Calls, error) {
	var c Calls
	code, addr, err := t.Code(name)
	if err != nil {
		return c, err
	}
	for inst := range branch.Decode(code, addr) {
		switch inst.Kind {
		case branch.Bad:
			return c, fmt.Errorf("decode %s: no instruction at %#x", name, inst.Addr)
		case branch.CallIndirect, branch.JumpIndirect:
			c.Bare = append(c.Bare, name+": "+inst.Text(t.Name))
		case branch.CallDirect, branch.JumpDirect, branch.JumpCond:
			if inst.Target >= addr && inst.Target < addr+uint64(len(code)) {
				continue
			}
			to, ok := t.Name(inst.Target)
			switch {
			case !ok:
				return c, fmt.Errorf("decode %s: no function begins at %#x", name, inst.Target)
			case strings.HasPrefix(to, ThunkPrefix):
				c.Thunks = append(c.Thunks, name+": "+inst.Text(t.Name))
			case !slices.Contains(c.Direct, to):
				c.Direct = append(c.Direct, to)
			}
		}
	}
	return c, nil
}

// Reach finds the indirect branches of functions and of all that they call directly,
// except for those that leave says to leave out. Direct holds all functions reached, the
// first ones too.
func (t *Text) Reach(leave func(name string) bool, names ...string) (Calls, error) {
	var all Calls
	all.Direct = slices.Clone(names)
	for i := 0; i < len(all.Direct); i++ {
		c, err := t.Calls(all.Direct[i])
		if err != nil {
			return all, err
		}
		all.Thunks = append(all.Thunks, c.Thunks...)
		all.Bare = append(all.Bare, c.Bare...)
		for _, to := range c.Direct {
			if !slices.Contains(all.Direct, to) && (leave == nil || !leave(to)) {
				all.Direct = append(all.Direct, to)
			}
		}
	}
	return all, nil
}

// ThunkCalls counts the calls and jumps to retpoline thunks in all of the program.
func (t *Text) ThunkCalls() int {
	n := 0
	for step := range branch.Scan(t.code, t.addr) {
		if step.Kind != branch.CallDirect && step.Kind != branch.JumpDirect {
			continue
		}
		if to, ok := t.Name(step.Target); ok && strings.HasPrefix(to, ThunkPrefix) {
			n++
		}
	}
	return n
}

// Cold tells whether a function of the runtime is only called when a program panics
// or a stack grows: what a hot loop holds for the case, but never calls.
func Cold(name string) bool {
	return strings.HasPrefix(name, "runtime.panic") || strings.HasPrefix(name, "runtime.morestack") ||
		strings.HasPrefix(name, "runtime.gcWriteBarrier") || name == "runtime.gopanic" || name == "runtime.throw"
}
