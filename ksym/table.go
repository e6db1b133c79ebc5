package ksym

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"math/bits"
	"slices"
	"sort"
	"strings"
	"sync"
)

// Table holds all symbols of one kernel. It is safe for concurrent use. The zero
// value has none.
//
// A symbol takes 24 bytes and the letters of its name: [Symbol] values would take
// three times as much for the 120 000 to 190 000 symbols of a kernel.
type Table struct {
	syms    []entry // by address; names of one address in file order
	names   string
	modules []string // the first one is the kernel itself
	once    sync.Once
	index   *nameIndex // made when a name is first looked up
}

// entry is a symbol.
type entry struct {
	addr, size uint64
	name       uint32 // where it begins in names
	module     uint32 // its index, times 256, and the type letter
}

func (e entry) typ() byte { return byte(e.module) }

// symbol is e as the callers see it. It allocates nothing.
func (t *Table) symbol(e entry) Symbol {
	return Symbol{Addr: e.addr, Size: e.size, Type: e.typ(), Name: t.name(e), Module: t.modules[e.module>>8]}
}

// name is the name of e: a length in groups of seven bits, and that many bytes.
func (t *Table) name(e entry) string {
	length, at := 0, int(e.name)
	for shift := 0; ; shift += 7 {
		b := t.names[at]
		at++
		length |= int(b&0x7f) << shift
		if b < 0x80 {
			return t.names[at : at+length]
		}
	}
}

// builder collects the symbols of a table.
type builder struct {
	syms    []entry
	names   strings.Builder
	modules []string
	index   map[string]uint32 // of modules
	last    string            // the last name
}

// newBuilder has room for that many symbols of a usual length.
func newBuilder(symbols int) *builder { return newBuilderOf(symbols, 32*symbols) } // the mean is 27 letters

// newBuilderOf has room for that many symbols, and bytes of names.
func newBuilderOf(symbols, names int) *builder {
	b := &builder{modules: []string{""}, index: map[string]uint32{"": 0}}
	b.syms = make([]entry, 0, symbols)
	b.names.Grow(min(names, maxNames+maxLength))
	return b
}

// maxLength is the most bytes that say how long a name is.
const maxLength = 5

// maxNames bounds the names of one kernel, in bytes: 9 MB are usual. A file can have
// many symbols share the letters of one long name.
const maxNames = 64 << 20

var errNames = fmt.Errorf("more than %d MiB of names", maxNames>>20)

// add adds a symbol that has its name and its module apart.
func (b *builder) add(s Symbol, name, module []byte) error {
	n, ok := b.index[string(module)]
	if !ok {
		n = uint32(len(b.modules))
		b.modules = append(b.modules, string(module))
		b.index[b.modules[n]] = n
	}
	e := entry{addr: s.Addr, size: s.Size, name: uint32(b.names.Len()), module: n<<8 | uint32(s.Type)}
	if last := len(b.syms) - 1; last >= 0 && b.last == string(name) {
		e.name = b.syms[last].name
		b.syms = append(b.syms, e)
		return nil
	}
	if len(name) > maxNames-b.names.Len() {
		return errNames
	}
	length := len(name)
	for ; length >= 0x80; length >>= 7 {
		b.names.WriteByte(byte(length) | 0x80)
	}
	b.names.WriteByte(byte(length))
	b.names.Write(name)
	b.last = b.names.String()[b.names.Len()-len(name):]
	b.syms = append(b.syms, e)
	return nil
}

// table is the table of all that was added.
func (b *builder) table() *Table {
	t := &Table{syms: b.syms, names: b.names.String(), modules: b.modules}
	t.sort()
	return t
}

// Parse reads a whole kallsyms file. It returns a [feature.Missing] when the
// kernel hid every address.
func Parse(r io.Reader) (*Table, error) { return parse(r, newBuilder(0)) }

func parse(r io.Reader, b *builder) (*Table, error) {
	seen := false
	for l, err := range scan(r) {
		if err != nil {
			return nil, err
		}
		seen = seen || l.addr != 0
		if err := b.add(Symbol{Addr: l.addr, Type: l.typ}, l.name, l.module); err != nil {
			return nil, fmt.Errorf("parse kallsyms: %w", err)
		}
	}
	if !seen {
		return nil, hidden()
	}
	return b.table(), nil
}

// New is a table of symbols that come from elsewhere than kallsyms. One whose
// size is not 0 keeps it. Symbols by which files of arm64 tell code from data, which name nothing, are left out. Names of
// more than 64 MiB together are an error.
func New(syms []Symbol) (*Table, error) { return Of(named(syms)) }

// named are symbols with their names, each valid until the next.
func named(syms []Symbol) iter.Seq2[Symbol, []byte] {
	return func(yield func(Symbol, []byte) bool) {
		var name []byte
		for _, s := range syms {
			if name = append(name[:0], s.Name...); !yield(s, name) {
				return
			}
		}
	}
}

// Of is [New] of symbols that come one by one, each with its name: that of the Symbol does not count. It goes through them
// twice, first for the room that they take, and keeps nothing of what it is given: a table of a million symbols takes the
// memory that it has in the end, and no more while it is made.
func Of(all iter.Seq2[Symbol, []byte]) (*Table, error) {
	symbols, names := 0, 0
	var last, module []byte
	for _, name := range all {
		symbols++
		if !bytes.Equal(name, last) {
			names += nameRoom(len(name))
			last = append(last[:0], name...)
		}
	}
	b := newBuilderOf(symbols, names)
	for s, name := range all {
		if mapping(name) {
			continue
		}
		module = append(module[:0], s.Module...)
		if err := b.add(s, name, module); err != nil {
			return nil, err
		}
	}
	return b.table(), nil
}

// nameRoom is how many bytes a name of that many takes.
func nameRoom(length int) int { return (bits.Len(uint(length|1))+6)/7 + length }

// With is a table of the kernel's own symbols in t, without those of its modules, and of more. It shares no memory with t.
func (t *Table) With(more []Symbol) (*Table, error) {
	return Of(func(yield func(Symbol, []byte) bool) {
		for s, name := range named(more) {
			if !yield(s, name) {
				return
			}
		}
		var name []byte
		for _, e := range t.syms {
			if s := t.symbol(e); s.Module == "" {
				if name = append(name[:0], s.Name...); !yield(s, name) {
					return
				}
			}
		}
	})
}

// Memory is about how many bytes the table takes, with what finds symbols by their names.
func (t *Table) Memory() int {
	const entrySize, index = 24, 36 // of each symbol; up to four slots of a hash, and next
	return len(t.syms)*(entrySize+index) + len(t.names)
}

// sort sorts the symbols and gives those a size that have none: up to the next.
func (t *Table) sort() {
	byAddr := func(a, b entry) int { return cmp.Compare(a.addr, b.addr) }
	if !slices.IsSortedFunc(t.syms, byAddr) { // kallsyms is sorted except for modules
		slices.SortStableFunc(t.syms, byAddr)
	}
	for end := len(t.syms); end > 0; {
		start := end - 1
		for start > 0 && t.syms[start-1].addr == t.syms[end-1].addr {
			start--
		}
		if end < len(t.syms) && t.syms[end].module>>8 == t.syms[start].module>>8 {
			for i := start; i < end; i++ {
				if t.syms[i].size == 0 {
					t.syms[i].size = t.syms[end].addr - t.syms[i].addr
				}
			}
		}
		end = start
	}
}

// nameIndex finds symbols by name: a hash table with open addressing.
type nameIndex struct {
	seed maphash.Seed
	// slots have the lowest symbol of a name, counted from 1, and above it 32 bits
	// of the name's hash, so that other names are rarely read. Their number is a
	// power of two, and half of them are free at least.
	slots []uint64
	// next has, for each symbol, the one of the same name above it, counted
	// from 1; 0 when there is none.
	next []uint32
}

func newNameIndex(t *Table) *nameIndex {
	x := &nameIndex{seed: maphash.MakeSeed(), next: make([]uint32, len(t.syms))}
	x.slots = make([]uint64, 2<<bits.Len(uint(len(t.syms))))
	for i := len(t.syms) - 1; i >= 0; i-- {
		slot, hash := x.slot(t, t.name(t.syms[i]))
		x.next[i], *slot = uint32(*slot), hash<<32|uint64(i+1)
	}
	return x
}

// byName finds symbols by name.
func (t *Table) byName() *nameIndex {
	t.once.Do(func() { t.index = newNameIndex(t) })
	return t.index
}

// slot is the slot of a name, or the free one where it belongs, and the hash of the name
// that the slot keeps.
func (x *nameIndex) slot(t *Table, name string) (slot *uint64, hash uint64) {
	sum := maphash.String(x.seed, name)
	hash = sum >> 32
	mask := uint64(len(x.slots) - 1)
	for at := sum & mask; ; at = (at + 1) & mask {
		slot = &x.slots[at]
		if *slot == 0 || *slot>>32 == hash && t.name(t.syms[uint32(*slot)-1]) == name {
			return slot, hash
		}
	}
}

// atLeast returns the index of the first symbol at addr or above.
func (t *Table) atLeast(addr uint64) int {
	return sort.Search(len(t.syms), func(i int) bool { return t.syms[i].addr >= addr })
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
	x := t.byName()
	slot, _ := x.slot(t, name)
	for i := uint32(*slot); i > 0; i = x.next[i-1] {
		out = append(out, t.symbol(t.syms[i-1]))
	}
	return out
}

// At returns every symbol at exactly addr in the order of the file: a thunk,
// for one, is also called __pi_ and is the start of an array.
func (t *Table) At(addr uint64) []Symbol {
	var out []Symbol
	for _, e := range t.syms[t.atLeast(addr):] {
		if e.addr != addr {
			break
		}
		out = append(out, t.symbol(e))
	}
	return out
}

// Find returns the symbol that addr lies in and addr's offset in it, in
// bytes. Where several symbols share an address the plainest name wins:
// text before data, names without __pi_ and __pfx_ before those with, functions
// before the linker's marks of a start or an end, short before long. A symbol of
// unknown size ends with its page, as no page holds two modules.
func (t *Table) Find(addr uint64) (Symbol, uint64, bool) {
	end := sort.Search(len(t.syms), func(i int) bool { return t.syms[i].addr > addr })
	if end == 0 {
		return Symbol{}, 0, false
	}
	best := t.symbol(t.syms[end-1])
	for i := end - 2; i >= 0 && t.syms[i].addr == best.Addr; i-- {
		if s := t.symbol(t.syms[i]); rank(s) <= rank(best) {
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

// Behind is the function in front of which s stands for control flow integrity: clang calls what
// it puts there __cfi_ and the function's name. It returns false for any other symbol.
func (t *Table) Behind(s Symbol) (Symbol, bool) {
	if !strings.HasPrefix(s.Name, "__cfi_") || s.Size == 0 {
		return Symbol{}, false
	}
	f, off, ok := t.Find(s.Addr + s.Size)
	return f, ok && off == 0 && f.Text()
}

// Starts is the name of the symbol that begins at addr, as [Table.Find] chooses it. It
// has the shape of what package branch names targets by.
func (t *Table) Starts(addr uint64) (string, bool) {
	s, off, ok := t.Find(addr)
	return s.Name, ok && off == 0
}

// Modules are the names of the modules that have symbols, in the order in which they were
// read, without the kernel itself.
func (t *Table) Modules() []string {
	return slices.DeleteFunc(slices.Clone(t.modules), func(name string) bool { return name == "" })
}

// Module lists the symbols of a module by address; "" are those of the kernel
// itself.
func (t *Table) Module(name string) []Symbol {
	var out []Symbol
	for _, e := range t.syms {
		if t.modules[e.module>>8] == name {
			out = append(out, t.symbol(e))
		}
	}
	return out
}
