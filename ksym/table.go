package ksym

import (
	"cmp"
	"io"
	"slices"
	"sort"
	"strings"
)

// Table holds all symbols of one kernel. It is safe for concurrent use.
type Table struct {
	syms []Symbol // by address; names of one address in file order
	// first has the lowest symbol of a name by its place, counted from 1;
	// next, for each symbol, the one of the same name above it, 0 for none.
	first map[string]int32
	next  []int32
}

// Parse reads a whole kallsyms file. It returns a [feature.Missing] when the
// kernel hid every address.
func Parse(r io.Reader) (*Table, error) {
	t := new(Table)
	modules := make(map[string]string) // one string a module
	seen := false
	for l, err := range scan(r) {
		if err != nil {
			return nil, err
		}
		seen = seen || l.addr != 0
		module, ok := modules[string(l.module)]
		if !ok {
			module = string(l.module)
			modules[module] = module
		}
		t.syms = append(t.syms, Symbol{Addr: l.addr, Type: l.typ, Name: string(l.name), Module: module})
	}
	if !seen {
		return nil, hidden()
	}
	t.index()
	return t, nil
}

// New is a table of symbols that come from elsewhere than kallsyms. One whose
// size is not 0 keeps it.
func New(syms []Symbol) *Table {
	t := &Table{syms: slices.Clone(syms)}
	t.index()
	return t
}

// index sorts the symbols and gives those a size that have none: up to the next.
func (t *Table) index() {
	slices.SortStableFunc(t.syms, func(a, b Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	t.first, t.next = make(map[string]int32, len(t.syms)), make([]int32, len(t.syms))
	for i := len(t.syms) - 1; i >= 0; i-- {
		name := t.syms[i].Name
		t.next[i], t.first[name] = t.first[name], int32(i+1)
	}
	for end := len(t.syms); end > 0; {
		start := t.atLeast(t.syms[end-1].Addr)
		if end < len(t.syms) && t.syms[end].Module == t.syms[start].Module {
			for i := start; i < end; i++ {
				if t.syms[i].Size == 0 {
					t.syms[i].Size = t.syms[end].Addr - t.syms[i].Addr
				}
			}
		}
		end = start
	}
}

// atLeast returns the index of the first symbol at addr or above.
func (t *Table) atLeast(addr uint64) int {
	return sort.Search(len(t.syms), func(i int) bool { return t.syms[i].Addr >= addr })
}

// Len is the number of symbols, aliases included.
func (t *Table) Len() int { return len(t.syms) }

// Lookup returns the symbol called name: the text one when data has the same
// name, the lowest address when several static functions do.
func (t *Table) Lookup(name string) (Symbol, bool) {
	all := t.All(name)
	for _, s := range all {
		if s.Text() {
			return s, true
		}
	}
	if len(all) > 0 {
		return all[0], true
	}
	return Symbol{}, false
}

// All returns every symbol called name, by address. Static functions of
// different files often share a name.
func (t *Table) All(name string) []Symbol {
	var out []Symbol
	for i := t.first[name]; i > 0; i = t.next[i-1] {
		out = append(out, t.syms[i-1])
	}
	return out
}

// At returns every symbol at exactly addr in the order of the file: a thunk,
// for one, is also called __pi_ and is the start of an array.
func (t *Table) At(addr uint64) []Symbol {
	start := t.atLeast(addr)
	end := start
	for end < len(t.syms) && t.syms[end].Addr == addr {
		end++
	}
	return slices.Clone(t.syms[start:end])
}

// Find returns the symbol that addr lies in and addr's offset in it, in
// bytes. Where several symbols share an address the plainest name wins:
// text before data, names without __pi_ and __pfx_ before those with, functions
// before the linker's marks of a start or an end, short before long. A symbol of unknown size ends with its page, as no page holds
// two modules.
func (t *Table) Find(addr uint64) (Symbol, uint64, bool) {
	end := sort.Search(len(t.syms), func(i int) bool { return t.syms[i].Addr > addr })
	if end == 0 {
		return Symbol{}, 0, false
	}
	start := t.atLeast(t.syms[end-1].Addr)
	best := t.syms[start]
	for _, s := range t.syms[start+1 : end] {
		if rank(s) < rank(best) {
			best = s
		}
	}
	off := addr - best.Addr
	if best.Size != 0 && off >= best.Size || best.Size == 0 && addr>>12 != best.Addr>>12 {
		return Symbol{}, 0, false
	}
	return best, off, true
}

func rank(s Symbol) int {
	r := len(s.Name)
	if !s.Text() {
		r += 4096
	}
	for _, prefix := range []string{"__pi_", "__pfx_"} {
		if len(s.Name) > len(prefix) && s.Name[:len(prefix)] == prefix {
			r += 2048
		}
	}
	// The linker's marks: __softirqentry_text_end is where the first thunk
	// begins.
	if strings.HasSuffix(s.Name, "_start") || strings.HasSuffix(s.Name, "_end") {
		r += 1024
	}
	return r
}

// Starts is the name of the symbol that begins at addr, as [Table.Find] chooses it. It
// has the shape of what package branch names targets by.
func (t *Table) Starts(addr uint64) (string, bool) {
	s, off, ok := t.Find(addr)
	return s.Name, ok && off == 0
}

// Module lists the symbols of a module by address; "" are those of the kernel
// itself.
func (t *Table) Module(name string) []Symbol {
	var out []Symbol
	for _, s := range t.syms {
		if s.Module == name {
			out = append(out, s)
		}
	}
	return out
}
