package unpack

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxName is the longest name in a string table, in bytes: four times that of a kernel
// symbol (KSYM_NAME_LEN).
const MaxName = 2048

// CheckHeaders looks at the section headers of the ELF file b before debug/elf reads
// it. That unpacks a compressed table of names without a limit and copies the name of
// each section. Sections that overlap would be read as often as they are listed. A
// file that ends within what it promises is left to debug/elf.
func CheckHeaders(b []byte) error {
	if len(b) < 64 {
		return nil
	}
	if b[elf.EI_CLASS] != byte(elf.ELFCLASS64) || b[elf.EI_DATA] != byte(elf.ELFDATA2LSB) {
		return errors.New("not 64 bit, little endian")
	}
	off, size := binary.LittleEndian.Uint64(b[40:]), uint64(binary.LittleEndian.Uint16(b[58:]))
	n := uint64(binary.LittleEndian.Uint16(b[60:]))
	if size < 64 || off > uint64(len(b)) {
		return nil
	}
	if n == 0 && off > 0 {
		return errors.New("65280 sections or more: kernels have fewer")
	}
	total := uint64(0)
	for ; n > 0 && off+64 <= uint64(len(b)); n, off = n-1, off+size {
		h := b[off:]
		kind, flags := elf.SectionType(binary.LittleEndian.Uint32(h[4:])), elf.SectionFlag(binary.LittleEndian.Uint64(h[8:]))
		at, length := binary.LittleEndian.Uint64(h[24:]), binary.LittleEndian.Uint64(h[32:])
		switch kind {
		case elf.SHT_STRTAB, elf.SHT_SYMTAB, elf.SHT_RELA:
			if flags&elf.SHF_COMPRESSED != 0 {
				return errors.New("a compressed table of symbols or names: kernels have none")
			}
		}
		if at > uint64(len(b)) || length > uint64(len(b))-at {
			continue // who reads it says so
		}
		if kind != elf.SHT_NOBITS && kind != elf.SHT_NULL {
			if total += length; total > uint64(len(b)) {
				return errors.New("sections overlap: they have more bytes than the file")
			}
		}
		if kind == elf.SHT_STRTAB {
			for names := b[at:][:length]; len(names) > 0; {
				end := NameLength(names, 0)
				if end > MaxName {
					return fmt.Errorf("a name of %d bytes: at most %d are possible", end, MaxName)
				}
				names = names[min(end+1, len(names)):]
			}
		}
	}
	return nil
}

// NameLength is how many bytes who looks for the end of a name reads, at an offset in a table of names that each end in a zero:
// all that follow when there is none, and none behind the table.
func NameLength(names []byte, at uint64) int {
	if at >= uint64(len(names)) {
		return 0
	}
	if end := bytes.IndexByte(names[at:], 0); end >= 0 {
		return end
	}
	return len(names) - int(at)
}
