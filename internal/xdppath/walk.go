package xdppath

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/feature"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/ksym"
	"github.com/unthunk/unthunk/ktext"
)

// Limits of one walk. The path of a driver has a few hundred functions of a
// few hundred bytes.
const (
	maxFunctions = 4000
	maxDepth     = 32       // calls from a root
	maxText      = 16 << 20 // bytes of all functions together
)

// walker is the work of one Walk.
type walker struct {
	kernel  *kernel.Kernel
	types   *types
	values  map[value]*value
	pairs   []opsPair
	objects []object
	keys    map[uint64]uint64
	known   []known // variables without a symbol
	nodes   map[uint64]*node
	queue   []*node
	text    int
	start   uint64 // of the function that flow is in
	returns branch.Returns
}

// node is a function of the call graph.
type node struct {
	name       string
	addr, size uint64
	partial    []string
	depth      int
	decoded    bool
	boundary   bool
	wanted     bool // reached by more than rare code
	// sure is set when it runs as often as per says on every way that is not rare.
	sure     bool
	given    [6]*value
	g        *graph // without its instructions once analyzed
	calls    []call
	sites    []site
	pinned   Per // how often it runs is known
	core     functions.Function
	per      Per
	stage    Stage
	via      []string
	leads    bool // to a program run
	programs int  // loop that runs programs, 0 when none; see loops
	frames   bool // has a loop over frames
}

type call struct {
	to    *node
	block int
	args  [6]*value
}

type site struct {
	branch.Site
	addr   uint64
	symbol ksym.Symbol
	block  int
	val    *value
}

// Walk follows the code from the roots and returns every function and
// indirect branch it comes by. Code that cannot be read makes its function
// partial; only an ended context and types that cannot be read are errors, and a
// [feature.Missing] on a live kernel that is not x86-64 or has no types.
//
// How often a site runs is that of its function, raised by the loops around
// it: what a poll or a bulk loops over are packets. Functions of the XDP core
// have a known rate and keep it. Rare is what lies in cold sections, behind
// warnings, on the way of an error number, or behind a static key that is
// off; functions that only rare code calls are listed, and their calls are
// not followed.
//
// Targets are read for the device that the roots were read from, also where
// the path may run on another device: bq_xmit_all calls the ndo_xdp_xmit of
// whatever the map holds.
func Walk(ctx context.Context, k *kernel.Kernel, roots []Root) (*Inventory, error) {
	if k.Live && runtime.GOARCH != "amd64" {
		return nil, &feature.Missing{Feature: "following code of " + runtime.GOARCH, Help: "an x86-64 machine"}
	}
	types, err := k.Types()
	if err != nil {
		return nil, err
	}
	w := &walker{
		kernel: k, types: newTypes(types), values: make(map[value]*value),
		nodes: make(map[uint64]*node), returns: make(branch.Returns),
	}
	w.readKeys()
	w.findVariables()
	for _, r := range roots {
		for _, o := range r.objects {
			if !slices.Contains(w.objects, o) {
				w.objects = append(w.objects, o)
			}
		}
	}
	for _, r := range roots {
		n := w.node(r.Addr, r.Function)
		if n.pinned == "" || r.Per.Rank() > n.pinned.Rank() {
			n.pinned = r.Per
		}
		if n.stage == "" {
			n.stage = r.Stage
		}
		n.wanted = n.wanted || r.Per != PerRare
		n.boundary = false
		w.queue = append(w.queue, n)
	}
	for len(w.queue) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("walk code: %w", err)
		}
		n := w.queue[0]
		w.queue = w.queue[1:]
		w.visit(n)
	}
	order := w.sorted()
	for _, n := range order {
		if !n.wanted && n.decoded && len(n.calls) > 0 {
			n.partial = append(n.partial, "calls not followed: only rare code calls it")
		}
	}
	w.helpers(order)
	w.rates(order, roots)
	w.ways(order, roots)
	return w.inventory(order, roots), nil
}

// node is the function at addr. name is for one without a symbol.
func (w *walker) node(addr uint64, name string) *node {
	if n, ok := w.nodes[addr]; ok {
		return n
	}
	n := &node{name: name, addr: addr, depth: -1}
	if s, off, ok := w.kernel.Symbols.Find(addr); ok {
		n.name, n.size = s.Name, s.Size-off
		if s.Size == 0 {
			n.size = 4096 - addr&4095
		}
		if off != 0 {
			n.name = fmt.Sprintf("%s+%#x", s.Name, off)
		}
	} else {
		n.partial = append(n.partial, "no symbol tells where it ends")
		if n.name == "" {
			n.name = fmt.Sprintf("%#x", addr)
		}
		// The dispatcher's page keeps code of earlier updates, which jumps to
		// programs that are gone.
		if w.kernel.Live {
			n.boundary = true
			n.partial = []string{"not followed: a program that was in the dispatcher"}
		}
	}
	why := functions.Limit(n.name)
	if program(n.name) {
		// The dispatcher leads to the programs of all devices.
		why = "a program of another device"
	}
	if why != "" {
		n.boundary = true
		n.partial = append(n.partial, "not followed: "+why)
	}
	if f, ok := rootOf(n.name); ok {
		n.core, n.pinned, n.stage = f, f.Per, rootStage(f)
	}
	w.nodes[addr] = n
	return n
}

// visit decodes a function once, and queues what it calls.
func (w *walker) visit(n *node) {
	if n.boundary {
		n.partial = n.partial[:1]
		return
	}
	if n.depth < 0 {
		n.depth = 0
	}
	if !n.decoded {
		n.decoded = true
		n.partial = slices.DeleteFunc(n.partial, func(s string) bool { return strings.HasPrefix(s, "not followed") })
		w.analyze(n)
	}
	if !n.wanted {
		return
	}
	for _, c := range n.calls {
		hot := n.g.blocks[c.block].hot
		first := c.to.depth < 0
		if first {
			c.to.depth, c.to.given = n.depth+1, c.args
			if len(w.nodes) > maxFunctions || c.to.depth > maxDepth || w.text > maxText {
				c.to.partial = append(c.to.partial, "not followed: the walk has come to its limits")
				c.to.boundary = true
			}
		}
		if first || hot && !c.to.wanted {
			c.to.wanted = c.to.wanted || hot
			w.queue = append(w.queue, c.to)
		}
	}
}

// program tells BPF programs by their symbols.
func program(name string) bool { return strings.HasPrefix(name, "bpf_prog_") }

// helpers raises helpers that are called by a program of the path: the verifier mostly
// puts a map's own function in their place.
func (w *walker) helpers(order []*node) {
	for _, n := range order {
		if !program(n.name) {
			continue
		}
		for _, c := range n.calls {
			if c.to.core.Inlined {
				c.to.pinned, c.to.wanted = PerPacket, true
			}
		}
	}
}

// symbol is the name of the function that begins at addr, or "".
func (w *walker) symbol(addr uint64) string {
	name, ok := w.kernel.Symbols.Starts(addr)
	if !ok {
		return ""
	}
	return name
}

// part is a run of code of one function.
type part struct {
	addr uint64
	code []byte
}

func (p part) has(addr uint64) bool { return addr-p.addr < uint64(len(p.code)) }

// bytes reads a function's code.
func (w *walker) bytes(f ksym.Symbol) ([]byte, error) {
	code, err := w.kernel.Code(f)
	w.text += len(code)
	return code, err
}

// analyze fills a node from its code.
func (w *walker) analyze(n *node) {
	s, _, _ := w.kernel.Symbols.Find(n.addr)
	code, err := w.bytes(ksym.Symbol{Addr: n.addr, Size: cmp.Or(n.size, 64), Module: s.Module})
	if err != nil {
		n.partial = append(n.partial, "not read: "+err.Error())
		return
	}
	if n.size > kernel.MaxFunction && len(code) == kernel.MaxFunction {
		n.partial = append(n.partial, fmt.Sprintf("only its first %d bytes were decoded", len(code)))
	}
	parts := []part{{n.addr, code}}
	insts := slices.Collect(branch.Decode(code, n.addr))
	// The cold part is another symbol.
	for i := 0; i < len(insts); i++ {
		inst := insts[i]
		if inst.Kind != branch.JumpDirect && inst.Kind != branch.JumpCond ||
			slices.ContainsFunc(parts, func(p part) bool { return p.has(inst.Target) }) {
			continue
		}
		s, _, ok := w.kernel.Symbols.Find(inst.Target)
		if !ok || !coldName(s.Name, n.name) || s.Size == 0 || len(parts) > 8 {
			continue
		}
		cold, err := w.bytes(s)
		if err != nil {
			n.partial = append(n.partial, s.Name+" not read: "+err.Error())
			continue
		}
		parts = append(parts, part{s.Addr, cold})
		insts = slices.AppendSeq(insts, branch.Decode(cold, s.Addr))
	}
	slices.SortFunc(insts, func(a, b branch.Inst) int { return cmp.Compare(a.Addr, b.Addr) })
	in := func(addr uint64) bool {
		return slices.ContainsFunc(parts, func(p part) bool { return p.has(addr) })
	}
	leaves := func(addr uint64) bool { return !in(addr) }
	g := newGraph(insts, n.addr, shapes{
		leaves:    leaves,
		cold:      func(addr uint64) bool { return leaves(addr) && rareCall(w.symbol(addr)) },
		dead:      func(addr uint64) bool { return leaves(addr) && functions.Has(w.symbol(addr), functions.NoReturn) },
		outOfLine: func(addr uint64) bool { return !parts[0].has(addr) },
		key: func(addr uint64) (uint64, bool) {
			to, ok := w.keys[addr]
			return to, ok
		},
	})
	n.g = g
	w.shapeNotes(n)
	found := w.findSites(parts, insts, in)
	settled := w.flow(g, w.entry(n.name, n.given), func(b, i int, s *state) {
		inst := insts[i]
		if st, ok := found[inst.Addr]; ok {
			st.block, st.addr = b, inst.Addr
			st.val = w.target(s, inst, st.Site)
			st.symbol, _, _ = w.kernel.Symbols.Find(inst.Addr)
			n.sites = append(n.sites, st)
			if inst.Kind == branch.JumpIndirect && st.Kind == branch.SiteMemory {
				n.partial = append(n.partial, fmt.Sprintf("the switch at +%#x is not followed", inst.Addr-n.addr))
			}
			return
		}
		switch inst.Kind {
		case branch.CallDirect, branch.JumpDirect, branch.JumpCond:
			if inst.Kind != branch.CallDirect && !leaves(inst.Target) || thunkSymbol(w.symbol(inst.Target)) {
				return
			}
			if inst.Kind == branch.CallDirect && !leaves(inst.Target) && inst.Target != n.addr {
				return // call over a trap, call to get the address
			}
			c := call{to: w.node(inst.Target, ""), block: b}
			if program(n.name) && program(c.to.name) { // its own functions
				c.to.boundary = false
			}
			for a, r := range arguments {
				if v := s.regs[r]; v != nil && v.elem != nil {
					c.args[a] = v
				}
			}
			n.calls = append(n.calls, c)
		}
	})
	if !settled {
		n.partial = append(n.partial, "its values were not followed: too large")
	}
	g.insts, g.starts = nil, nil
}

// shapeNotes says what of the control flow was not understood.
func (w *walker) shapeNotes(n *node) {
	if n.g.bad != 0 {
		n.partial = append(n.partial, fmt.Sprintf("a byte at +%#x does not decode", n.g.bad-n.addr))
	}
	if n.g.runsOff {
		n.partial = append(n.partial, "runs on after the end of its symbol")
	}
}

// findSites are the indirect branches of a function by address. Its returns
// are counted too.
func (w *walker) findSites(parts []part, insts []branch.Inst, in func(uint64) bool) map[uint64]site {
	suspect := false
	for _, inst := range insts {
		switch inst.Kind {
		case branch.CallIndirect, branch.JumpIndirect:
			suspect = true
		case branch.Return:
			w.returns["ret"]++
		case branch.CallDirect, branch.JumpDirect, branch.JumpCond:
			if in(inst.Target) {
				continue
			}
			name := w.symbol(inst.Target)
			if inst.Kind != branch.CallDirect && branch.ReturnThunk(name) {
				w.returns[name]++
			}
			suspect = suspect || name == "" || strings.HasPrefix(name, "__x86_indirect_")
		}
	}
	if !suspect {
		return nil
	}
	out := make(map[uint64]site)
	for _, p := range parts {
		sites, _ := branch.Sites(p.code, p.addr, w.kernel.Symbols.Starts, w.kernel.Follow)
		for _, s := range sites {
			out[p.addr+s.Offset] = site{Site: s}
		}
	}
	return out
}

// target is what the register or memory operand of a site holds.
func (w *walker) target(s *state, inst branch.Inst, st branch.Site) *value {
	if inst.Kind == branch.CallIndirect || inst.Kind == branch.JumpIndirect {
		return w.read(s, inst.Asm.Args[0], inst)
	}
	name := ""
	if i := strings.LastIndexByte(st.Thunk, '_'); i >= 0 {
		name = st.Thunk[i+1:]
	}
	if st.Thunk == "" {
		name = branch.NameIndirectThunk(w.kernel.Follow(st.Target), st.Target, w.kernel.Symbols.Starts).Register
	}
	r := slices.Index(registerNames[:], name)
	if r < 0 {
		return nil
	}
	return s.regs[r]
}

var registerNames = [registers]string{
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
}

// sorted are all nodes that were reached, by address.
func (w *walker) sorted() []*node {
	var out []*node
	for _, n := range w.nodes {
		if n.depth >= 0 {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b *node) int { return cmp.Compare(a.addr, b.addr) })
	return out
}

// readKeys reads the table of static keys, which tells where the nop of a key
// that is off would jump to. Kernels that have none, or hide it, do without.
// It is __jump_table of Linux 4.20 and later: two 32-bit distances, of the
// code and of its target, and a 64-bit one of the key.
func (w *walker) readKeys() {
	start, ok1 := w.kernel.Symbols.Lookup("__start___jump_table")
	stop, ok2 := w.kernel.Symbols.Lookup("__stop___jump_table")
	if !ok1 || !ok2 || stop.Addr <= start.Addr || stop.Addr-start.Addr > 4<<20 {
		return
	}
	b := make([]byte, (stop.Addr-start.Addr)/16*16)
	if w.kernel.Text.ReadAddr(b, start.Addr) != nil {
		return
	}
	w.keys = make(map[uint64]uint64, len(b)/16)
	for i := 0; i < len(b); i += 16 {
		at := start.Addr + uint64(i)
		code := at + uint64(int64(int32(binary.LittleEndian.Uint32(b[i:]))))
		target := at + 4 + uint64(int64(int32(binary.LittleEndian.Uint32(b[i+4:]))))
		w.keys[code] = target
	}
}

// known is a variable that was found from code that uses it.
type known struct {
	name string
	addr uint64
	size uint64
}

// findVariables finds data that a kernel without CONFIG_KALLSYMS_ALL has no
// symbols of: where per-CPU data begins, from bpf_get_current_task, which
// does nothing but load current_task; and softirq_vec, from open_softirq,
// which does nothing but store into it.
func (w *walker) findVariables() {
	if w.types.spec == nil {
		return
	}
	w.types.readPerCPU()
	current := int64(-1)
	for _, v := range w.types.perCPU.vars {
		switch v.name {
		case "current_task", "const_current_task":
			current = v.off
		case "pcpu_hot": // Linux 6.2 to 6.14; current_task is its first member
			current = v.off
		}
	}
	if s, ok := w.kernel.Symbols.Lookup("__per_cpu_start"); ok {
		w.types.perCPU.base = s.Addr
	} else if inst, m, ok := w.memoryOperand("bpf_get_current_task"); ok && m.Segment == x86asm.GS && current >= 0 {
		addr := uint64(m.Disp)
		if m.Base == x86asm.RIP {
			addr += inst.Addr + uint64(inst.Len)
		}
		w.types.perCPU.base = addr - uint64(current)
	}
	if _, ok := w.kernel.Symbols.Lookup("softirq_vec"); !ok {
		if _, m, ok := w.memoryOperand("open_softirq"); ok && m.Base == 0 && m.Index != 0 && m.Scale == 8 {
			if size := w.types.size(w.types.variable("softirq_vec")); size > 0 {
				w.known = append(w.known, known{"softirq_vec", uint64(int64(int32(m.Disp))), uint64(size)})
			}
		}
	}
}

// memoryOperand is the first memory operand of a short function.
func (w *walker) memoryOperand(name string) (branch.Inst, x86asm.Mem, bool) {
	s, ok := w.kernel.Symbols.Lookup(name)
	if !ok || !s.Text() {
		return branch.Inst{}, x86asm.Mem{}, false
	}
	b, err := w.bytes(ksym.Symbol{Addr: s.Addr, Size: min(s.Size, 64)})
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

// readWord reads a little-endian number of at most 8 bytes.
func readWord(src ktext.Source, addr uint64, size int) (uint64, error) {
	var b [8]byte
	if err := src.ReadAddr(b[:size], addr); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}
