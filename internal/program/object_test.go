package program

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

// Objects of anybody are refused or read, in little memory, and one program is found or not.
func FuzzObject(f *testing.F) {
	for _, name := range []string{"count/count_bpfel.o", "tracepoints/tracepoints_bpfel.o"} {
		b, err := os.ReadFile(filepath.Join("../bpf", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// debug/elf reads 10 MiB of a section, whatever the file has.
		testutil.Allocates(t, uint64(64<<20+256*len(b)), func() {
			spec, err := ParseObject(b)
			if err != nil {
				return
			}
			if name, err := choose(spec, "x.o", ""); err == nil && Prune(spec, name).Programs[name] == nil {
				t.Errorf("there is no program %q", name)
			}
		})
	})
}

// Symbols may share a name, of which the library makes a copy each: 131 072 of 2000 bytes took 256 MiB, and in a section
// that is no table of names, 3000 of 20 MB took 60 GB.
func TestObjectNames(t *testing.T) {
	header := func(kind elf.SectionType, off, size int, link, entry uint64) []byte {
		h := make([]byte, 64)
		binary.LittleEndian.PutUint32(h[4:], uint32(kind))
		for at, value := range map[int]uint64{24: uint64(off), 32: uint64(size), 40: link, 56: entry} {
			binary.LittleEndian.PutUint64(h[at:], value)
		}
		return h
	}
	object := func(kind elf.SectionType, name, symbols int) []byte {
		names := append(append([]byte{0}, strings.Repeat("x", name)...), 0)
		table := make([]byte, elf.Sym64Size*symbols)
		for i := range symbols {
			table[i*elf.Sym64Size] = 1
		}
		b := make([]byte, 64, 64+len(names)+len(table)+4*64)
		copy(b, elf.ELFMAG+"\x02\x01\x01")
		for at, value := range map[int]uint16{
			16: uint16(elf.ET_REL), 18: uint16(elf.EM_BPF), 20: 1, 52: 64, 58: 64, 60: 4, 62: 3,
		} {
			binary.LittleEndian.PutUint16(b[at:], value)
		}
		binary.LittleEndian.PutUint64(b[40:], uint64(64+len(names)+len(table)))
		b = append(append(b, names...), table...)
		b = append(b, header(elf.SHT_NULL, 0, 0, 0, 0)...)
		b = append(b, header(kind, 64, len(names), 0, 0)...)
		b = append(b, header(elf.SHT_SYMTAB, 64+len(names), len(table), 1, elf.Sym64Size)...)
		return append(b, header(elf.SHT_STRTAB, 64, 1, 0, 0)...) // of sections
	}
	for _, test := range []struct {
		kind          elf.SectionType
		name, symbols int
		want          string
	}{
		{elf.SHT_STRTAB, 100, 1000, "<nil>"},
		{elf.SHT_STRTAB, 2000, 20_000, "names of symbols of more than 16 MiB"},
		{elf.SHT_PROGBITS, 1 << 20, 200, "its names are in no table of names"},
	} {
		b := object(test.kind, test.name, test.symbols)
		testutil.Allocates(t, 16<<20, func() {
			if _, err := ParseObject(b); !strings.Contains(fmt.Sprint(err), test.want) {
				t.Errorf("%+v: %v", test, err)
			}
		})
	}
}

// replaced is an object with another section in the place of one.
func replaced(object []byte, file *elf.File, name string, section []byte) []byte {
	changed := append(bytes.Clone(object), section...)
	for i, s := range file.Sections {
		if s.Name == name {
			header := changed[binary.LittleEndian.Uint64(object[40:])+64*uint64(i):]
			binary.LittleEndian.PutUint64(header[24:], uint64(len(object)))
			binary.LittleEndian.PutUint64(header[32:], uint64(len(section)))
		}
	}
	return changed
}

// countObject is a BPF object of this project, with its types and what belongs to its instructions.
func countObject(t *testing.T) (object []byte, file *elf.File, types, infos []byte) {
	t.Helper()
	object, err := os.ReadFile("../bpf/count/count_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	if file, err = elf.NewFile(bytes.NewReader(object)); err != nil {
		t.Fatal(err)
	}
	if types, err = file.Section(".BTF").Data(); err != nil {
		t.Fatal(err)
	}
	if infos, err = file.Section(".BTF.ext").Data(); err != nil {
		t.Fatal(err)
	}
	return object, file, types, infos
}

// Each relocation of a type has a text, which becomes numbers, and many may have one: 1.9 million of an object of 30 MB took
// more than 4.7 GB.
func TestObjectAccesses(t *testing.T) {
	b, file, types, infos := countObject(t)
	names := binary.LittleEndian.Uint32(types[20:])
	types = append(bytes.Clone(types), strings.Repeat("0:", 5000)+"0\x00"...)
	binary.LittleEndian.PutUint32(types[20:], names+10_002)
	object := replaced(b, file, ".BTF", types)
	file, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		number, header uint32
		text           uint32
		want           string
	}{
		{1, 32, names, "<nil>"},
		{70_000, 32, names + 9_998, "more than 65536 relocations"},
		{200, 32, names, "or of 1 MiB"},
		{200, 24, names, "or of 1 MiB"},      // package btf reads what is behind a short header
		{200, 1 << 31, names, "or of 1 MiB"}, // … and adds the length of the header as 32 bits
	} {
		section := bytes.Clone(infos)
		binary.LittleEndian.PutUint32(section[4:], test.header)
		binary.LittleEndian.PutUint32(section[24:], uint32(len(infos))-test.header)
		binary.LittleEndian.PutUint32(section[28:], 12+16*test.number)
		section = binary.LittleEndian.AppendUint32(section, 16)
		// The section is that of the first function, whose name stands behind the size of its entries.
		section = append(section, infos[32+binary.LittleEndian.Uint32(infos[8:])+4:][:4]...)
		section = binary.LittleEndian.AppendUint32(section, test.number)
		for range test.number {
			for _, v := range []uint32{0, 1, test.text, 0} {
				section = binary.LittleEndian.AppendUint32(section, v)
			}
		}
		if _, err := ParseObject(replaced(object, file, ".BTF.ext", section)); !strings.Contains(fmt.Sprint(err), test.want) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// Each instruction may be of one line, whose text is read as often: an object of 4 MB took gigabytes, and minutes.
func TestObjectLines(t *testing.T) {
	b, file, types, infos := countObject(t)
	const long = 1 << 20
	names := binary.LittleEndian.Uint32(types[20:])
	types = append(bytes.Clone(types), strings.Repeat("x", long)+"\x00"...)
	binary.LittleEndian.PutUint32(types[20:], names+long+1)
	object, withoutEnd := replaced(b, file, ".BTF", types), replaced(b, file, ".BTF", types[:len(types)-1])
	file, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		object     []byte
		number     uint32
		file, text uint32
		want       string
	}{
		{object, 256, 0, names, "<nil>"}, {object, 257, 0, names, "lines of the source of more than 256 MiB"},
		{object, 257, names, 0, "lines of the source of more than 256 MiB"},
		{object, 129, names, names, "lines of the source of more than 256 MiB"},
		{withoutEnd, 257, 0, names, "lines of the source of more than 256 MiB"},
	} {
		section := bytes.Clone(infos)
		binary.LittleEndian.PutUint32(section[16:], uint32(len(infos))-32)
		binary.LittleEndian.PutUint32(section[20:], 12+16*test.number)
		section = binary.LittleEndian.AppendUint32(section, 16)
		section = append(section, infos[32+binary.LittleEndian.Uint32(infos[8:])+4:][:4]...) // the first function's
		section = binary.LittleEndian.AppendUint32(section, test.number)
		for i := range test.number {
			for _, v := range []uint32{8 * i, test.file, test.text, 1 << 10} {
				section = binary.LittleEndian.AppendUint32(section, v)
			}
		}
		if _, err := ParseObject(replaced(test.object, file, ".BTF.ext", section)); !strings.Contains(fmt.Sprint(err), test.want) {
			t.Errorf("%d of %d and %d: %v, want %q", test.number, test.file, test.text, err, test.want)
		}
	}
}

// Types that lead to others 600 000 deep, of 7 MB, ended the process: package btf decodes them by calls of itself. What an
// object has of types is bounded before it reads them.
func TestObjectTypes(t *testing.T) {
	b, err := os.ReadFile("../bpf/count/count_bpfel.o")
	if err != nil {
		t.Fatal(err)
	}
	file, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for want, types := range map[string][]byte{
		"more than 65536 types":               bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0}, 1<<16+1), // pointers to type 1
		"5 MiB of types: at most 4 are possi": make([]byte, 5<<20),
	} {
		section := append(bytes.Clone(b[file.Section(".BTF").Offset:][:24]), types...) // the header
		binary.LittleEndian.PutUint32(section[12:], uint32(len(types)))
		binary.LittleEndian.PutUint32(section[16:], uint32(len(types)))
		binary.LittleEndian.PutUint32(section[20:], 0)
		object := replaced(b, file, ".BTF", section)
		if _, err := ParseObject(object); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// An object of some KB that would take GB is refused, and so is what would wait for
// somebody to write.
func TestObjectHostile(t *testing.T) {
	for want, change := range map[string]func(header []byte){
		"is compressed":              func(header []byte) { header[9] |= byte(elf.SHF_COMPRESSED >> 8) },
		"more than 131072 symbols":   func(header []byte) { binary.LittleEndian.PutUint64(header[32:], 24<<18) },
		"in no table of names":       func(header []byte) { binary.LittleEndian.PutUint32(header[40:], 2) },
		"more than 32 MiB of zeroes": func(header []byte) { header[4], header[35] = byte(elf.SHT_NOBITS), 0x80 },
	} {
		b, err := os.ReadFile("../bpf/count/count_bpfel.o")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseObject(b); err != nil {
			t.Fatal(err)
		}
		symbols := want == "more than 131072 symbols" || want == "in no table of names"
		headers, size := binary.LittleEndian.Uint64(b[40:]), uint64(binary.LittleEndian.Uint16(b[58:]))
		for i := range uint64(binary.LittleEndian.Uint16(b[60:])) {
			header := b[headers+i*size:]
			kind := elf.SectionType(binary.LittleEndian.Uint32(header[4:]))
			if symbols && kind == elf.SHT_SYMTAB {
				change(header)
			}
			// There is room for the header of what is packed.
			if !symbols && kind == elf.SHT_PROGBITS && binary.LittleEndian.Uint64(header[32:]) > 24 {
				change(header)
			}
		}
		if _, err := ParseObject(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero"} {
		if _, err := ReadObject(t.Context(), path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
