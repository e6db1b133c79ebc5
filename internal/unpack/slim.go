package unpack

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"io"
)

const (
	elfHeader, sectionHeader = 64, 64 // of 64 bits, in bytes
	maxSectionNames          = 16 << 20
)

// slim reads the parts of an ELF file of 64 bits that say what is in memory: sections that are loaded, symbols and their names,
// relocations of what is loaded, and types. Of others the head is left, with another kind: SHT_NOBITS, without flags and bytes.
// Debugging information takes most of a kernel that has some. It returns nil where the file is not as that of a kernel: who
// reads all of it says what is wrong.
func slim(ctx context.Context, f io.ReaderAt, size int64, most int) ([]byte, error) {
	head := make([]byte, elfHeader)
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, nil
	}
	at, count := int64(binary.LittleEndian.Uint64(head[40:])), int64(binary.LittleEndian.Uint16(head[60:]))
	if head[elf.EI_CLASS] != byte(elf.ELFCLASS64) || head[elf.EI_DATA] != byte(elf.ELFDATA2LSB) ||
		binary.LittleEndian.Uint16(head[58:]) != sectionHeader || at < elfHeader || at > size-count*sectionHeader || count == 0 {
		return nil, nil
	}
	table := make([]byte, count*sectionHeader)
	if _, err := f.ReadAt(table, at); err != nil {
		return nil, nil
	}
	wanted := wantedSections(f, size, table, int64(binary.LittleEndian.Uint16(head[62:])))
	if wanted == nil {
		return nil, nil
	}
	total := int64(elfHeader + len(table))
	for n := range count {
		if h := table[n*sectionHeader:]; wanted[n] && sectionKind(h) != elf.SHT_NOBITS {
			total += int64(binary.LittleEndian.Uint64(h[32:]))
		}
	}
	if total > size {
		return nil, nil
	}
	if total > int64(most) {
		return nil, tooLarge(most)
	}
	clear(head[32:40]) // no segments
	clear(head[56:58])
	binary.LittleEndian.PutUint64(head[40:], elfHeader)
	b := append(append(Buffer(int(total)), head...), table...)
	for n := range count {
		h := b[elfHeader+n*sectionHeader:][:sectionHeader]
		from, length := int64(binary.LittleEndian.Uint64(h[24:])), int64(binary.LittleEndian.Uint64(h[32:]))
		switch {
		case sectionKind(h) == elf.SHT_NOBITS && wanted[n]:
			continue
		case !wanted[n]:
			name := binary.LittleEndian.Uint32(h)
			clear(h)
			binary.LittleEndian.PutUint32(h, name)
			binary.LittleEndian.PutUint32(h[4:], uint32(elf.SHT_NOBITS))
			continue
		}
		binary.LittleEndian.PutUint64(h[24:], uint64(len(b)))
		b = b[:len(b)+int(length)]
		if err := fill(ctx, io.NewSectionReader(f, from, length), b[len(b)-int(length):]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// wantedSections says of each section of a table whether [slim] reads it; nil where one ends behind the file.
func wantedSections(f io.ReaderAt, size int64, table []byte, namesAt int64) []bool {
	count := int64(len(table) / sectionHeader)
	header := func(n int64) []byte { return table[n*sectionHeader:][:sectionHeader] }
	whole := func(n int64) bool {
		from, length := binary.LittleEndian.Uint64(header(n)[24:]), binary.LittleEndian.Uint64(header(n)[32:])
		return sectionKind(header(n)) == elf.SHT_NOBITS || from <= uint64(size) && length <= uint64(size)-from
	}
	loaded := func(n int64) bool {
		return elf.SectionFlag(binary.LittleEndian.Uint64(header(n)[8:]))&elf.SHF_ALLOC != 0
	}
	if namesAt >= count || !whole(namesAt) || binary.LittleEndian.Uint64(header(namesAt)[32:]) > maxSectionNames {
		return nil
	}
	names := make([]byte, binary.LittleEndian.Uint64(header(namesAt)[32:]))
	if _, err := f.ReadAt(names, int64(binary.LittleEndian.Uint64(header(namesAt)[24:]))); err != nil {
		return nil
	}
	wanted := make([]bool, count)
	wanted[namesAt] = true
	for n := range count {
		h := header(n)
		link, info := int64(binary.LittleEndian.Uint32(h[40:])), int64(binary.LittleEndian.Uint32(h[44:]))
		switch kind := sectionKind(h); {
		case loaded(n), sectionName(names, h) == ".BTF":
			wanted[n] = true
		case kind == elf.SHT_SYMTAB:
			wanted[n] = true
			if link < count {
				wanted[link] = true
			}
		case kind == elf.SHT_RELA:
			wanted[n] = info < count && loaded(info)
		}
	}
	for n := range count {
		if wanted[n] && !whole(n) {
			return nil
		}
	}
	return wanted
}

func sectionKind(h []byte) elf.SectionType { return elf.SectionType(binary.LittleEndian.Uint32(h[4:])) }

// sectionName is the name of a section, as far as it is one of four letters.
func sectionName(names, h []byte) string {
	at := uint64(binary.LittleEndian.Uint32(h))
	if at+4 >= uint64(len(names)) || names[at+4] != 0 {
		return ""
	}
	return string(names[at : at+4])
}
