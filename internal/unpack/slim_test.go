package unpack

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unthunk/unthunk/internal/testutil"
)

// sectionHead is a section of a file that is made for a test.
type sectionHead struct {
	name           string
	kind           elf.SectionType
	flags, at, len uint64 // at 0: where the data is
	link, info     uint32
	data           string
}

// elfWith is an ELF file with sections, and one of their names.
func elfWith(sections ...sectionHead) []byte {
	names := "\x00"
	sections = append(append([]sectionHead{{}}, sections...), sectionHead{name: ".shstrtab", kind: elf.SHT_STRTAB})
	for _, s := range sections {
		names += s.name + "\x00"
	}
	sections[len(sections)-1].data = names
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57)...)
	var heads []byte
	name := 1
	for _, s := range sections {
		head := make([]byte, sectionHeader)
		binary.LittleEndian.PutUint32(head, uint32(name))
		binary.LittleEndian.PutUint32(head[4:], uint32(s.kind))
		for at, v := range map[int]uint64{8: s.flags, 24: s.at + uint64(len(b)), 32: s.len + uint64(len(s.data))} {
			binary.LittleEndian.PutUint64(head[at:], v)
		}
		binary.LittleEndian.PutUint32(head[40:], s.link)
		binary.LittleEndian.PutUint32(head[44:], s.info)
		heads, b = append(heads, head...), append(b, s.data...)
		name += len(s.name) + 1
	}
	binary.LittleEndian.PutUint64(b[40:], uint64(len(b)))
	for at, v := range map[int]int{16: 1, 18: 62, 52: elfHeader, 58: sectionHeader, 60: len(sections), 62: len(sections) - 1} {
		binary.LittleEndian.PutUint16(b[at:], uint16(v))
	}
	binary.LittleEndian.PutUint32(b[20:], 1)
	return append(b, heads...)
}

// What is in memory is read, with symbols, their names, its relocations and types; of the rest nothing but the name.
func TestLoaded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("d", 3<<20)
	file := elfWith(
		sectionHead{name: ".text", kind: elf.SHT_PROGBITS, flags: uint64(elf.SHF_ALLOC), data: "code"},
		sectionHead{name: ".bss", kind: elf.SHT_NOBITS, flags: uint64(elf.SHF_ALLOC), len: 1 << 40},
		sectionHead{name: ".debug_info", kind: elf.SHT_PROGBITS, flags: uint64(elf.SHF_COMPRESSED), data: long},
		sectionHead{name: ".rela.text", kind: elf.SHT_RELA, info: 1, data: "relocations of code"},
		sectionHead{name: ".rela.debug_info", kind: elf.SHT_RELA, info: 3, data: long},
		sectionHead{name: ".symtab", kind: elf.SHT_SYMTAB, link: 8, data: "symbols"},
		sectionHead{name: ".other", kind: elf.SHT_STRTAB, data: "others"},
		sectionHead{name: ".strtab", kind: elf.SHT_STRTAB, data: "\x00names\x00"},
		sectionHead{name: ".BTF", kind: elf.SHT_PROGBITS, data: "types"},
	)
	path := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := Loaded(t.Context(), path, 1<<20)
	if err != nil || CheckHeaders(b) != nil {
		t.Fatal(err, CheckHeaders(b))
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		".text": "code", ".rela.text": "relocations of code", ".symtab": "symbols", ".strtab": "\x00names\x00", ".BTF": "types",
	} {
		if got, err := f.Section(name).Data(); string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if s := f.Section(".bss"); s.Size != 1<<40 || s.Type != elf.SHT_NOBITS {
		t.Errorf("%+v", s)
	}
	for _, name := range []string{".debug_info", ".rela.debug_info", ".other"} {
		if s := f.Section(name); s == nil || s.Size != 0 || s.Type != elf.SHT_NOBITS {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if _, err := Loaded(t.Context(), path, 500); !IsTooLarge(err) {
		t.Error(err)
	}
	if whole, err := File(t.Context(), path); !bytes.Equal(whole, file) {
		t.Errorf("%d bytes of %d, %v", len(whole), len(file), err)
	}
}

// Of a file whose sections lie behind its end, or on each other, all is read, and who reads it says what is wrong.
func TestLoadedWrong(t *testing.T) {
	t.Parallel()
	code := sectionHead{name: ".text", kind: elf.SHT_PROGBITS, flags: uint64(elf.SHF_ALLOC), data: strings.Repeat("c", 1000)}
	behind, again := code, code
	behind.len = 1 << 40
	again.data, again.at, again.len = "", ^uint64(999), 1000
	for name, file := range map[string][]byte{
		"behind the end": elfWith(behind), "on each other": elfWith(code, again, again, again),
		"a header": elfWith()[:64], "no names": changed(elfWith(code), 62, 200), "32 bits": changed(elfWith(code), 4, 1),
	} {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := Loaded(t.Context(), path, 1<<20); !bytes.Equal(b, file) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(b), len(file), err)
		}
		if _, err := Loaded(t.Context(), path, 60); !IsTooLarge(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func changed(b []byte, at int, to byte) []byte {
	b[at] = to
	return b
}

func FuzzSlim(f *testing.F) {
	code := sectionHead{name: ".text", kind: elf.SHT_PROGBITS, flags: 2, data: "code"}
	f.Add(elfWith(code, sectionHead{kind: elf.SHT_SYMTAB, link: 1, data: "s"}))
	f.Add(elfWith(sectionHead{kind: elf.SHT_RELA, info: 2}, sectionHead{name: ".BTF", data: "types"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []byte
		var err error
		testutil.Allocates(t, 1<<16+8*uint64(len(b)), func() { got, err = slim(t.Context(), bytes.NewReader(b), int64(len(b)), len(b)) })
		if err != nil || len(got) > len(b) {
			t.Errorf("%d bytes of %d, %v", len(got), len(b), err)
		}
		_ = CheckHeaders(got) // it may say what it likes
	})
}

// What is in use beside a budget is no part of it, and a file that needs more than all of it is read alone.
func TestBudgetBeside(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, elfOf(1<<20), 0o600); err != nil { // which needs 4 MiB
		t.Fatal(err)
	}
	for held, want := range map[int]int{0: 64, MaxHeld - 20<<20: 5, MaxHeld - 1<<20: 1, 2 * MaxHeld: 1} {
		b, n := NewBudget(held), 0
		for n <= want && b.left.TryAcquire(min(4<<20, b.size)) {
			n++
		}
		if n != want {
			t.Errorf("beside %d MiB: %d at a time, want %d", held>>20, n, want)
		}
	}
	b := NewBudget(MaxHeld - 1<<20)
	for range 2 { // one after the other
		release, err := b.Reserve(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if b.left.TryAcquire(1) {
			t.Error("there is room beside it")
		}
		release()
	}
}
