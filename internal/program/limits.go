package program

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/unthunk/unthunk/internal/kernel"
	"github.com/unthunk/unthunk/internal/unpack"
)

const (
	// maxSymbols is how many symbols an object may have: large ones have some thousand. The label of each block may be one.
	maxSymbols = 1 << 17
	// maxNames is how many bytes the names of all symbols may have, each counted: debug/elf copies the name of each, and
	// many may be one, or the end of one.
	maxNames = 16 << 20
	// maxAccesses is how many relocations of types (CO-RE) an object may have, maxAccessText how many bytes their
	// texts may have, each counted: one of "0:1:2" becomes three numbers, and many may be one.
	maxAccesses   = 1 << 16
	maxAccessText = 1 << 20
	// maxLineText is how many bytes the lines of the source and their files' names may have, each counted as often as an
	// instruction is of it: who loads the object reads them as often. A million instructions have some 100 MB.
	maxLineText = 256 << 20
)

// checkSections refuses an object that would take much more memory than it has bytes:
// whoever reads sections unpacks them, reads them several times, and makes their zeroes.
func checkSections(b []byte) error {
	if err := unpack.CheckHeaders(b); err != nil {
		return err
	}
	file, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return err
	}
	var types []byte
	room := uint64(MaxObject)
	for _, s := range file.Sections {
		if s.Type == elf.SHT_NOBITS { // as .bss: zeroes that the file does not have
			if s.Size > room {
				return fmt.Errorf("section %.60q: more than %d MiB of zeroes", s.Name, MaxObject>>20)
			}
			room -= s.Size
		}
		if s.Type == elf.SHT_SYMTAB {
			if err := checkSymbols(file, s); err != nil {
				return fmt.Errorf("section %.60q: %w", s.Name, err)
			}
		}
		if s.Name == ".BTF" {
			if types, err = checkTypes(s); err != nil {
				return fmt.Errorf("section .BTF: %w", err)
			}
		}
		if s.Flags&elf.SHF_COMPRESSED != 0 && !strings.HasPrefix(s.Name, ".debug") {
			return fmt.Errorf("section %.60q is compressed", s.Name)
		}
	}
	if s := file.Section(".BTF.ext"); s != nil && types != nil {
		if err := checkInfos(s, types); err != nil {
			return fmt.Errorf("section .BTF.ext: %w", err)
		}
	}
	return nil
}

// checkSymbols refuses a table of more than maxSymbols symbols, one whose names are in no table of names, whose names
// unpack.CheckHeaders has not seen, and names of more than maxNames bytes.
func checkSymbols(file *elf.File, table *elf.Section) error {
	if table.Size/elf.Sym64Size > maxSymbols {
		return fmt.Errorf("more than %d symbols", maxSymbols)
	}
	if table.Link >= uint32(len(file.Sections)) || file.Sections[table.Link].Type != elf.SHT_STRTAB {
		return errors.New("its names are in no table of names")
	}
	names, err := file.Sections[table.Link].Data()
	if err != nil {
		return err
	}
	symbols, err := table.Data()
	if err != nil {
		return err
	}
	room := maxNames
	for ; len(symbols) >= elf.Sym64Size; symbols = symbols[elf.Sym64Size:] {
		if room -= unpack.NameLength(names, uint64(file.ByteOrder.Uint32(symbols))); room < 0 {
			return fmt.Errorf("names of symbols of more than %d MiB", maxNames>>20)
		}
	}
	return nil
}

// checkTypes refuses types that would take much more memory than they have bytes, and returns their section.
func checkTypes(s *elf.Section) ([]byte, error) {
	raw, err := s.Data()
	if err != nil {
		return nil, err
	}
	return raw, kernel.CheckProgramTypes(raw)
}

// checkInfos refuses lines of the source and relocations of types that would take much more memory or time than they have bytes.
// What does not hold together is left to who reads it (struct btf_ext_header, bpf_line_info and bpf_core_relo in
// Documentation/bpf/btf.rst).
func checkInfos(s *elf.Section, types []byte) error {
	const header = 32
	raw, err := s.Data()
	if err != nil {
		return err
	}
	if len(raw) < header { // the length that it says of its header is not looked at by package btf
		return nil
	}
	names := types[min(word(types, 4)+word(types, 16), uint64(len(types))):]
	length := func(text uint64) int { return unpack.NameLength(names, text) }
	room := maxLineText
	for entry := range infos(raw, 16) {
		if room -= length(word(entry, 4)) + length(word(entry, 8)); room < 0 {
			return fmt.Errorf("lines of the source of more than %d MiB", maxLineText>>20)
		}
	}
	number := 0
	room = maxAccessText
	for entry := range infos(raw, 24) {
		number++
		if room -= length(word(entry, 8)); number > maxAccesses || room < 0 {
			return fmt.Errorf("more than %d relocations of types, or of %d MiB", maxAccesses, maxAccessText>>20)
		}
	}
	return nil
}

func word(b []byte, at int) uint64 { return uint64(binary.LittleEndian.Uint32(b[at:])) }

// infos are the entries of one kind in a section .BTF.ext, of all sections that it speaks of. At an offset of its header stands
// where they begin and how many bytes they have.
func infos(raw []byte, offset int) iter.Seq[[]byte] {
	const entry, head = 16, 8
	return func(yield func([]byte) bool) {
		// Package btf adds both as 32 bits.
		at, size := uint64(uint32(word(raw, 4)+word(raw, offset))), word(raw, offset+4)
		if at > uint64(len(raw)) || size < 4 {
			return
		}
		list := raw[at:][:min(size, uint64(len(raw))-at)]
		for list = list[min(4, len(list)):]; len(list) >= head; { // behind the size of an entry
			count := word(list, 4)
			for list = list[head:]; count > 0 && len(list) >= entry; count, list = count-1, list[entry:] {
				if !yield(list[:entry]) {
					return
				}
			}
		}
	}
}
