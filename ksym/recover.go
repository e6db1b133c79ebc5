package ksym

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
)

// ErrNoTables is returned where no kallsyms tables are.
var ErrNoTables = errors.New("no kallsyms tables in it")

// Recover reads the symbols that a kernel has built in for its own kallsyms, out of
// the read-only data of an image without a symbol table. Nothing points to the
// tables, so they are found by their structure, and returned only when every
// check agrees. Layouts of Linux 4.20 to 6.18 on 64 bit are known
// (scripts/kallsyms.c); what else there is, is an [ErrNoTables].
func Recover(data []byte) (*Table, error) { return recoverTables(data, 0, 8) }

// RecoverAt is [Recover] for data whose address is known. It reads the layout of Linux 7.2
// too, in which addresses are relative to their own places.
func RecoverAt(data []byte, addr uint64) (*Table, error) {
	table, err := recoverTables(data, addr, 8)
	if err != nil {
		table, err = recoverTables(data, addr, 4)
	}
	return table, err
}

// recoverTables finds tables that lie on a multiple of align bytes: 4 in Linux 7.2, 8 before.
func recoverTables(data []byte, addr uint64, align int) (*Table, error) {
	tries, left := 0, work{names: maxWork, reads: maxTries}
	for index := 0; tries < maxTries; index += align {
		index = nextIndex(data, index, align)
		if index < 0 {
			return nil, ErrNoTables
		}
		tokens, start, ok := tokenTable(data, index, align)
		if !ok {
			continue
		}
		tries++
		t := tables{data: data, addr: addr, align: align, tokens: tokens, tokenTable: start, tokenIndex: index, left: left}
		if b, ok := t.symbols(); ok {
			return b.table(), nil
		}
		left = t.left
	}
	return nil, ErrNoTables
}

const (
	tokenCount = 256
	// maxToken is the longest token, in bytes; the longest seen has some 20.
	maxToken = 100
	// maxTables bounds the symbols of one kernel: 300 000 is usual.
	maxTables = 1 << 20
	// maxTries is how many token tables are tried: a kernel has one.
	maxTries = 16
)

var le = binary.LittleEndian

// nextIndex finds the next place from at on, on align bytes, that looks like
// kallsyms_token_index: 256 numbers of 16 bits from 0 that rise.
func nextIndex(data []byte, at, align int) int {
next:
	for ; at+2*tokenCount <= len(data); at += align {
		if le.Uint16(data[at:]) != 0 || le.Uint16(data[at+2:]) < 2 {
			continue
		}
		for i := 1; i < tokenCount; i++ {
			step := int(le.Uint16(data[at+2*i:])) - int(le.Uint16(data[at+2*i-2:]))
			if step < 2 || step > maxToken {
				continue next
			}
		}
		return at
	}
	return -1
}

// tokenTable finds kallsyms_token_table, which ends where its index begins, except for
// padding: 256 strings that end in 0.
func tokenTable(data []byte, index, align int) (tokens [tokenCount][]byte, start int, ok bool) {
	last := int(le.Uint16(data[index+2*(tokenCount-1):]))
	for start = (index - last - 2) &^ (align - 1); start >= 0 && start > index-last-maxToken-8; start -= align {
		ok = true
		for i := range tokens {
			from := start + int(le.Uint16(data[index+2*i:]))
			end := bytes.IndexByte(data[from:min(index, from+maxToken)], 0)
			if end < 1 || i > 0 && data[from-1] != 0 {
				ok = false
				break
			}
			tokens[i] = data[from : from+end]
		}
		if ok && zero(data[start+last+len(tokens[tokenCount-1]):index]) {
			return tokens, start, true
		}
	}
	return tokens, 0, false
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// tables are the tables of kallsyms in data.
type tables struct {
	data                   []byte
	addr                   uint64 // of data; 0 when not known
	align                  int
	tokens                 [tokenCount][]byte
	tokenTable, tokenIndex int
	left                   work
}

// work is what may still be read in search of the tables: names, and tables of them whole.
// A file can have places that look like tables every 8 bytes.
type work struct{ names, reads int }

// maxWork is 200 times the names of a kernel.
const maxWork = 64 << 20

// symbols finds the other tables around those of the tokens. Before them stand,
// from the back, kallsyms_seqs_of_names in Linux 6.2 and 6.3 and in stable kernels
// of 6.1, kallsyms_markers, kallsyms_names and kallsyms_num_syms.
func (t *tables) symbols() (*builder, bool) {
	end := t.tokenTable
	for end >= 4 && end > t.tokenTable-8 && le.Uint32(t.data[end-4:]) == 0 {
		end -= 4
	}
	// Markers are where every 256th name begins: they fall to 0, backwards.
	first := end
	for first >= 4 && (first == end || le.Uint32(t.data[first-4:]) < le.Uint32(t.data[first:])) {
		first -= 4
		if le.Uint32(t.data[first:]) == 0 {
			break
		}
	}
	if b, ok := t.names(first, (end-first)/4); ok {
		return b, true
	}
	// Three bytes a symbol, on 8 bytes, between the markers and the tokens.
	for gap := 8; gap <= min(3*maxTables, t.tokenTable); gap += 8 {
		blocks := (gap/3 + 255) / 256
		for _, pad := range []int{0, 4} {
			first := t.tokenTable - gap - pad - 4*blocks
			if first < 0 || !t.rise(first, blocks) {
				continue
			}
			if b, ok := t.names(first, blocks); ok {
				return b, true
			}
		}
	}
	return nil, false
}

// rise tells whether numbers of 32 bits rise from 0.
func (t *tables) rise(at, count int) bool {
	if le.Uint32(t.data[at:]) != 0 {
		return false
	}
	for i := 1; i < count; i++ {
		if le.Uint32(t.data[at+4*i:]) <= le.Uint32(t.data[at+4*i-4:]) {
			return false
		}
	}
	return true
}

// names finds the names and their number before that many markers.
func (t *tables) names(markers, blocks int) (*builder, bool) {
	if blocks == 0 || !t.rise(markers, blocks) {
		return nil, false
	}
	last := int(le.Uint32(t.data[markers+4*blocks-4:]))
	for names := (markers - last) &^ (t.align - 1); names >= 16 && names > markers-last-256*600; names -= t.align {
		count := int(le.Uint32(t.data[names-t.align:]))
		if count > maxTables || (count+255)/256 != blocks || t.align == 8 && le.Uint32(t.data[names-4:]) != 0 {
			continue
		}
		if t.left.names <= 0 || t.left.reads <= 0 {
			return nil, false
		}
		if !t.fits(names, markers, count) {
			continue
		}
		t.left.reads--
		if b, ok := t.read(names, markers, count); ok && t.address(b, names) {
			return b, true
		}
	}
	return nil, false
}

// fits tells whether count names end where the markers begin, which say where each 256th of
// them does.
func (t *tables) fits(names, markers, count int) bool {
	at := names
	for n := range count {
		t.left.names--
		if n%256 == 0 && at-names != int(le.Uint32(t.data[markers+n/256*4:])) {
			return false
		}
		packed, next := t.name(at, markers)
		if len(packed) == 0 {
			return false
		}
		at = next
	}
	return markers-at < 16 && zero(t.data[at:markers])
}

// name is the packed name at a place before end, none when it is longer, and where the next
// one begins.
func (t *tables) name(at, end int) (packed []byte, next int) {
	if at+2 >= end {
		return nil, at
	}
	length := int(t.data[at])
	at++
	if length&0x80 != 0 { // Linux 6.1
		length = length&0x7f | int(t.data[at])<<7
		at++
	}
	if at+length > end {
		return nil, at
	}
	return t.data[at : at+length], at + length
}

// read expands count names, which fit. It goes through them twice, first for the room that they take.
func (t *tables) read(names, markers, count int) (*builder, bool) {
	letters := 0
	for at, n := names, 0; n < count && letters <= maxNames; n++ {
		packed, next := t.name(at, markers)
		length := 0
		for _, token := range packed {
			length += len(t.tokens[token])
		}
		if length < 2 || length > 1024 { // the type, and a name
			return nil, false
		}
		letters, at = letters+nameRoom(length), next
	}
	b := newBuilderOf(min(count, (markers-names)/2), letters) // two bytes each at least
	var name []byte
	for at := names; len(b.syms) < count; {
		packed, next := t.name(at, markers)
		name = name[:0]
		for _, token := range packed {
			name = append(name, t.tokens[token]...)
		}
		at = next
		if b.add(Symbol{Type: name[0]}, name[1:], nil) != nil {
			return nil, false
		}
	}
	return b, true
}

// address fills the addresses in: kallsyms_offsets and kallsyms_relative_base
// stand before kallsyms_num_syms up to Linux 6.3, and behind the tokens' index
// since. In Linux 7.2 there is no base: an address is that of its offset plus the offset.
func (t *tables) address(b *builder, names int) bool {
	if t.align == 4 {
		at := t.tokenIndex + 2*tokenCount
		return at+4*len(b.syms) <= len(t.data) && b.placeRelative(t.data[at:], t.addr+uint64(at))
	}
	size := (4*len(b.syms) + 7) &^ 7
	behind := (t.tokenIndex + 2*tokenCount + 7) &^ 7
	for _, at := range []struct{ offsets, base int }{
		{names - 16 - size, names - 16},
		{behind, behind + size},
	} {
		if at.offsets < 0 || at.base+8 > len(t.data) {
			continue
		}
		base := le.Uint64(t.data[at.base:])
		for _, percpu := range []bool{true, false} {
			if b.place(t.data[at.offsets:], base, percpu) {
				return true
			}
		}
	}
	return false
}

// place computes the addresses. With CONFIG_KALLSYMS_ABSOLUTE_PERCPU, that of SMP
// on x86-64 until Linux 6.15, an offset that is not negative is itself the address.
func (b *builder) place(offsets []byte, base uint64, percpu bool) bool {
	if base < 1<<63 {
		return false
	}
	for i := range b.syms {
		e := &b.syms[i]
		off := le.Uint32(offsets[4*i:])
		switch {
		case !percpu:
			e.addr = base + uint64(off)
		case int32(off) >= 0:
			e.addr = uint64(off)
		default:
			e.addr = base - 1 - uint64(int64(int32(off)))
		}
		if i > 0 && e.addr < b.syms[i-1].addr {
			return false
		}
	}
	return b.hasText(base)
}

// placeRelative computes the addresses from offsets that lie at an address.
func (b *builder) placeRelative(offsets []byte, at uint64) bool {
	for i := range b.syms {
		e := &b.syms[i]
		e.addr = at + 4*uint64(i) + uint64(int64(int32(le.Uint32(offsets[4*i:]))))
		if i > 0 && e.addr < b.syms[i-1].addr {
			return false
		}
	}
	return b.hasText(1 << 63)
}

// hasText tells whether the kernel's text begins at base or behind it.
func (b *builder) hasText(base uint64) bool {
	t := Table{syms: b.syms, names: b.names.String()}
	return slices.ContainsFunc(b.syms, func(e entry) bool {
		name := t.name(e)
		return (name == "_stext" || name == "_text") && e.addr >= base
	})
}
