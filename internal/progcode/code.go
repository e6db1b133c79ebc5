package progcode

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/record"
)

// Code is what was read of a program.
type Code struct {
	// Name, ID and Tag are what the kernel says of it.
	Name string
	ID   ebpf.ProgramID
	Tag  string
	Type ebpf.ProgramType
	// Xlated is how many BPF instructions the verifier left, Native how many bytes the JIT
	// made of them.
	Xlated, Native int
	// Programs is how many this is the code of: more than 1 after [Code.Add].
	Programs  int
	Functions []Function
	Maps      []Map
	// Sites are in the order of the code.
	Sites []Site
	// Unpaired is how many stretches of machine code, between two lines of the source,
	// could not be paired with BPF instructions: what is looked into there is not known.
	// Unseen says why nothing could be.
	Unpaired int
	Unseen   string
	// Hidden says what the kernel does not show for want of rights; empty for nothing.
	Hidden string
	// Returns counts the returns by the thunk that they jump to, "ret" for bare ones.
	Returns branch.Returns

	kernel     *kernel.Kernel
	dispatcher *record.ProgXrayDispatcher // nil where there is none
}

// Function is one function of a program.
type Function struct {
	// Name is that of the source, or "program" and "function N" without BTF.
	Name string
	Addr uint64
	Code []byte
	// Lines say where machine code of a line of the source begins, in order; none without
	// BTF.
	Lines []Line
}

// Line is a place in the source.
type Line struct {
	// Offset is where its machine code begins, in bytes from the function's start.
	Offset uint64
	File   string
	Number int
	Column int
	Text   string
}

// Map is a map of a program.
type Map struct {
	ID         ebpf.MapID
	Name       string
	Type       ebpf.MapType
	MaxEntries uint32
	// Programs are the names of those in a table for tail calls, Filled how many of its
	// entries have one; of at most the first [maxEntries] entries.
	Programs []string
	Filled   int

	// entries are the names of programs by their index, targets the programs.
	entries map[int64]string
	targets []ebpf.ProgramID
}

// holdsMaps tells whether its elements are maps.
func (m *Map) holdsMaps() bool { return m.Type == ebpf.ArrayOfMaps || m.Type == ebpf.HashOfMaps }

// Kind is what happens at a place.
type Kind string

const (
	KindTailCall   Kind = "tail-call"
	KindJumpTable  Kind = "jump-table"
	KindLookup     Kind = "lookup"
	KindUpdate     Kind = "update" // of a map: update, delete, push, pop
	KindRedirect   Kind = "redirect"
	KindCallback   Kind = "callback"
	KindHelper     Kind = "helper"
	KindKfunc      Kind = "kfunc"
	KindSubprogram Kind = "subprogram"
	// KindAttached is a trampoline at the entry of a function (fentry, fexit), KindReplaced
	// another program in its place (freplace), as a part of a libxdp dispatcher is.
	KindAttached Kind = "attached"
	KindReplaced Kind = "replaced"
	// KindOther is an indirect branch that is paired with no BPF instruction.
	KindOther Kind = "indirect"
)

// How a site is made that has no branch.
const (
	// Inline is a lookup for which nothing is called.
	Inline = "inline"
	// Empty is a tail call to an entry of the table that has no program.
	Empty = "empty"
)

// Site is one place in the code of a program where something is called, jumped to or
// looked up.
type Site struct {
	// Function is its number in [Code.Functions]. Offset is in bytes from the function's
	// start, -1 where no branch stands: an inlined lookup, a tail call of an empty entry.
	Function int
	Offset   int64
	Kind     Kind
	// Made is the class of the branch, as of package branch, [Inline] or [Empty].
	Made string
	// Indirect is set for an indirect branch, through a thunk or not.
	Indirect bool
	// Calls is the function, Thunk what an indirect branch goes through.
	Calls, Thunk string
	// Within is how many indirect branches the called function has in its own code; it may
	// run fewer of them.
	Within int
	// Maps are the numbers of those that it may look into, Inner the numbers of maps whose
	// elements it may look into. Both are nil where that is not known.
	Maps, Inner []int
	// Generic is set for a helper that looks into any map, by the map's own function.
	Generic bool
	// Index is the constant index of a tail call.
	Index *int64
	// Line is where it comes from, nil where that is not known.
	Line *Line

	raw int
}

// lineInfo is where a line of the source begins in both forms of a program.
type lineInfo struct {
	raw  int
	addr uint64
	Line
}

// Read reads the code of a program, whose symbols the kernel must have: [kernel.Kernel.Renew]
// after it was loaded.
//
// It returns a [feature.Missing] where the JIT is off, where the kernel hides its addresses,
// and on another architecture than x86-64 and arm64. Which map is looked into needs CAP_SYS_ADMIN.
func Read(k *kernel.Kernel, p *ebpf.Program) (*Code, error) {
	if err := k.CheckArch("reading programs' code"); err != nil {
		return nil, err
	}
	info, err := kernel.ProgramInfo(p)
	if err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	c := &Code{Name: info.Name, Tag: info.Tag, Type: info.Type, Programs: 1, Returns: make(branch.Returns), kernel: k}
	c.ID, _ = info.ID()
	if err := c.readFunctions(info); err != nil {
		return nil, err
	}
	x, err := c.readXlated(info)
	if err != nil {
		c.Unseen = err.Error()
	}
	lines := c.readLines(info)
	if id, ok := info.BTFID(); ok && lines == nil {
		if h, err := btf.NewHandleFromID(id); errors.Is(err, fs.ErrPermission) {
			c.Hidden = "names of maps and lines of the source: CAP_SYS_ADMIN is missing"
		} else if err == nil {
			h.Close()
		}
	}
	if err := c.readMaps(info); err != nil {
		return nil, err
	}
	if err := c.readSites(x, lines); err != nil {
		return nil, err
	}
	if err := c.readDispatcher(); err != nil {
		return nil, err
	}
	return c, nil
}

// readFunctions reads the machine code.
func (c *Code) readFunctions(info *ebpf.ProgramInfo) error {
	code, _ := info.JitedInsns()
	addrs, _ := info.JitedKsymAddrs()
	lens, _ := info.JitedFuncLens()
	size, errSize := info.JitedSize()
	switch {
	case errSize != nil:
		return &feature.Missing{
			Feature: "machine code of " + c.label(), Help: "it is interpreted: the JIT was off when it was loaded (net.core.bpf_jit_enable)",
		}
	case len(code) == 0 || len(addrs) == 0 || slices.Contains(addrs, 0):
		return &feature.Missing{
			Feature: "machine code of " + c.label(),
			Help:    "the kernel hides it with its addresses: that takes CAP_SYSLOG, and kernel.kptr_restrict below 2",
		}
	case len(addrs) != len(lens):
		return fmt.Errorf("read program: %d functions have %d lengths", len(addrs), len(lens))
	}
	c.Native = int(size)
	for i, n := range lens {
		if int(n) > len(code) {
			return errors.New("read program: its functions are longer than its code")
		}
		name := "program"
		if i > 0 {
			name = fmt.Sprintf("function %d", i)
		}
		c.Functions = append(c.Functions, Function{Name: name, Addr: uint64(addrs[i]), Code: code[:n]})
		code = code[n:]
	}
	return nil
}

// label is how a sentence speaks of the program.
func (c *Code) label() string {
	return strings.TrimSpace(fmt.Sprintf("program %s (id %d)", c.Name, c.ID))
}

// readXlated reads the BPF instructions and names the functions.
func (c *Code) readXlated(info *ebpf.ProgramInfo) (*xlated, error) {
	insns, err := kernel.Instructions(info)
	if err != nil {
		return nil, fmt.Errorf("its BPF instructions cannot be read: %w", err)
	}
	var (
		starts []int
		names  []string
	)
	if functions, err := kernel.FuncInfos(info); err == nil && len(functions) == len(c.Functions) {
		for i, f := range functions {
			starts, names = append(starts, int(f.Offset)), append(names, f.Func.Name)
			c.Functions[i].Name = f.Func.Name
		}
	}
	for i := range insns {
		c.Xlated += int(insns[i].Width())
	}
	return newXlated(insns, starts, names, len(c.Functions))
}

// readLines pairs the lines of the source with the addresses of their machine code.
func (c *Code) readLines(info *ebpf.ProgramInfo) (out []lineInfo) {
	lines, err := kernel.Lines(info)
	addrs, ok := info.JitedLineInfos()
	if err != nil || !ok || len(addrs) != len(lines) {
		return nil
	}
	for i, l := range lines {
		li := lineInfo{raw: int(l.Offset), addr: addrs[i], Line: Line{
			File: l.File, Number: l.Number, Column: l.Column, Text: strings.TrimSpace(l.Text),
		}}
		if li.Number == 0 { // the compiler's own
			continue
		}
		f := slices.IndexFunc(c.Functions, func(f Function) bool { return li.addr-f.Addr < uint64(len(f.Code)) })
		if f < 0 {
			continue
		}
		li.Offset = li.addr - c.Functions[f].Addr
		c.Functions[f].Lines = append(c.Functions[f].Lines, li.Line)
		out = append(out, li)
	}
	return out
}

// line is the one that an address of a function comes from.
func (f *Function) line(offset uint64) *Line {
	n, found := slices.BinarySearchFunc(f.Lines, offset, func(l Line, at uint64) int { return cmp.Compare(l.Offset, at) })
	if !found {
		n--
	}
	if n < 0 {
		return nil
	}
	return &f.Lines[n]
}
