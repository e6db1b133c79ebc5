package xdppath

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/codeflow"
	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/kernel/functions"
	"github.com/unthunk/unthunk/ksym"
)

// symbol is the name of the function that begins at addr, or "".
func (w *walker) symbol(addr uint64) string {
	name, ok := w.kernel.Symbols.Starts(addr)
	if !ok {
		return ""
	}
	return name
}

// piece is code of a function that lies together. The compiler puts what is rare
// into a piece of its own, which has another symbol.
type piece struct {
	addr uint64
	code []byte
}

// pieces are those of one function, its cold ones behind the first.
type pieces []piece

func (p pieces) has(addr uint64) bool {
	return slices.ContainsFunc(p, func(p piece) bool { return p.has(addr) })
}

func (p piece) has(addr uint64) bool { return addr-p.addr < uint64(len(p.code)) }

// bytes reads a function's code.
func (w *walker) bytes(f ksym.Symbol) ([]byte, error) {
	code, err := w.kernel.Code(f)
	w.text += len(code)
	return code, err
}

// read fills a node from its code: its graph, what it calls, its indirect branches.
func (w *walker) read(n *node) {
	code, insts := w.decode(n)
	if code == nil {
		return
	}
	leaves := func(addr uint64) bool { return !code.has(addr) }
	n.graph = codeflow.NewGraph(insts, n.addr, codeflow.Knowledge{
		Leaves:    leaves,
		Cold:      func(addr uint64) bool { return leaves(addr) && rareCall(w.symbol(addr)) },
		Dead:      func(addr uint64) bool { return leaves(addr) && functions.Has(w.symbol(addr), functions.NoReturn) },
		OutOfLine: func(addr uint64) bool { return !code[0].has(addr) },
		Keys:      w.keys,
	})
	if n.graph.Bad != 0 {
		n.note("a byte at +%#x does not decode", n.graph.Bad-n.addr)
	}
	if n.graph.RunsOff {
		n.note("runs on after the end of its symbol")
	}
	sites := w.findSites(code, insts)
	// What a check of FineIBT leaves in the register is not the function.
	checked, held := make(map[uint64]uint64), make(map[uint64]*codeflow.Value)
	for addr, s := range sites {
		if s.Check != branch.CheckNone {
			checked[addr-s.CheckLen] = addr
		}
	}
	entry := w.values.Entry(n.name, n.module, n.given)
	settled := w.values.Flow(n.graph, entry, func(block int, inst branch.Inst, s *codeflow.State) {
		if addr, ok := checked[inst.Addr]; ok {
			held[addr] = s.Register(sites[addr].Register)
		}
		if found, ok := sites[inst.Addr]; ok {
			target := s.Register(found.Register)
			if found.Check != branch.CheckNone {
				target = held[inst.Addr]
			}
			w.addSite(n, found, block, inst, s, target)
		} else {
			w.addCall(n, code, block, inst, s)
		}
	})
	if !settled {
		n.note("its values were not followed: too large")
	}
	n.graph.DropInstructions()
}

// note adds a reason why the function is not known whole.
func (n *node) note(format string, args ...any) {
	n.partial = append(n.partial, fmt.Sprintf(format, args...))
}

// decode reads a function's pieces and their instructions, which it sorts by
// address. The pieces are nil when the code cannot be read.
func (w *walker) decode(n *node) (pieces, []branch.Inst) {
	s, _, _ := w.kernel.Symbols.Find(n.addr)
	code, err := w.bytes(ksym.Symbol{Addr: n.addr, Size: cmp.Or(n.size, 64), Module: s.Module})
	if err != nil {
		n.note("not read: %v", err)
		return nil, nil
	}
	if n.size > kernel.MaxFunction && len(code) == kernel.MaxFunction {
		n.note("only its first %d bytes were decoded", len(code))
	}
	out := pieces{{n.addr, code}}
	insts := instructions(w.kernel, code, n.addr)
	for i := 0; i < len(insts); i++ {
		inst := insts[i]
		if inst.Kind != branch.JumpDirect && inst.Kind != branch.JumpCond || out.has(inst.Target) {
			continue
		}
		s, _, ok := w.kernel.Symbols.Find(inst.Target)
		if !ok || !coldName(s.Name, n.name) || s.Size == 0 || len(out) > maxCold {
			continue
		}
		cold, err := w.bytes(s)
		if err != nil {
			n.note("%s not read: %v", s.Name, err)
			continue
		}
		out = append(out, piece{s.Addr, cold})
		insts = slices.AppendSeq(insts, w.kernel.Decode(cold, s.Addr))
	}
	if len(out) > 1 {
		slices.SortFunc(insts, func(a, b branch.Inst) int { return cmp.Compare(a.Addr, b.Addr) })
	}
	return out, insts
}

// instructions are those of code. They have 4.2 bytes on average, and 200 decoded, so that
// growing the list would take longer than decoding.
func instructions(k *kernel.Kernel, code []byte, addr uint64) []branch.Inst {
	return slices.AppendSeq(make([]branch.Inst, 0, len(code)/4+8), k.Decode(code, addr))
}

// maxCold bounds the cold pieces of one function; compilers make one or two.
const maxCold = 8

// findSites are the indirect branches of a function by address. Its returns are
// counted too. Most functions have neither an indirect branch nor a call of a
// thunk: branch.Sites, which reads the code again, is not asked about those.
func (w *walker) findSites(code pieces, insts []branch.Inst) map[uint64]branch.Site {
	suspect := false
	for _, inst := range insts {
		switch inst.Kind {
		case branch.CallIndirect, branch.JumpIndirect:
			suspect = true
		case branch.Return:
			w.returns["ret"]++
		case branch.CallDirect, branch.JumpDirect, branch.JumpCond:
			if code.has(inst.Target) {
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
	out := make(map[uint64]branch.Site)
	for _, p := range code {
		sites, _ := w.kernel.SitesIn(p.code, p.addr)
		for _, s := range sites {
			if w.kernel.Arch != "arm64" || !branch.TrampolineARM64(p.code, s.Offset) {
				out[p.addr+s.Offset] = s
			}
		}
	}
	return out
}

// addSite adds an indirect branch of n. target is what its register holds, that of a branch
// through memory is read from its operand.
func (w *walker) addSite(n *node, found branch.Site, block int, inst branch.Inst, s *codeflow.State, target *codeflow.Value) {
	st := site{Site: found, addr: inst.Addr, block: block, target: target}
	if found.Kind == branch.SiteMemory {
		st.target = w.values.Operand(s, inst.Asm.Args[0], inst)
		if found.Jump {
			n.note("the switch at +%#x is not followed", inst.Addr-n.addr)
		}
	}
	st.symbol, _, _ = w.kernel.Symbols.Find(inst.Addr)
	n.sites = append(n.sites, st)
}

// addCall adds the function that inst calls or jumps to, if it is another one's.
func (w *walker) addCall(n *node, code pieces, block int, inst branch.Inst, s *codeflow.State) {
	switch inst.Kind {
	case branch.CallDirect:
		if code.has(inst.Target) && inst.Target != n.addr {
			return // call over a trap, call to get the address
		}
	case branch.JumpDirect, branch.JumpCond:
		if code.has(inst.Target) {
			return
		}
	default:
		return
	}
	if thunkSymbol(w.symbol(inst.Target)) {
		return
	}
	c := call{to: w.node(inst.Target, ""), block: block, args: w.values.Arguments(s)}
	if program(n.name) && program(c.to.name) { // its own functions
		c.to.boundary = false
	}
	n.calls = append(n.calls, c)
}

// coldName tells whether a symbol is the cold part of the function called
// name, which the compiler put out of the way.
func coldName(symbol, name string) bool {
	base, _, _ := strings.Cut(name, ".")
	rest, ok := strings.CutPrefix(symbol, base)
	return ok && strings.HasPrefix(rest, ".") && strings.Contains(rest, ".cold")
}
