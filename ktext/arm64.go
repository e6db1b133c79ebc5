package ktext

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"

	"github.com/unthunk/unthunk/ksym"
)

// imageBase is where an Image of arm64 lies whose symbols do not tell: KIMAGE_VADDR since Linux 6.5, with virtual
// addresses of 48 or 52 bits (arch/arm64/include/asm/memory.h).
const imageBase = 0xffff800080000000

// parseARM64 reads an Image of arm64, which is what lies in memory from _text on, in one piece: where its code is, and
// where all of it is, its symbols tell. One without symbols has one section, of data. Its relocations are applied in b.
func parseARM64(ctx context.Context, b []byte, used int) (*Image, error) {
	if b[24]&1 != 0 {
		return nil, errors.New("an Image of arm64 in big endian")
	}
	base := relocateARM64(b)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	img := &Image{Name: "vmlinux", Machine: elf.EM_AARCH64, Table: new(ksym.Table)}
	if table, err := ksym.RecoverAt(b, base); err == nil {
		if text, ok := table.Lookup("_text"); ok { // with CONFIG_KALLSYMS_ALL
			base = text.Addr
		}
		// Of an Image that ends within the address space.
		if text, ok := table.Lookup("_stext"); ok && base <= -uint64(len(b)) && text.Addr-base < uint64(len(b)) {
			img.Table = table
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	img.Sections = sectionsARM64(b, base, img.Table)
	img.Release = img.banner()
	img.BTF = typesIn(b)
	img.memory = used + len(b) + img.Table.Memory()
	return img, checkMemory(img.memory)
}

// sectionsARM64 cuts an Image that lies at base where its code begins and ends.
func sectionsARM64(b []byte, base uint64, table *ksym.Table) (out []Section) {
	from := uint64(0)
	cut := func(to uint64, name string, exec bool) {
		if to > from {
			out = append(out, Section{name, base + from, b[from:to:to], exec})
		}
		from = max(from, to)
	}
	for _, code := range []struct{ name, start, end string }{
		{".text", "_stext", "_etext"},
		{".init.text", "_sinittext", "_einittext"},
	} {
		start, ok1 := table.Lookup(code.start)
		end, ok2 := table.Lookup(code.end)
		begin, behind := start.Addr-base, end.Addr-base // of an address below base they are beyond all Images
		if !ok1 || !ok2 || begin < from || behind <= begin || behind > uint64(len(b)) {
			continue
		}
		cut(begin, ".data", false)
		cut(behind, code.name, true)
	}
	cut(uint64(len(b)), ".data", false)
	return out
}

// minRelocs is the shortest table of relocations that counts as one. Debian's 6.1 for clouds has 129 661 in its only one.
const minRelocs = 16

// relocateARM64 puts the addresses into an Image that its table of relocations has, and returns the address that it lies at, by
// that table. Kernels are linked with --no-apply-dynamic-relocs, so that an address has its number in the table alone, unless the
// linker packs the table (CONFIG_RELR, Debian's from 6.12 on): an Image without a table stays as it is, and lies at
// imageBase. So does one with a table of addresses behind its end, or in the table itself.
func relocateARM64(b []byte) (base uint64) {
	first, count := relasARM64(b)
	if count < minRelocs {
		return imageBase
	}
	table := b[first:][:count*relaSize]
	base = ^uint64(0) // the lowest address is that of _text, which kallsyms counts from
	for at := 0; at < len(table); at += relaSize {
		base = min(base, binary.LittleEndian.Uint64(table[at+16:]))
	}
	place := func(at int) uint64 { return binary.LittleEndian.Uint64(table[at:]) - base }
	for at := 0; at < len(table); at += relaSize {
		if to := place(at); to > uint64(len(b)-8) || to+8 > uint64(first) && to < uint64(first+len(table)) {
			return imageBase
		}
	}
	for at := 0; at < len(table); at += relaSize {
		copy(b[place(at):], table[at+16:at+relaSize])
	}
	return base
}

// relasARM64 finds the longest table of relocations of the one type that a kernel is moved by.
func relasARM64(b []byte) (first, count int) {
	const relative = uint64(elf.R_AARCH64_RELATIVE)
	for at := 0; at+relaSize <= len(b); at += 8 {
		if binary.LittleEndian.Uint64(b[at+8:]) != relative {
			continue
		}
		n := 1
		for end := at + relaSize; end+relaSize <= len(b) && binary.LittleEndian.Uint64(b[end+8:]) == relative; end += relaSize {
			n++
		}
		if n > count {
			first, count = at, n
		}
		at += n*relaSize - 8
	}
	return first, count
}

// typesIn is the first section of types in an image without sections, by its header: magic, version, flags, length, and
// where types and strings are; nil for none.
func typesIn(image []byte) []byte {
	const header = 24
	begin := binary.LittleEndian.AppendUint32([]byte{0x9f, 0xeb, 1, 0}, header)
	for rest := image; ; {
		i := bytes.Index(rest, begin)
		if i < 0 || len(rest)-i < header {
			return nil
		}
		rest = rest[i:]
		field := func(n int) uint64 { return uint64(binary.LittleEndian.Uint32(rest[n:])) }
		end := header + max(field(8)+field(12), field(16)+field(20))
		if end <= uint64(len(rest)) && field(12) > 0 && field(20) > 0 {
			return rest[:end:end]
		}
		rest = rest[len(begin):]
	}
}
