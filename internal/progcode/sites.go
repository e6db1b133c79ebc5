package progcode

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/unthunk/unthunk/branch"
	"github.com/unthunk/unthunk/internal/kernel"
)

// maxBranches is how many branches out of its functions a program may have: each takes some 500 bytes until it is paired, and
// the largest that are known have some ten thousand.
const maxBranches = 1 << 18

// reader finds the sites of a program.
type reader struct {
	*Code
	jit   *jit
	x     *xlated // nil when there is none
	flow  *flow   // nil when values could not be followed
	lines []lineInfo
	// within are the indirect branches of kernel functions, by their names.
	within map[string]int
	// branches is how many were found, of all functions.
	branches int
}

// readSites finds all sites.
func (c *Code) readSites(x *xlated, lines []lineInfo) error {
	r := &reader{Code: c, jit: jits[c.kernel.Arch], x: x, lines: lines, within: make(map[string]int)}
	base, _ := c.kernel.Symbols.Lookup("__bpf_call_base")
	if x != nil {
		r.flow = newFlow(x, c.Maps, func(ins *asm.Instruction) string {
			name, _ := c.kernel.Symbols.Starts(helper(ins, base.Addr))
			return name
		})
		if err := r.flow.run(); err != nil {
			c.Unseen, r.flow, r.x = err.Error(), nil, nil
		}
	}
	classify := c.kernel.Classifier()
	for f := range c.Functions {
		if err := r.function(f, classify, base.Addr); err != nil {
			return err
		}
	}
	slices.SortStableFunc(c.Sites, func(a, b Site) int {
		return cmp.Or(cmp.Compare(a.Function, b.Function), cmp.Compare(a.raw, b.raw), cmp.Compare(a.Offset, b.Offset))
	})
	return nil
}

// function finds the sites of one function.
func (r *reader) function(f int, classify kernel.EachBranch, base uint64) error {
	fn := &r.Functions[f]
	var branches []*branch.Branch
	for b := range classify(fn.Code, fn.Addr) {
		if b.Returns() {
			r.Returns[cmp.Or(b.Name, "ret")]++
			continue
		}
		if !leaves(b, fn.Addr, fn.Addr+uint64(len(fn.Code))) {
			continue
		}
		if r.branches++; r.branches > maxBranches {
			return fmt.Errorf("read program: more than %d calls and jumps out of its functions", maxBranches)
		}
		own := *b
		if !r.jit.refine(&own, fn.Code) {
			continue
		}
		if own.Offset <= r.jit.entry && !own.Indirect() {
			s := Site{Function: f, Offset: int64(own.Offset), Kind: KindAttached, Made: string(branch.ClassDirect), raw: -1}
			if s.Calls = programName(own.Name); own.Jump {
				s.Kind = KindReplaced
			}
			r.Sites = append(r.Sites, s)
			continue
		}
		branches = append(branches, &own)
	}
	if r.x == nil {
		for _, b := range branches {
			if err := r.add(f, pair{native: b}); err != nil {
				return err
			}
		}
		return nil
	}
	m := &matching{points: pointsOf(r.x, f, fn.Addr, uint64(len(fn.Code)), r.lines)}
	for _, other := range r.Functions {
		m.addresses = append(m.addresses, other.Addr)
	}
	exits := r.x.exits(f, base, r.flow.known)
	for i := range exits {
		exits[i].known = exits[i].known && r.jit.direct
		exits[i].inlined = exits[i].kind == exitCall && slices.Contains(r.jit.inlines, r.named(exits[i].target))
	}
	m.match(r.x, exits, r.jit.events(r.kernel.Scan(fn.Code, fn.Addr), fn.Code, fn.Addr, branches))
	r.Unpaired += m.unpaired
	for _, p := range m.pairs {
		if err := r.add(f, p); err != nil {
			return err
		}
	}
	r.inlined(f)
	return nil
}

// named is the name of the kernel's function at an address, "" for none.
func (r *reader) named(addr uint64) string {
	name, _ := r.kernel.Symbols.Starts(addr)
	return name
}

// add makes a site of a pair.
func (r *reader) add(f int, p pair) error {
	s := Site{Function: f, Offset: -1, Made: Empty, raw: p.raw}
	if b := p.native; b != nil {
		s.Offset, s.Made, s.Indirect = int64(b.Offset), string(b.Class), b.Indirect()
		s.Kind, s.Calls = KindHelper, cmp.Or(b.Name, r.named(b.Target))
		switch {
		case s.Indirect && !calls(b):
			s.Kind, s.Calls, s.Thunk = KindOther, "", b.Name
		case b.Jump:
			s.Kind, s.Made = KindTailCall, string(branch.ClassDirect)
		case r.own(b.Target) >= 0:
			s.Kind, s.Calls = KindSubprogram, r.Functions[r.own(b.Target)].Name
		default:
			within, err := r.indirectIn(b.Target)
			if err != nil {
				return err
			}
			s.Within = within
		}
	}
	if p.exit != nil {
		r.describe(&s, p.exit)
	} else if s.Kind == KindHelper {
		s.Kind, s.Generic = operation(s.Calls, false), generic(s.Calls)
	}
	if s.Kind == KindTailCall {
		s.Calls = programName(s.Calls)
	}
	if s.Line = r.Functions[f].line(uint64(max(s.Offset, 0))); s.Offset < 0 {
		s.Line = r.lineOf(p.raw)
	}
	r.Sites = append(r.Sites, s)
	return nil
}

// own is the number of the program's function at an address, -1 for none.
func (r *reader) own(addr uint64) int {
	return slices.IndexFunc(r.Functions, func(f Function) bool { return f.Addr == addr })
}

// describe says of a site what the BPF instruction shows.
func (r *reader) describe(s *Site, e *exit) {
	args := r.flow.calls[e.insn]
	table := asm.R1
	switch e.kind {
	case exitJumpTable:
		s.Kind, s.Maps = KindJumpTable, r.jumpTable()
		return
	case exitTailCall:
		s.Kind, table = KindTailCall, asm.R2
		if c := r.flow.contents[args[asm.R3]]; c.kind == kindConstant {
			s.Index = &c.n
		}
	case exitFunction:
		return
	default:
		ins := &r.x.insns[e.insn]
		s.Kind, s.Generic = operation(s.Calls, ins.Src == callKfunc), generic(s.Calls)
		for n := asm.R1; n <= asm.R5; n++ {
			if r.flow.contents[args[n]].kind == kindFunction {
				s.Kind = KindCallback
			}
		}
		if strings.Contains(s.Calls, "event_output") {
			table = asm.R2
		}
	}
	r.mapsOf(s, args[table])
}

// jumpTable is the map whose entries are instructions of the program, which no other program can use. Of a program that has several
// it is not known which one a jump is by, and none is named.
func (r *reader) jumpTable() (out []int) {
	for i, m := range r.Maps {
		if m.Type == insnArray {
			out = append(out, i)
		}
	}
	if len(out) > 1 {
		return nil
	}
	return out
}

// mapsOf notes the maps that a value may be.
func (r *reader) mapsOf(s *Site, v value) {
	c := r.flow.contents[v]
	if c.kind != kindMap {
		return
	}
	for _, ref := range c.refs() {
		if ref.inner {
			s.Inner = append(s.Inner, ref.index)
		} else {
			s.Maps = append(s.Maps, ref.index)
		}
	}
}

// inlined adds the lookups of a function for which nothing is called.
func (r *reader) inlined(f int) {
	for i, v := range r.flow.found {
		if raw := r.x.raw[i]; r.x.function(raw) == f {
			s := Site{Function: f, Offset: -1, Kind: KindLookup, Made: Inline, Line: r.lineOf(raw), raw: raw}
			r.mapsOf(&s, v)
			r.Sites = append(r.Sites, s)
		}
	}
}

// lineOf is the line of the source that a BPF instruction comes from.
func (r *reader) lineOf(raw int) *Line {
	n, found := slices.BinarySearchFunc(r.lines, raw, func(l lineInfo, at int) int { return cmp.Compare(l.raw, at) })
	if !found {
		n--
	}
	if n < 0 || r.x.function(r.lines[n].raw) != r.x.function(raw) {
		return nil
	}
	return &r.lines[n].Line
}

// indirectIn is how many indirect branches the kernel's function at an address has.
func (r *reader) indirectIn(addr uint64) (int, error) {
	s, offset, ok := r.kernel.Symbols.Find(addr)
	if !ok || offset != 0 || !s.Text() || s.Size == 0 || s.Module == "bpf" {
		return 0, nil
	}
	if n, ok := r.within[s.Name]; ok {
		return n, nil
	}
	sites, _, err := r.kernel.Sites(s)
	if err != nil {
		return 0, err
	}
	r.within[s.Name] = len(sites)
	return len(sites), nil
}

// generics are the helpers that call what the map has for it (kernel/bpf/helpers.c, and
// bpf_redirect_map in net/core/filter.c).
var generics = []string{
	"bpf_map_lookup_elem", "bpf_map_update_elem", "bpf_map_delete_elem", "bpf_map_push_elem", "bpf_map_pop_elem",
	"bpf_map_peek_elem", "bpf_map_lookup_percpu_elem", "bpf_for_each_map_elem", "bpf_xdp_redirect_map",
}

func generic(name string) bool { return slices.Contains(generics, name) }

// operation is what a called function does, by its name: the maps' own functions are called
// htab_map_update_elem, trie_lookup_elem, dev_map_redirect, bpf_for_each_array_elem.
func operation(name string, kfunc bool) Kind {
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(name, part) })
	}
	switch {
	case has("_redirect"):
		return KindRedirect
	case has("for_each_") && has("_elem"):
		return KindCallback
	case has("lookup_elem", "lookup_percpu_elem", "peek_elem"):
		return KindLookup
	case has("update_elem", "delete_elem", "push_elem", "pop_elem"):
		return KindUpdate
	case kfunc:
		return KindKfunc
	}
	return KindHelper
}

// programName is the name of a program without the tag that its symbol has: kallsyms calls
// it bpf_prog_TAG_NAME.
func programName(symbol string) string {
	if rest, ok := strings.CutPrefix(symbol, "bpf_prog_"); ok {
		if tag, name, ok := strings.Cut(rest, "_"); ok && len(tag) == 16 {
			return name
		}
	}
	return symbol
}

func newFlow(x *xlated, maps []Map, name func(*asm.Instruction) string) *flow {
	f := &flow{xlated: x, values: newValues(), maps: maps, byID: make(map[ebpf.MapID]int), name: name}
	for i, m := range maps {
		f.byID[m.ID] = i
	}
	return f
}
