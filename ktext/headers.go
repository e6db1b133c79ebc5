package ktext

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
)

// maxName is the longest name in a string table, in bytes: four times that of a kernel
// symbol (KSYM_NAME_LEN).
const maxName = 2048

// checkHeaders looks at the section headers of a 64-bit ELF file, the first bytes of
// which are b, before debug/elf reads it. That unpacks compressed tables without a
// limit, copies the name of each symbol, and reads sections that overlap as often as
// they are listed. What is no such file is left to debug/elf.
func checkHeaders(b []byte) error {
	if len(b) < 64 || b[elf.EI_CLASS] != byte(elf.ELFCLASS64) || b[elf.EI_DATA] != byte(elf.ELFDATA2LSB) {
		return nil
	}
	off, size := binary.LittleEndian.Uint64(b[40:]), uint64(binary.LittleEndian.Uint16(b[58:]))
	n := uint64(binary.LittleEndian.Uint16(b[60:]))
	if size < 64 || off > uint64(len(b)) {
		return nil
	}
	relocations := uint64(0)
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
			continue // debug/elf says so
		}
		switch kind {
		case elf.SHT_STRTAB:
			for names := b[at:][:length]; len(names) > 0; {
				end := bytes.IndexByte(names, 0)
				if end < 0 {
					end = len(names)
				}
				if end > maxName {
					return fmt.Errorf("a name of %d bytes: at most %d are possible", end, maxName)
				}
				names = names[min(end+1, len(names)):]
			}
		case elf.SHT_RELA:
			if relocations += length; relocations > uint64(len(b)) {
				return errors.New("more relocations than the file holds")
			}
		}
	}
	return nil
}
